"""How good frame scores are, against labels and events that training never saw.

Scores and ground truth are joined by video name, never by position. Computations only: pictures,
files and the tracking of runs are others' business, and so is where the scores come from.

A figure that is not defined, such as a frame AUC without events, is absent from the result and
listed with the reason; it is never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tevad_model.errors import InputError, MismatchError
from tevad_model.timeline import FloatArray, frame_mask, runs, seconds

Range = tuple[int, int]
FrameScores = Mapping[str, FloatArray]

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
    peaks = np.array([video.scores.max() for video in frames.values()])
    labels = np.array([truth[video].label for video in frames])
    for name, ranking in _RANKINGS.items():
        _define(figures, undefined, f"video_{name}", ranking, labels, peaks)
    unmarked = [video for video in frames if not truth[video].is_marked]
    if unmarked:
        reason = f"{len(unmarked)} abnormal videos have no events, the first is {unmarked[0]}"
        undefined |= dict.fromkeys(FRAME_FIGURES, reason)
        return Evaluation(figures, {}, {}, (), threshold, undefined)

    mask, values = _pooled(frames.values())
    for name, ranking in _RANKINGS.items():
        _define(figures, undefined, f"frame_{name}", ranking, mask, values)
    abnormal = [frames[video] for video in frames if truth[video].label]
    _define(figures, undefined, "frame_auc_abnormal", _auc, *_pooled(abnormal))
    _add_event_figures(figures, undefined, frames, truth, threshold)
    reliability = reliability_bins(mask, values)
    figures["calibration_error"] = _calibration_error(reliability)
    intervals = {}
    if resamples and "frame_auc" in figures:
        intervals["frame_auc"] = bootstrap_frame_auc(
            [scores], truth, resamples=resamples, seed=seed
        )
    return Evaluation(
        figures, per_class_auc(scores, truth), intervals, reliability, threshold, undefined
    )


def frame_auc(scores: FrameScores, truth: Mapping[str, GroundTruth]) -> float | None:
    """The ``frame_auc`` of :func:`evaluate` alone; None where it is not defined.

    Raises:
        MismatchError, InputError: as :func:`evaluate`.
    """
    pooled = pooled_frames(scores, truth)
    return None if pooled is None else _auc(*pooled)


def pooled_frames(
    scores: FrameScores, truth: Mapping[str, GroundTruth]
) -> tuple[npt.NDArray[np.bool_], FloatArray] | None:
    """Truth and scores of the frames of all videos, end to end in order of name.

    None where frames of a video have no known truth, or all are of one kind: then no ranking is
    defined.

    Raises:
        MismatchError, InputError: as :func:`evaluate`.
    """
    frames = _join(scores, truth)
    if not all(truth[video].is_marked for video in frames):
        return None
    mask, values = _pooled(frames.values())
    return (mask, values) if mask.any() and not mask.all() else None


FRAME_FIGURES = (
    "frame_auc",
    "frame_ap",
    "frame_auc_abnormal",
    "event_f1",
    "event_precision",
    "event_recall",
    "events_missed",
    "detection_delay_s",
    "false_alarms_per_hour",
    "calibration_error",
)
"""Figures that need events."""


@dataclass(frozen=True)
class _Frames:
    """One video's frames: scores and whether they are abnormal, both (frames,)."""

    scores: FloatArray
    abnormal: npt.NDArray[np.bool_]


def _join(scores: FrameScores, truth: Mapping[str, GroundTruth]) -> dict[str, _Frames]:
    """Scores beside truth by video name, in order of name."""
    differences = [
        f"{video}: scored, but has no ground truth" for video in scores if video not in truth
    ]
    differences += [
        f"{video}: has ground truth, but no scores" for video in truth if video not in scores
    ]
    if differences or not scores:
        raise MismatchError(
            "evaluation",
            sorted(differences) or ["there is no video"],
            "Score and evaluate the same split of the dataset.",
        )
    frames = {}
    for video in sorted(scores):
        values = np.asarray(scores[video], dtype=np.float64)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise InputError(f"{video}: scores must be one finite number a frame; score it anew")
        try:
            mask = frame_mask(truth[video].events or (), len(values))
        except ValueError as error:
            raise InputError(f"{video}: {error}; correct events.csv") from error
        frames[video] = _Frames(values, mask)
    return frames


