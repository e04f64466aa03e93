"""What must hold of snippet_features: one array a video, all alike, finite, and saying something."""

from collections.abc import Sequence

import numpy as np

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
from assets.checks.measurements import Measurement
from assets.snippet_features import ARRAY_NAME, STAGE, read_snippet_features
from assets.workspace.files import Array
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

    def measure(video: str) -> Measurement:
        array = read_whole(dataset, STAGE, video, ARRAY_NAME)
        return Measurement(measure_array(array), arrays=_range(array))

    videos, measured = measure_videos(dataset, STAGE, read_snippet_features(dataset), measure)
    figures = [{"dataset": dataset.name, "dead_dimensions": _dead_share(measured)}]
    return {
        "videos": with_commonest_shape(videos),
        "dataset": Table.of(figures if measured else [], key=["dataset"]),
    }


def _range(array: Array | None) -> dict[str, Array]:
    """The least and largest value of each dimension: (dim,) each; nothing of nothing."""
    if array is None or array.size == 0:
        return {}
    rows = array.reshape(-1, array.shape[-1])
    return {"low": rows.min(axis=0), "high": rows.max(axis=0)}


def _dead_share(measured: Sequence[Measurement]) -> float | None:
    """The share of dimensions that vary in no video; None if there was no array.

    Of arrays that differ in their dim, those like the first one count.
    """
    ranges = [found.arrays for found in measured if found.arrays]
    if not ranges:
        return None
    alike = [each for each in ranges if each["low"].shape == ranges[0]["low"].shape]
    low = np.min([each["low"] for each in alike], axis=0)
    high = np.max([each["high"] for each in alike], axis=0)
    return float((low == high).mean())


snippet_features_checks = asset_checks(STAGE, CHECKS, check_snippet_features)
