"""Sources: a local folder and an S3 prefix list and give the same files."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from assets.workspace.s3_source import S3Source
from assets.workspace.sources import LocalSource, Source, open_source, versions
from tevad_model.errors import (
    InputError,
    SourceRefusedError,
    SourceUnreachableError,
    VideoError,
)


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


@contextmanager
def as_nobody_in_particular() -> Iterator[Path]:
    """A folder of a user whom rights hold for; root may read everything."""
    user = os.geteuid() or pwd.getpwnam("nobody").pw_uid
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, user, -1)
        before = os.geteuid()
        os.seteuid(user)
        try:
            yield Path(folder)
        finally:
            os.seteuid(before)


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


def test_a_folder_that_cannot_be_read_is_named_and_never_taken_for_empty(
    local: LocalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "camera" * 40
    with monkeypatch.context() as patch:
        patch.chdir(local.folder)
        for _ in range(18):  # until its path is longer than the system takes
            Path(name).mkdir()
            patch.chdir(name)
    with pytest.raises(
        SourceUnreachableError, match=rf"{name}: cannot be read \(File name too long"
    ):
        local.files()


def test_a_folder_that_may_not_be_read_is_refused() -> None:
    with as_nobody_in_particular() as folder:
        source = LocalSource(fill(folder))
        (folder / "frames").chmod(0)
        with pytest.raises(
            SourceRefusedError, match=r"/frames: cannot be read \(Permission denied"
        ):
            source.files()
        (folder / "frames").rename(folder / "lost+found")  # which a disk keeps for itself
        assert "videos.csv" in {file.path for file in source.files()}
        (folder / "lost+found").chmod(0o700)


def test_what_is_gone_since_it_was_seen_is_absent(
    local: LocalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = local.folder / "b.mp4.part"
    copied.touch()
    (local.folder / "link.mp4").symlink_to("nowhere.mp4")
    walk = os.walk

    def walk_slowly(*arguments: Any, **options: Any) -> Iterator[Any]:
        for each in walk(*arguments, **options):
            copied.unlink(missing_ok=True)
            shutil.rmtree(local.folder / "frames", ignore_errors=True)
            yield each

    monkeypatch.setattr(os, "walk", walk_slowly)
    assert [file.path for file in local.files()] == ["a.mp4", "sub ü/b.mp4", "videos.csv"]
    shutil.rmtree(local.folder)
    with pytest.raises(SourceUnreachableError, match="No such file or directory"):
        local.files()


def test_a_name_that_is_not_utf8_is_left_out_and_told(
    local: LocalSource, caplog: pytest.LogCaptureFixture
) -> None:
    before = local.files()
    (local.folder / os.fsdecode(b"caf\xe9.mp4")).touch()
    (local.folder / "back\\slash.mp4").touch()
    found = local.files()
    assert {file.path for file in found} == {file.path for file in before} | {"back\\slash.mp4"}
    assert versions(found).keys() >= {"frames", "back\\slash.mp4"}
    [said] = caplog.messages
    assert said.endswith(r"names that are not UTF-8: caf\xe9.mp4 (1 in all); rename them")


def test_text_that_is_not_utf8_is_refused(local: LocalSource) -> None:
    (local.folder / "videos.csv").write_bytes("vidéo".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        local.read_text("videos.csv")
