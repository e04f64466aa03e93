"""The bucket fails: nothing is lost, no half object is taken for a whole one, and a re-run goes on.

All on a real S3 server of the test's own, behind a proxy that breaks connections where it is told to
and kills the server at that moment.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from aim import ended
from dvc.repo import Repo
from projects import digests, git, holding
from s3_proxy import Fault, Proxy, running_proxy
from s3_server import SECRET_KEY, S3Server

from assets.raw_videos import ingest_raw_videos, read_raw_videos
from assets.workspace import listing, s3
from assets.workspace.face import explained
from assets.workspace.params import DatasetParams
from assets.workspace.project import Dataset, Project
from assets.workspace.sources import open_source
from assets.workspace.storage import VARIABLE, Storage
from assets.workspace.tracking import Tracking
from orchestration.datasets import add_dataset
from tevad_model.errors import InputError, SourceRefusedError, SourceUnreachableError

MIB = 1 << 20

WriteVideo = Callable[..., Path]


@dataclass
class Team:
    """A project that uses a bucket, which lies behind the proxy."""

    project: Project
    storage: Storage
    server: S3Server
    proxy: Proxy

    def fault(self, method: str, path: str, **what: Any) -> None:
        self.proxy.faults.append(Fault(method, path, **what))

    def kill_within(self, method: str, path: str, after: int) -> None:
        """Kill the server when so many bytes of the body have passed."""
        self.fault(method, path, cut_after=after, then=self.server.kill)

    def video(self, name: str) -> str:
        """The path of a video's own requests; those that list ask by a prefix."""
        return f"/{self.storage.bucket}/team/videos/site/{name}.mp4"

    def keep(self, *contents: bytes) -> Path:
        """Have DVC keep files in a folder."""
        folder = self.project.root / "kept"
        folder.mkdir()
        for number, content in enumerate(contents):
            (folder / f"{number}.bin").write_bytes(content)
        with Repo(str(self.project.root)) as repo:
            repo.add(str(folder))
        return folder

    def clone(self, to: Path) -> Path:
        """A fresh clone of the project, with nothing of DVC's data."""
        git(self.project.root, "add", "--all")
        git(self.project.root, "commit", "--quiet", "--message", "what is kept")
        git(to.parent, "clone", "--quiet", str(self.project.root), to.name)
        return to


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Server]:
    """One that the test may kill."""
    server = S3Server(tmp_path / "server")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def team(
    project_root: Path, own_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Team]:
    with running_proxy(own_server.address) as proxy:
        own_server.enter(monkeypatch, proxy.address)
        monkeypatch.setenv(VARIABLE, f"s3://{own_server.new_bucket()}/team")
        project, storage = Project.at(project_root), Storage.required()
        storage.use_for_dvc(project)
        yield Team(project, storage, own_server, proxy)


def dvc_key(content: bytes) -> str:
    """Where DVC keeps a content: it names it by its MD5."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return f"team/dvc/files/md5/{digest[:2]}/{digest[2:]}"


def assert_no_half_object(team: Team) -> int:
    """That DVC's objects are what they are named; how many there are."""
    client, bucket = team.server.client(), team.storage.bucket
    keys = team.server.keys(bucket, "team/dvc/")
    for key in keys:
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        assert key.removesuffix(".dir") == dvc_key(body)
    return len(keys)


def assert_no_half_file(root: Path) -> None:
    """That what DVC's cache here holds is what it is named."""
    for path in (root / ".dvc" / "cache" / "files" / "md5").glob("*/*"):
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        assert path.parent.name + path.name.removesuffix(".dir") == digest


