"""Frames, snippets, windows, segments and seconds agree with each other for any length."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tevad_model.timeline import (
    SNIPPET_FRAMES,
    WINDOW_FRAMES,
    WINDOW_SNIPPETS,
    frame_at,
    frame_mask,
    frame_values,
    runs,
    seconds,
    segment_bounds,
    snippet_count,
    snippet_frames,
    snippet_range,
    snippet_texts,
    window_frames,
)

lengths = st.integers(1, 2_000)
rates = st.sampled_from([8.0, 10.0, 12.5, 24.0, 25.0, 30.0, 30000 / 1001, 24000 / 1001, 7.3])


@given(lengths)
def test_snippets_cover_every_frame_once(frames: int) -> None:
    ranges = [snippet_range(snippet, frames) for snippet in range(snippet_count(frames))]
    covered = [frame for start, end in ranges for frame in range(start, end)]
    assert covered == list(range(frames))
    assert all(end - start == SNIPPET_FRAMES for start, end in ranges[:-1])


@given(lengths)
def test_encoders_see_whole_snippets_padded_by_the_last_frame(frames: int) -> None:
    for snippet in range(snippet_count(frames)):
        start, end = snippet_range(snippet, frames)
        seen = snippet_frames(snippet, frames)
        assert seen.tolist() == [*range(start, end), *[frames - 1] * (16 - (end - start))]


@given(lengths)
def test_a_window_is_its_snippet_and_the_next_three(frames: int) -> None:
    count = snippet_count(frames)
    for snippet in range(count):
        window = window_frames(snippet, frames)
        assert len(window) == WINDOW_FRAMES
        following = range(snippet, min(snippet + WINDOW_SNIPPETS, count))
        inside = np.concatenate([snippet_frames(other, frames) for other in following])
        assert window[: len(inside)].tolist() == inside.tolist()
        assert (window[len(inside) :] == frames - 1).all()


@pytest.mark.parametrize("frames", [0, -1])
def test_a_video_has_a_frame(frames: int) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        snippet_count(frames)


@pytest.mark.parametrize("snippet", [-1, 3])
def test_snippets_outside_the_video_are_refused(snippet: int) -> None:
    for function in (snippet_range, snippet_frames, window_frames):
        with pytest.raises(IndexError):
            function(snippet, 48)


@given(lengths)
def test_a_frame_has_its_snippets_value(frames: int) -> None:
    values = np.arange(snippet_count(frames)) + 0.5
    of_frames = frame_values(values, frames)
    assert of_frames.shape == (frames,)
    assert of_frames.tolist() == [frame // SNIPPET_FRAMES + 0.5 for frame in range(frames)]


def test_a_value_too_many_or_too_few_is_refused() -> None:
    for values in ([0.1, 0.2, 0.3], [0.1], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match="17 frames have 2 snippets"):
            frame_values(values, 17)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_runs_and_mask_undo_each_other(mask: list[bool]) -> None:
    found = runs(mask)
    assert frame_mask(found, len(mask)).tolist() == mask
    # Maximal: two runs never touch.
    assert all(end < start for (_, end), (start, _) in pairwise(found))


@pytest.mark.parametrize("wrong", [(-1, 2), (3, 3), (4, 2), (0, 11)])
def test_ranges_outside_the_video_are_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="does not lie within 10 frames"):
        frame_mask([wrong], 10)


@given(st.integers(1, 500), st.integers(1, 64))
def test_segments_are_in_order_and_none_is_empty(snippets: int, segments: int) -> None:
    bounds = segment_bounds(snippets, segments)
    assert bounds.shape == (segments, 2)
    start, end = bounds.T
    assert (start < end).all()
    assert start.min() == 0
    assert end.max() == snippets
    assert (np.diff(start) >= 0).all()


@given(st.integers(1, 500), st.integers(1, 64))
def test_with_enough_snippets_segments_share_none_and_leave_none(
    snippets: int, segments: int
) -> None:
    if snippets < segments:
        snippets += segments
    start, end = segment_bounds(snippets, segments).T
    assert start.tolist() == [0, *end[:-1].tolist()]


def test_segments_or_snippets_of_none_are_refused() -> None:
    for snippets, segments in ((0, 32), (5, 0)):
        with pytest.raises(ValueError, match="cannot cut"):
            segment_bounds(snippets, segments)


@given(st.integers(0, 200_000), rates)
def test_a_frame_is_shown_when_it_begins(frame: int, fps: float) -> None:
    assert frame_at(seconds(frame, fps), fps) == frame


@given(st.integers(0, 200_000), rates, st.floats(0.01, 0.99))
def test_a_frame_is_shown_until_the_next_begins(frame: int, fps: float, share: float) -> None:
    assert frame_at(seconds(frame, fps) + share / fps, fps) == frame


def test_a_snippets_text_is_what_is_said_of_its_window() -> None:
    texts = [(0.0, 1.0, "a man walks"), (6.0, 9.0, " he runs "), (20.0, 30.0, "empty street")]
    said = snippet_texts(texts, frames=160, fps=10)  # windows of 6.4 s, every 1.6 s
    assert len(said) == snippet_count(160)
    assert said[0] == "a man walks he runs"
    assert said[1] == "he runs"
    assert said[6] == "he runs"  # from 9.6 s: the nearest is the one that ended at 9 s
    assert said[9] == "empty street"  # from 14.4 s to the end at 16 s: the next is nearer


def test_a_window_ends_with_the_video() -> None:
    """The padding repeats the last frame; what is said after it is not said of the window."""
    assert snippet_texts([(0, 1, "before"), (1.7, 5, "after")], frames=16, fps=10) == ["before"]


def test_no_text_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no segment"):
        snippet_texts([], 16, 10)
