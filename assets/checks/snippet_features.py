"""What must hold of snippet_features: one array a video, all alike, finite, and saying something."""

import numpy as np
import numpy.typing as npt

from assets.checks.encoded import (
    FINGERPRINT,
    SHAPE,
    SNIPPETS,
    is_finite,
    measure_array,
    measure_videos,
    norms_within,
    read_whole,
    with_commonest_shape,
)
from assets.checks.expectations import Check, CheckOutcome, Table, Tables, between, validate
from assets.checks.faces import asset_checks
from assets.snippet_features import ARRAY_NAME, STAGE, read_snippet_features
from assets.workspace.project import Dataset

CHECKS = (
    SNIPPETS,
    SHAPE,
    FINGERPRINT,
    Check(
        "features_are_finite",
        "No feature is NaN or infinite: one would make every weight NaN in training.",
        table="videos",
        expect=is_finite,
        blocking=True,
    ),
    Check(
        "feature_norms_in_range",
        "Every snippet's feature norm is within checks.feature_norm_range.",
        table="videos",
        expect=lambda limits: norms_within(limits.feature_norm_range),
        is_error=False,
    ),
    Check(
        "few_dead_dimensions",
        "The share of features that never vary is within checks.max_dead_dimensions.",
        table="dataset",
        expect=lambda limits: between("dead_dimensions", high=limits.max_dead_dimensions),
        is_error=False,
    ),
)


def check_snippet_features(dataset: Dataset) -> list[CheckOutcome]:
    """Check the features.

    Raises:
        InputError: if the stage or raw_videos has not run.
    """
    return validate(dataset, STAGE, CHECKS, measure_snippet_features(dataset))


def measure_snippet_features(dataset: Dataset) -> Tables:
    """Measure each video's features, and over all of them the dimensions that never vary.

    Raises:
        InputError: if the stage or raw_videos has not run.
    """
    span = _Span()

    def measure(video: str) -> dict[str, object]:
        array = read_whole(dataset, STAGE, video, ARRAY_NAME)
        if array is not None and array.size:
            span.widen(array)
        return measure_array(array)

    videos = measure_videos(dataset, STAGE, read_snippet_features(dataset), measure)
    figures = [{"dataset": dataset.name, "dead_dimensions": span.dead_share()}]
    return {
        "videos": with_commonest_shape(videos),
        "dataset": Table.of(figures if len(videos.rows) else [], key=["dataset"]),
    }


class _Span:
    """The least and largest value of each dimension over all arrays of the first one's dim."""

    def __init__(self) -> None:
        self._low: npt.NDArray[np.generic] | None = None
        self._high: npt.NDArray[np.generic] | None = None

    def widen(self, array: npt.NDArray[np.generic]) -> None:
        """Take an array of shape (snippets, crops, dim) in; of another dim, leave it out."""
        rows = array.reshape(-1, array.shape[-1])
        low, high = rows.min(axis=0), rows.max(axis=0)
        if self._low is None or self._high is None:
            self._low, self._high = low, high
        elif low.shape == self._low.shape:
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def dead_share(self) -> float | None:
        """The share of dimensions that never vary; None if there was no array."""
        if self._low is None or self._high is None:
            return None
        return float((self._low == self._high).mean())


snippet_features_checks = asset_checks(STAGE, CHECKS, check_snippet_features)
