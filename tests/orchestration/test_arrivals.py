"""Arrivals: settled files are taken in once, half-copied ones wait, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from clock import SimulatedClock
from s3_server import S3Server

from assets.raw_videos import ingest_raw_videos, raw_videos, read_raw_videos
from assets.workspace import listing
from assets.workspace.locks import locked
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project
from orchestration import arrivals
from orchestration.arrivals import Arrival, Seen
from orchestration.resources import ProjectResource
from orchestration.sensors import arrivals_sensor

WriteVideo = Callable[..., Path]
SETTLE = 60  # seconds, by default


class Site:
    """A dataset, and the folder it comes from."""

    def __init__(self, dataset: Dataset, folder: Path, write_video: WriteVideo) -> None:
        self.dataset = dataset
        self.folder = folder
        self.clock = SimulatedClock()
        self.seen = Seen()
        self._write_video = write_video

    def film(self, name: str, **how: int) -> Path:
        return self._write_video(self.folder / f"{name}.mp4", **how)

    def table(self, *rows: str) -> None:
        text = "\n".join(["video,path,label,split", *rows]) + "\n"
        (self.folder / "videos.csv").write_text(text, encoding="utf-8")

    def look(self, after: float = 0) -> Arrival:
        """Look so many seconds later; the cursor goes through its text, as in Dagster."""
        self.clock.move_on(seconds=after)
        arrival = arrivals.look(self.dataset, self.seen, self.clock.now())
        self.seen = arrivals.read_cursor(arrivals.written_cursor({"site": arrival.seen}))["site"]
        return arrival

    def taken_in(self) -> dict[str, str]:
        """Take in what is listed; the usable videos with their labels."""
        ingest_raw_videos(self.dataset)
        return {row.video: row.label for row in read_raw_videos(self.dataset).usable}


ROWS = ("good,good.mp4,normal,train", "odd,odd.mp4,abnormal,train")


@pytest.fixture
def site(project_root: Path, tmp_path: Path, write_video: WriteVideo) -> Site:
    """Two labelled videos, taken in; a first look has been."""
    folder = tmp_path / "source"
    entry = DatasetParams(source=str(folder), unlisted="score")
    write_dataset(project_root, "site", entry)
    site = Site(Project.find().dataset("site"), folder, write_video)
    site.film("good", seed=1)
    site.film("odd", seed=2)
    site.table(*ROWS)
    listing.refresh(site.dataset)
    site.taken_in()
    site.look()
    assert site.look(after=SETTLE).due is None
    return site


def test_nothing_new_is_said_to_be_nothing(site: Site) -> None:
    arrival = site.look(after=SETTLE)
    assert (arrival.said, arrival.due) == ("nothing new", None)


def test_a_video_is_taken_in_once_it_has_settled(site: Site) -> None:
    site.film("new", seed=3)
    assert site.look().said == "waiting until it has settled: new.mp4"
    assert site.look(after=SETTLE / 2).due is None
    arrival = site.look(after=SETTLE / 2)
    assert arrival.said == "new or changed: new.mp4"
    assert arrival.due
    assert arrival.due.version == listing.digest(site.dataset)
    assert site.look().due == arrival.due  # until somebody takes it in
    assert site.taken_in() == {"good": "normal", "odd": "abnormal", "new": ""}
    assert site.look(after=SETTLE).said == "nothing new"


@pytest.mark.parametrize("name", ["slow", "2026-01-01T10:00:00"])
def test_a_file_that_is_still_copied_waits_and_the_others_do_not(site: Site, name: str) -> None:
    whole = site.film(name, seed=4, frames=60).read_bytes()
    slow = site.folder / f"{name}.mp4"
    slow.write_bytes(whole[:1000])
    site.film("quick", seed=5)
    site.look()
    slow.write_bytes(whole[:2000])
    arrival = site.look(after=SETTLE)
    assert arrival.said == f"new or changed: quick.mp4; waiting until it has settled: {slow.name}"
    assert site.taken_in().keys() == {"good", "odd", "quick"}
    assert read_raw_videos(site.dataset).quarantined == {}
    slow.write_bytes(whole)
    assert site.look(after=SETTLE).due is None
    assert site.look(after=SETTLE).due
    assert name in site.taken_in()
    assert site.look(after=SETTLE).said == "nothing new"


def test_a_listed_video_that_is_written_anew_stays_as_it_was_until_then(site: Site) -> None:
    before = read_raw_videos(site.dataset).by_video()["good"].sha256
    whole = site.film("good", seed=8, frames=60).read_bytes()
    (site.folder / "good.mp4").write_bytes(whole[:500])
    site.film("new", seed=3)
    site.look()
    (site.folder / "good.mp4").write_bytes(whole[:900])
    assert site.look(after=SETTLE).due
    site.taken_in()
    assert read_raw_videos(site.dataset).by_video()["good"].sha256 == before
    (site.folder / "good.mp4").write_bytes(whole)
    site.look(after=SETTLE)
    site.look(after=SETTLE)
    site.taken_in()
    row = read_raw_videos(site.dataset).by_video()["good"]
    assert (row.sha256 == before, row.frames) == (False, 60)


def test_the_row_of_a_video_that_has_not_settled_waits_with_it(site: Site) -> None:
    content = site.film("slow", seed=4).read_bytes()
    site.table(*ROWS, "slow,slow.mp4,normal,train")
    site.look()
    (site.folder / "slow.mp4").write_bytes(content[:500])
    arrival = site.look(after=SETTLE)
    assert arrival.said == "new or changed: videos.csv; waiting until it has settled: slow.mp4"
    assert site.taken_in().keys() == {"good", "odd"}
    assert read_raw_videos(site.dataset).quarantined == {}
    (site.folder / "slow.mp4").write_bytes(content)
    site.look()
    assert site.look(after=SETTLE).due
    assert site.taken_in()["slow"] == "normal"


def test_a_label_that_changes_is_an_arrival(site: Site) -> None:
    site.table("good,good.mp4,abnormal,train", ROWS[1])
    assert site.look().due is None
    assert site.look(after=SETTLE).said == "new or changed: videos.csv"
    assert site.taken_in()["good"] == "abnormal"


def test_a_table_that_was_only_touched_is_none(site: Site) -> None:
    os.utime(site.folder / "videos.csv", ns=(1, 1))
    site.look()
    arrival = site.look(after=SETTLE)
    assert (arrival.said, arrival.due) == ("new or changed: videos.csv", None)


def test_a_label_for_a_video_that_was_scored_without_makes_it_a_labelled_one(site: Site) -> None:
    site.film("new", seed=3)
    site.look()
    site.look(after=SETTLE)
    assert site.taken_in()["new"] == ""
    site.table(*ROWS, "monday,new.mp4,abnormal,train")
    site.look()
    site.look(after=SETTLE)
    assert site.taken_in() == {"good": "normal", "odd": "abnormal", "monday": "abnormal"}


def test_unlisted_videos_are_left_out_unless_asked_for(project_root: Path, site: Site) -> None:
    write_dataset(project_root, "site", DatasetParams(source=str(site.folder)))
    site.dataset = Project.find().dataset("site")
    site.film("new", seed=3)
    site.look()
    assert site.look(after=SETTLE).said == "nothing new"


def test_a_video_that_goes_is_an_arrival_too(site: Site) -> None:
    (site.folder / "odd.mp4").unlink()
    assert site.look().said == "waiting until it has settled: odd.mp4"
    assert site.look(after=SETTLE).due
    assert site.taken_in().keys() == {"good"}


def test_a_lost_cursor_loses_no_arrival(site: Site) -> None:
    site.table("good,good.mp4,abnormal,train", ROWS[1])
    for broken in ("", "{", "[]", "3", '{"version": 1}', '{"version": 2, "datasets": {"site": 1}}'):
        assert arrivals.read_cursor(broken) == {}
    site.seen = Seen()
    site.look()
    assert site.look(after=SETTLE).due


def test_a_label_that_is_taken_back_is_taken_in_again(site: Site) -> None:
    table = site.folder / "videos.csv"
    right = table.read_text()
    due = []
    for text in (right.replace(",normal", ",abnormal"), right) * 2:
        table.write_text(text)
        site.look()
        due.append(site.look(after=SETTLE).due)
        ingest_raw_videos(site.dataset)
    assert len(set(due)) == len(due)
    assert len({each.version for each in due if each}) == 2


def test_what_was_never_taken_in_is_left_to_its_owner(site: Site) -> None:
    write_dataset(Project.find().root, "fresh", DatasetParams(source=str(site.folder)))
    dataset = Project.find().dataset("fresh")
    listing.refresh(dataset)
    arrival = arrivals.look(dataset, Seen(), site.clock.now())
    assert arrival.due is None
    assert "`tevad run fresh` does that first" in arrival.said


def test_a_busy_dataset_is_left_alone(site: Site) -> None:
    site.film("new", seed=3)
    site.look()
    listed = listing.digest(site.dataset)
    with site.dataset.held():
        assert site.look(after=SETTLE).said == "busy, looks again"
    with locked(site.dataset.work / "run.lock", "a run"):  # between two of its stages
        assert site.look().said == "busy, looks again"
    assert listing.digest(site.dataset) == listed
    assert site.look().due


def test_a_bucket_is_looked_at_the_same_way(
    project_root: Path,
    tmp_path: Path,
    write_video: WriteVideo,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3_server.enter(monkeypatch)
    client, bucket = s3_server.client(), s3_server.new_bucket()

    def upload(name: str, **how: int) -> None:
        client.upload_file(str(write_video(tmp_path / name, **how)), bucket, f"cam/{name}")

    upload("good.mp4", seed=1)
    upload("odd.mp4", seed=2)
    table = "\n".join(["video,path,label,split", *ROWS]) + "\n"
    client.put_object(Bucket=bucket, Key="cam/videos.csv", Body=table.encode())
    entry = DatasetParams(source=f"s3://{bucket}/cam", unlisted="score")
    write_dataset(project_root, "site", entry)
    site = Site(Project.find().dataset("site"), tmp_path, write_video)
    listing.refresh(site.dataset)
    site.taken_in()
    site.look()
    site.look(after=SETTLE)
    upload("new.mp4", seed=3)
    upload("odd.mp4", seed=7)
    assert site.look().said == "waiting until it has settled: new.mp4, odd.mp4"
    assert site.look(after=SETTLE).due
    assert site.taken_in() == {"good": "normal", "odd": "abnormal", "new": ""}


def test_the_sensor_asks_once_for_a_run_of_what_has_settled(site: Site, tmp_path: Path) -> None:
    project = site.dataset.project
    write_dataset(project.root, "gone", DatasetParams(source="/nowhere", unlisted="score"))
    sensor = arrivals_sensor(project, site.clock)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def tick(cursor: str | None) -> dg.SensorResult:
            result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
            assert isinstance(result, dg.SensorResult)
            return result

        result = tick(None)
        site.clock.move_on(seconds=SETTLE)
        result = tick(str(tick(str(result.cursor)).cursor))
        assert not result.run_requests
        assert "site: nothing new" in str(result.skip_reason)
        assert "gone: not taken in yet" in str(result.skip_reason)

        site.film("new", seed=3)
        result = tick(str(result.cursor))
        assert "site: waiting until it has settled: new.mp4" in str(result.skip_reason)
        site.film("later", seed=4)
        site.clock.move_on(seconds=SETTLE)
        result = tick(str(result.cursor))
        [request] = result.run_requests or ()
        assert (request.job_name, request.partition_key) == ("features", "site")
        assert request.tags["tevad.reason"].startswith("arrivals: new or changed: new.mp4")
        [again] = tick(str(result.cursor)).run_requests or ()
        assert again.run_key == request.run_key  # which Dagster runs once

        # The run takes what has settled, and not what the source holds besides.
        dg.materialize(
            [raw_videos],
            instance=instance,
            partition_key=request.partition_key,
            run_config=request.run_config,
            resources={"project": ProjectResource(root=str(project.root))},
        )
    assert read_raw_videos(site.dataset).by_video().keys() == {"good", "odd", "new"}
