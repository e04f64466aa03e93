"""A prefix of an S3 bucket as a source of videos."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from assets.workspace import s3
from assets.workspace.s3_download import download
from assets.workspace.sources import SourceFile, decode
from tevad_model.errors import VideoError

_PICTURES_AT_ONCE = 8


class S3Source:
    """A prefix of a bucket. A file's version is the object's ETag."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.bucket, prefix = s3.split(address)
        self.prefix = f"{prefix}/" if prefix else ""

    def files(self) -> list[SourceFile]:
        """Every object below the prefix.

        Raises:
            SourceUnreachableError: if the bucket cannot be listed; the message says why.
        """
        with s3.told(f"{self.address}: listing"):
            found = [self._file(entry) for entry in self._objects(self.prefix)]
        # What ends in a slash only marks a folder.
        named = (file for file in found if file.path and not file.path.endswith("/"))
        return sorted(named, key=lambda file: file.path)

    def file(self, path: str) -> SourceFile:
        """One object, by what the bucket says of it.

        Raises:
            SourceUnreachableError: if it is not there.
        """
        with s3.told(f"{self.address}/{path}"):
            head = self._client.head_object(Bucket=self.bucket, Key=self.prefix + path)
        return SourceFile(path, int(head["ContentLength"]), head["ETag"].strip('"'))

    def read_text(self, path: str) -> str:
        """Read a text object.

        Raises:
            SourceUnreachableError: if it cannot be read.
        """
        name = f"{self.address}/{path}"
        with s3.told(name):
            body = self._client.get_object(Bucket=self.bucket, Key=self.prefix + path)["Body"]
            return decode(body.read(), name)

    def fetch(self, path: str, to: Path) -> None:
        """Download an object, or for a frame folder its pictures, as :func:`download` does."""
        try:
            if pictures := self._pictures(path):
                with ThreadPoolExecutor(_PICTURES_AT_ONCE) as pool:
                    fetched = [
                        pool.submit(self._download, key, to / name)
                        for name, key in pictures.items()
                    ]
                    for each in fetched:
                        each.result()
            else:
                self._download(self.prefix + path, to)
        except s3.MissingObjectError:
            raise VideoError(
                f"{path}: listed, but not in {self.address}; add it or drop its row"
            ) from None

    def _download(self, key: str, to: Path) -> None:
        download(self._client, self.bucket, key, to)

    def _pictures(self, path: str) -> dict[str, str]:
        """The keys of the objects in a folder, by their names."""
        folder = f"{self.prefix}{path}/"
        with s3.told(f"{self.address}/{path}: listing"):
            keys = [entry["Key"] for entry in self._objects(folder, Delimiter="/")]
        names = {key.removeprefix(folder): key for key in keys}
        return {name: key for name, key in names.items() if name not in ("", ".", "..")}

    def _objects(self, prefix: str, **options: str) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2")
        return [
            entry
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, **options)
            for entry in page.get("Contents", ())
        ]

    def _file(self, entry: dict[str, Any]) -> SourceFile:
        path = entry["Key"].removeprefix(self.prefix)
        return SourceFile(path, int(entry["Size"]), entry["ETag"].strip('"'))

    @cached_property
    def _client(self) -> Any:
        return s3.client()
