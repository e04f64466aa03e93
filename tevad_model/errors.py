"""The errors a user can cause and repair.

Every message names the file (or the video), the key, and the remedy. Anything else that is raised
is a defect of the program, not of its input.
"""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a table, a parameter."""


class SourceUnreachableError(InputError):
    """The folder or bucket that data comes from or goes to is not there or does not answer."""


class SourceRefusedError(SourceUnreachableError):
    """It answers, and refuses: a wrong key, a missing bucket. Trying again does not help."""


class StorageError(InputError):
    """The disk takes no more, or may not be written."""


class VideoError(InputError):
    """One video cannot be used. Stages quarantine it with this reason and go on with the others."""


class MismatchError(InputError):
    """Inputs do not fit each other. Every difference is listed, not only the first.

    Args:
        what: what was being put together, such as ``"scoring ped2 with models:/tevad-ped2/3"``.
        differences: one line for each difference, each naming the key and both values.
        remedy: what the user can do.
    """

    def __init__(self, what: str, differences: list[str], remedy: str) -> None:
        self.differences = differences
        lines = "\n".join(f"  - {difference}" for difference in differences)
        super().__init__(f"{what}: inputs do not fit:\n{lines}\n{remedy}")
