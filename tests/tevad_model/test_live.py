"""Live scores: those of a file where the past and the future are known, causal, and bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from pipelines import World

from tevad_model import video
from tevad_model.encoders.base import Frame
from tevad_model.errors import InputError, VideoError
from tevad_model.live import LiveScorer
from tevad_model.pipeline import Pipeline

ALL = ("visual", "caption", "sentence")
FPS = 10.0


@pytest.fixture(scope="module")
def pipeline(world: World) -> Pipeline:
    return Pipeline.load(world.pipeline("both", ALL), world.cache, at_once=True)


@pytest.fixture(scope="module")
def frames(world: World, pipeline: Pipeline) -> list[Frame]:
    """All clips, one after the other: twelve snippets or more."""
    paths = [stored.path for stored in world.clips.values()]
    return [f for path in paths for f in video.frames(path, max_side=pipeline.max_side)]


def test_with_all_of_past_and_future_the_scores_are_the_files(
    world: World, pipeline: Pipeline
) -> None:
    path = world.clips["test_001"].path
    offline = pipeline.score_video(path)
    scorer = LiveScorer(pipeline, history=100, lookahead=100)
    live = list(scorer.score(video.frames(path, max_side=pipeline.max_side), offline.fps))
    assert [each.caption for each in live] == list(offline.captions)
    assert [each.score for each in live] == pytest.approx(offline.scores.tolist(), abs=2e-6)
    assert [each.start_frame for each in live] == [16 * n for n in range(len(live))]
    assert sum(each.frames for each in live) == offline.frames


def test_a_stream_that_ends_before_its_first_picture_has_no_snippet(pipeline: Pipeline) -> None:
    assert list(LiveScorer(pipeline).score([], FPS)) == []


def test_a_score_does_not_depend_on_what_comes_after_its_delay(
    pipeline: Pipeline, frames: list[Frame]
) -> None:
    scorer = LiveScorer(pipeline, lookahead=1)
    whole = list(scorer.score(iter(frames), FPS))
    known_of = 3
    stop = 16 * (known_of + 1) + scorer.delay_frames
    other = frames[:stop] + [255 - frame for frame in frames[stop:]]
    changed = list(scorer.score(iter(other), FPS))
    assert changed[: known_of + 1] == whole[: known_of + 1]
    assert changed[known_of + 1 :] != whole[known_of + 1 :]


@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_a_score_comes_with_the_delay_that_is_stated(
    pipeline: Pipeline, frames: list[Frame], lookahead: int
) -> None:
    """The source gives no picture more until the score that is due has come."""
    scorer = LiveScorer(pipeline, lookahead=lookahead)
    came, due = threading.Semaphore(0), [0]

    def source() -> Iterator[Frame]:
        for count, frame in enumerate(frames):
            beyond = count - scorer.delay_frames
            if beyond >= 16 and beyond % 16 == 0:
                assert came.acquire(timeout=120), f"no score after {count} frames"
                due[0] += 1
            yield frame

    for _ in scorer.score(source(), FPS):
        came.release()
    assert due[0] >= 3


def test_the_network_sees_no_more_of_the_past_than_its_history(
    world: World, frames: list[Frame]
) -> None:
    """A model of pixels, whose encoder knows no past: what lies further back changes nothing."""
    pipeline = Pipeline.load(world.pipeline("visual", ("visual",)), world.cache, at_once=True)
    other = [255 - frame for frame in frames[:48]] + frames[48:]
    for history, same in ((2, True), (9, False)):
        scorer = LiveScorer(pipeline, history=history, lookahead=0)
        one, two = (list(scorer.score(iter(each), FPS)) for each in (frames, other))
        assert (one[5:8] == two[5:8]) == same


def test_many_streams_at_once_give_what_one_gives(pipeline: Pipeline, frames: list[Frame]) -> None:
    scorer = LiveScorer(pipeline)
    alone = list(scorer.score(iter(frames), FPS))
    found: dict[int, object] = {}

    def watch(number: int) -> None:
        found[number] = list(scorer.score(iter(frames), FPS))

    threads = [threading.Thread(target=watch, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), alone)


def test_what_the_source_raises_comes_after_the_snippets_before_it(
    pipeline: Pipeline, frames: list[Frame]
) -> None:
    def breaks() -> Iterator[Frame]:
        yield from frames[:130]
        raise VideoError("the line is cut")

    came = []
    with pytest.raises(VideoError, match="the line is cut"):
        came.extend(LiveScorer(pipeline).score(breaks(), FPS))


def test_a_stream_that_is_left_early_closes_its_source(
    pipeline: Pipeline, frames: list[Frame]
) -> None:
    closed = threading.Event()

    def endless() -> Iterator[Frame]:
        try:
            while True:
                yield from frames
        finally:
            closed.set()

    scores = LiveScorer(pipeline).score(endless(), FPS)
    next(scores)
    scores.close()  # type: ignore[attr-defined]
    assert closed.wait(60)


def test_a_model_of_captions_alone_is_watched_too(world: World, frames: list[Frame]) -> None:
    folder = world.pipeline("text", ("caption", "sentence"))
    scorer = LiveScorer(Pipeline.load(folder, world.cache, at_once=True))
    assert len(list(scorer.score(iter(frames[:100]), FPS))) == 7


def test_a_model_of_pixels_alone_needs_no_caption(world: World, frames: list[Frame]) -> None:
    pipeline = Pipeline.load(world.pipeline("visual", ("visual",)), world.cache, at_once=True)
    live = list(LiveScorer(pipeline).score(iter(frames[:100]), FPS))
    assert [each.caption for each in live] == [""] * 7


def test_impossible_windows_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(InputError, match="history 0"):
        LiveScorer(pipeline, history=0)


def test_encoders_that_give_results_at_once_are_those_of_the_model(
    world: World, pipeline: Pipeline
) -> None:
    batched = Pipeline.load(world.pipeline("both", ALL), world.cache)
    assert pipeline.visual is not None
    assert batched.visual is not None
    assert pipeline.visual.fingerprint == batched.visual.fingerprint
    path = world.clips["test_001"].path
    rows = pipeline.visual.encode(video.frames(path, max_side=pipeline.max_side))
    assert {len(batch) for batch in rows} == {1}
