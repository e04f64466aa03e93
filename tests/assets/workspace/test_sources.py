"""Sources: a local folder and an S3 prefix list and give the same files."""

import os
from pathlib import Path

import pytest
from s3_server import S3Server

from assets.workspace.s3_source import S3Source
from assets.workspace.sources import LocalSource, Source, open_source, versions
from tevad_model.errors import InputError, VideoError


def fill(folder: Path) -> Path:
    (folder / "sub ü").mkdir(parents=True)
    (folder / "videos.csv").write_text("video,path,label\n")
    (folder / "a.mp4").write_bytes(b"a" * 1000)
    (folder / "sub ü" / "b.mp4").write_bytes(b"b" * 6_000_000)
    (folder / "frames").mkdir()
    for index in range(3):
        (folder / "frames" / f"{index}.jpg").write_bytes(bytes([index]))
    return folder


@pytest.fixture
def local(tmp_path: Path) -> LocalSource:
    source = open_source(str(fill(tmp_path / "source")), tmp_path)
    assert isinstance(source, LocalSource)
    return source


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Source:
    """The same files in the bucket; endpoint and credentials from the environment alone."""
    s3_server.enter(monkeypatch)
    client, bucket = s3_server.client(), s3_server.new_bucket()
    folder = fill(tmp_path / "to-upload")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client.upload_file(str(path), bucket, f"site 1/{path.relative_to(folder).as_posix()}")
    source = open_source(f"s3://{bucket}/site 1", tmp_path)
    assert isinstance(source, S3Source)
    return source


@pytest.fixture(params=["local", "s3"])
def source(request: pytest.FixtureRequest) -> Source:
    found: Source = request.getfixturevalue(request.param)
    return found


def test_files_are_listed_in_order_with_their_sizes(source: Source) -> None:
    assert [(file.path, file.bytes) for file in source.files()] == [
        ("a.mp4", 1000),
        ("frames/0.jpg", 1),
        ("frames/1.jpg", 1),
        ("frames/2.jpg", 1),
        ("sub ü/b.mp4", 6_000_000),
        ("videos.csv", 17),
    ]


def test_a_file_arrives_whole(source: Source, tmp_path: Path) -> None:
    source.fetch("sub ü/b.mp4", tmp_path / "got" / "b.mp4")
    assert (tmp_path / "got" / "b.mp4").read_bytes() == b"b" * 6_000_000
    assert [p.name for p in (tmp_path / "got").iterdir()] == ["b.mp4"]


def test_a_frame_folder_arrives_with_its_pictures(source: Source, tmp_path: Path) -> None:
    source.fetch("frames", tmp_path / "got")
    assert {p.name: p.read_bytes() for p in (tmp_path / "got").iterdir()} == {
        f"{index}.jpg": bytes([index]) for index in range(3)
    }


def test_text_is_read(source: Source) -> None:
    assert source.read_text("videos.csv") == "video,path,label\n"


def test_a_file_that_is_not_there_is_the_videos_own_problem(source: Source, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: listed, but not in"):
        source.fetch("none.mp4", tmp_path / "none.mp4")
    assert not (tmp_path / "none.mp4").exists()


def test_the_source_itself_is_no_frame_folder(local: LocalSource) -> None:
    assert "." not in versions(local.files())


def test_a_changed_file_has_another_version(local: LocalSource) -> None:
    before = versions(local.files())
    (local.folder / "a.mp4").write_bytes(b"c" * 1000)
    os.utime(local.folder / "a.mp4", ns=(1, 1))
    (local.folder / "frames" / "3.jpg").write_bytes(b"3")
    after = versions(local.files())
    changed = {path for path in after if before.get(path) != after[path]}
    assert {"a.mp4", "frames"} <= changed
    assert "sub ü/b.mp4" not in changed


def test_a_changed_object_has_another_version(s3: S3Source) -> None:
    import boto3

    before = versions(s3.files())
    boto3.client("s3").put_object(Bucket=s3.bucket, Key="site 1/a.mp4", Body=b"c" * 1000)
    after = versions(s3.files())
    assert {path for path in after if before[path] != after[path]} == {"a.mp4"}


def test_wrong_credentials_are_told_without_telling_them(
    s3: S3Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(InputError, match="check AWS_SECRET_ACCESS_KEY") as error:
        S3Source(s3.address).files()
    assert "not-the-secret" not in str(error.value)


def test_a_missing_bucket_is_named(s3: S3Source, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="s3://no-such-bucket/x: listing: no such bucket"):
        open_source("s3://no-such-bucket/x", tmp_path).files()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_source(str(tmp_path / "none"), tmp_path)


def test_text_that_is_not_utf8_is_refused(local: LocalSource) -> None:
    (local.folder / "videos.csv").write_bytes("vidéo".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        local.read_text("videos.csv")
