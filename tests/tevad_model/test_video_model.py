"""Video models of transformers as visual encoders, against direct calls of the library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SIDE, WIDTH, tiny_bert, tiny_timesformer, tiny_videomae, tiny_vjepa2

from tevad_model import encoders
from tevad_model.encoders.base import Features, Frame, VisualEncoder
from tevad_model.encoders.pixels import PixelFormat
from tevad_model.errors import InputError, VideoError

MAKERS: dict[str, Callable[[Path], Path]] = {
    "videomae": tiny_videomae,
    "timesformer": tiny_timesformer,
    "vjepa2": tiny_vjepa2,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def frames(count: int, height: int = 40, width: int = 64) -> list[Frame]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def build(folder: Path, cache: Path, **options: object) -> VisualEncoder:
    return encoders.build_visual("transformers", {"model": str(folder), **options}, cache)


def encode(encoder: VisualEncoder, of: list[Frame]) -> Features:
    return np.concatenate(list(encoder.encode(iter(of))))


def said_by_videomae(folder: Path, snippet: list[Frame]) -> torch.Tensor:
    """The classifier's input, taken by a hook while the library classifies."""
    from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessorPil

    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
    inputs = VideoMAEImageProcessorPil.from_pretrained(folder)(snippet, return_tensors="pt")
    return before_the_classifier(model, **inputs)


