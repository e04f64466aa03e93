"""Watching: real streams through a trained model; alerts with clips; what a connection may do."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from pipelines import World
from projects import TrainedProject
from rtsp_server import Session, rtsp_server
from webhook_server import webhook_server

from orchestration.cli import main
from orchestration.cli.common import Failure
from orchestration.cli.watch import watch_all
from orchestration.notifications import WEBHOOK, LogNotifier, Notice, WebhookNotifier
from orchestration.watching import ALERT, CLIP, Watcher
from tevad_model import video
from tevad_model.errors import InputError
from tevad_model.live import LiveScorer
from tevad_model.pipeline import Pipeline
from tevad_model.stream import Stream, StreamLostError

MODEL = "models:/tevad-rendered/1"
TEVAD = str(Path(sys.executable).with_name("tevad"))


@pytest.fixture(scope="module")
def scorer(world: World) -> LiveScorer:
    folder = world.pipeline("both", ("visual", "caption", "sentence"))
    return LiveScorer(Pipeline.load(folder, world.cache, at_once=True))


@pytest.fixture
def clip(world: World) -> Path:
    return world.clips["test_001"].path


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def watcher(scorer: LiveScorer, out: Path, **more: object) -> Watcher:
    """One for which every snippet is abnormal."""
    settings = {"model": MODEL, "high": 0.0, "low": 0.0, "out": out, "give_up_s": 0.0}
    return Watcher(scorer, **{**settings, **more})  # type: ignore[arg-type]


def test_an_alert_is_a_folder_with_a_clip_and_its_record(
    scorer: LiveScorer, clip: Path, tmp_path: Path, stop: threading.Event
) -> None:
    watched = watcher(scorer, tmp_path).watch(Stream(str(clip)), stop)
    [folder] = watched.alerts
    record = json.loads((folder / ALERT).read_text())
    assert (record["stream"], record["model"]) == (str(clip), MODEL)
    assert record["caption"]
    assert record["scores"][-1] == record["score"]
    assert record["clip"] == str(folder / CLIP)
    assert video.probe(folder / CLIP).frames >= 16
    assert watched.frames == video.probe(clip).frames


def test_one_abnormal_stretch_is_one_alert(
    scorer: LiveScorer, clip: Path, tmp_path: Path, stop: threading.Event
) -> None:
    scores: list[float] = []
    keep = watcher(
        scorer, tmp_path, high=2.0, low=2.0, on_snippet=lambda _, s, __: scores.append(s.score)
    )
    assert keep.watch(Stream(str(clip)), stop).alerts == []
    second = sorted(scores)[-2]
    both = watcher(scorer, tmp_path, high=second, low=0.0).watch(Stream(str(clip)), stop)
    assert len(both.alerts) == 1


def test_an_alert_tells_when_its_snippet_came_whatever_frame_rate_is_stated(
    scorer: LiveScorer, clip: Path, tmp_path: Path, stop: threading.Event
) -> None:
    """By the stated rate the second snippet begins half a minute after the first."""
    slow, scores = Stream(str(clip), fps=0.5), list[float]()
    never = watcher(
        scorer, tmp_path, high=2.0, low=2.0, on_snippet=lambda _, s, __: scores.append(s.score)
    )
    never.watch(slow, stop)
    level = max(scores[1:])
    began = datetime.now(UTC)
    watched = watcher(scorer, tmp_path, high=level, low=level).watch(slow, stop)
    ended = datetime.now(UTC)
    record = json.loads((watched.alerts[-1] / ALERT).read_text())
    assert record["start_s"] >= 32
    came = datetime.fromisoformat(record["at"])
    assert began - timedelta(milliseconds=1) <= came <= ended


def test_a_stream_that_drops_and_stalls_is_connected_to_again(
    scorer: LiveScorer, clip: Path, tmp_path: Path, stop: threading.Event
) -> None:
    """It is stopped at the first score of the third connection, or of one after it."""
    with rtsp_server(clip, Session(drop_after=20), Session(stall_after=100)) as server:

        def on_snippet(*_: object) -> None:
            if server.played >= 3:
                stop.set()

        watched = watcher(scorer, tmp_path, give_up_s=None, on_snippet=on_snippet).watch(
            Stream(server.address, stall_s=1.0), stop
        )
    assert watched.connections >= 3


def test_a_stream_that_does_not_come_back_is_given_up(
    scorer: LiveScorer, clip: Path, tmp_path: Path, stop: threading.Event
) -> None:
    with rtsp_server(clip) as server:
        address = server.address
    with pytest.raises(StreamLostError, match="cannot be opened"):
        watcher(scorer, tmp_path).watch(Stream(address), stop)


def test_a_corrupt_packet_does_not_end_the_watch(
    scorer: LiveScorer, clip: Path, tmp_path: Path, stop: threading.Event
) -> None:
    with (
        rtsp_server(clip, Session(garble=frozenset({12}))) as server,
        pytest.raises(StreamLostError, match=": ended"),
    ):
        watcher(scorer, tmp_path).watch(Stream(server.address), stop)
    assert list(tmp_path.glob(f"*/{ALERT}"))


def test_people_are_told_with_clip_scores_and_version(
    scorer: LiveScorer,
    clip: Path,
    tmp_path: Path,
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with webhook_server() as hook:
        monkeypatch.setenv(WEBHOOK, hook.url)
        notifiers = (LogNotifier(), WebhookNotifier())
        watched = watcher(scorer, tmp_path, notifiers=notifiers).watch(Stream(str(clip)), stop)
    [told] = hook.bodies
    assert told["kind"] == "stream alert"
    assert told["details"]["model"] == MODEL
    assert told["details"]["clip_mp4_base64"]
    assert f"see {watched.alerts[0] / CLIP}" in caplog.text


def test_a_webhook_that_is_down_does_not_end_the_watch(
    scorer: LiveScorer,
    clip: Path,
    tmp_path: Path,
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with webhook_server() as hook:
        monkeypatch.setenv(WEBHOOK, hook.url)
    watched = watcher(scorer, tmp_path, notifiers=(WebhookNotifier(),)).watch(
        Stream(str(clip)), stop
    )
    assert len(watched.alerts) == 1
    assert "the alert is kept in" in caplog.text


class Listener:
    """A notifier that remembers, and says when a stream failed."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.heard = threading.Event()

    def tell(self, notice: Notice) -> None:
        self.notices.append(notice)
        if notice.kind == "stream failed":
            self.heard.set()


