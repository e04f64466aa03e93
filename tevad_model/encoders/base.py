"""The Protocols every encoder backend fulfils: frames or sentences in, one row a snippet out.

An encoder takes the frames of one video as a stream and yields what it makes of them as it goes, so
that memory stays flat however long the video is, a frame is decoded once for all encoders that run
together, and a live stream goes the same way as a file. One encoder serves several videos at once,
each in a thread of its own, so what is known of a video lives no longer than its call. Backends live
in files of their own beside this one; :mod:`tevad_model.encoders` is their registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tevad_model.fingerprint import Fingerprint
from tevad_model.timeline import SNIPPET_FRAMES

Frame = npt.NDArray[np.uint8]
"""One upright RGB picture, shape (height, width, 3)."""

Features = npt.NDArray[np.float32]


class VisualEncoder(Protocol):
    """Pixels to features."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What the output depends on."""
        ...

    @property
    def crops(self) -> int:
        """Crops of each snippet, 1 or more."""
        ...

    @property
    def dim(self) -> int:
        """Features of each crop."""
        ...

    def encode(self, frames: Iterable[Frame]) -> Iterator[Features]:
        """Yield batches of shape (snippets, crops, dim) that follow each other in the video.

        The last snippet is padded by repeating the last frame. All batches together have
        ``ceil(F / 16)`` rows.
        """
        ...


class CaptionEncoder(Protocol):
    """Pixels to sentences."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What the output depends on."""
        ...

    def caption(self, frames: Iterable[Frame], fps: float) -> Iterator[str]:
        """Yield one sentence a snippet, in order, of the 64-frame window that starts with it.

        The window is padded by repeating the video's last frame.
        """
        ...


class SentenceEncoder(Protocol):
    """Sentences to embeddings."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What the output depends on."""
        ...

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def embed(self, sentences: Sequence[str]) -> Features:
        """Embed sentences: shape (sentences, dim), one row each, in order."""
        ...


def snippets(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Cut a video's frames into snippets of 16, the last padded by repeating the last frame."""
    stream = iter(frames)
    while snippet := list(islice(stream, SNIPPET_FRAMES)):
        yield snippet + snippet[-1:] * (SNIPPET_FRAMES - len(snippet))
