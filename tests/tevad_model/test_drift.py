"""Drift: measures against their definitions, found where it is and not where it is not."""

import numpy as np
import pytest

from tevad_model import drift
from tevad_model.drift import mean_discrepancy, population_stability, stability_index


def vectors(count: int, *, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, 8)).astype(np.float32)


def scores(videos: int, *, seed: int, power: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, 1, int(rng.integers(5, 30))) ** power for _ in range(videos)]


def test_the_discrepancy_is_its_definition_pair_by_pair() -> None:
    first, second = vectors(5, seed=0), vectors(4, seed=1, shift=1.0)
    pooled = np.concatenate([first, second]).astype(np.float64)
    squared = [float(np.sum((a - b) ** 2)) for i, a in enumerate(pooled) for b in pooled[:i]]
    width = np.median(squared)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-np.sum((a.astype(float) - b.astype(float)) ** 2) / (2 * width)))

    def within(sample: np.ndarray) -> float:
        pairs = [k(a, b) for i, a in enumerate(sample) for j, b in enumerate(sample) if i != j]
        return float(np.mean(pairs))

    between = np.mean([k(a, b) for a in first for b in second])
    expected = within(first) + within(second) - 2 * between
    assert mean_discrepancy(first, second).value == pytest.approx(expected, abs=1e-9)


def test_the_index_is_its_definition_by_hand() -> None:
    reference = np.repeat(np.arange(10), 10) / 10  # each of ten values a bin
    newer = np.repeat([0.0, 0.9], 50)
    expected_shares = np.full(10, 10.5 / 105)
    found_shares = (np.array([50, *[0] * 8, 50]) + 0.5) / 105
    by_hand = np.sum((found_shares - expected_shares) * np.log(found_shares / expected_shares))
    assert stability_index(reference, newer) == pytest.approx(by_hand)
    assert stability_index(reference, reference) == 0


def test_samples_of_one_distribution_are_seldom_told_apart() -> None:
    alike = [
        mean_discrepancy(vectors(20, seed=2 * s), vectors(15, seed=2 * s + 1), permutations=99)
        for s in range(60)
    ]
    alike += [
        population_stability(scores(20, seed=2 * s), scores(15, seed=2 * s + 1), permutations=99)
        for s in range(60)
    ]
    assert np.mean([found.p_value <= 0.05 for found in alike]) <= 0.1
    assert abs(np.mean([found.value for found in alike[:60]])) < 0.01  # unbiased


def test_a_shift_is_found_with_its_size() -> None:
    found = mean_discrepancy(vectors(20, seed=0), vectors(15, seed=1, shift=1.5))
    assert found.value > 0.2
    assert found.p_value <= 0.01
    assert (found.reference, found.newer) == (20, 15)
    found = population_stability(scores(20, seed=0), scores(15, seed=1, power=4))
    assert found.value > 0.25
    assert found.p_value <= 0.01


def test_a_large_value_of_few_videos_is_no_certainty() -> None:
    """Snippets of a video are alike: two videos with other levels say nothing of all videos."""
    rng = np.random.default_rng(3)
    levels = rng.uniform(0.1, 0.9, 8)
    videos = [np.clip(rng.normal(level, 0.02, 40), 0, 1) for level in levels]
    found = population_stability(videos[:6], videos[6:])
    assert found.value > 0.25
    assert found.p_value > 0.05


def test_the_same_seed_gives_the_same_difference() -> None:
    first, second = vectors(12, seed=0), vectors(10, seed=1, shift=0.3)
    assert mean_discrepancy(first, second, seed=5) == mean_discrepancy(first, second, seed=5)


def test_of_a_large_sample_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MOST_VIDEOS", 40)
    found = mean_discrepancy(vectors(300, seed=0), vectors(60, seed=1, shift=1.5))
    assert (found.reference, found.newer) == (300, 60)
    assert found.p_value <= 0.01


def test_equal_vectors_and_constant_scores_do_not_differ() -> None:
    same = np.ones((6, 3), dtype=np.float32)
    found = mean_discrepancy(same, same[:4])
    assert (found.value, found.p_value) == (pytest.approx(0), 1.0)
    constant = [np.full(5, 0.5)] * 4
    assert population_stability(constant, constant).value == pytest.approx(0)


def test_too_little_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="samples"):
        mean_discrepancy(vectors(1, seed=0), vectors(5, seed=1))
    with pytest.raises(ValueError, match="at least one"):
        population_stability([], scores(2, seed=0))