class Broken:
    """A notifier with a mistake."""

    def tell(self, notice: Notice) -> None:
        raise KeyError(notice.kind)


def test_a_mistake_of_a_notifier_does_not_end_the_watch(
    scorer: LiveScorer,
    clip: Path,
    tmp_path: Path,
    stop: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = Listener()
    watched = watcher(scorer, tmp_path, notifiers=(Broken(), listener)).watch(
        Stream(str(clip)), stop
    )
    assert [notice.kind for notice in listener.notices] == ["stream alert"]
    assert "Broken failed (KeyError: 'stream alert'); the alert is kept in" in caplog.text
    assert watched.frames == video.probe(clip).frames


def test_one_that_fails_is_told_while_others_are_watched(
    scorer: LiveScorer, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that goes on waits until it has been told of the other."""
    listener = Listener()

    def on_snippet(*_: object) -> None:
        assert listener.heard.wait(60)

    keep = watcher(scorer, tmp_path, high=2.0, low=2.0, notifiers=[listener], on_snippet=on_snippet)
    with pytest.raises(Failure, match="1 of 2 streams failed"):
        watch_all(keep, [Stream(str(clip)), Stream("none.mp4")])
    [notice] = listener.notices
    assert (notice.subject, notice.reason) == (
        "none.mp4", "no such file; give a file or a URL",
    )  # fmt: skip
    assert "none.mp4: watched no more: no such file" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_full_disk_and_a_defect_are_told(
    scorer: LiveScorer, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener()

    def on_snippet(stream: str, *_: object) -> None:
        if stream == str(clip):
            os.write(full, b"a row")
        raise ZeroDivisionError

    full = os.open("/dev/full", os.O_WRONLY)
    keep = watcher(scorer, tmp_path, notifiers=[listener], on_snippet=on_snippet)
    other = tmp_path / "other.mp4"
    other.symlink_to(clip)
    try:
        with pytest.raises(Failure, match="2 of 2 streams failed"):
            watch_all(keep, [Stream(str(clip)), Stream(str(other))])
    finally:
        os.close(full)
    reasons = {notice.subject: notice.reason for notice in listener.notices}
    assert "No space left on device" in reasons[str(clip)]
    assert reasons[str(other)] == "ZeroDivisionError"
    assert caplog.text.count("Traceback") == 1


def test_a_file_that_is_not_there_is_named(
    scorer: LiveScorer, tmp_path: Path, stop: threading.Event
) -> None:
    with pytest.raises(InputError, match=r"none\.mp4: no such file"):
        watcher(scorer, tmp_path).watch(Stream("none.mp4"), stop)


def test_the_command_watches_files_with_levels_from_validation(
    trained: TrainedProject, tmp_path: Path
) -> None:
    videos = sorted((trained.root / ".tevad" / "rendered" / "videos").glob("test*.mp4"))[:2]
    table = tmp_path / "scores.csv"
    done = CliRunner().invoke(
        main,
        ["watch", *map(str, videos), "--out", str(tmp_path / "alerts"), "--scores", str(table)],
    )
    assert done.exit_code == 0, done.output
    assert "on 0.0" in done.output, "the levels say on how many hours they were chosen"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["stream"] for row in rows} == set(map(str, videos))
    assert all(0 <= float(row["score"]) <= 1 for row in rows)


def test_the_command_says_what_it_cannot_watch(trained: TrainedProject) -> None:
    done = CliRunner().invoke(main, ["watch", "none.mp4"])
    assert done.exit_code == 1
    assert "none.mp4: no such file" in done.output
    done = CliRunner().invoke(main, ["watch", "none.mp4", "--model", "models:/nobody@champion"])
    assert done.exit_code == 1
    assert "models:/nobody@champion" in done.output


def test_an_interrupt_ends_the_watch_and_sums_it_up(
    trained: TrainedProject, clip: Path, tmp_path: Path
) -> None:
    table = tmp_path / "scores.csv"
    with rtsp_server(clip, *[Session(stall_after=60)] * 3) as server:
        process = subprocess.Popen(
            [TEVAD, "watch", server.address, "--scores", str(table), "--threshold", "2"],
            env=os.environ.copy(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "scores come" in line:
                process.send_signal(signal.SIGINT)
                break
        said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    assert f"{server.address}: " in said
