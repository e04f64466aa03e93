"""Where a dataset's videos come from: a local folder or an S3 prefix, seen the same way.

A source lists its files with a version that changes when the file does (modification time, or the
bucket's ETag), and fetches one to a local path. It judges nothing of what is in them. S3 is in a
file of its own (:mod:`assets.workspace.s3_source`).
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from assets.workspace.s3 import SCHEME
from tevad_model.atomic import replacing
from tevad_model.errors import (
    InputError,
    SourceRefusedError,
    SourceUnreachableError,
    VideoError,
)

if TYPE_CHECKING:
    from assets.workspace.s3_source import S3Source

logger = logging.getLogger("tevad")

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""What the system says of a path that leads to no file."""

_SHOWN = 3
_LOST_AND_FOUND = "lost+found"
"""What file systems keep at the top of a disk, for its administrator's eyes alone."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its POSIX path in it, its size, and what changes when it does."""

    path: str
    bytes: int
    version: str


class Source(Protocol):
    """A folder of files, wherever it is."""

    def files(self) -> list[SourceFile]:
        """Every file below the source, in order of path.

        Raises:
            SourceUnreachableError: if not all of it can be listed.
        """
        ...

    def read_text(self, path: str) -> str:
        """A small text file's content."""
        ...

    def fetch(self, path: str, to: Path) -> None:
        """Bring one file (or, locally, one frame folder) to a local path, whole or not at all.

        Raises:
            VideoError: if it is not there or not within the source.
        """
        ...


def open_source(address: str, root: Path) -> Source:
    """The source at an address: ``s3://bucket/prefix``, or a folder (relative to ``root``).

    Raises:
        SourceUnreachableError: if there is no folder at the address.
        InputError: if the address is none.
    """
    if address.startswith(SCHEME):
        return _in_bucket(address)
    folder = root / Path(address).expanduser()
    if not folder.is_dir():
        raise SourceUnreachableError(
            f"{folder}: no such folder; give the folder that holds the videos"
        )
    return LocalSource(folder.resolve())


def read_file(address: str, root: Path) -> str:
    """The text of one file at an address: ``s3://bucket/key``, or a path (relative to ``root``).

    Raises:
        SourceUnreachableError: if it is not there.
        InputError: if it is not text.
    """
    if address.startswith(SCHEME):
        folder, _, name = address.rpartition("/")
        return _in_bucket(folder).read_text(name)
    path = root / Path(address).expanduser()
    if not path.is_file():
        raise SourceUnreachableError(f"{path}: no such file")
    return LocalSource(path.parent).read_text(path.name)


def file_at(address: str, root: Path) -> SourceFile:
    """One file at an address, as :func:`read_file` takes it, without its content.

    Raises:
        SourceUnreachableError: if it is not there.
    """
    folder, _, name = address.rpartition("/")
    if address.startswith(SCHEME):
        return _in_bucket(folder).file(name)
    path = root / Path(address).expanduser()
    if not path.is_file():
        raise SourceUnreachableError(f"{path}: no such file")
    return _local_file(path, path.parent)


def _in_bucket(address: str) -> S3Source:
    from assets.workspace.s3_source import S3Source  # which itself imports from here

    return S3Source(address)


@dataclass(frozen=True)
class LocalSource:
    """A folder on this machine."""

    folder: Path

    def files(self) -> list[SourceFile]:
        """Every file below the folder. Symbolic links are listed, not followed into folders.

        Files whose names are not UTF-8, which no table can hold, are left out with a warning.

        Raises:
            SourceUnreachableError: if a folder in it cannot be read: not listing its videos would
                mean to drop them.
            SourceRefusedError: if it may not be read.
        """
        found = []
        for parent, folders, names in os.walk(self.folder, onerror=self._unread):
            folders[:] = (name for name in folders if name != _LOST_AND_FOUND)
            for name in names:
                try:
                    found.append(_local_file(Path(parent) / name, self.folder))
                except OSError as error:
                    self._unread(error)
        return sorted(self._named(found), key=lambda file: file.path)

    def _named(self, found: list[SourceFile]) -> list[SourceFile]:
        """The files whose names are text."""
        others = sorted(name for file in found if (name := _escaped(file.path)) != file.path)
        if others:
            logger.warning(
                "%s: left out are names that are not UTF-8: %s (%d in all); rename them",
                *(self.folder, ", ".join(others[:_SHOWN]), len(others)),
            )
        return [file for file in found if _escaped(file.path) == file.path]

    def _unread(self, error: OSError) -> None:
        """Pass over what is not there any more, as a file that was renamed since it was seen."""
        if error.errno in _ABSENT and error.filename != str(self.folder):
            return
        told = f"{error.filename}: cannot be read ({error.strerror})"
        if isinstance(error, PermissionError):
            raise SourceRefusedError(f"{told}; allow it, or move it out of the source") from None
        raise SourceUnreachableError(f"{told}; mount it or repair it, and run again") from None

    def read_text(self, path: str) -> str:
        """Read a text file of the folder."""
        return decode((self.folder / path).read_bytes(), str(self.folder / path))

    def fetch(self, path: str, to: Path) -> None:
        """Copy the file, or for a frame folder its pictures."""
        origin = self.folder / path
        if not origin.exists():
            raise VideoError(f"{path}: listed, but not in {self.folder}; add it or drop its row")
        if origin.is_dir():
            to.mkdir(parents=True)
            for picture in sorted(origin.iterdir()):
                if picture.is_file():
                    self._copy(picture, to / picture.name)
        else:
            self._copy(origin, to)

    def _copy(self, origin: Path, to: Path) -> None:
        path = origin.relative_to(self.folder)
        if not origin.resolve().is_relative_to(self.folder):
            raise VideoError(f"{path}: leads out of {self.folder} (a symbolic link?); copy it in")
        try:
            with replacing(to) as temporary:
                shutil.copyfile(origin, temporary)
        except PermissionError as error:
            raise VideoError(f"{path}: cannot be read ({error.strerror}); allow it") from None


def _escaped(path: str) -> str:
    """A path with the bytes that are not UTF-8 as escapes; a backslash stays what it is."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _local_file(path: Path, folder: Path) -> SourceFile:
    stat = path.stat()
    relative = path.relative_to(folder).as_posix()
    return SourceFile(relative, stat.st_size, str(stat.st_mtime_ns))


def versions(source_files: Iterable[SourceFile]) -> dict[str, SourceFile]:
    """The files by path; a frame folder as one entry whose version is that of all its pictures."""
    import hashlib

    by_path = {file.path: file for file in source_files}
    folders: dict[str, list[SourceFile]] = {}
    for file in by_path.values():
        if (folder := str(PurePosixPath(file.path).parent)) != ".":
            folders.setdefault(folder, []).append(file)
    for folder, inside in folders.items():
        joined = "\n".join(f"{file.path} {file.bytes} {file.version}" for file in inside)
        digest = hashlib.sha256(joined.encode()).hexdigest()[:32]
        by_path.setdefault(folder, SourceFile(folder, sum(f.bytes for f in inside), digest))
    return by_path


def decode(content: bytes, name: str) -> str:
    """The text of a file of a source.

    Raises:
        InputError: if it is none; it is named.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{name}: not UTF-8 text; save it as UTF-8") from None