def _pooled(videos: Iterable[_Frames]) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Truth and scores of all frames of some videos, end to end."""
    videos = list(videos)
    return (
        np.concatenate([np.zeros(0, dtype=bool), *(video.abnormal for video in videos)]),
        np.concatenate([np.zeros(0), *(video.scores for video in videos)]),
    )


def _auc(truth: npt.NDArray[np.bool_], scores: FloatArray) -> float:
    from sklearn.metrics import roc_auc_score

    truth, scores, frames = _run_lengths(truth, scores)
    return float(roc_auc_score(truth, scores, sample_weight=frames))


def _ap(truth: npt.NDArray[np.bool_], scores: FloatArray) -> float:
    from sklearn.metrics import average_precision_score

    truth, scores, frames = _run_lengths(truth, scores)
    return float(average_precision_score(truth, scores, sample_weight=frames))


def _run_lengths(
    truth: npt.NDArray[np.bool_], scores: FloatArray
) -> tuple[npt.NDArray[np.bool_], FloatArray, npt.NDArray[np.int64]]:
    """Frames that follow each other with equal truth and score as one, and how many they are.

    Weighted by their number they rank as the frames do, and a snippet's frames are all alike:
    there is a sixteenth to sort.
    """
    differs = (truth[1:] != truth[:-1]) | (scores[1:] != scores[:-1])
    starts = np.flatnonzero(np.concatenate(([True], differs)))
    return truth[starts], scores[starts], np.diff(starts, append=len(scores))


_RANKINGS: dict[str, Callable[[npt.NDArray[np.bool_], FloatArray], float]] = {
    "auc": _auc,
    "ap": _ap,
}


def _define(
    figures: dict[str, float],
    undefined: dict[str, str],
    name: str,
    ranking: Callable[[npt.NDArray[np.bool_], FloatArray], float],
    truth: npt.NDArray[np.bool_],
    scores: FloatArray,
) -> None:
    """Write a figure that ranks positives over negatives, or why it is undefined."""
    if truth.any() and not truth.all():
        figures[name] = ranking(truth, scores)
    else:
        undefined[name] = f"needs both classes, there are {truth.sum()} of {truth.size} abnormal"


def per_class_auc(scores: FrameScores, truth: Mapping[str, GroundTruth]) -> dict[str, float]:
    """Frame AUC of each class of anomaly: its videos' frames with those of all normal videos."""
    frames = _join(scores, truth)
    normal = [frames[video] for video in frames if not truth[video].label]
    aucs = {}
    for name in sorted({t.event_class for t in truth.values() if t.label and t.event_class}):
        of_class = [
            frames[video]
            for video in frames
            if truth[video].label and truth[video].event_class == name
        ]
        mask, values = _pooled([*of_class, *normal])
        if mask.any() and not mask.all():
            aucs[name] = _auc(mask, values)
    return aucs


def match_events(
    predicted: Sequence[Range], true: Sequence[Range], iou: float = EVENT_IOU
) -> list[tuple[int, int]]:
    """Pair predicted with true events of one video, each at most once, best overlap first.

    Returns:
        Index pairs (predicted, true) whose temporal IoU is at least ``iou``.
    """
    overlaps = sorted(
        (
            (-temporal_iou(p, t), i, j)
            for i, p in enumerate(predicted)
            for j, t in enumerate(true)
            if temporal_iou(p, t) >= iou
        )
    )
    pairs: list[tuple[int, int]] = []
    for _, i, j in overlaps:
        if all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def temporal_iou(a: Range, b: Range) -> float:
    """Intersection over union of two half-open ranges."""
    intersection = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return intersection / (a[1] - a[0] + b[1] - b[0] - intersection)


def _add_event_figures(
    figures: dict[str, float],
    undefined: dict[str, str],
    frames: Mapping[str, _Frames],
    truth: Mapping[str, GroundTruth],
    threshold: float,
) -> None:
    """Figures of events: runs of frames over the threshold beside runs of abnormal frames."""
    predicted = true = matched = false_alarms = 0
    normal_seconds = 0.0
    delays: list[float] = []
    for name, video in frames.items():
        fps = truth[name].fps
        alarms, events = runs(video.scores >= threshold), runs(video.abnormal)
        predicted += len(alarms)
        true += len(events)
        matched += len(match_events(alarms, events))
        false_alarms += sum(not video.abnormal[start:end].any() for start, end in alarms)
        normal_seconds += seconds(int((~video.abnormal).sum()), fps)
        for start, end in events:
            over = np.flatnonzero(video.scores[start:end] >= threshold)
            if over.size:
                delays.append(seconds(int(over[0]), fps))
    if normal_seconds:
        figures["false_alarms_per_hour"] = false_alarms / (normal_seconds / _SECONDS_AN_HOUR)
    else:
        undefined["false_alarms_per_hour"] = "there is no normal frame"
    if not true:
        names = (
            "event_f1",
            "event_precision",
            "event_recall",
            "events_missed",
            "detection_delay_s",
        )
        undefined |= dict.fromkeys(names, "there is no event")
        return
    figures["event_f1"] = 2 * matched / (predicted + true)
    figures["event_precision"] = matched / predicted if predicted else 0.0
    figures["event_recall"] = matched / true
    figures["events_missed"] = 1 - len(delays) / true
    if delays:
        figures["detection_delay_s"] = float(np.mean(delays))
    else:
        undefined["detection_delay_s"] = "no event has a frame over the threshold"


