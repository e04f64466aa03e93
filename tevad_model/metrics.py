"""How good frame scores are, against labels and events that training never saw.

Scores and ground truth are joined by video name, never by position. Computations only: pictures,
files and the tracking of runs are others' business, and so is where the scores come from.

A figure that is not defined, such as a frame AUC without events, is absent from the result and
listed with the reason; it is never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tevad_model.errors import InputError, MismatchError
from tevad_model.timeline import FloatArray, frame_mask, runs, seconds

Range = tuple[int, int]
FrameScores = Mapping[str, FloatArray]
Criterion = Literal["last", "validation_picked", "best_on_test"]

EVENT_IOU = 0.5
"""Temporal IoU from which a predicted event is a true one's."""

_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class GroundTruth:
    """What is known of a video for evaluation.

    Attributes:
        label: true for abnormal.
        fps: frames a second.
        events: half-open frame ranges that are abnormal, any order, overlaps allowed; None where
            nobody has marked them. A normal video without any needs no marking.
        event_class: the kind of its anomaly, if known.
    """

    label: bool
    fps: float
    events: Sequence[Range] | None = None
    event_class: str | None = None

    @property
    def is_marked(self) -> bool:
        """Whether its frames have a known truth."""
        return self.events is not None or not self.label


@dataclass(frozen=True)
class ReliabilityBin:
    """Frames whose score lies in [low, high) (the last bin holds 1 too)."""

    low: float
    high: float
    frames: int
    mean_score: float
    share_abnormal: float


@dataclass(frozen=True)
class Evaluation:
    """The figures of one set of frame scores.

    Attributes:
        figures: by name, in [0, 1] unless the name has a unit:
            ``frame_auc``, ``frame_ap``: over the frames of all videos (micro).
            ``frame_auc_abnormal``: over the frames of abnormal videos alone.
            ``event_f1``, ``event_precision``, ``event_recall``: at temporal IoU 0.5 and the
            threshold.
            ``detection_delay_s``: from an event's start to its first frame over the threshold,
            the mean over events that have one; ``events_missed``: the share that has none.
            ``false_alarms_per_hour``: alarms that touch no event, per hour of normal frames.
            ``calibration_error``: expected calibration error of the frame scores.
            ``video_auc``, ``video_ap``: of a video's largest frame score against its label.
        per_class: frame AUC of each class's videos against all normal videos.
        intervals: 95 % bootstrap intervals over videos, by name of the figure.
        reliability: the bins with any frame.
        threshold: the one that events and alarms were taken with.
        undefined: reason by name of the figure that is absent.
    """

    figures: dict[str, float]
    per_class: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    reliability: tuple[ReliabilityBin, ...]
    threshold: float
    undefined: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def evaluate(
    scores: FrameScores,
    truth: Mapping[str, GroundTruth],
    *,
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """All figures of one set of scores.

    Args:
        scores: (frames,) scores by video.
        truth: ground truth by video, of the same videos.
        threshold: from which a frame is called abnormal; chosen on validation, never here.
        resamples: bootstrap resamples of videos; 0 for no intervals.
        seed: of the bootstrap.

    Raises:
        MismatchError: if scores and truth are not of the same videos, naming those on one side.
        InputError: if a score is not finite, or an event lies outside its video.
    """
    frames = _join(scores, truth)
    figures: dict[str, float] = {}
    undefined: dict[str, str] = {}
    per_class: dict[str, float] = {}
    reliability: tuple[ReliabilityBin, ...] = ()
    intervals: dict[str, tuple[float, float]] = {}

    labels = np.array([truth[video].label for video in scores])
    peaks = np.array([values.max() for values in scores.values()])
    _add_ranking(figures, undefined, "video", peaks, labels)

    unmarked = [video for video in scores if not truth[video].is_marked]
    if unmarked:
        reason = f"{len(unmarked)} abnormal videos have no events, the first {unmarked[0]}"
        undefined |= dict.fromkeys(("frame_auc", "frame_ap", "event_f1"), reason)
    else:
        _add_ranking(figures, undefined, "frame", *_pooled(frames, scores))
        abnormal = [video for video in scores if truth[video].label]
        if abnormal:
            within: dict[str, float] = {}
            _add_ranking(within, undefined, "frame_abnormal", *_pooled(frames, abnormal))
            if "frame_abnormal_auc" in within:
                figures["frame_auc_abnormal"] = within["frame_abnormal_auc"]
        figures |= _event_figures(scores, truth, threshold, undefined)
        reliability = reliability_bins(*_pooled(frames, scores))
        figures["calibration_error"] = _calibration_error(reliability)
        per_class = _per_class_auc(frames, truth)
        if resamples and "frame_auc" in figures:
            intervals["frame_auc"] = bootstrap_auc([scores], truth, resamples=resamples, seed=seed)
    return Evaluation(figures, per_class, intervals, reliability, threshold, undefined)
