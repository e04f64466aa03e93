"""SimCSE: the two measures against their definitions, and what tuning does to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_models import WORDS, tiny_bert

from tevad_model.config import TuningParams
from tevad_model.encoders import simcse
from tevad_model.encoders.sentence import SentenceOptions, SentenceTransformerEncoder
from tevad_model.encoders.simcse import Spread

CAPTIONS = [" ".join(words) for words in itertools.combinations(WORDS, 2)]
QUICK = TuningParams(batch_size=16, learning_rate=1e-3, epochs=4)


@pytest.fixture
def model(tmp_path: Path) -> SentenceTransformer:
    options = SentenceOptions(model=str(tiny_bert(tmp_path / "bert")), device="cpu")
    return SentenceTransformerEncoder(options).model


def without_dropout(model: SentenceTransformer) -> SentenceTransformer:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model[0].model.config.attention_probs_dropout_prob = 0.0
    return model


def spread(model: SentenceTransformer, captions: list[str], batch_size: int = 8) -> Spread:
    return simcse.measure(model, captions, batch_size=batch_size, seed=0)


def test_uniformity_is_the_log_of_the_mean_gaussian_potential(model: SentenceTransformer) -> None:
    captions = CAPTIONS[:9]
    rows = model.encode(captions, normalize_embeddings=True).astype(np.float64)
    pairs = list(itertools.combinations(rows, 2))
    expected = np.log(np.mean([np.exp(-2 * np.sum((a - b) ** 2)) for a, b in pairs]))
    assert spread(model, captions).uniformity == pytest.approx(expected, rel=1e-4)
    assert spread(model, captions, batch_size=4).uniformity == pytest.approx(expected, rel=1e-4)


def test_alignment_is_how_far_dropout_moves_a_caption(model: SentenceTransformer) -> None:
    assert 0 < spread(model, CAPTIONS[:9]).alignment < 4
    assert spread(without_dropout(model), CAPTIONS[:9]).alignment == pytest.approx(0, abs=1e-10)


def test_measuring_changes_nothing(model: SentenceTransformer) -> None:
    before, state = model.encode(CAPTIONS[:4]), torch.get_rng_state()
    first, second = spread(model, CAPTIONS[:9]), spread(model, CAPTIONS[:9])
    assert first == second
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(model.encode(CAPTIONS[:4]), before)


def test_tuning_spreads_captions_and_draws_views_together(model: SentenceTransformer) -> None:
    tuning = simcse.tune(model, CAPTIONS, QUICK)
    assert tuning.after.uniformity < tuning.before.uniformity - 0.2
    assert tuning.improved == tuning.after.improves(tuning.before)
    assert tuning.tuned_on + tuning.held_out == len(CAPTIONS)
    assert tuning.after != tuning.before
    held_out = simcse._divide(CAPTIONS, QUICK)[1]
    assert spread(model, held_out, QUICK.batch_size) == tuning.after


def test_the_same_seed_tunes_alike(tmp_path: Path) -> None:
    def tuned(seed: int) -> Iterator[torch.Tensor]:
        options = SentenceOptions(model=str(tiny_bert(tmp_path / "bert")), device="cpu")
        model = SentenceTransformerEncoder(options).model
        simcse.tune(model, CAPTIONS, QUICK.model_copy(update={"seed": seed, "epochs": 1}))
        return model.parameters()

    assert all(torch.equal(a, b) for a, b in zip(tuned(1), tuned(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(tuned(1), tuned(2), strict=True))


def test_no_more_captions_are_read_than_asked_for(model: SentenceTransformer) -> None:
    limit = model.max_seq_length
    tuning = simcse.tune(model, CAPTIONS, QUICK.model_copy(update={"max_captions": 30}))
    assert (tuning.tuned_on, tuning.held_out) == (27, 3)
    assert model.max_seq_length == limit


def test_without_dropout_there_is_nothing_to_align(model: SentenceTransformer) -> None:
    assert not simcse.tune(without_dropout(model), CAPTIONS, QUICK).improved


@pytest.mark.parametrize(
    ("after", "better"),
    [((0.1, -3.0), True), ((0.1, -1.0), False), ((0.3, -3.0), False), ((0.2, -2.0), False)],
)
def test_only_both_measures_together_are_an_improvement(
    after: tuple[float, float], better: bool
) -> None:
    assert Spread(*after).improves(Spread(0.2, -2.0)) == better


def test_too_few_captions_are_refused(model: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="2 captions are too few"):
        simcse.tune(model, CAPTIONS[:2], QUICK)
