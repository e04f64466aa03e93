"""What serving and watching cost: requests over direct calls, streams on two cores, live AUC.

All of it is measured on two cores, of however many the machine has.

On UCSD Ped2, by the presets ``ped2-embedded`` and ``ped2-streams``, which looks at smaller pictures;
the figures of the latter end in ``_small``. ``serve_overhead`` is the median time of a request of
`mlflow models serve` for a 10-second clip over that of the same pipeline called in this process, less
1; requests and calls take turns. ``streams_2_cores`` is how many streams of 25 frames a second,
360×240, `tevad watch`'s watcher takes in on two cores, as fast as it goes, with alerts off.
``live_auc_loss_<n>`` is the frame AUC of the test split scored offline less that of live scores with
a lookahead of n snippets. ``python -m benchmarks.serving`` prints a table, ``--json`` one object.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import numpy as np
import requests
import torch

from assets.evaluation_metrics import TestSplit
from assets.raw_videos import read_raw_videos, video_path
from assets.scoring import find_version, packed_pipeline
from assets.tevad_model import read_inputs
from assets.workspace.params import DatasetParams
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import CHALLENGER, Tracking, registered_name
from benchmarks.project import shared, temporary_project
from benchmarks.report import print_figures
from orchestration.datasets import add_dataset
from orchestration.running import run_chain
from orchestration.scoring_client import ScoringClient
from orchestration.watching import Watcher
from tevad_model import metrics, timeline, video
from tevad_model.devices import set_threads
from tevad_model.encoders.base import Frame
from tevad_model.live import LiveScorer
from tevad_model.pipeline import Pipeline
from tevad_model.stream import Stream

FPS = 25.0
CLIP_S, STREAM_S = 10, 40
REQUESTS = 20
STREAMS = 8
CRF = 23
"""x264's default: about 260 kbit/s of these pictures, as cameras send them."""

CORES = 2
LOOKAHEADS = (0, 1, 2, 4)
NEVER = 2.0
"""No score reaches it: alerts off."""


def measure() -> dict[str, float]:
    """All figures; the names are those the module's docstring explains."""
    _keep_to_cores()
    with temporary_project() as project:
        tracking = Tracking.of(project)
        dataset = _trained(project, "ped2-embedded")
        clip, stream = project.state / "clip.mp4", project.state / "stream.mp4"
        video.encode(clip, islice(_pictures(dataset), round(CLIP_S * FPS)), FPS)
        video.encode(stream, islice(_pictures(dataset), round(STREAM_S * FPS)), FPS, crf=CRF)
        with _pipelines(dataset, tracking) as (batched, at_once):
            figures = {
                **_serving(batched, tracking, _address(dataset), clip),
                **_streams(at_once, stream, project.state / "alerts"),
                **_live_auc(dataset, batched, at_once),
            }
        dataset = _trained(project, "ped2-streams")
        with _pipelines(dataset, tracking) as (batched, at_once):
            small = {
                **_streams(at_once, stream, project.state / "alerts"),
                **_live_auc(dataset, batched, at_once),
            }
        return figures | {f"{name}_small": value for name, value in small.items()}


def _keep_to_cores() -> None:
    """Keep this process, and so the threads and processes it starts, to some of its cores."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < CORES:
        raise RuntimeError(f"measured on {CORES} cores, of which {len(allowed)} may be used here")
    os.sched_setaffinity(0, allowed[:CORES])
    set_threads(CORES)


def _trained(project: Project, preset: str) -> Dataset:
    """Ped2 with the chain run by a preset, which names the dataset, too."""
    dataset = add_dataset(project, preset, DatasetParams(source=str(shared("ped2")), preset=preset))
    outcome = run_chain(dataset)
    if not outcome.success:
        raise RuntimeError("; ".join(outcome.failures))
    return dataset


def _address(dataset: Dataset) -> str:
    return f"models:/{registered_name(dataset.name)}@{CHALLENGER}"


@contextmanager
def _pipelines(dataset: Dataset, tracking: Tracking) -> Iterator[tuple[Pipeline, Pipeline]]:
    """The trained pipeline, loaded to score files and to score at once."""
    version = find_version(tracking.client, _address(dataset))
    with packed_pipeline(version, tracking) as folder:
        cache = dataset.project.cache
        yield Pipeline.load(folder, cache), Pipeline.load(folder, cache, at_once=True)


def _pictures(dataset: Dataset) -> Iterator[Frame]:
    """The test videos' pictures, again and again."""
    rows = [row for row in read_raw_videos(dataset).usable if row.split == "test"]
    while True:
        yield from chain.from_iterable(video.frames(video_path(dataset, row)) for row in rows)


