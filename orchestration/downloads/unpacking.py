"""Archives that nobody vouches for: tar and zip, opened so that nothing leaves the folder.

A path that is absolute or climbs out, a link, a device or an encrypted member refuses the whole
archive, as does one that unpacks to more than the limits allow. What the files mean is not judged
here.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from tevad_model.errors import InputError

_SPARE_BYTES = 64 << 20
_UNSUPPORTED = {b"Rar!\x1a\x07": "RAR", b"7z\xbc\xaf\x27\x1c": "7-Zip"}

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        bytes: of all files.
        files: members, folders included.
        ratio: bytes of all files to bytes of the archive.
        ratio_from: bytes below which the ratio does not count; small archives pack tightly.
    """

    bytes: int = 400 << 30
    files: int = 1_000_000
    ratio: float = 100.0
    ratio_from: int = 64 << 20


DEFAULT_LIMITS = Limits()


def unpack(
    archive: Path,
    folder: Path,
    *,
    wanted: Callable[[str], bool] = lambda _: True,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Unpack a tar (plain or packed) or zip archive into a folder, which is made.

    Args:
        archive: the file; its content, not its name, says what it is.
        folder: where to. Whoever calls removes it if this fails.
        wanted: whether a member's POSIX path is to be unpacked. Members that are not are judged all
            the same, but do not count as bytes.
        limits: see there.

    Raises:
        InputError: naming the archive, the member and what is wrong with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _described(archive), _opened(archive) as (members, are_known):
        admitted = _admitted(archive, members, wanted, _Budget(archive, folder, limits))
        if are_known:
            admitted = iter(list(admitted))  # refused before anything is written
        hidden = not sys.stderr.isatty()
        for member in tqdm(admitted, desc=archive.name, unit="file", disable=hidden):
            member.extract(folder)


@dataclass(frozen=True)
class _Member:
    """A member of either kind of archive.

    Attributes:
        path: as the archive has it.
        bytes: as the archive states them; reading yields no more.
        is_file: a regular file.
        problem: why it may not be unpacked, whatever its path; or empty.
        extract: writes it below a folder.
    """

    path: str
    bytes: int
    is_file: bool
    problem: str
    extract: Callable[[Path], object]


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[_Member], bool]]:
    """The members, and whether they can be gone through without unpacking."""
    with archive.open("rb") as file:
        start = file.read(8)
    for signature, kind in _UNSUPPORTED.items():
        if start.startswith(signature):
            raise InputError(
                f"{archive}: {kind} archives are not supported; unpack it by hand and pack it again "
                "as .zip or .tar"
            )
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened_zip:
            yield _zip_members(opened_zip), True
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened_tar:
            yield _tar_members(opened_tar), False
    else:
        raise InputError(f"{archive}: neither a tar nor a zip archive; download it again")


def _zip_members(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        mode = info.external_attr >> 16  # as Unix archivers store it, else 0
        kind = stat.S_IFMT(mode)
        problem = ""
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "is a link or a device"
        elif info.flag_bits & 1:
            problem = "is encrypted"
        yield _Member(
            info.filename, info.file_size, not info.is_dir(), problem,
            lambda folder, info=info: opened.extract(info, folder),  # type: ignore[misc]
        )  # fmt: skip


def _tar_members(opened: tarfile.TarFile) -> Iterator[_Member]:
    for info in opened:
        problem = "" if info.isfile() or info.isdir() else "is a link or a device"
        yield _Member(
            info.name, info.size, info.isfile(), problem,
            lambda folder, info=info: opened.extract(info, folder, filter="data"),  # type: ignore[misc]
        )  # fmt: skip


def _admitted(
    archive: Path,
    members: Iterator[_Member],
    wanted: Callable[[str], bool],
    budget: _Budget,
) -> Iterator[_Member]:
    """The files to be unpacked; every member before them has been judged."""
    for member in members:
        budget.count(member)
        _require_safe(archive, member)
        if member.is_file and wanted(member.path) and not _is_clutter(member.path):
            budget.spend(member)
            yield member


def _require_safe(archive: Path, member: _Member) -> None:
    path, windows = PurePosixPath(member.path), PureWindowsPath(member.path)
    problem = member.problem
    if path.is_absolute() or windows.drive or "\\" in member.path or "\0" in member.path:
        problem = "is an absolute path or none of this system"
    elif ".." in path.parts:
        problem = "leads out of the folder"
    if problem:
        raise InputError(
            f"{archive}: member {member.path!r} {problem}; nothing of it was kept. Do not trust "
            "where it came from"
        )


def _is_clutter(path: str) -> bool:
    """What macOS leaves beside files; it would count as pictures and videos."""
    parts = PurePosixPath(path).parts
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


class _Budget:
    """How much may still be unpacked."""

    def __init__(self, archive: Path, folder: Path, limits: Limits) -> None:
        self._archive = archive
        self._limits = limits
        self._packed = archive.stat().st_size
        self._free = shutil.disk_usage(folder).free - _SPARE_BYTES
        self._files = 0
        self._bytes = 0

    def count(self, member: _Member) -> None:
        self._files += 1
        if self._files > self._limits.files:
            self._refuse(f"holds more than {self._limits.files} members, at {member.path!r}")

    def spend(self, member: _Member) -> None:
        """Before the member is written."""
        self._bytes += member.bytes
        if self._bytes > self._limits.bytes:
            self._refuse(f"unpacks to more than {self._limits.bytes} bytes, at {member.path!r}")
        if self._bytes > max(self._limits.ratio_from, self._limits.ratio * self._packed):
            self._refuse(
                f"unpacks to more than {self._limits.ratio:g} times its size, at {member.path!r}: "
                "it looks like a decompression bomb"
            )
        if self._bytes > self._free:
            self._refuse(
                f"the disk is too small for it ({self._free} bytes were free); make room or choose "
                "another by --into"
            )

    def _refuse(self, reason: str) -> None:
        raise InputError(f"{self._archive}: {reason}; nothing of it was kept")


@contextmanager
def _described(archive: Path) -> Iterator[None]:
    """What is wrong with an archive, or with writing its files, as a message."""
    try:
        yield
    except NotImplementedError as error:
        raise InputError(f"{archive}: packed in a way that is not supported ({error})") from None
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{archive}: damaged or cut ({reason}); download it again") from None
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked ({error})") from None
