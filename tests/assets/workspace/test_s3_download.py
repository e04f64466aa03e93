"""An object arrives whole, of one version and checked, or not at all: on a real server, with faults."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from s3_proxy import Fault, Proxy, running_proxy
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server

from assets.workspace import s3, s3_download
from assets.workspace.s3_download import download
from tevad_model.errors import SourceRefusedError, SourceUnreachableError

MIB = 1 << 20
CONTENT = random.Random(0).randbytes(13 * MIB + 7)
KEY = "sub ü/video.mp4"


@dataclass
class Bucket:
    """A bucket behind the proxy, by the project's own client, and straight, by another."""

    name: str
    proxy: Proxy
    client: Any
    straight: Any

    def put(self, content: bytes = CONTENT) -> None:
        self.straight.put_object(Bucket=self.name, Key=KEY, Body=content)

    def get(self, to: Path) -> bytes:
        download(self.client, self.name, KEY, to)
        assert [path.name for path in to.parent.iterdir()] == [to.name]
        return to.read_bytes()

    def faulty(self, **what: Any) -> Fault:
        fault = Fault("GET", "video.mp4", **what)
        self.proxy.faults.append(fault)
        return fault


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with running_proxy(s3_server.address) as proxy:
        s3_server.enter(monkeypatch, proxy.address)
        monkeypatch.setattr(s3_download, "RANGE_BYTES", 5 * MIB)
        monkeypatch.setattr(s3_download, "_PAUSE_SECONDS", 0.01)
        yield Bucket(s3_server.new_bucket(), proxy, s3.client(), s3_server.client())


def test_ranges_are_put_together(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put()
    assert bucket.get(tmp_path / "video.mp4") == CONTENT
    assert sorted(bucket.proxy.ranges("video.mp4")) == [
        f"bytes=0-{5 * MIB - 1}",
        f"bytes={10 * MIB}-{13 * MIB + 6}",
        f"bytes={5 * MIB}-{10 * MIB - 1}",
    ]


def test_an_empty_object_arrives(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(b"")
    assert bucket.get(tmp_path / "video.mp4") == b""


def test_memory_holds_no_whole_range(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put()
    monkeypatch.setattr(s3_download, "RANGE_BYTES", len(CONTENT))
    tracemalloc.start()
    try:
        download(bucket.client, bucket.name, KEY, tmp_path / "video.mp4")
        assert tracemalloc.get_traced_memory()[1] < len(CONTENT) / 2
    finally:
        tracemalloc.stop()


def test_a_broken_connection_goes_on_where_it_broke(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put()
    monkeypatch.setattr(s3_download, "RANGE_BYTES", len(CONTENT))
    for _ in range(4):  # more often than attempts that bring nothing
        bucket.faulty(cut_after=3 * MIB)
    assert bucket.get(tmp_path / "video.mp4") == CONTENT
    starts = [int(asked[6:].split("-")[0]) for asked in bucket.proxy.ranges("video.mp4")]
    assert starts[0] == 0
    assert starts[1:] == sorted(set(starts[1:]))
    assert all(2 * MIB <= after - before <= 3 * MIB for before, after in pairwise(starts))


def test_failures_that_pass_are_gone_through(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put()
    bucket.faulty(status=500, times=2)
    assert bucket.get(tmp_path / "video.mp4") == CONTENT


@pytest.mark.parametrize("fault", [{"status": 503}, {"cut_after": 0}, {"silent": True}])
def test_failures_that_stay_are_told_and_leave_nothing(
    fault: dict[str, Any], bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.5)
    bucket.client = s3.client()
    bucket.put()
    bucket.faulty(times=100, **fault)
    with pytest.raises(SourceUnreachableError, match=r"sub ü/video\.mp4: the server") as told:
        bucket.get(tmp_path / "video.mp4")
    assert not isinstance(told.value, SourceRefusedError)
    assert not list(tmp_path.iterdir())


def test_an_object_that_changes_meanwhile_is_told(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put()
    changed = CONTENT[::-1]
    bucket.faulty(cut_after=1 * MIB, then=lambda: bucket.put(changed))
    with pytest.raises(SourceUnreachableError, match="changed while it was fetched"):
        bucket.get(tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())
    assert bucket.get(tmp_path / "video.mp4") == changed


def test_an_object_that_goes_meanwhile_is_told(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put()
    bucket.straight.delete_object(Bucket=bucket.name, Key=KEY)
    with pytest.raises(s3.MissingObjectError, match="no such object"):
        bucket.get(tmp_path / "video.mp4")


def uploaded(bucket: Bucket, *, checksum: str | None, part_sizes: list[int]) -> None:
    """Send the content as a client would that gives a checksum of its own, or none."""
    import boto3

    client = boto3.Session().client(
        "s3",
        endpoint_url=bucket.straight.meta.endpoint_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=Config(request_checksum_calculation="when_required"),
    )
    where, given = {"Bucket": bucket.name, "Key": KEY}, {}
    if checksum:
        given = {"ChecksumAlgorithm": checksum}
    if not part_sizes:
        client.put_object(**where, **given, Body=CONTENT)
        return
    upload = client.create_multipart_upload(**where, **given)["UploadId"]
    parts, at = [], 0
    for number, size in enumerate(part_sizes, start=1):
        answer = client.upload_part(
            **where, **given, UploadId=upload, PartNumber=number, Body=CONTENT[at : at + size]
        )
        kept = {k: v for k, v in answer.items() if k == "ETag" or k.startswith("ChecksumC")}
        kept |= {k: v for k, v in answer.items() if k.startswith("ChecksumSHA")}
        parts.append({"PartNumber": number, **kept})
        at += size
    assert at == len(CONTENT)
    client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})


WHOLE: list[int] = []
EQUAL = [5 * MIB, 5 * MIB, 3 * MIB + 7]
UNEQUAL = [6 * MIB, 5 * MIB, 2 * MIB + 7]


@pytest.mark.parametrize("part_sizes", [WHOLE, EQUAL, UNEQUAL], ids=["whole", "equal", "unequal"])
@pytest.mark.parametrize("checksum", [None, "CRC32", "SHA256"])
def test_other_bytes_than_the_server_keeps_are_no_result(
    checksum: str | None, part_sizes: list[int], bucket: Bucket, tmp_path: Path
) -> None:
    uploaded(bucket, checksum=checksum, part_sizes=part_sizes)
    bucket.faulty(flip=1 * MIB)
    with pytest.raises(SourceUnreachableError, match=checksum or "MD5"):
        bucket.get(tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())
    assert bucket.get(tmp_path / "video.mp4") == CONTENT


def test_where_no_checksum_can_be_told_the_length_counts(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an object that AWS encrypts by a key of the bucket's owner."""
    uploaded(bucket, checksum=None, part_sizes=WHOLE)
    told: Callable[..., Any] = bucket.client.head_object
    monkeypatch.setattr(
        bucket.client, "head_object", lambda **by: {**told(**by), "ServerSideEncryption": "aws:kms"}
    )
    assert bucket.get(tmp_path / "video.mp4") == CONTENT
