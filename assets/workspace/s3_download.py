"""One object of S3 as a file: whole, of one version and checked, or not at all.

Ranges of it are fetched side by side and written to their places, so that memory holds a buffer a
range, however large the object. A connection that breaks goes on where it broke, on the condition
that the object is still the same. What arrived is compared with the checksum that S3 keeps: its own
(SHA or CRC-32), else the MD5 in the ETag, also where that is of parts; where neither can be told,
with the length.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from assets.workspace import s3
from tevad_model.atomic import replacing
from tevad_model.errors import SourceRefusedError, SourceUnreachableError

RANGE_BYTES = 32 << 20
"""How much one request asks for."""

SIDE_BY_SIDE = 4
"""How many ranges are under way at once."""

FRUITLESS = 2
"""After how many attempts in a row that bring nothing a range is given up."""

_BUFFER = 1 << 20
_PAUSE_SECONDS = 0.5


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    """zlib's CRC-32 in the manner of hashlib."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _md5() -> _Hash:
    return hashlib.md5(usedforsecurity=False)


def _sha1() -> _Hash:
    return hashlib.sha1(usedforsecurity=False)


_KEPT: Mapping[str, Callable[[], _Hash]] = {
    "ChecksumSHA256": hashlib.sha256,
    "ChecksumSHA1": _sha1,
    "ChecksumCRC32": _Crc32,
}
"""The checksums of S3 that can be computed here; CRC-32C and CRC-64 need a library of AWS."""


@dataclass(frozen=True)
class _Checksum:
    """What S3 says the content must give.

    Attributes:
        name: of the algorithm, for people.
        new: makes the hash.
        digest: what must come of it.
        parts: of how many parts' digests it is the digest; 0 if it is of the content itself.
    """

    name: str
    new: Callable[[], _Hash]
    digest: bytes
    parts: int

    def fits(self, path: Path, part_sizes: Sequence[int]) -> bool:
        """Whether a file gives it; the sizes are those of the parts, if it is of parts."""
        with path.open("rb") as file:
            if not self.parts:
                return self._of(file, path.stat().st_size) == self.digest
            digests = b"".join(self._of(file, size) for size in part_sizes)
        whole = self.new()
        whole.update(digests)
        return whole.digest() == self.digest

    def _of(self, file: BinaryIO, size: int) -> bytes:
        hashed = self.new()
        while size > 0 and (block := file.read(min(size, _BUFFER))):
            hashed.update(block)
            size -= len(block)
        return hashed.digest()


@dataclass(frozen=True)
class _Object:
    """An object of one version."""

    client: Any
    bucket: str
    key: str
    head: Mapping[str, Any]

    @property
    def address(self) -> str:
        return f"{s3.SCHEME}{self.bucket}/{self.key}"

    @property
    def size(self) -> int:
        return int(self.head["ContentLength"])

    @property
    def same(self) -> dict[str, str]:
        """What names the object, of this version and no other, in a request."""
        return {"Bucket": self.bucket, "Key": self.key, "IfMatch": self.head["ETag"]}

    def write_to(self, file: BinaryIO) -> None:
        """Fetch all of it."""
        starts = range(0, self.size, RANGE_BYTES)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            done = [pool.submit(self._write_range, file.fileno(), start) for start in starts]
            try:
                for each in done:
                    each.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _write_range(self, file: int, start: int) -> None:
        position, end, fruitless = start, min(start + RANGE_BYTES, self.size), 0
        while position < end:
            before = position
            try:
                for block in self._blocks(position, end):
                    os.pwrite(file, block, position)
                    position += len(block)
            except SourceUnreachableError as error:
                fruitless = 0 if position > before else fruitless + 1
                if isinstance(error, SourceRefusedError) or fruitless == FRUITLESS:
                    raise
                time.sleep(_PAUSE_SECONDS * (fruitless + 1))

    def _blocks(self, position: int, end: int) -> Iterator[bytes]:
        asked = f"bytes={position}-{end - 1}"
        with s3.told(self.address):
            answer = self.client.get_object(**self.same, Range=asked)
            if answer.get("ContentRange") != f"bytes {position}-{end - 1}/{self.size}":
                raise SourceRefusedError(
                    f"{self.address}: the server does not answer ranges ({asked}); use another"
                )
            # Raises where less arrives than the header says.
            yield from answer["Body"].iter_chunks(_BUFFER)

    def verify(self, path: Path) -> None:
        """Compare what arrived with what S3 keeps of it."""
        checksum = self._checksum()
        if path.stat().st_size == self.size and (checksum is None or self._fits(checksum, path)):
            return
        name = checksum.name if checksum else "length"
        raise SourceUnreachableError(
            f"{self.address}: arrived with another {name} than the server keeps; run again"
        )

    def _fits(self, checksum: _Checksum, path: Path) -> bool:
        if not checksum.parts:
            return checksum.fits(path, ())
        first = self._part_size(1)
        if first is None:
            return True  # the server does not tell its parts; the length has been compared
        rest = self.size - (checksum.parts - 1) * first
        if 0 < rest <= first and checksum.fits(path, [*[first] * (checksum.parts - 1), rest]):
            return True
        # Not all of one size, or not what was sent: ask for each.
        sizes = [self._part_size(number) or 0 for number in range(1, checksum.parts + 1)]
        return sum(sizes) == self.size and checksum.fits(path, sizes)

    def _part_size(self, number: int) -> int | None:
        with s3.told(self.address):
            answer = self.client.head_object(**self.same, PartNumber=number)
        return int(answer["ContentLength"]) if "PartsCount" in answer else None

    def _checksum(self) -> _Checksum | None:
        for field, new in _KEPT.items():
            if kept := self.head.get(field):
                text, _, parts = kept.partition("-")
                name = field.removeprefix("Checksum")
                return _Checksum(name, new, base64.b64decode(text), int(parts or 0))
        text, _, parts = self.head["ETag"].strip('"').partition("-")
        if self._etag_is_md5 and len(text) == 32:
            return _Checksum("MD5", _md5, bytes.fromhex(text), int(parts or 0))
        return None

    @property
    def _etag_is_md5(self) -> bool:
        """Not where the key is the bucket owner's: then it is of what is stored, encrypted."""
        encryption = str(self.head.get("ServerSideEncryption", ""))
        return not encryption.startswith("aws:kms") and "SSECustomerAlgorithm" not in self.head


def download(client: Any, bucket: str, key: str, to: Path) -> None:
    """Bring an object to a local path.

    Args:
        client: of :func:`assets.workspace.s3.client`.
        bucket: the bucket's name.
        key: the object's.
        to: where it goes; what lies there is replaced once the new is whole.

    Raises:
        MissingObjectError: if there is no such object.
        SourceRefusedError: if the server refuses.
        SourceUnreachableError: if it does not answer, the object changes meanwhile, or other bytes
            arrive than it keeps.
    """
    with s3.told(f"{s3.SCHEME}{bucket}/{key}"):
        head = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    wanted = _Object(client, bucket, key, head)
    with replacing(to) as temporary:
        with temporary.open("r+b") as file:
            wanted.write_to(file)
        wanted.verify(temporary)
