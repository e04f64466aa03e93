"""Captioners of transformers, against direct calls of the library on each window's frames."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import WORDS, tiny_bert, tiny_blip, tiny_git, tiny_llava, tiny_videomae

from tevad_model import encoders, timeline
from tevad_model.encoders.base import Frame
from tevad_model.encoders.captioner import TransformersCaptioner, sampled_frames
from tevad_model.errors import InputError, VideoError

QUESTION = "two people fights in the street"
LONG = {"max_new_tokens": 6}
DIRECT = {**LONG, "min_new_tokens": 1}


def tiny_picture_git(folder: Path) -> Path:
    return tiny_git(folder, frames=None)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "git of six frames": tiny_git,
    "git of one": tiny_picture_git,
    "blip": tiny_blip,
    "llava": tiny_llava,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / name.replace(" ", "-")) for name, make in MAKERS.items()}


def frames(count: int) -> list[Frame]:
    """Noise that darkens and brightens, so that windows differ."""
    rng = np.random.default_rng(1)
    return [
        (rng.integers(0, 256, (40, 64, 3)) * abs(np.sin(index / 15))).astype(np.uint8)
        for index in range(count)
    ]


def build(folder: Path, **options: Any) -> TransformersCaptioner:
    given = {"model": str(folder), "generation": LONG, **options}
    captioner = encoders.build_caption("transformers", given, Path("unused"))
    assert isinstance(captioner, TransformersCaptioner)
    return captioner


def caption(captioner: TransformersCaptioner, of: list[Frame]) -> list[str]:
    return list(captioner.caption(iter(of), fps=25))


def windows(video: list[Frame], offsets: tuple[int, ...]) -> list[list[Frame]]:
    """The frames that are to be seen of every window, taken in the slow and plain way."""
    count = timeline.snippet_count(len(video))
    numbers = [timeline.window_frames(snippet, len(video)) for snippet in range(count)]
    return [[video[window[offset]] for offset in offsets] for window in numbers]


def said(processor: Any, tokens: torch.Tensor) -> str:
    return " ".join(processor.batch_decode(tokens, skip_special_tokens=True)[0].split())


def by_git(folder: Path, shown: list[Frame]) -> str:
    from transformers import AutoProcessor, GitForCausalLM

    processor = AutoProcessor.from_pretrained(folder)
    model = GitForCausalLM.from_pretrained(folder).eval()
    pixels = processor.image_processor(images=shown, return_tensors="pt")["pixel_values"]
    of_video = model.config.num_image_with_embedding is not None
    tokens = model.generate(pixel_values=pixels[None] if of_video else pixels, **DIRECT)
    return said(processor, tokens)


def by_blip(folder: Path, shown: list[Frame]) -> str:
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    tokens = model.generate(**processor(images=shown, return_tensors="pt"), **DIRECT)
    return said(processor, tokens)


def by_llava(folder: Path, shown: list[Frame]) -> str:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    processor = LlavaProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    inputs = processor(images=shown, text=f"<image> {QUESTION} .", return_tensors="pt")
    tokens = model.generate(**inputs, **DIRECT)
    return said(processor, tokens[:, inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize("count", [1, 17, 200])
@pytest.mark.parametrize(
    ("name", "direct", "options"),
    [
        ("git of six frames", by_git, {}),
        ("git of one", by_git, {}),
        ("blip", by_blip, {}),
        ("llava", by_llava, {"prompt": QUESTION}),
    ],
)
def test_captions_are_what_the_library_says_of_each_window(
    name: str,
    direct: Callable[[Path, list[Frame]], str],
    options: dict[str, str],
    count: int,
    models: dict[str, Path],
) -> None:
    video, captioner = frames(count), build(models[name], **options)
    expected = [direct(models[name], shown) for shown in windows(video, captioner.offsets)]
    assert caption(captioner, video) == expected
    if count == 200:
        assert len(set(expected)) > 1, "windows must differ for this to say anything"


@pytest.mark.parametrize("name", ["git of six frames", "blip"])
def test_the_batch_never_changes_a_caption(name: str, models: dict[str, Path]) -> None:
    video = frames(150)
    found = [caption(build(models[name], batch_size=size), video) for size in (1, 3, 8, 64)]
    assert all(each == found[0] for each in found)


def test_videos_follow_each_other_without_a_trace(models: dict[str, Path]) -> None:
    captioner, first, second = build(models["git of six frames"]), frames(70), frames(120)[40:]
    alone = caption(build(models["git of six frames"]), second)
    caption(captioner, first)
    assert caption(captioner, second) == alone


@pytest.mark.parametrize("name", ["git of six frames", "git of one", "blip"])
def test_videos_at_once_are_captioned_each_by_its_own_frames(
    name: str, models: dict[str, Path]
) -> None:
    """Three threads that keep step, so that the same numbers of frames are read at once."""
    videos = [frames(192)[start:] for start in (0, 40, 80)]
    alone = [caption(build(models[name]), video) for video in videos]
    assert alone[0][:5] != alone[1][:5] != alone[2][:5]
    captioner, together = build(models[name], batch_size=2), threading.Barrier(len(videos))

    def in_step(video: list[Frame]) -> Iterator[Frame]:
        for index, frame in enumerate(video):
            if index % 16 == 0 and index < 112:
                together.wait(60)
            yield frame

    with ThreadPoolExecutor(len(videos)) as pool:
        found = list(pool.map(lambda each: list(captioner.caption(in_step(each), fps=25)), videos))
    assert found == alone


def test_a_video_that_broke_off_leaves_no_trace(models: dict[str, Path]) -> None:
    captioner, first, second = build(models["git of six frames"]), frames(200), frames(200)[40:]
    alone = caption(build(models["git of six frames"]), second)

    def breaks() -> Iterator[Frame]:
        yield from first
        raise VideoError("the line is cut")

    with pytest.raises(VideoError, match="the line is cut"):
        list(captioner.caption(breaks(), fps=25))
    left = captioner.caption(iter(first), fps=25)
    next(left)
    assert caption(captioner, second) == alone


def test_each_frame_is_made_into_pixels_and_read_once(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner, video = build(models["git of six frames"], batch_size=1), frames(203)
    speaker = captioner._speaker
    made: list[Frame] = []
    read: list[int] = []
    pixels = speaker.pixels
    monkeypatch.setattr(speaker, "pixels", lambda frame: made.append(frame) or pixels(frame))
    speaker._vision.register_forward_hook(lambda *_: read.append(1))  # type: ignore[union-attr]
    captions = caption(captioner, video)
    numbers = [timeline.window_frames(snippet, 203) for snippet in range(len(captions))]
    shown = {int(window[offset]) for window in numbers for offset in captioner.offsets}
    assert len(read) == len(shown)
    assert len(made) <= 2 * len(captions) + 1, "two frames a snippet, and the last one"
    assert len(shown) < 3 * len(captions) < 6 * len(captions)


def test_a_prompt_begins_the_caption(models: dict[str, Path]) -> None:
    for name in ("git of six frames", "git of one", "blip"):
        captions = caption(build(models[name], prompt="a man"), frames(40))
        assert all(text.startswith("a man") for text in captions)


def test_captions_are_never_empty(models: dict[str, Path]) -> None:
    captions = caption(build(models["git of six frames"]), frames(120))
    assert all(word in WORDS for word in captions[0].replace(",", "").replace(".", "").split())
    assert all(captions)


@pytest.mark.parametrize("count", range(1, 65))
def test_frames_are_sampled_evenly_and_shared_by_windows(count: int) -> None:
    taken = sampled_frames(count)
    assert len(set(taken)) == count
    assert list(taken) == sorted(taken)
    assert 0 <= taken[0] < taken[-1] + 1 <= 64
    if count > 1:
        step = max(step for step in (1, 2, 4, 8, 16) if 64 // step >= count)
        assert {offset % step for offset in taken} == {step // 2}
        middles = (np.arange(count) + 0.5) * 64 / count
        assert np.abs(np.array(taken) - middles).max() <= step
    else:
        assert taken == (32,)


def test_the_fingerprint_is_of_what_changes_the_captions(
    models: dict[str, Path], tmp_path: Path
) -> None:
    def digest(folder: Path = models["git of six frames"], **options: Any) -> str:
        return build(folder, **options).fingerprint.digest

    same = digest()
    assert digest(batch_size=2) == digest(device="cpu") == digest(dtype="float32") == same
    others = {
        digest(generation={"max_new_tokens": 5}),
        digest(generation={**LONG, "num_beams": 2}),
        digest(prompt="a man"),
        digest(dtype="bfloat16"),
        digest(models["git of one"]),
    }
    assert len(others | {same}) == 6
    assert digest(tiny_git(tmp_path / "copy")) == same


def test_an_empty_video_is_an_error(models: dict[str, Path]) -> None:
    with pytest.raises(VideoError, match="no frame to caption"):
        caption(build(models["blip"]), [])


@pytest.mark.parametrize(("make", "kind"), [(tiny_bert, "bert"), (tiny_videomae, "videomae")])
def test_a_model_without_the_head_is_refused(
    make: Callable[[Path], Path], kind: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"captions\.options\.model: .* is a {kind} model, which"):
        build(make(tmp_path / "model"))


@pytest.mark.parametrize("gone", ["tokenizer*", "processor_config.json"])
def test_a_model_without_its_processor_is_refused(gone: str, tmp_path: Path) -> None:
    folder = tiny_git(tmp_path / "model")
    for path in folder.glob(gone):
        path.unlink()
    with pytest.raises(InputError, match=r"captions\.options\.model: .* lacks its processor"):
        build(folder)


@pytest.mark.parametrize(
    ("generation", "reason"),
    [
        ({"max_tokens": 3}, r"generation\.max_tokens: no generation parameter"),
        ({"do_sample": True}, r"generation\.do_sample: captions must come out the same"),
        ({"max_new_tokens": 0}, r"generation: .*max_new_tokens"),
    ],
)
def test_wrong_generation_parameters_are_named(
    generation: dict[str, object], reason: str, models: dict[str, Path]
) -> None:
    with pytest.raises(InputError, match=rf"captions\.options\.{reason}"):
        build(models["blip"], generation=generation)


def test_a_model_that_answers_must_be_asked(models: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"captions\.options\.prompt: llava answers instructions"):
        build(models["llava"])
