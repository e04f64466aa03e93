"""The embedded caption encoder: what moves, how many, how fast for its size, and which way.

It needs no weights and no network: foreground and optical flow are measured (:mod:`.measure`),
followed over time (:mod:`.tracks`) and put into words (:mod:`.words`). Here the stream of frames is
cut into windows; a frame is measured once, although windows overlap by three quarters.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tevad_model.encoders.base import Frame
from tevad_model.encoders.motion.measure import (
    Meter,
    working_picture,
)
from tevad_model.encoders.motion.tracks import Sample, Scene, Tracker, summarise
from tevad_model.encoders.motion.words import sentence
from tevad_model.errors import InputError
from tevad_model.fingerprint import Fingerprint
from tevad_model.timeline import SNIPPET_FRAMES, WINDOW_SNIPPETS

CODE_VERSION = 1
"""Raised with every change of the code that changes a caption."""

_LONGEST_STRIDE = SNIPPET_FRAMES // 4
"""Frames from one measured frame to the next, so that every snippet has four of them."""


class MotionOptions(BaseModel):
    """What the motion captioner can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    longest_side: int = Field(
        default=360, ge=64, le=1920, description="larger pictures are scaled down to this, pixels"
    )
    samples_a_second: float = Field(
        default=5.0, gt=0, le=120, description="frames measured in a second of video, at most"
    )
    contrast: int = Field(
        default=12,
        ge=2,
        le=128,
        description="grey levels by which an object differs from the scene",
    )
    smallest_object: float = Field(
        default=0.0006, gt=0, lt=1, description="share of the picture; less is noise"
    )
    changed_view: float = Field(
        default=0.5, gt=0, le=1, description="share of the picture; more at once is a camera move"
    )


class MotionCaptioner:
    """Captions from measured motion, by the Protocol ``CaptionEncoder``."""

    Options = MotionOptions

    def __init__(self, options: MotionOptions, _cache: Path | None = None) -> None:
        self.options = options

    @property
    def fingerprint(self) -> Fingerprint:
        """The backend, its code version and every option."""
        return Fingerprint({"backend": "motion", "code": CODE_VERSION, **self.options.model_dump()})

    def caption(self, frames: Iterable[Frame], fps: float) -> Iterator[str]:
        """Yield one sentence a snippet, each once its 64-frame window has been read.

        The end of a video adds nothing to its last windows; one that is shorter than a snippet
        reaches back to the length of a snippet.

        Args:
            frames: RGB pictures of one size, shape (height, width, 3).
            fps: frames a second.

        Raises:
            InputError: if ``fps`` is not a positive number.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"fps: {fps} is not a positive number; give the video's frame rate")
        stride = round(fps / self.options.samples_a_second)
        stride = min(max(stride, 1), _LONGEST_STRIDE)
        return self._captions(
            self._snippets(frames, stride), SNIPPET_FRAMES // stride, fps / stride
        )

    def _snippets(self, frames: Iterable[Frame], stride: int) -> Iterator[list[Frame]]:
        """Working pictures of every ``stride``-th frame, a list for each snippet."""
        numbered = enumerate(frames)
        while snippet := list(islice(numbered, SNIPPET_FRAMES)):
            yield [
                working_picture(frame, self.options.longest_side)
                for number, frame in snippet
                if number % stride == 0
            ]

    def _captions(
        self, snippets: Iterator[list[Frame]], whole: int, per_second: float
    ) -> Iterator[str]:
        first = list(islice(snippets, WINDOW_SNIPPETS))
        if not first:
            return
        watch = _Watch(
            [picture for snippet in first for picture in snippet], per_second, self.options
        )
        window = deque(watch.see(snippet) for snippet in first)
        before: list[Sample] = []
        while window:
            samples = [sample for snippet in window for sample in snippet]
            yield watch.tell(samples if len(samples) >= whole else before + samples)
            before = window.popleft()
            window.extend(watch.see(snippet) for snippet in islice(snippets, 1))


class _Watch:
    """What is known of one video while it is read."""

    def __init__(self, first: Sequence[Frame], per_second: float, options: MotionOptions) -> None:
        self._meter = Meter(
            first,
            per_second,
            contrast=options.contrast,
            smallest_object=options.smallest_object,
            changed_view=options.changed_view,
        )
        self._tracker = Tracker(1 / per_second)
        self._scene = Scene(first[0].shape[0])

    def see(self, snippet: Sequence[Frame]) -> list[Sample]:
        """Measure the pictures of the next snippet, then let the background follow."""
        samples = []
        fast = self._scene.fast()
        for picture in snippet:
            blobs = self._meter.measure(picture, fast)
            observations = self._tracker.follow(blobs or [])
            self._scene.learn(observations)
            samples.append(Sample(observations, view_changed=blobs is None))
        self._meter.learn(snippet[:1])
        return samples

    def tell(self, samples: Sequence[Sample]) -> str:
        """The caption of a window."""
        return sentence(summarise(samples, self._scene))
