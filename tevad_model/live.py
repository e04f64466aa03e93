"""Scores of a stream while it runs: causal, with bounded memory and a delay that is known.

The same encoders and network as offline (:mod:`tevad_model.pipeline`). What differs: the network
sees the last ``history`` snippets instead of the whole video, and no more of the future than
``lookahead`` snippets.

Belongs here: from pictures to snippet scores. Doesn't: where pictures come from
(:mod:`tevad_model.stream`), and what a score leads to (:mod:`tevad_model.alerts`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, repeat, tee
from typing import Any

import numpy as np

from tevad_model.bags import FloatFeatures
from tevad_model.devices import cores
from tevad_model.encoders.base import Features, Frame
from tevad_model.errors import InputError
from tevad_model.pipeline import Pipeline
from tevad_model.scoring import score
from tevad_model.timeline import SNIPPET_FRAMES, WINDOW_FRAMES

HISTORY = 32
"""Snippets of the past that the network sees: 20 seconds at 25 frames a second, and as many as the
segments it is trained on in the paper."""

LOOKAHEAD = 1
"""Snippets of the future that a score waits for."""

_CAPTIONS_KNOWN = 4096
"""Captions whose embeddings are kept: a motion captioner says the same again and again."""


@dataclass(frozen=True)
class LiveSnippet:
    """What is said of a snippet of a stream.

    Attributes:
        snippet: its number, from 0.
        start_frame: its first frame.
        frames: how many it really has; fewer than 16 at the end of a stream.
        score: in [0, 1].
        magnitude: of its fused feature.
        caption: of the 64 frames that begin with it; empty if the model knows no captions.
    """

    snippet: int
    start_frame: int
    frames: int
    score: float
    magnitude: float
    caption: str


@dataclass(frozen=True)
class _Encoded:
    """A snippet as the network takes it."""

    caption: str
    visual: FloatFeatures | None
    text: Features | None


class LiveScorer:
    """Scores streams, any number at once, each in the thread that iterates over :meth:`score`.

    Args:
        pipeline: loaded with ``at_once=True``, or scores come a batch later.
        history: snippets of the past that the network sees.
        lookahead: snippets of the future that it sees.

    Raises:
        InputError: if the pipeline takes parts that were made elsewhere, or reads no pixels.
    """

    def __init__(
        self, pipeline: Pipeline, *, history: int = HISTORY, lookahead: int = LOOKAHEAD
    ) -> None:
        if pipeline.takes or not pipeline.reads_pixels:
            raise InputError(
                f"the model was trained on ready-made {' and '.join(pipeline.takes)}, which a "
                "stream does not bring; train one on what the encoders here make"
            )
        if history < 1 or lookahead < 0:
            raise InputError(f"history {history}, lookahead {lookahead}: at least 1 and 0")
        self._pipeline = pipeline
        self._history = history
        self._lookahead = lookahead
        # No more streams than cores encode at a time. Others would not be sooner done: they would
        # take Python's lock from each other at each picture, at half of what encoding costs.
        self._turns = threading.Semaphore(cores())
        self._embed = lru_cache(_CAPTIONS_KNOWN)(self._embed_one)

    @property
    def delay_frames(self) -> int:
        """Frames from the end of a snippet until its score can be computed.

        The caption window reaches three snippets on; without captions the visual encoder, which
        works one snippet behind its pictures, sets it.
        """
        captions = WINDOW_FRAMES - SNIPPET_FRAMES if self._pipeline.captioner else 0
        return max(captions, SNIPPET_FRAMES) + self._lookahead * SNIPPET_FRAMES

    def score(self, frames: Iterable[Frame], fps: float) -> Iterator[LiveSnippet]:
        """Yield a stream's snippets, in order, each as soon as it can be scored.

        Args:
            frames: RGB pictures of one size, shape (height, width, 3), uint8, each taken when an
                encoder wants it. Memory does not grow with their number. Where there are none, as
                in a stream that ends before its first, there is no snippet.
            fps: frames a second.

        Raises:
            VideoError: if a picture cannot be encoded. What ``frames`` raises is raised here, after
                the snippets before it.
        """
        pictures = iter(frames)
        first = next(pictures, None)
        if first is None:
            return
        snippets = self._snippets(chain([first], pictures), fps)
        while True:
            with self._turns:
                snippet = next(snippets, None)
            if snippet is None:
                return
            yield snippet

    def _snippets(self, pictures: Iterator[Frame], fps: float) -> Iterator[LiveSnippet]:
        """A stream's snippets; each is asked for by who has a turn."""
        seen = _Counter()
        window: deque[_Encoded] = deque(maxlen=self._history + self._lookahead)
        number = -1
        for number, encoded in enumerate(self._encoded(self._read(seen.through(pictures)), fps)):
            window.append(encoded)
            if number >= self._lookahead:
                yield self._scored(window, number - self._lookahead, number, seen.count)
        for snippet in range(max(0, number - self._lookahead + 1), number + 1):
            yield self._scored(window, snippet, number, seen.count)

    def _read(self, pictures: Iterator[Frame]) -> Iterator[Frame]:
        """The same pictures, a snippet of them at a time, for which one waits without a turn."""
        while True:
            self._turns.release()
            try:
                read = list(islice(pictures, SNIPPET_FRAMES))
            finally:
                self._turns.acquire()
            if not read:
                return
            yield from read

    def _scored(
        self, window: deque[_Encoded], snippet: int, newest: int, frames: int
    ) -> LiveSnippet:
        """A snippet's scores by what is in the window, whose last snippet is the newest."""
        place = len(window) - 1 - (newest - snippet)
        encoded = window[place]
        visual = _stacked([each.visual for each in window])
        text = _stacked([each.text for each in window])
        scored = score(self._pipeline.model, visual, text, video=f"snippet {snippet}")
        start = snippet * SNIPPET_FRAMES
        return LiveSnippet(
            snippet=snippet,
            start_frame=start,
            frames=min(SNIPPET_FRAMES, frames - start),
            score=float(scored.scores[place]),
            magnitude=float(scored.magnitudes[place]),
            caption=encoded.caption,
        )

    def _encoded(self, frames: Iterable[Frame], fps: float) -> Iterator[_Encoded]:
        """Encode snippet by snippet, one encoder after the other.

        What one encoder has read and the other has not is kept meanwhile: a few snippets.
        """
        visual, captioner = self._pipeline.visual, self._pipeline.captioner
        readers = list(tee(frames, sum(each is not None for each in (visual, captioner))))
        captions = repeat("") if captioner is None else captioner.caption(readers.pop(), fps)
        batches = repeat([None]) if visual is None else visual.encode(readers.pop())
        for row, caption in zip(chain.from_iterable(batches), captions, strict=False):
            kept = None if row is None else row.astype(np.float16)  # as the stage keeps them
            yield _Encoded(caption, kept, self._text(caption))

    def _text(self, caption: str) -> Features | None:
        return None if self._pipeline.sentence is None else self._embed(caption)

    def _embed_one(self, caption: str) -> Features:
        assert self._pipeline.sentence is not None  # noqa: S101 - asked before
        embedded: Features = self._pipeline.sentence.embed([caption])[0]
        return embedded


class _Counter:
    """Counts the pictures that pass."""

    def __init__(self) -> None:
        self.count = 0

    def through(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same pictures."""
        for frame in frames:
            self.count += 1
            yield frame


def _stacked(rows: list[Any]) -> Any:
    return None if rows[0] is None else np.stack(rows)