def _serving(pipeline: Pipeline, tracking: Tracking, uri: str, clip: Path) -> dict[str, float]:
    with _served(tracking, uri) as client:
        direct, served = _take_turns(
            lambda: pipeline.score_video(clip), lambda: client.score_there(str(clip))
        )
    figures = {"serve_overhead": float(np.median(served) / np.median(direct) - 1)}
    for name, seconds in (("direct", direct), ("served", served)):
        figures[f"{name}_p50_ms"] = 1000 * float(np.percentile(seconds, 50))
        figures[f"{name}_p95_ms"] = 1000 * float(np.percentile(seconds, 95))
        figures[f"{name}_videos_per_second"] = len(seconds) / sum(seconds)
    return figures


def _take_turns(*calls: Callable[[], object]) -> list[list[float]]:
    """Seconds of each call, time after time, after one that is not counted."""
    seconds: list[list[float]] = [[] for _ in calls]
    for number in range(REQUESTS + 1):
        for call, taken in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if number:
                taken.append(time.perf_counter() - started)
    return seconds


@contextmanager
def _served(tracking: Tracking, uri: str) -> Iterator[ScoringClient]:
    """`mlflow models serve`, as anybody starts it."""
    port = _free_port()
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking.uri,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        str(programs / "mlflow"), "models", "serve", "--env-manager", "local", "-m", uri,
        "-p", str(port),
    ]  # fmt: skip
    server = subprocess.Popen(
        command, env=environment, stdout=sys.stderr, stderr=sys.stderr, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(f"{address}/ping"):
            if server.poll() is not None:
                raise RuntimeError("the server did not start")
            time.sleep(0.5)
        yield ScoringClient(address)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.ConnectionError:
        return False


def _streams(pipeline: Pipeline, stream: Path, out: Path) -> dict[str, float]:
    """Watch the same stream several times at once, as `tevad watch` does with its threads."""
    threads = torch.get_num_threads()
    set_threads(1)
    try:
        watcher = Watcher(LiveScorer(pipeline), "benchmark", NEVER, NEVER, out)
        stop = threading.Event()
        watcher.watch(Stream(str(stream), max_side=pipeline.max_side), stop)  # warms up
        started = time.perf_counter()
        with ThreadPoolExecutor(STREAMS) as pool:
            streams = [Stream(str(stream), max_side=pipeline.max_side)] * STREAMS
            watched = list(pool.map(lambda each: watcher.watch(each, stop), streams))
        seconds = time.perf_counter() - started
    finally:
        set_threads(threads)
    frames = sum(each.frames for each in watched)
    return {
        "streams_2_cores": frames / seconds / FPS,
        "watch_frames_per_second": frames / seconds,
        "watch_delay_s": timeline.seconds(watcher.scorer.delay_frames, FPS),
    }


def _live_auc(dataset: Dataset, batched: Pipeline, at_once: Pipeline) -> dict[str, float]:
    test = TestSplit.of(read_inputs(dataset))
    paths = {row.video: video_path(dataset, row) for row in test.rows}
    offline = {name: batched.score_video(path).scores for name, path in paths.items()}
    auc = _auc(test, offline)
    figures = {"offline_frame_auc": auc}
    for lookahead in LOOKAHEADS:
        scorer = LiveScorer(at_once, lookahead=lookahead)
        live = {
            row.video: np.array(
                [
                    snippet.score
                    for snippet in scorer.score(
                        video.frames(paths[row.video], max_side=at_once.max_side), row.fps
                    )
                ]
            )
            for row in test.rows
        }
        figures[f"live_auc_loss_{lookahead}"] = auc - _auc(test, live)
    return figures


def _auc(test: TestSplit, scores: dict[str, timeline.FloatArray]) -> float:
    found = metrics.frame_auc(test.frame_scores(scores), test.truth)
    assert found is not None
    return found


if __name__ == "__main__":
    print_figures(measure, __doc__)
