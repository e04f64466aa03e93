"""Watching streams: what ``tevad watch`` does with scores as they come.

A stream is connected to, again and again where it is live; an alert is written to a folder with a
clip and passed on to people. Scores are :mod:`tevad_model.live`'s, when one is an alert
:mod:`tevad_model.alerts`', how people are told :mod:`orchestration.notifications`'.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.workspace import files
from orchestration.notifications import Notice, Notifier, NotToldError, pass_on
from orchestration.redaction import redacted
from tevad_model.alerts import Hysteresis
from tevad_model.atomic import full_disks_named
from tevad_model.errors import InputError
from tevad_model.stream import Connection, Stream, StreamLostError
from tevad_model.timeline import SNIPPET_FRAMES, seconds

if TYPE_CHECKING:
    from tevad_model.encoders.base import Frame
    from tevad_model.live import LiveScorer, LiveSnippet

logger = logging.getLogger("tevad")

ALERT, CLIP = "alert.json", "clip.mp4"

_BEFORE_S = 3.0
"""Seconds of a clip before the snippet that it is about."""

_CLIP_BYTES = 256 * 2**20
"""Of pictures that are kept for a clip of one stream, at most."""

_SENT_BYTES = 4 * 2**20
"""Clips up to this size travel in the notice itself."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_SCORES_SHOWN = 8
_LAGS_KEPT = 10_000


@dataclass(frozen=True)
class Alert:
    """Something abnormal in a stream.

    Attributes:
        stream: its name, without credentials.
        model: the version that scored it, ``models:/<name>/<version>``.
        at: when the first picture of the snippet it began with came, ISO 8601 in UTC.
        start_s: of that snippet, in seconds of the connection (of the file, if it is one) by the
            stated frame rate, which a camera may not quite keep.
        score: of that snippet.
        caption: of that snippet.
        scores: of the snippets up to it, it last.
        folder: where clip and record lie.
    """

    stream: str
    model: str
    at: str
    start_s: float
    score: float
    caption: str
    scores: tuple[float, ...]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "stream": self.stream,
            "model": self.model,
            "at": self.at,
            "start_s": self.start_s,
            "score": self.score,
            "caption": self.caption,
            "scores": list(self.scores),
            "clip": str(self.folder / CLIP),
        }

    def notice(self) -> Notice:
        """What people are told of it."""
        clip = self.folder / CLIP
        said = f'"{self.caption}", ' if self.caption else ""
        return Notice(
            kind="stream alert",
            dataset="",
            subject=self.stream,
            reason=f"{said}score {self.score:.3f} by {self.model} at {self.at}, see {clip}",
            run_id="",
            at=self.at,
            details=self.to_json(),
            clip=clip.read_bytes() if clip.stat().st_size <= _SENT_BYTES else b"",
        )


