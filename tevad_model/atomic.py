"""Writing a file whole or not at all: the one way anything of this project comes to its place."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tevad_model.errors import StorageError

TEMPORARY_PREFIX = ".partial-"
"""What a killed process leaves behind starts with this, and is never a result."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""What says of itself that the disk is meant, whoever wrote."""

_SYSTEM_ERROR = re.compile(r"os error (\d+)")
"""How safetensors says which error of the system it met."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` when the block ends well, and is removed otherwise.

    It lies in the file's own folder, which is made if missing, and has the file's suffix.

    Raises:
        StorageError: if the disk takes no more or may not be written.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        if (number := _number(error)) not in _FULL:
            raise
        raise _refused(path, number) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors_named(path: Path) -> Iterator[None]:
    """Let what the system says of writing a file come as a StorageError that names it."""
    try:
        yield
    except OSError as error:
        raise _refused(path, error.errno or 0) from error


@contextmanager
def full_disks_named() -> Iterator[None]:
    """Let it come as a StorageError where the system says of a disk that it takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _refused(error.filename or "a file of the project", error.errno) from error


def _temporary(path: Path) -> Path:
    with storage_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    return Path(name)


def _number(error: OSError | SafetensorError) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    found = _SYSTEM_ERROR.search(str(error))
    return int(found[1]) if found else 0


def _refused(path: Path | str, number: int) -> StorageError:
    return StorageError(
        f"{path}: cannot be written ({os.strerror(number)}); make room or give the right to write, "
        "and run again: what was made is kept"
    )