def before_the_classifier(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        model(**inputs)
    return seen[0][0]


def test_videomae_gives_what_its_classifier_reads(models: dict[str, Path], cache: Path) -> None:
    video = frames(33)
    features = encode(build(models["videomae"], cache), video)
    assert features.shape == (3, 1, WIDTH)
    for snippet, start in enumerate((0, 16)):
        expected = said_by_videomae(models["videomae"], video[start : start + 16])
        np.testing.assert_allclose(features[snippet, 0], expected, atol=1e-5)
    padded = said_by_videomae(models["videomae"], [video[32]] * 16)
    np.testing.assert_allclose(features[2, 0], padded, atol=1e-5)


def test_timesformer_sees_eight_of_sixteen_frames(models: dict[str, Path], cache: Path) -> None:
    from transformers import TimesformerForVideoClassification, VideoMAEImageProcessorPil

    video = frames(16)
    model = TimesformerForVideoClassification.from_pretrained(models["timesformer"]).eval()
    taken = [video[index] for index in range(1, 16, 2)]
    inputs = VideoMAEImageProcessorPil.from_pretrained(models["timesformer"])(
        taken, return_tensors="pt"
    )
    expected = before_the_classifier(model, **inputs)
    features = encode(build(models["timesformer"], cache), video)
    np.testing.assert_allclose(features[0, 0], expected, atol=1e-5)


def test_v_jepa_2_sees_each_of_sixteen_frames_four_times(
    models: dict[str, Path], cache: Path
) -> None:
    from transformers import VJEPA2ForVideoClassification

    video = frames(16)
    pixels = PixelFormat.of(models["vjepa2"], "key")
    clip = np.repeat([pixels.crops(frame, 1)[0] for frame in video], 4, axis=0)
    model = VJEPA2ForVideoClassification.from_pretrained(models["vjepa2"]).eval()
    expected = before_the_classifier(model, pixel_values_videos=torch.from_numpy(clip)[None])
    features = encode(build(models["vjepa2"], cache), video)
    np.testing.assert_allclose(features[0, 0], expected, atol=1e-5)


def test_a_checkpoint_without_a_classifier_gives_the_mean_of_its_last_layer(
    tmp_path: Path, cache: Path
) -> None:
    from transformers import VideoMAEImageProcessorPil, VideoMAEModel, VJEPA2Model

    video = frames(16)
    folder = tiny_videomae(tmp_path / "videomae", classifier=False)
    inputs = VideoMAEImageProcessorPil.from_pretrained(folder)(video, return_tensors="pt")
    with torch.inference_mode():
        hidden = VideoMAEModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
    features = encode(build(folder, cache), video)
    np.testing.assert_allclose(features[0, 0], hidden[0].mean(0), atol=1e-5)

    folder = tiny_vjepa2(tmp_path / "vjepa2", classifier=False)
    pixels = PixelFormat.of(folder, "key")
    clip = np.repeat([pixels.crops(frame, 1)[0] for frame in video], 4, axis=0)
    with torch.inference_mode():
        model = VJEPA2Model.from_pretrained(folder).eval()
        hidden = model(torch.from_numpy(clip)[None], skip_predictor=True).last_hidden_state
    features = encode(build(folder, cache), video)
    np.testing.assert_allclose(features[0, 0], hidden[0].mean(0), atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_batch_size_never_changes_a_bit(name: str, models: dict[str, Path], cache: Path) -> None:
    video = frames(70)
    whole = encode(build(models[name], cache, crops=5, batch_size=8), video)
    assert whole.shape == (5, 5, build(models[name], cache).dim)
    alone = encode(build(models[name], cache, crops=5, batch_size=8), video[32:48])
    np.testing.assert_array_equal(whole[2:3], alone)
    smaller = encode(build(models[name], cache, crops=5, batch_size=3), video)
    np.testing.assert_allclose(whole, smaller, atol=1e-5)


def test_crops_are_the_corners_the_centre_and_their_mirror_images(
    models: dict[str, Path], cache: Path
) -> None:
    video = frames(16, height=SIDE, width=2 * SIDE)
    ten = encode(build(models["videomae"], cache, crops=10), video)[0]
    five = encode(build(models["videomae"], cache, crops=5), video)[0]
    one = encode(build(models["videomae"], cache, crops=1), video)[0]
    np.testing.assert_array_equal(ten[:5], five)
    np.testing.assert_array_equal(five[4], one[0])
    left = encode(build(models["videomae"], cache), [frame[:, :SIDE] for frame in video])[0]
    np.testing.assert_allclose(five[0], left[0], atol=1e-6)
    mirrored = encode(build(models["videomae"], cache), [frame[:, ::-1] for frame in video])[0]
    np.testing.assert_allclose(ten[9], mirrored[0], atol=1e-6)


@pytest.mark.parametrize("name", ["videomae", "timesformer"])
def test_the_onnx_runtime_gives_the_same_features(
    name: str, models: dict[str, Path], cache: Path
) -> None:
    video = frames(40)
    torch_features = encode(build(models[name], cache), video)
    onnx_features = encode(build(models[name], cache, runtime="onnx"), video)
    np.testing.assert_allclose(onnx_features, torch_features, atol=1e-4)
    assert list(cache.glob("video-model-*.onnx"))


def test_the_fingerprint_is_of_what_changes_the_features(
    models: dict[str, Path], cache: Path, tmp_path: Path
) -> None:
    def digest(folder: Path = models["videomae"], **options: object) -> str:
        return build(folder, cache, **options).fingerprint.digest

    same = digest()
    assert digest(batch_size=3) == digest(device="cpu") == same
    assert digest(dtype="float32") == same, "what auto stands for on the CPU"
    others = {digest(crops=5), digest(dtype="bfloat16"), digest(runtime="onnx")}
    others |= {digest(tiny_timesformer(tmp_path / "other"))}
    assert len(others | {same}) == 5
    copy = tiny_videomae(tmp_path / "copy")
    assert digest(copy) == same, "where it lies does not matter"
    (copy / "README.md").write_text("a model")
    assert digest(copy) == same
    said = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(said | {"image_mean": [0, 0, 0]}))
    assert digest(copy) != same


def test_an_empty_video_is_an_error(models: dict[str, Path], cache: Path) -> None:
    with pytest.raises(VideoError, match="no frame to encode"):
        encode(build(models["videomae"], cache), [])


def test_a_model_that_reads_no_video_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    with pytest.raises(InputError, match=r"snippet_features\.options\.model: .* is a bert model"):
        build(folder, cache)


def test_a_model_without_its_processor_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = tiny_videomae(tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="does not say how pictures are made for it"):
        build(folder, cache)


def test_a_kind_that_transformers_does_not_know_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = tiny_videomae(tmp_path / "model")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"model_type": "unheard-of"}))
    with pytest.raises(InputError, match="no model that the installed transformers can load"):
        build(folder, cache)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "model"),
        ({"model": "m", "crops": 3}, "crops"),
        ({"model": "m", "batch_size": 0}, "batch_size"),
        ({"model": "m", "runtime": "tensorrt"}, "runtime"),
        ({"model": "m", "nonsense": 1}, "nonsense"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], key: str, cache: Path) -> None:
    with pytest.raises(InputError, match=rf"snippet_features\.options\.{key}: "):
        encoders.build_visual("transformers", options, cache)


def test_pictures_are_made_as_the_library_makes_them(models: dict[str, Path]) -> None:
    from transformers import VideoMAEImageProcessorPil

    for height, width in ((40, 64), (64, 40), (20, 33), (SIDE, SIDE)):
        video = frames(2, height, width)
        processor = VideoMAEImageProcessorPil.from_pretrained(models["videomae"])
        expected = processor(video, return_tensors="np")["pixel_values"][0]
        pixels = PixelFormat.of(models["videomae"], "key")
        found = np.stack([pixels.crops(frame, 1)[0] for frame in video])
        np.testing.assert_allclose(found, expected, atol=1e-5)
