"""What downloaded files were the first time: ``downloads.json`` in the project, kept in git.

Few datasets publish checksums. Where there is none, the first download is trusted and its SHA-256
written here; a later one that differs is refused, on this machine and on a colleague's.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from assets.workspace import files
from orchestration.downloads.transfer import Content
from tevad_model.errors import InputError

FILE_NAME = "downloads.json"

_PINNED = TypeAdapter(dict[str, dict[str, Content]])
"""By dataset and file name."""


class Pins:
    """The pinned files of one dataset."""

    def __init__(self, root: Path, dataset: str) -> None:
        self._path = root / FILE_NAME
        self._dataset = dataset

    def of(self, name: str) -> Content | None:
        """What the file of this name was, or None if it is not pinned.

        Raises:
            InputError: if ``downloads.json`` cannot be read.
        """
        return self._read().get(self._dataset, {}).get(name)

    def add(self, name: str, content: Content) -> None:
        """Pin a file."""
        data = self._read()
        data.setdefault(self._dataset, {})[name] = content
        files.write_json(self._path, _PINNED.dump_python(data))

    def check(self, content: Content, name: str) -> None:
        """Compare a file with its pin, if it has one.

        Raises:
            InputError: naming both checksums and how to accept the new file.
        """
        pinned = self.of(name)
        if pinned is not None and pinned != content:
            raise InputError(
                f"{name}: sha256 {content.sha256}, but {self._path} pins {pinned.sha256}: it differs "
                f"from the first download. If it was published anew, remove it from {FILE_NAME} to "
                "accept it"
            )

    def _read(self) -> dict[str, dict[str, Content]]:
        try:
            return _PINNED.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise InputError(f"{self._path}: {error}; restore it from git") from None
