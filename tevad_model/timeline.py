"""The only place that converts between frames, snippets, caption windows, segments and seconds.

All ranges are 0-based and half-open. A video of F frames has ``ceil(F / 16)`` snippets; the last
one is padded by repeating the last frame where an encoder needs 16 frames, and never counted past F
where scores go back to frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

SNIPPET_FRAMES = 16
"""Frames in a snippet (TEVAD section 3.1)."""

WINDOW_FRAMES = 64
"""Frames in a caption window: a snippet and the next three (TEVAD section 3.2)."""

WINDOW_SNIPPETS = WINDOW_FRAMES // SNIPPET_FRAMES
"""Snippets in a caption window."""

_ROUNDING = 1e-6
"""Frames. ``frame_at(seconds(frame))`` must be the frame, though fps is rarely a binary fraction."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def snippet_count(frames: int) -> int:
    """Number of snippets of a video of ``frames`` frames, ``ceil(frames / 16)``."""
    if frames < 1:
        raise ValueError(f"a video has at least one frame, got {frames}")
    return -(-frames // SNIPPET_FRAMES)


def snippet_range(snippet: int, frames: int) -> tuple[int, int]:
    """Frames ``[start, end)`` that the snippet really has; the padding of the last is left out."""
    if not 0 <= snippet < snippet_count(frames):
        raise IndexError(f"snippet {snippet} of a video of {snippet_count(frames)} snippets")
    start = snippet * SNIPPET_FRAMES
    return start, min(start + SNIPPET_FRAMES, frames)


def snippet_frames(snippet: int, frames: int) -> IntArray:
    """The 16 frame indices an encoder sees for a snippet, the last frame repeated as padding."""
    return _padded(snippet * SNIPPET_FRAMES, SNIPPET_FRAMES, frames)


def window_frames(snippet: int, frames: int) -> IntArray:
    """The 64 frame indices of a snippet's caption window, the last frame repeated as padding."""
    return _padded(snippet * SNIPPET_FRAMES, WINDOW_FRAMES, frames)


def _padded(start: int, length: int, frames: int) -> IntArray:
    if not 0 <= start < frames:
        raise IndexError(f"frame {start} of a video of {frames} frames")
    return np.minimum(np.arange(start, start + length, dtype=np.int64), frames - 1)


def frame_values(snippet_values: npt.ArrayLike, frames: int) -> npt.NDArray[np.float64]:
    """Give every frame its snippet's value: shape (snippets,) to (frames,).

    Raises:
        ValueError: if there is not one value for each of the video's snippets.
    """
    values = np.asarray(snippet_values, dtype=np.float64)
    if values.shape != (snippet_count(frames),):
        raise ValueError(
            f"{frames} frames have {snippet_count(frames)} snippets, got values of shape {values.shape}"
        )
    return np.repeat(values, SNIPPET_FRAMES)[:frames]


def frame_mask(ranges: Iterable[tuple[int, int]], frames: int) -> npt.NDArray[np.bool_]:
    """Frames that lie in any of the half-open ranges: shape (frames,)."""
    mask = np.zeros(frames, dtype=bool)
    for start, end in ranges:
        if not 0 <= start < end <= frames:
            raise ValueError(f"range [{start}, {end}) does not lie within {frames} frames")
        mask[start:end] = True
    return mask


def runs(mask: npt.ArrayLike) -> list[tuple[int, int]]:
    """The maximal runs of True as half-open ranges, in order."""
    edges = np.flatnonzero(
        np.diff(np.concatenate(([False], np.asarray(mask, dtype=bool), [False])))
    )
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def segment_bounds(snippets: int, segments: int) -> IntArray:
    """Snippet ranges of a bag's segments: shape (segments, 2), half-open, none empty.

    The snippets are cut at ``segments + 1`` evenly spaced points; a segment that would be empty
    (fewer snippets than segments) takes the one snippet at its start (RTFM section 4.1, as
    published).
    """
    if snippets < 1 or segments < 1:
        raise ValueError(f"cannot cut {snippets} snippets into {segments} segments")
    cuts = np.linspace(0, snippets, segments + 1, dtype=np.int64)
    start = np.minimum(cuts[:-1], snippets - 1)
    return np.stack([start, np.maximum(cuts[1:], start + 1)], axis=1)


def seconds(frame: int, fps: float) -> float:
    """Time at which a frame begins."""
    return frame / fps


def frame_at(second: float, fps: float) -> int:
    """The frame that is shown at a time; one that begins just then, whatever rounding says."""
    return math.floor(second * fps + _ROUNDING)


def snippet_texts(
    segments: Sequence[tuple[float, float, str]], frames: int, fps: float
) -> list[str]:
    """One text a snippet from texts with times: what is said of its caption window.

    The texts of every segment ``(start_s, end_s, text)`` that overlaps the snippet's 64-frame
    window are joined in order of start; a window that none overlaps takes the nearest segment's.
    """
    if not segments:
        raise ValueError("no segment to take a text from")
    ordered = sorted(segments)
    starts = np.array([start for start, _, _ in ordered])
    ends = np.array([end for _, end, _ in ordered])
    texts = []
    for snippet in range(snippet_count(frames)):
        window = window_frames(snippet, frames)
        begin, end = seconds(int(window[0]), fps), seconds(int(window[-1]) + 1, fps)
        inside = np.flatnonzero((starts < end) & (ends > begin))
        if inside.size == 0:
            gap = np.maximum(starts - end, begin - ends)
            inside = np.array([int(np.argmin(gap))])
        texts.append(" ".join(ordered[int(i)][2].strip() for i in inside))
    return texts
