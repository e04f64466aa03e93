"""``tevad watch``: score streams while they run, and raise alerts."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestration.cli.common import Failure, address, current_project, reported
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from orchestration.watching import OnSnippet, Watched, Watcher
    from tevad_model.live import LiveSnippet
    from tevad_model.pipeline import Pipeline
    from tevad_model.stream import Stream

_LOOK_EVERY_S = 0.5
"""How long an interrupt may stay unseen."""


@click.command()
@click.argument("streams", nargs=-1, required=True, callback=address)
@click.option("--model", help="models:/NAME@ALIAS or models:/NAME/VERSION.")
@click.option(
    "--false-alarms", default=1.0, show_default=True, type=click.FloatRange(min=0),
    help="An hour and stream, at most, on the model's validation videos.",
)  # fmt: skip
@click.option("--threshold", type=float, help="Score from which an alert begins, instead.")
@click.option("--until", type=float, help="Score below which it is over; default the same.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for alerts; default .tevad/alerts."
)
@click.option(
    "--tell", multiple=True, default=("log",), show_default=True,
    help="log, webhook ($TEVAD_WEBHOOK_URL) or module:Class.",
)  # fmt: skip
@click.option("--scores", type=click.Path(path_type=Path), help="Write every score to this CSV.")
@click.option("--fps", type=float, help="Frames a second of streams that do not say.")
@click.option(
    "--lookahead", type=click.IntRange(min=0), help="Snippets that a score waits for; default 1."
)
@click.option("--give-up", type=float, help="Seconds without a picture; by default never.")
@reported
def watch(
    streams: tuple[str, ...],
    model: str | None,
    false_alarms: float,
    threshold: float | None,
    until: float | None,
    out: Path | None,
    tell: tuple[str, ...],
    scores: Path | None,
    fps: float | None,
    lookahead: int | None,
    give_up: float | None,
) -> None:
    """Watch STREAMS (rtsp://…, http://…, or files) and raise alerts.

    Each alert is a folder with a clip and its record. Ctrl-C ends the watch.
    """
    from assets.scoring import default_model, loaded
    from assets.workspace.tracking import Tracking
    from orchestration.notifications import build_notifier
    from orchestration.watching import Watcher
    from tevad_model.devices import cores, set_threads
    from tevad_model.live import LOOKAHEAD, LiveScorer

    project = current_project()
    tracking = Tracking.of(project)
    notifiers = [build_notifier(name) for name in tell]
    # Streams run side by side; threads of their own would only get into each other's way.
    set_threads(max(1, cores() // len(streams)))
    with (
        loaded(model or default_model(tracking), tracking, project.cache, at_once=True) as (
            version,
            pipeline,
        ),
        _table(scores) as on_snippet,
    ):
        high, low = _levels(pipeline, version, false_alarms, threshold, until)
        watcher = Watcher(
            scorer=LiveScorer(pipeline, lookahead=LOOKAHEAD if lookahead is None else lookahead),
            model=version,
            high=high,
            low=low,
            out=out or project.state / "alerts",
            notifiers=notifiers,
            give_up_s=give_up,
            on_snippet=on_snippet,
        )
        watch_all(watcher, [_stream(each, pipeline, fps) for each in streams])


def _stream(each: str, pipeline: Pipeline, fps: float | None) -> Stream:
    from tevad_model.stream import Stream

    return Stream(each, max_side=pipeline.max_side, fps=fps)


def _levels(
    pipeline: Pipeline,
    version: str,
    false_alarms: float,
    threshold: float | None,
    until: float | None,
) -> tuple[float, float]:
    """From which score an alert begins and below which it is over."""
    from tevad_model.alerts import choose_levels

    if threshold is None:
        if until is not None:
            raise InputError("--until goes with --threshold; without it both are chosen")
        levels = choose_levels(pipeline.validation, false_alarms, version)
        click.echo(f"{version}: {levels}")
        return levels.high, levels.low
    click.echo(f"{version}: alert from {threshold:.3f}")
    return threshold, threshold if until is None else until


def watch_all(watcher: Watcher, streams: list[Stream]) -> None:
    """Watch each in a thread of its own until all have ended or somebody interrupts.

    How one ended is said at once, whatever the others do.

    Raises:
        Failure: at the end, if any failed.
    """
    stop = threading.Event()
    running: list[Future[Watched]] = []
    with ThreadPoolExecutor(len(streams), "watch") as pool:
        try:  # from the first on: the pool is left only once all have ended
            for stream in streams:
                running.append(pool.submit(watcher.watch, stream, stop))
                running[-1].add_done_callback(partial(_say_how_it_ended, watcher, stream))
            # A signal that comes just as this thread falls asleep is seen only when it wakes.
            while wait(running, timeout=_LOOK_EVERY_S).not_done:
                pass
        except KeyboardInterrupt:
            stop.set()
    failed = sum(future.exception() is not None for future in running)
    if failed:
        raise Failure(f"{failed} of {len(streams)} streams failed, as said above")


def _say_how_it_ended(watcher: Watcher, stream: Stream, future: Future[Watched]) -> None:
    why = future.exception()
    if why is not None:
        watcher.report_failure(stream, why)
        return
    watched = future.result()
    click.echo(str(watched))
    for folder in watched.alerts:
        click.echo(f"  {folder}")


@contextmanager
def _table(path: Path | None) -> Iterator[OnSnippet | None]:
    """Writes a row a snippet as it comes."""
    if path is None:
        yield None
        return
    lock = threading.Lock()
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("stream", "snippet", "start_s", "score", "magnitude", "caption"))

        def write(stream: str, snippet: LiveSnippet, start_s: float) -> None:
            row = (f"{start_s:.3f}", f"{snippet.score:.9g}", f"{snippet.magnitude:.9g}")
            with lock:
                table.writerow((stream, snippet.snippet, *row, snippet.caption))
                file.flush()

        yield write
