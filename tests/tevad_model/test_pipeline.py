"""From a video file to scores: real encoders and a tiny trained model on rendered clips."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pipelines import MAX_SIDE, SENTENCE, Stored, World

from tevad_model import encoders, pipeline, scoring, video
from tevad_model.config import Modality
from tevad_model.encoders import motion
from tevad_model.encoders.base import Frame
from tevad_model.encoders.card import EncoderCard, pixel_fingerprint
from tevad_model.errors import InputError, MismatchError, VideoError
from tevad_model.pipeline import Pipeline
from tevad_model.timeline import snippet_count


@pytest.fixture(scope="module")
def both(world: World) -> Pipeline:
    return Pipeline.load(world.pipeline("both", ("visual", "caption", "sentence")), world.cache)


@pytest.fixture
def clip(world: World) -> Stored:
    return world.clips["test_001"]


def test_scores_are_those_of_the_stored_features_to_the_last_bit(
    world: World, both: Pipeline
) -> None:
    for stored in world.clips.values():
        scored = both.score_video(stored.path)
        expected = scoring.score(both.model, stored.features, stored.embeddings)
        np.testing.assert_array_equal(scored.scores, expected.scores)
        np.testing.assert_array_equal(scored.magnitudes, expected.magnitudes)
        assert list(scored.captions) == stored.captions


def test_an_encoder_is_built_in_the_precision_that_its_device_had_in_training(
    world: World, tmp_path: Path
) -> None:
    """As of a model that was trained on a GPU, where the precision by default is another."""
    backend, options = SENTENCE
    half = encoders.build_sentence(backend, {**options, "dtype": "float16"}, world.cache)
    cards = {**world.cards, "sentence": EncoderCard(backend, options, half.fingerprint)}
    there = replace(world, folder=tmp_path, cards=cards)
    loaded = Pipeline.load(there.pipeline("text", ("caption", "sentence")), world.cache)
    assert loaded.sentence is not None
    assert loaded.sentence.fingerprint == half.fingerprint != world.cards["sentence"].fingerprint
    caption = ["Nothing moves."]
    np.testing.assert_array_equal(loaded.sentence.embed(caption), half.embed(caption))


def test_rows_and_frame_scores_cover_the_video(both: Pipeline, clip: Stored) -> None:
    info = video.probe(clip.path)
    scored = both.score_video(clip.path)
    assert (scored.video, scored.frames, scored.fps) == (str(clip.path), info.frames, info.fps)
    rows = list(scored.snippets())
    assert len(rows) == snippet_count(info.frames)
    assert [row["start_frame"] for row in rows[1:]] == [row["end_frame"] for row in rows[:-1]]
    assert (rows[0]["start_frame"], rows[-1]["end_frame"]) == (0, info.frames)
    assert scored.frame_scores.shape == (info.frames,)
    assert scored.frame_scores[-1] == rows[-1]["score"]


@pytest.mark.parametrize("frames", [1, 2, 17])
def test_short_videos_are_scored(both: Pipeline, tmp_path: Path, frames: int) -> None:
    path = tmp_path / "short clip – ä.mp4"
    video.encode(path, np.zeros((frames, 48, 64, 3), dtype=np.uint8), fps=10)
    assert len(both.score_video(path).scores) == snippet_count(frames)


@pytest.mark.parametrize(
    ("modality", "kinds"),
    [
        ("text", ("caption", "sentence")),
        ("visual", ("visual",)),
        ("visual", ("visual", "caption")),
    ],
)
def test_a_modality_alone(
    world: World, clip: Stored, modality: Modality, kinds: tuple[str, ...]
) -> None:
    loaded = Pipeline.load(world.pipeline(modality, kinds), world.cache)
    scored = loaded.score_video(clip.path)
    expected = scoring.score(loaded.model, clip.features, clip.embeddings)
    np.testing.assert_array_equal(scored.scores, expected.scores)
    captions = clip.captions if "caption" in kinds else [""] * len(clip.captions)
    assert list(scored.captions) == captions


def test_pictures_are_decoded_once(
    both: Pipeline, clip: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    frames = video.frames

    def counted(path: Path, *, max_side: int | None = None) -> Iterator[Frame]:
        passes.append(max_side)
        return frames(path, max_side=max_side)

    monkeypatch.setattr(video, "frames", counted)
    both.score_video(clip.path)
    assert passes == [MAX_SIDE]


def test_a_bad_video_is_named_with_the_reason(both: Pipeline, clip: Stored, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.path.read_bytes()[: clip.path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"cut\.mp4: cut short or damaged"):
        both.score_video(cut)
    with pytest.raises(VideoError, match=r"none\.mp4: there is no such file"):
        both.score_video(tmp_path / "none.mp4")


class Broken:
    """A captioner that fails after some frames, and waits for the others before it does."""

    def __init__(self, after: int) -> None:
        self._after = after
        self.fingerprint = motion.MotionCaptioner(motion.MotionOptions()).fingerprint

    def caption(self, frames: Iterable[Frame], fps: float) -> Iterator[str]:
        for index, _ in enumerate(frames):
            if index == self._after:
                raise VideoError("the captioner gave up")
        yield from ()


@pytest.mark.parametrize("after", [0, 40])
def test_an_encoders_error_ends_the_others_and_their_threads(
    both: Pipeline, clip: Stored, after: int
) -> None:
    before = set(threading.enumerate())
    with pytest.raises(VideoError, match="the captioner gave up"):
        replace(both, captioner=Broken(after)).score_video(clip.path)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


def test_a_captioner_that_leaves_snippets_out_is_refused(both: Pipeline, clip: Stored) -> None:
    silent = replace(both, captioner=Broken(10_000))
    with pytest.raises(VideoError, match=r"test_001\.mp4: captions of 0 snippets"):
        silent.score_video(clip.path)


def test_changed_encoders_are_refused_with_every_difference(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.pipeline("both", ("visual", "caption", "sentence"))
    monkeypatch.setattr(motion, "CODE_VERSION", motion.CODE_VERSION + 1)
    changed = copy_with(folder, world.folder / "changed", lambda data: data.update(max_side=99))
    with pytest.raises(MismatchError) as caught:
        Pipeline.load(changed, world.cache)
    assert [line.split(": ")[0] for line in caught.value.differences] == [
        "caption encoder, code",
        "caption encoder, max_side",
        "visual encoder, max_side",
    ]


def copy_with(source: Path, folder: Path, change: object) -> Path:
    shutil.copytree(source, folder)
    card = folder / pipeline.PIPELINE_FILE
    data = json.loads(card.read_text())
    assert callable(change)
    change(data)
    card.write_text(json.dumps(data))
    return folder


def test_cards_of_another_model_are_refused(world: World, tmp_path: Path) -> None:
    other = replace(
        world.cards["visual"], fingerprint=pixel_fingerprint(world.cards["visual"].fingerprint, 99)
    )
    with pytest.raises(MismatchError, match="visual encoder, max_side: 160 != 99"):
        pipeline.write(tmp_path, world.model("visual"), {"visual": other}, MAX_SIDE)
    with pytest.raises(MismatchError, match="sentence encoder: modality 'both' reads it"):
        pipeline.write(
            tmp_path, world.model("both"), {k: world.cards[k] for k in ("visual", "caption")}, 160
        )
    assert not (tmp_path / pipeline.PIPELINE_FILE).exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        ("{", "not JSON"),
        ('{"format": 99}', "format 99 is unknown"),
        ("[]", "format None is unknown"),
    ],
)
def test_a_broken_folder_is_refused(
    world: World, tmp_path: Path, content: str | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / pipeline.PIPELINE_FILE).write_text(content)
    with pytest.raises(InputError, match=rf"pipeline\.json: {reason}"):
        Pipeline.load(tmp_path, world.cache)
