"""Where a dataset's videos come from: a local folder or an S3 prefix, seen the same way.

A source lists its files with a version that changes when the file does (modification time, or the
bucket's ETag), and fetches one to a local path. It judges nothing of what is in them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from tevad_model.atomic import replacing
from tevad_model.errors import InputError, SourceUnreachableError, VideoError


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its POSIX path in it, its size, and what changes when it does."""

    path: str
    bytes: int
    version: str


class Source(Protocol):
    """A folder of files, wherever it is."""

    def files(self) -> list[SourceFile]:
        """Every file below the source, in order of path."""
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
    if address.startswith("s3://"):
        return S3Source(address)
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
    if address.startswith("s3://"):
        folder, _, name = address.rpartition("/")
        return S3Source(folder).read_text(name)
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
    if address.startswith("s3://"):
        return S3Source(folder).file(name)
    path = root / Path(address).expanduser()
    if not path.is_file():
        raise SourceUnreachableError(f"{path}: no such file")
    return _local_file(path, path.parent)


@dataclass(frozen=True)
class LocalSource:
    """A folder on this machine."""

    folder: Path

    def files(self) -> list[SourceFile]:
        """Every file below the folder. Symbolic links are listed, not followed into folders."""
        found = []
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = Path(parent) / name
                if path.exists():
                    found.append(_local_file(path, self.folder))
        return sorted(found, key=lambda file: file.path)

    def read_text(self, path: str) -> str:
        """Read a text file of the folder."""
        return _decode((self.folder / path).read_bytes(), str(self.folder / path))

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


def _local_file(path: Path, folder: Path) -> SourceFile:
    stat = path.stat()
    relative = path.relative_to(folder).as_posix()
    return SourceFile(relative, stat.st_size, str(stat.st_mtime_ns))


class S3Source:
    """A prefix of an S3 bucket. Credentials and endpoint come from the usual AWS chain."""

    def __init__(self, address: str) -> None:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if not bucket:
            raise InputError(f"{address}: no bucket; write s3://bucket/prefix")
        self.address = address
        self.bucket = bucket
        self.prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""

    def files(self) -> list[SourceFile]:
        """Every object below the prefix.

        Raises:
            SourceUnreachableError: if the bucket cannot be listed; the message says why.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        found: list[SourceFile] = []
        try:
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
                found.extend(self._file(entry) for entry in page.get("Contents", ()))
        except (BotoCoreError, ClientError) as error:
            raise SourceUnreachableError(
                f"{self.address}: cannot be listed: {error}; check the bucket's name, "
                "AWS_ENDPOINT_URL and the AWS credentials"
            ) from None
        return sorted((f for f in found if f.path), key=lambda file: file.path)

    def file(self, path: str) -> SourceFile:
        """One object, by what the bucket says of it.

        Raises:
            SourceUnreachableError: if it is not there.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            head = self._client.head_object(Bucket=self.bucket, Key=self.prefix + path)
        except (BotoCoreError, ClientError) as error:
            raise SourceUnreachableError(f"{self.address}/{path}: {error}") from None
        return SourceFile(path, int(head["ContentLength"]), head["ETag"].strip('"'))

    def read_text(self, path: str) -> str:
        """Read a text object.

        Raises:
            SourceUnreachableError: if it cannot be read.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        name = f"{self.address}/{path}"
        try:
            body = self._client.get_object(Bucket=self.bucket, Key=self.prefix + path)["Body"]
            return _decode(body.read(), name)
        except (BotoCoreError, ClientError) as error:
            raise SourceUnreachableError(f"{name}: cannot be read: {error}") from None

    def fetch(self, path: str, to: Path) -> None:
        """Download an object to a temporary name, then rename it; a frame folder picture by picture."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if pictures := self._below(path):
                for key in pictures:
                    name = PurePosixPath(key).name
                    self._download(key, to / name)
            else:
                self._download(self.prefix + path, to)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey"}:
                raise VideoError(
                    f"{path}: listed, but not in {self.address}; add it or drop its row"
                ) from None
            raise SourceUnreachableError(f"{self.address}/{path}: {error}") from None
        except BotoCoreError as error:
            raise SourceUnreachableError(f"{self.address}/{path}: {error}") from None

    def _download(self, key: str, to: Path) -> None:
        with replacing(to) as temporary:
            self._client.download_file(self.bucket, key, str(temporary))

    def _below(self, path: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2")
        prefix = self.prefix + path + "/"
        return [
            entry["Key"]
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix)
            for entry in page.get("Contents", ())
        ]

    def _file(self, entry: dict[str, Any]) -> SourceFile:
        path = entry["Key"].removeprefix(self.prefix)
        return SourceFile(path, int(entry["Size"]), entry["ETag"].strip('"'))

    @cached_property
    def _client(self) -> Any:
        import boto3

        # A session of its own: the default one keeps the first credentials it saw.
        return boto3.Session().client("s3")


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


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{name}: not UTF-8 text; save it as UTF-8") from None