@dataclass
class Watched:
    """What watching a stream came to.

    Attributes:
        stream: its name.
        connections: how often it was connected to.
        snippets: that were scored.
        frames: that those have.
        damaged: packets that were passed over.
        alerts: folders, one an alert.
        lags_s: of the last snippets, from when the last of their pictures was taken to the score.
    """

    stream: str
    connections: int = 0
    snippets: int = 0
    frames: int = 0
    damaged: int = 0
    alerts: list[Path] = field(default_factory=list)
    lags_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LAGS_KEPT))

    def __str__(self) -> str:
        lag = sorted(self.lags_s)[len(self.lags_s) // 2] if self.lags_s else 0.0
        return (
            f"{self.stream}: {self.snippets} snippets, {len(self.alerts)} alerts, "
            f"{self.connections} connections, {self.damaged} damaged packets passed over, "
            f"scores {lag:.1f} s after their snippet (median)"
        )


OnSnippet = Callable[[str, "LiveSnippet", float], None]
"""Is given a stream's name, a snippet, and its start in seconds of its connection, by its frame rate."""


@dataclass(frozen=True)
class Watcher:
    """Watches streams by one model.

    Attributes:
        scorer: gives the scores.
        model: the version it is, for records.
        high: an alert begins from this score.
        low: and is over below this one.
        out: the folder for alerts, one below it for each.
        notifiers: who is told.
        give_up_s: seconds without a picture after which a live stream is given up; None for never.
        on_snippet: is given every snippet.
    """

    scorer: LiveScorer
    model: str
    high: float
    low: float
    out: Path
    notifiers: Sequence[Notifier] = ()
    give_up_s: float | None = None
    on_snippet: OnSnippet | None = None

    @full_disks_named()
    def watch(self, stream: Stream, stop: threading.Event) -> Watched:
        """Watch a stream: a file to its end, a live one until it is stopped or given up.

        Raises:
            StreamLostError: if a live stream was given up, or a file breaks off.
            InputError: if the stream cannot be watched at all, or the disk takes no more.
        """
        watched = Watched(redacted(stream.name))
        pauses = _Pauses(self.give_up_s, stop)
        while not stop.is_set():
            before = watched.frames
            lost = self._watch_once(stream, watched, stop)
            if not stream.is_live and lost is not None:
                raise lost
            if not stream.is_live or stop.is_set():
                break
            if watched.frames > before:
                pauses.reset()
            pauses.wait(lost or StreamLostError(f"{stream.name}: ended"))
        return watched

    def report_failure(self, stream: Stream, why: BaseException) -> None:
        """Log why a stream is watched no more, with the traceback of a defect, and tell everybody."""
        reason = (str(why) or type(why).__name__).removeprefix(f"{stream.name}: ")
        at = datetime.now(UTC).isoformat(timespec="seconds")
        notice = Notice("stream failed", "", stream.name, reason, "", at)
        defect = None if isinstance(why, InputError) else why
        logger.error("%s: watched no more: %s", notice.subject, notice.reason, exc_info=defect)
        self._tell(notice)

    def _watch_once(
        self, stream: Stream, watched: Watched, stop: threading.Event
    ) -> StreamLostError | None:
        """Watch one connection; how it was lost, or None if it ended."""
        try:
            with stream.connect(stop) as connection:
                watched.connections += 1
                try:
                    self._watch_connection(connection, watched)
                finally:
                    watched.damaged += connection.damaged
        except StreamLostError as error:
            return error
        return None

    def _watch_connection(self, connection: Connection, watched: Watched) -> None:
        fps = connection.fps
        delay_s = seconds(self.scorer.delay_frames, fps)
        if watched.connections == 1:
            logger.info(
                "%s: %.3g frames a second; scores come %.1f s after a snippet of %.2f s has ended",
                watched.stream, fps, delay_s, seconds(SNIPPET_FRAMES, fps),
            )  # fmt: skip
        recent = _Recent(_BEFORE_S + delay_s + seconds(SNIPPET_FRAMES, fps), fps)
        hysteresis, scores = Hysteresis(self.high, self.low), deque[float](maxlen=_SCORES_SHOWN)
        for snippet in self.scorer.score(recent.through(connection.frames()), fps):
            watched.snippets += 1
            watched.frames += snippet.frames
            watched.lags_s.append(recent.age(snippet))
            scores.append(snippet.score)
            start_s = seconds(snippet.start_frame, fps)
            if self.on_snippet is not None:
                self.on_snippet(watched.stream, snippet, start_s)
            if hysteresis.begins(snippet.score):
                alert = self._alert(watched.stream, snippet, recent.came(snippet), start_s, scores)
                recent.write_clip(alert.folder / CLIP)
                files.write_json(alert.folder / ALERT, alert.to_json())
                watched.alerts.append(alert.folder)
                self._tell(alert.notice(), f"; the alert is kept in {alert.folder}")

    def _alert(
        self,
        name: str,
        snippet: LiveSnippet,
        at: datetime,
        start_s: float,
        scores: Iterable[float],
    ) -> Alert:
        moment = f"{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03}"
        folder = self.out / f"{_as_file_name(name)}-{moment}-{snippet.snippet}"
        folder.mkdir(parents=True, exist_ok=True)
        return Alert(
            stream=name,
            model=self.model,
            at=at.isoformat(timespec="milliseconds"),
            start_s=start_s,
            score=snippet.score,
            caption=snippet.caption,
            scores=tuple(scores),
            folder=folder,
        )

    def _tell(self, notice: Notice, kept: str = "") -> None:
        """Tell everybody; a notifier that fails does not stop the watch, nor the others."""
        for notifier in self.notifiers:
            try:
                pass_on(notifier, notice)
            except NotToldError as error:
                logger.warning("%s%s", error, kept)


class _Recent:
    """The last pictures of a connection, and when each of them was taken."""

    def __init__(self, span_s: float, fps: float) -> None:
        self._fps = fps
        self._wanted = max(SNIPPET_FRAMES, round(span_s * fps))
        self._frames: deque[Frame] = deque()
        self._taken: deque[tuple[int, float]] = deque(maxlen=self._wanted)

    def through(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same pictures, remembered for a while."""
        for count, frame in enumerate(frames, start=1):
            self._frames.append(frame)
            if len(self._frames) > min(self._wanted, _CLIP_BYTES // frame.nbytes):
                self._frames.popleft()
            self._taken.append((count, time.monotonic()))
            yield frame

    def came(self, snippet: LiveSnippet) -> datetime:
        """When the first picture of a snippet was taken."""
        return datetime.now(UTC) - timedelta(seconds=self._since(snippet.start_frame + 1))

    def age(self, snippet: LiveSnippet) -> float:
        """Seconds since the last picture of a snippet was taken."""
        return self._since(snippet.start_frame + snippet.frames)

    def _since(self, number: int) -> float:
        """Seconds since a picture was taken, counted from 1, or the oldest that is remembered after it."""
        moment = next(moment for count, moment in self._taken if count >= number)
        return time.monotonic() - moment

    def write_clip(self, path: Path) -> None:
        """Write the pictures as a video."""
        from tevad_model.video import encode

        encode(path, self._frames, self._fps, crf=23)


class _Pauses:
    """Pauses before a stream is connected to again: longer and longer, and in the end no more."""

    def __init__(self, give_up_s: float | None, stop: threading.Event) -> None:
        self._give_up_s = give_up_s
        self._stop = stop
        self.reset()

    def reset(self) -> None:
        """Pictures have come."""
        self._pause_s = _FIRST_PAUSE_S
        self._since = time.monotonic()

    def wait(self, lost: StreamLostError) -> None:
        """Wait for a while, or raise what was lost."""
        left = None
        if self._give_up_s is not None:
            left = self._give_up_s - (time.monotonic() - self._since)
            if left <= 0:
                raise lost
        pause = self._pause_s if left is None else min(self._pause_s, left)
        logger.warning("%s; connecting again in %.0f s", redacted(str(lost)), pause)
        self._stop.wait(pause)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _as_file_name(name: str) -> str:
    """What a stream's alerts are named after: a file's stem, or the address with dashes."""
    short = name.partition("://")[2] if "://" in name else Path(name).stem
    return re.sub(r"[^A-Za-z0-9.]+", "-", short).strip("-.") or "stream"
