"""Whether newer videos are still like those a model was trained on: two measures and their chance.

Knows samples of numbers, not where they come from. Each measure comes with the share of random
re-divisions of all videos that part them as far, so that a large value of few videos is not taken
for a drift. A video is the unit that is exchanged: its snippets are alike, and counting each by
itself would make anything look certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating]
Scores = npt.NDArray[np.floating]

BINS = 10
"""Of the population stability index, as is usual."""

MOST_VIDEOS = 1500
"""Of a larger sample so many are drawn for the kernel's matrix, which grows with their square."""

_PSEUDO_COUNT = 0.5


@dataclass(frozen=True)
class Difference:
    """How far two samples of videos are apart.

    Attributes:
        value: the measure; what it means is its function's to say.
        p_value: share of divisions of the same videos at random that are at least as far apart.
        reference: videos in the reference.
        newer: videos compared with it.
    """

    value: float
    p_value: float
    reference: int
    newer: int


def mean_discrepancy(
    reference: Vectors, newer: Vectors, *, permutations: int = 499, seed: int = 0
) -> Difference:
    """The squared maximum mean discrepancy of two samples of vectors, one a video.

    The unbiased estimate with a Gaussian kernel, whose width is the median distance within both
    samples together; about 0 where they are of one distribution, and at most 2. (Gretton et al., A
    Kernel Two-Sample Test, JMLR 2012: lemma 6, equation 3, and section 8 for the width.)

    Args:
        reference: (n, dim), n ≥ 2.
        newer: (m, dim), m ≥ 2.
        permutations: divisions at random for the p-value.
        seed: of these, and of the draw from more than :data:`MOST_VIDEOS`.

    Raises:
        ValueError: if a sample has fewer than two vectors or the two differ in length.
    """
    if min(len(reference), len(newer)) < 2 or reference.shape[1:] != newer.shape[1:]:
        raise ValueError(f"two samples of vectors are needed: {reference.shape}, {newer.shape}")
    rng = np.random.default_rng(seed)
    first, second = _drawn(reference, rng), _drawn(newer, rng)
    kernel = _gaussian_kernel(np.concatenate([first, second]).astype(np.float64))
    is_first = np.arange(len(kernel)) < len(first)
    divisions = np.stack([is_first, *(rng.permutation(is_first) for _ in range(permutations))])
    value, *others = _discrepancies(kernel, divisions.astype(np.float64)).tolist()
    return Difference(value, _share_as_large(value, others), len(reference), len(newer))


def population_stability(
    reference: Sequence[Scores],
    newer: Sequence[Scores],
    *,
    permutations: int = 499,
    seed: int = 0,
) -> Difference:
    """The population stability index of two samples of videos' snippet scores.

    Both are counted in :data:`BINS` bins at the reference's quantiles (fewer where many scores are
    the same); the index is Σ (qᵢ − pᵢ) ln(qᵢ / pᵢ) over the bins' shares p and q, half a count added
    to each so that an empty bin has a logarithm. By the rule of thumb, under 0.1 is no change and
    over 0.25 a marked one (Siddiqi, Credit Risk Scorecards, 2006; Yurdakul, Statistical Properties
    of Population Stability Index, 2018, for what it does by chance, which is why there is a p-value).

    Args:
        reference: an array of scores a video.
        newer: the same of the newer videos.
        permutations: divisions of the videos at random for the p-value.
        seed: of these.

    Raises:
        ValueError: if a sample has no video.
    """
    if not reference or not newer:
        raise ValueError("both samples need at least one video")
    value = stability_index(np.concatenate(reference), np.concatenate(newer))
    others = [
        stability_index(np.concatenate(first), np.concatenate(second))
        for first, second in _divided([*reference, *newer], len(reference), permutations, seed)
    ]
    return Difference(value, _share_as_large(value, others), len(reference), len(newer))


def stability_index(reference: Scores, newer: Scores) -> float:
    """The index itself, of all snippets' scores; see :func:`population_stability`."""
    inner = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    expected, found = (_shares(scores, inner) for scores in (reference, newer))
    return float(np.sum((found - expected) * np.log(found / expected)))


def _shares(scores: Scores, edges: Scores) -> npt.NDArray[np.float64]:
    counts = np.bincount(np.searchsorted(edges, scores, side="left"), minlength=len(edges) + 1)
    smoothed = counts + _PSEUDO_COUNT
    shares: npt.NDArray[np.float64] = smoothed / smoothed.sum()
    return shares


def _divided(
    videos: Sequence[Scores], first: int, times: int, seed: int
) -> Iterator[tuple[list[Scores], list[Scores]]]:
    rng = np.random.default_rng(seed)
    for _ in range(times):
        order = rng.permutation(len(videos))
        yield [videos[i] for i in order[:first]], [videos[i] for i in order[first:]]


def _share_as_large(value: float, others: Sequence[float]) -> float:
    """With the division at hand counted in, so that it is never 0 (Phipson and Smyth, 2010)."""
    return (1 + sum(other >= value for other in others)) / (1 + len(others))


def _drawn(sample: Vectors, rng: np.random.Generator) -> Vectors:
    if len(sample) <= MOST_VIDEOS:
        return sample
    chosen = rng.choice(len(sample), MOST_VIDEOS, replace=False)
    return sample[np.sort(chosen)]


def _gaussian_kernel(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """exp(−d² / 2σ²) of every pair, (n, n), with 0 on the diagonal, which no estimate counts."""
    squares = np.sum(vectors**2, axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T, 0.0)
    pairs = distances[np.triu_indices(len(vectors), 1)]
    width = float(np.median(pairs)) or 1.0  # most vectors are the same: any width will do
    kernel: npt.NDArray[np.float64] = np.exp(-distances / (2 * width))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _discrepancies(
    kernel: npt.NDArray[np.float64], is_first: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The unbiased estimate for each division, a row of ones and zeros: (divisions,)."""
    n = is_first[0].sum()
    m = len(kernel) - n
    towards_first = is_first @ kernel
    towards_second = kernel.sum(axis=0)[None, :] - towards_first
    within_first = np.sum(towards_first * is_first, axis=1) / (n * (n - 1))
    within_second = np.sum(towards_second * (1 - is_first), axis=1) / (m * (m - 1))
    between = np.sum(towards_second * is_first, axis=1) / (n * m)
    found: npt.NDArray[np.float64] = within_first + within_second - 2 * between
    return found