def test_a_server_killed_within_push_and_pull_loses_nothing(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # else most of a minute goes by until it gives up
    chance, root, clone = random.Random(0), team.project.root, tmp_path / "clone"
    large, small = chance.randbytes(9 * MIB), chance.randbytes(1000)
    kept, key = team.keep(large, small), dvc_key(large)
    team.kill_within("PUT", key, after=3 * MIB)
    assert ended("dvc", "push", root=root).code != 0
    team.server.start()
    assert assert_no_half_object(team) < 3
    assert ended("dvc", "push", root=root).code == 0
    assert assert_no_half_object(team) == 3  # the two files and their folder

    team.clone(clone)
    for _ in range(2):  # with both files to come, and perhaps with the large one alone
        team.kill_within("GET", key, after=3 * MIB)
        assert ended("dvc", "pull", root=clone).code != 0
        assert_no_half_file(clone)
        assert not (clone / "kept" / "0.bin").exists()
        team.server.start()
    assert ended("dvc", "pull", root=clone).code == 0
    assert digests(clone / "kept") == digests(kept)
    assert holding(clone, SECRET_KEY) == []


@pytest.fixture
def site(team: Team, write_video: WriteVideo, tmp_path: Path) -> Dataset:
    """A dataset whose videos lie in the bucket."""
    rows, client = ["video,path,label"], team.server.client()
    for name, label in (("a", "normal"), ("b", "abnormal"), ("c", "normal")):
        video = write_video(tmp_path / f"{name}.mp4", seed=ord(name))
        client.upload_file(str(video), team.storage.bucket, f"team/videos/site/{name}.mp4")
        rows.append(f"{name},{name}.mp4,{label}")
    table = "".join(f"{row}\n" for row in rows).encode()
    client.put_object(Bucket=team.storage.bucket, Key="team/videos/site/videos.csv", Body=table)
    source = f"{team.storage.videos}/site"
    return add_dataset(team.project, "site", DatasetParams(source=source))


def fetched(team: Team) -> list[str]:
    """The videos that were fetched since this was last asked."""
    asked = [
        path.rpartition("/")[2]
        for method, path, _ in team.proxy.requests
        if method == "GET" and path.endswith(".mp4")
    ]
    team.proxy.requests.clear()
    return asked


def test_a_server_killed_while_videos_are_taken_in(team: Team, site: Dataset) -> None:
    originals = {name: site.project.root.parent / f"{name}.mp4" for name in "abc"}
    team.kill_within("GET", team.video("b"), after=100)
    with pytest.raises(SourceUnreachableError, match=r"b\.mp4: the server"):
        ingest_raw_videos(site)
    team.server.start()
    ingest_raw_videos(site)
    taken = {row.video: row.sha256 for row in read_raw_videos(site).usable}
    assert taken == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in originals.items()
    }
    assert holding(team.project.root, SECRET_KEY) == []


def test_only_what_changed_is_fetched_again(
    team: Team, site: Dataset, write_video: WriteVideo, tmp_path: Path
) -> None:
    ingest_raw_videos(site)
    assert fetched(team) == ["a.mp4", "b.mp4", "c.mp4"]
    listing.refresh(site)
    ingest_raw_videos(site)
    assert fetched(team) == []
    other = write_video(tmp_path / "other.mp4", seed=7)
    key = "team/videos/site/b.mp4"
    team.server.client().upload_file(str(other), team.storage.bucket, key)
    listing.refresh(site)
    ingest_raw_videos(site)
    assert fetched(team) == ["b.mp4"]


def test_other_bytes_than_were_sent_are_not_taken_in(team: Team, site: Dataset) -> None:
    team.fault("GET", team.video("b"), flip=500)
    with pytest.raises(SourceUnreachableError, match="arrived with another"):
        ingest_raw_videos(site)
    ingest_raw_videos(site)
    assert [row.problem for row in read_raw_videos(site).rows] == ["", "", ""]


def test_a_server_killed_while_artifacts_are_kept(team: Team, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(4 * MIB)
    (tmp_path / "model.bin").write_bytes(content)
    tracking, bucket = Tracking.of(team.project), team.storage.bucket
    with tracking.start_run("site", "a run", {}) as log:
        team.fault("PUT", "model.bin", status=500)  # passes, and is gone through
        log.artifact(tmp_path / "model.bin", "first")
        team.kill_within("PUT", "second/model.bin", after=MIB)
        with pytest.raises(SourceUnreachableError, match=f"artifacts of run {log.run_id}"):
            log.artifact(tmp_path / "model.bin", "second")
        team.server.start()
        log.artifact(tmp_path / "model.bin", "second")
    for key in team.server.keys(bucket):
        body = team.server.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        assert body == content
    assert len(team.server.keys(bucket)) == 2


def test_a_slow_answer_is_asked_for_again(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.5)
    team.fault("PUT", "/videos/", silent=True)
    team.storage.check(team.storage.videos)
    assert team.server.keys(team.storage.bucket) == []


def test_what_may_pass_is_retried_and_what_must_be_repaired_is_not(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(address: str) -> InputError | dg.Failure:
        with pytest.raises((InputError, dg.Failure)) as told, explained():
            open_source(address, team.project.root).files()
        assert "not-the-secret" not in str(told.value)
        return told.value

    team.fault("GET", team.storage.bucket, status=500, times=s3.ATTEMPTS)
    failed = look(team.storage.videos)
    assert isinstance(failed, SourceUnreachableError)
    assert not isinstance(failed, SourceRefusedError)
    missing = look("s3://no-such-bucket/x")
    assert isinstance(missing, dg.Failure)
    assert not missing.allow_retries
    assert "s3://no-such-bucket/x: listing: no such bucket" in str(missing.description)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    wrong = look(team.storage.videos)
    assert isinstance(wrong, dg.Failure)
    assert "check AWS_SECRET_ACCESS_KEY" in str(wrong.description)
