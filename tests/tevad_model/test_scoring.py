"""Scoring: one by one or together, with and without a modality, and what is refused."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tevad_model.artifact import Model
from tevad_model.bags import VideoFeatures
from tevad_model.config import TrainingParams
from tevad_model.errors import MismatchError, VideoError
from tevad_model.network import TevadNetwork
from tevad_model.scoring import score, score_many

VISUAL, TEXT = 12, 8


def model(**settings: object) -> Model:
    torch.manual_seed(0)
    params = TrainingParams.model_validate(settings)
    network = TevadNetwork(params, VISUAL, TEXT)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    rng = torch.Generator().manual_seed(1)
    for name, dim in (("visual_input", VISUAL), ("text_input", TEXT)):
        if hasattr(network, name):
            getattr(network, name).fit([torch.randn(50, dim, generator=rng) + 1])
    return Model(network.eval(), params, seed=0, step=1)


def videos(count: int = 9, crops: int = 3) -> dict[str, VideoFeatures]:
    rng = np.random.default_rng(0)
    lengths = [1, 2, 3, 40, 17, 5, 33, 64, 8][:count]
    return {
        f"v{i}": VideoFeatures(
            rng.normal(size=(n, crops, VISUAL)).astype(np.float16),
            rng.normal(size=(n, TEXT)).astype(np.float32),
        )
        for i, n in enumerate(lengths)
    }


@pytest.mark.parametrize("modality", ["both", "visual", "text"])
@pytest.mark.parametrize("batch_snippets", [1, 100, 10**6])
def test_scores_do_not_depend_on_the_batch(modality: str, batch_snippets: int) -> None:
    trained, given = model(modality=modality), videos()
    many = score_many(trained, given.items(), batch_snippets=batch_snippets)
    assert list(many) == list(given)
    for video, features in given.items():
        alone = score(trained, features.visual, features.text)
        assert many[video].scores.shape == (features.snippets,)
        assert many[video].scores.dtype == np.float64
        np.testing.assert_allclose(many[video].scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(many[video].magnitudes, alone.magnitudes, rtol=1e-5)


def test_videos_are_read_as_they_are_needed() -> None:
    given = videos()
    alive: list[int] = []

    def loaded() -> Iterator[tuple[str, VideoFeatures]]:
        references = []
        for video, features in given.items():
            copy = VideoFeatures(np.array(features.visual), np.array(features.text))
            references.append(weakref.ref(copy.text))
            yield video, copy
            del copy
            alive.append(sum(reference() is not None for reference in references))

    many = score_many(model(modality="text"), loaded(), batch_snippets=1)
    assert list(many) == list(given)
    assert max(alive) <= 5  # 1 + 2 + 3 + 40 snippets fill the first pool


def test_videos_with_other_crops_can_be_scored_together() -> None:
    trained = model()
    given = {"one": videos(crops=1)["v3"], "ten": videos(crops=10)["v3"]}
    many = score_many(trained, given.items())
    for video, features in given.items():
        alone = score(trained, features.visual, features.text)
        np.testing.assert_allclose(many[video].scores, alone.scores, atol=1e-5)


@pytest.mark.parametrize("standardize", [False, True])
def test_a_modality_left_out_cannot_tell_snippets_apart(standardize: bool) -> None:
    trained = model(standardize=standardize)
    features = videos()["v3"]
    assert features.visual is not None
    assert features.text is not None
    other_text = features.text[::-1]
    without = score(trained, features.visual, features.text, leave_out="text").scores
    np.testing.assert_array_equal(
        without, score(trained, features.visual, other_text, leave_out="text").scores
    )
    assert np.abs(without - score(trained, features.visual, features.text).scores).max() > 1e-3
    mean = trained.network.text_input.mean.numpy()
    typical = np.broadcast_to(mean, features.text.shape)
    np.testing.assert_allclose(without, score(trained, features.visual, typical).scores, atol=1e-6)
    without = score(trained, features.visual, features.text, leave_out="visual").scores
    np.testing.assert_array_equal(
        without, score(trained, features.visual[::-1], features.text, leave_out="visual").scores
    )


def test_features_that_are_not_read_are_not_looked_at() -> None:
    trained, features = model(modality="visual"), videos()["v3"]
    np.testing.assert_array_equal(
        score(trained, features.visual).scores,
        score(trained, features.visual, np.full((2, 2), np.nan)).scores,
    )


def test_wrong_dimensions_are_all_listed() -> None:
    with pytest.raises(MismatchError, match=r"^scoring v7") as caught:
        score(model(), np.zeros((4, 1, 5)), np.zeros((4, 6)), video="v7")
    assert len(caught.value.differences) == 2


@pytest.mark.parametrize(
    ("visual", "text"),
    [
        (None, np.zeros((4, TEXT))),
        (np.zeros((4, 1, VISUAL)), np.zeros((5, TEXT))),
        (np.full((4, 1, VISUAL), np.inf), np.zeros((4, TEXT))),
    ],
)
def test_unusable_features_name_the_video(
    visual: np.ndarray | None, text: np.ndarray | None
) -> None:
    with pytest.raises(VideoError, match=r"^v7: "):
        score(model(), visual, text, video="v7")