def reliability_bins(
    truth: npt.NDArray[np.bool_], scores: FloatArray, bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Frames by score in bins of equal width over [0, 1]; empty bins are left out."""
    index = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    return tuple(
        ReliabilityBin(
            low=float(b / bins),
            high=float((b + 1) / bins),
            frames=int((index == b).sum()),
            mean_score=float(scores[index == b].mean()),
            share_abnormal=float(truth[index == b].mean()),
        )
        for b in np.unique(index)
    )


def _calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error (Guo et al., 2017, equation 3)."""
    weights = np.array([b.frames for b in bins], dtype=np.float64)
    gaps = np.array([abs(b.mean_score - b.share_abnormal) for b in bins])
    return float(np.average(gaps, weights=weights))


def bootstrap_frame_auc(
    scores_by_seed: Sequence[FrameScores],
    truth: Mapping[str, GroundTruth],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean frame AUC over seeds, resampling videos with replacement.

    Frames of a video stand or fall together, so videos are drawn, the same ones for every seed.
    Draws without both classes are left out.

    Raises:
        InputError: if no draw has both classes.
    """
    draws = _draws(len(truth), resamples, seed)
    aucs = np.mean([_wins(scores, truth).aucs(draws) for scores in scores_by_seed], axis=0)
    aucs = aucs[np.isfinite(aucs)]
    if not aucs.size:
        raise InputError("bootstrap: no draw of videos has normal and abnormal frames; add events")
    low, high = np.quantile(aucs, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedDifference:
    """Two models' frame AUC on the same videos, and what chance alone explains of the difference.

    Attributes:
        challenger: its AUC.
        champion: its AUC.
        low: lower end of the one-sided interval of challenger less champion.
        high: upper end of the one to the other side.
        chance: how often models that are alike differ by as much, challenger over champion: the
            p-value of the sign-flip test.
        videos: how many there are.
    """

    challenger: float
    champion: float
    low: float
    high: float
    chance: float
    videos: int

    @property
    def difference(self) -> float:
        """By how much the challenger's AUC is above the champion's."""
        return self.challenger - self.champion


def paired_auc_difference(
    challenger: FrameScores,
    champion: FrameScores,
    truth: Mapping[str, GroundTruth],
    *,
    confidence: float = 0.975,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Whether a model's frame AUC is above another's, or only looks so on these videos.

    Frames of a video stand or fall together, so videos are what is drawn, and the same for both
    models: what makes a video hard for both cancels.

    The interval is the paired percentile bootstrap's (Efron and Tibshirani, 1993, chapter 13). Where
    videos are few it is too narrow, and so is a studentised one. Beside it stands the sign-flip test
    (Fisher, 1935): were the models alike, each video's scores might as well be the other's. It is
    exact for any number of videos. Scores become ranks for it, over all frames of a model, which
    leaves its AUC as it is and lets the scores of two models stand side by side.

    Args:
        challenger: frame scores by video.
        champion: those of the other model, of the same videos.
        truth: of the same videos, all marked.
        confidence: of each one-sided interval.
        resamples: draws of videos, and flips where there are more of them than that.
        seed: of the draws and flips.

    Raises:
        MismatchError, InputError: as :func:`evaluate`; an InputError, too, if no AUC is defined.
    """
    ours, theirs = _join(challenger, truth), _join(champion, truth)
    first, second = _wins(challenger, truth), _wins(champion, truth)
    draws = _draws(len(truth), resamples, seed)
    differences = first.aucs(draws) - second.aucs(draws)
    differences = differences[np.isfinite(differences)]
    whole = np.ones((1, len(truth)), dtype=np.int64)
    [auc], [other] = first.aucs(whole), second.aucs(whole)
    if not differences.size or not np.isfinite(auc):
        raise InputError("comparing models: there are no normal or no abnormal frames; add events")
    low, high = np.quantile(differences, [1 - confidence, confidence])
    chance = _sign_flip(_ranked(ours), _ranked(theirs), resamples, seed)
    return PairedDifference(float(auc), float(other), float(low), float(high), chance, len(truth))


def _ranked(frames: Mapping[str, _Frames]) -> dict[str, _Frames]:
    """Each frame's score as its rank among all frames, ties sharing theirs."""
    pooled = np.concatenate([video.scores for video in frames.values()])
    _, places, counts = np.unique(pooled, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - counts / 2)[places]
    parts = np.split(ranks, np.cumsum([len(video.scores) for video in frames.values()])[:-1])
    return {
        name: _Frames(part, video.abnormal)
        for (name, video), part in zip(frames.items(), parts, strict=True)
    }


def _sign_flip(
    ours: Mapping[str, _Frames], theirs: Mapping[str, _Frames], flips: int, seed: int
) -> float:
    """The share of exchanges of two models' videos that favour the first as much as none does.

    All exchanges where they are at most ``flips``, else as many at random and none itself.
    """
    videos = len(ours)
    if 2**videos <= flips:
        kept = np.arange(2**videos)[:, None] >> np.arange(videos) & 1
    else:
        kept = np.random.default_rng(seed).integers(0, 2, (flips, videos))
        kept[0] = 1
    pairs = {
        (row, column): _Wins.between(abnormal, normal).pairs
        for row, abnormal in enumerate((theirs, ours))
        for column, normal in enumerate((theirs, ours))
    }

    def won(kept: npt.NDArray[np.int64]) -> FloatArray:
        """Pairs won by the model that is the first one on some videos, the second on the others."""
        shares = (1 - kept, kept)
        parts = [((shares[i] @ each) * shares[j]).sum(axis=1) for (i, j), each in pairs.items()]
        total: FloatArray = np.sum(parts, axis=0)
        return total

    gains = won(kept) - won(1 - kept)
    none = np.ones((1, videos), dtype=np.int64)
    [gain] = won(none) - won(1 - none)
    tolerance = 1e-9 * max(abs(gain), 1.0)  # sums of the same halves in another order
    return float(np.mean(gains >= gain - tolerance))


def _wins(scores: FrameScores, truth: Mapping[str, GroundTruth]) -> _Wins:
    frames = _join(scores, truth)
    return _Wins.between(frames, frames)


def _draws(videos: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """How often each resample draws each video: (R, videos)."""
    return np.random.default_rng(seed).multinomial(
        videos, np.full(videos, 1 / videos), size=resamples
    )


@dataclass(frozen=True)
class _Wins:
    """The AUC as a function of how often each video counts.

    The area is the share of pairs of an abnormal and a normal frame in which the abnormal one
    scores higher, a tie being half (Mann and Whitney). Counted once for each pair of videos, it is
    a quotient of forms in the videos' weights w: wᵀMw / (wᵀa · wᵀn).

    Attributes:
        pairs: M, (videos, videos): pairs of the row's abnormal and the column's normal frames.
        abnormal: a, (videos,) frames.
        normal: n, (videos,) frames.
    """

    pairs: FloatArray
    abnormal: FloatArray
    normal: FloatArray

    @classmethod
    def between(cls, rows: Mapping[str, _Frames], columns: Mapping[str, _Frames]) -> _Wins:
        """Count those of one model's abnormal frames over another's normal frames."""
        abnormal = [np.unique(v.scores[v.abnormal], return_counts=True) for v in rows.values()]
        normal = [np.unique(v.scores[~v.abnormal], return_counts=True) for v in columns.values()]
        video = np.repeat(np.arange(len(rows)), [len(values) for values, _ in abnormal])
        values, counts = (np.concatenate(parts) for parts in zip(*abnormal, strict=True))
        pairs = np.zeros((len(rows), len(columns)))
        for column, (others, times) in enumerate(normal):
            below = np.concatenate(([0], times.cumsum()))
            least, most = (np.searchsorted(others, values, side) for side in ("left", "right"))
            won = counts * (below[least] + below[most]) / 2
            pairs[:, column] = np.bincount(video, won, minlength=len(rows))
        return cls(
            pairs,
            np.array([times.sum() for _, times in abnormal], dtype=np.float64),
            np.array([times.sum() for _, times in normal], dtype=np.float64),
        )

    def aucs(self, draws: npt.NDArray[np.int64]) -> FloatArray:
        """Frame AUC of every draw, NaN without both classes: draws (R, videos) to (R,)."""
        pairs = (draws @ self.abnormal) * (draws @ self.normal)
        won = ((draws @ self.pairs) * draws).sum(axis=1)
        aucs = np.full(len(draws), np.nan)
        np.divide(won, pairs, out=aucs, where=pairs > 0)
        return aucs


@dataclass(frozen=True)
class Summary:
    """A figure over seeds: mean, sample standard deviation (0 for one seed), and how many."""

    mean: float
    std: float
    seeds: int


def summarize(values: Sequence[float]) -> Summary:
    """Mean and standard deviation of a figure over seeds."""
    array = np.asarray(values, dtype=np.float64)
    std = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return Summary(float(array.mean()), std, len(array))
