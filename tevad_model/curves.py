"""The curves behind the ranking figures of :mod:`tevad_model.metrics`, short enough to plot.

Points only; the pictures are :mod:`tevad_model.figures`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tevad_model.metrics import FrameScores, GroundTruth, pooled_frames
from tevad_model.timeline import FloatArray

MAX_POINTS = 500


@dataclass(frozen=True)
class RankingCurves:
    """Two curves over the frames of all videos, each as (x, y) arrays of one length.

    Attributes:
        roc: false positive rate and true positive rate.
        precision_recall: recall and precision.
        prevalence: share of abnormal frames, the precision of chance.
    """

    roc: tuple[FloatArray, FloatArray]
    precision_recall: tuple[FloatArray, FloatArray]
    prevalence: float


def frame_curves(scores: FrameScores, truth: Mapping[str, GroundTruth]) -> RankingCurves | None:
    """The curves of frame scores by video; None where the frames' truth is not known or of one kind."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    pooled = pooled_frames(scores, truth)
    if pooled is None:
        return None
    abnormal, values = pooled
    false_positive, true_positive, _ = roc_curve(abnormal, values)
    precision, recall, _ = precision_recall_curve(abnormal, values)
    return RankingCurves(
        roc=_thinned(false_positive, true_positive),
        precision_recall=_thinned(recall[::-1], precision[::-1]),
        prevalence=float(abnormal.mean()),
    )


def _thinned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    if len(x) <= MAX_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).astype(int))
    return x[kept], y[kept]
