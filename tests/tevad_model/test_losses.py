"""Each loss term against a literal, slow statement of its equation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tevad_model.config import TrainingParams
from tevad_model.losses import (
    bag_scores,
    classification_loss,
    magnitude_loss,
    smoothness,
    sparsity,
    tevad_loss,
    top_snippets,
)
from tevad_model.network import Output

K, MARGIN = 3, 5.0


@pytest.fixture
def batch() -> tuple[Output, Tensor]:
    """Six bags of mixed order: three normal, three abnormal, 2 crops, 8 segments, 4 features."""
    torch.manual_seed(0)
    features = torch.randn(6, 2, 8, 4)
    scores = torch.rand(6, 8)
    labels = torch.tensor([True, False, False, True, False, True])
    return Output(scores, features.norm(dim=-1).mean(dim=1), features), labels


def literal_top(magnitudes: Tensor, k: int) -> list[list[int]]:
    return [sorted(range(len(m)), key=lambda t: -float(m[t]))[:k] for m in magnitudes]


def literal_pair(output: Output, a: int, n: int, crop: int) -> float:
    """(|m - ‖a‖| + ‖n‖)² of one abnormal bag, one normal bag and one crop."""
    top = literal_top(output.magnitudes, K)

    def norm(bag: int) -> float:
        mean = [
            sum(float(output.features[bag, crop, t, f]) for t in top[bag]) / K for f in range(4)
        ]
        return math.sqrt(sum(x * x for x in mean))

    return (abs(MARGIN - norm(a)) + norm(n)) ** 2


def test_top_snippets_are_those_of_largest_magnitude(batch: tuple[Output, Tensor]) -> None:
    output, _ = batch
    assert top_snippets(output.magnitudes, K).tolist() == literal_top(output.magnitudes, K)


@pytest.mark.parametrize(("snippets", "taken"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_short_videos_have_fewer_top_snippets(snippets: int, taken: int) -> None:
    assert top_snippets(torch.rand(2, snippets), 3).shape == (2, taken)


def test_dropped_magnitudes_let_other_snippets_through() -> None:
    torch.manual_seed(0)
    magnitudes = torch.arange(1.0, 33.0).repeat(200, 1)
    top = top_snippets(magnitudes, 3, dropout=0.7)
    largest = top.max(dim=1).values
    assert largest.min() < 29 - 5  # far from the top is reached
    # The largest of all is kept in about three bags of ten.
    assert 0.2 < (largest == 31).float().mean() < 0.4


def test_classification_is_cross_entropy_of_the_mean_top_score(
    batch: tuple[Output, Tensor],
) -> None:
    output, labels = batch
    top = literal_top(output.magnitudes, K)
    total = 0.0
    for bag, label in enumerate(labels.tolist()):
        p = sum(float(output.scores[bag, t]) for t in top[bag]) / K
        total -= math.log(p if label else 1 - p)
    ours = classification_loss(output.scores, labels, top_snippets(output.magnitudes, K))
    assert float(ours) == pytest.approx(total / 6, rel=1e-5)


def test_magnitude_loss_is_the_mean_over_all_pairs(batch: tuple[Output, Tensor]) -> None:
    output, labels = batch
    pairs = [(a, n) for a in (0, 3, 5) for n in (1, 2, 4)]
    literal = [literal_pair(output, a, n, crop) for a, n in pairs for crop in (0, 1)]
    ours = magnitude_loss(output.features, labels, top_snippets(output.magnitudes, K), MARGIN)
    assert float(ours) == pytest.approx(sum(literal) / len(literal), rel=1e-5)


def test_magnitude_loss_as_published_pairs_by_position(batch: tuple[Output, Tensor]) -> None:
    output, labels = batch
    pairs = [(0, 1), (3, 2), (5, 4)]
    literal = [literal_pair(output, a, n, crop) for a, n in pairs for crop in (0, 1)]
    top = top_snippets(output.magnitudes, K)
    ours = magnitude_loss(output.features, labels, top, MARGIN, paired=True)
    assert float(ours) == pytest.approx(sum(literal) / len(literal), rel=1e-5)


def test_smoothness_stays_within_a_video() -> None:
    scores = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 0.0]])
    per_video = [(1 + 0), (0.25 + 0.25)]
    assert float(smoothness(scores)) == pytest.approx(sum(per_video) / 2)
    across_the_border = (1.0 - 0.0) ** 2
    published = sum(per_video) + across_the_border
    assert float(smoothness(scores, flattened=True)) == pytest.approx(published)


def test_sparsity_is_the_sum_of_a_videos_scores() -> None:
    scores = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 0.0]])
    assert float(sparsity(scores)) == pytest.approx((2.0 + 0.5) / 2)
    assert float(sparsity(scores, flattened=True)) == pytest.approx(math.sqrt(1 + 1 + 0.25))


@pytest.mark.parametrize("compat", [False, True])
def test_the_objective_is_the_weighted_sum(batch: tuple[Output, Tensor], compat: bool) -> None:
    output, labels = batch
    params = TrainingParams(margin=MARGIN, paper_compat=compat)
    losses = tevad_loss(output, labels, params, training=False)
    top = top_snippets(output.magnitudes, K)
    abnormal = output.scores[labels]
    expected = (
        classification_loss(output.scores, labels, top)
        + 1e-4 * magnitude_loss(output.features, labels, top, MARGIN, paired=compat)
        + 8e-4 * smoothness(abnormal, flattened=compat)
        + 8e-3 * sparsity(abnormal, flattened=compat)
    )
    torch.testing.assert_close(losses.total, expected)
    assert losses.parts()["loss"] == pytest.approx(float(expected))


def test_order_of_the_batch_does_not_matter(batch: tuple[Output, Tensor]) -> None:
    output, labels = batch
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    shuffled = Output(output.scores[order], output.magnitudes[order], output.features[order])
    params = TrainingParams(margin=MARGIN)
    ours = tevad_loss(output, labels, params, training=False)
    theirs = tevad_loss(shuffled, labels[order], params, training=False)
    torch.testing.assert_close(ours.total, theirs.total)


def test_unequal_classes_are_allowed(batch: tuple[Output, Tensor]) -> None:
    output, labels = batch
    fewer = Output(output.scores[:4], output.magnitudes[:4], output.features[:4, ...])
    assert math.isfinite(tevad_loss(fewer, labels[:4], TrainingParams(), training=False).total)
    lone = Output(output.scores[:3], output.magnitudes[:3], output.features[:3])
    top = top_snippets(lone.magnitudes, K)
    literal = [literal_pair(output, 0, n, crop) for n in (1, 2) for crop in (0, 1)]
    assert float(magnitude_loss(lone.features, labels[:3], top, MARGIN)) == pytest.approx(
        sum(literal) / 4, rel=1e-5
    )


def test_bag_score_takes_the_given_snippets() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.9, 0.4]])
    assert float(bag_scores(scores, torch.tensor([[0, 2]]))[0]) == pytest.approx(0.5)
