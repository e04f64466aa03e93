"""Figures against hand-computed cases and literal statements of their definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tevad_model.errors import InputError, MismatchError
from tevad_model.metrics import (
    FRAME_FIGURES,
    GroundTruth,
    bootstrap_frame_auc,
    evaluate,
    match_events,
    per_class_auc,
    reliability_bins,
    summarize,
    temporal_iou,
)

NORMAL = GroundTruth(label=False, fps=10)


def case() -> tuple[dict[str, np.ndarray], dict[str, GroundTruth]]:
    """Two abnormal videos with three events and a normal one with a false alarm, at 10 fps."""
    a, b, n = np.full(40, 0.1), np.full(30, 0.2), np.full(50, 0.1)
    a[12:20] = 0.9  # event [10, 20): IoU 0.8, late by 2 frames
    a[30:32] = 0.8  # event [30, 40): IoU 0.2, on time
    n[5:10] = 0.7  # false alarm
    scores = {"a": a, "n": n, "b": b}  # the event [0, 5) of b is missed
    truth = {
        "b": GroundTruth(True, 10, [(0, 5)], "running"),
        "n": NORMAL,
        "a": GroundTruth(True, 10, [(10, 20), (30, 40)], "cycling"),
    }
    return scores, truth


def test_event_figures_by_hand() -> None:
    figures = evaluate(*case(), threshold=0.5, resamples=0).figures
    assert figures["event_precision"] == pytest.approx(1 / 3)
    assert figures["event_recall"] == pytest.approx(1 / 3)
    assert figures["event_f1"] == pytest.approx(1 / 3)
    assert figures["events_missed"] == pytest.approx(1 / 3)
    assert figures["detection_delay_s"] == pytest.approx((0.2 + 0.0) / 2)
    normal_frames = 20 + 50 + 25
    assert figures["false_alarms_per_hour"] == pytest.approx(1 / (normal_frames / 10 / 3600))


def test_frame_figures_pool_all_frames() -> None:
    scores, truth = case()
    mask = np.zeros(120, dtype=bool)
    mask[10:20] = mask[30:40] = mask[40:45] = True
    pooled = np.concatenate([scores["a"], scores["b"], scores["n"]])
    figures = evaluate(scores, truth, threshold=0.5, resamples=0).figures
    assert figures["frame_auc"] == pytest.approx(roc_auc_score(mask, pooled))
    assert figures["frame_auc_abnormal"] == pytest.approx(roc_auc_score(mask[:70], pooled[:70]))
    wins = [
        (p > q) + (p == q) / 2 for p in pooled[mask] for q in pooled[~mask]
    ]  # Mann and Whitney, pair by pair
    assert figures["frame_auc"] == pytest.approx(np.mean(wins))


def test_average_precision_by_hand() -> None:
    scores = {"a": np.array([0.9, 0.8, 0.7, 0.1])}
    truth = {"a": GroundTruth(True, 10, [(0, 1), (2, 3)])}
    figures = evaluate(scores, truth, threshold=0.5, resamples=0).figures
    assert figures["frame_ap"] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_classes_are_measured_against_all_normal_videos() -> None:
    scores, truth = case()
    aucs = per_class_auc(scores, truth)
    assert set(aucs) == {"cycling", "running"}
    mask = np.zeros(80, dtype=bool)
    mask[:5] = True
    expected = roc_auc_score(mask, np.concatenate([scores["b"], scores["n"]]))
    assert aucs["running"] == pytest.approx(expected)
    assert evaluate(scores, truth, threshold=0.5, resamples=0).per_class == aucs


def test_without_events_videos_are_still_ranked() -> None:
    scores, truth = case()
    unmarked = {v: GroundTruth(t.label, t.fps) for v, t in truth.items()}
    result = evaluate(scores, unmarked, threshold=0.5)
    assert set(result.figures) == {"video_auc", "video_ap"}
    assert result.figures["video_auc"] == pytest.approx(0.5)  # 0.9 and 0.2 against 0.7
    assert set(result.undefined) == set(FRAME_FIGURES)
    assert "2 abnormal videos have no events, the first is a" in result.undefined["frame_auc"]


def test_a_figure_without_both_classes_is_absent_with_its_reason() -> None:
    result = evaluate({"n": np.full(20, 0.3)}, {"n": NORMAL}, threshold=0.5)
    assert result.figures == {
        "false_alarms_per_hour": 0.0,
        "calibration_error": pytest.approx(0.3),
    }
    assert "0 of 20 abnormal" in result.undefined["frame_auc"]
    assert result.undefined["event_f1"] == "there is no event"
    json.dumps(result.to_json(), allow_nan=False)


def test_every_figure_is_there_or_explained() -> None:
    for threshold in (0.0, 0.5, 2.0):
        result = evaluate(*case(), threshold=threshold)
        names = {*FRAME_FIGURES, "video_auc", "video_ap"}
        assert set(result.figures) | set(result.undefined) == names
        assert not set(result.figures) & set(result.undefined)


def test_scores_and_truth_are_joined_by_name() -> None:
    scores, truth = case()
    reordered = {video: scores[video] for video in ("n", "b", "a")}
    assert evaluate(scores, truth, threshold=0.5) == evaluate(reordered, truth, threshold=0.5)


def test_videos_on_one_side_only_are_all_named() -> None:
    scores, truth = case()
    scores["x"] = scores.pop("a")
    with pytest.raises(MismatchError) as caught:
        evaluate(scores, truth, threshold=0.5)
    assert caught.value.differences == [
        "a: has ground truth, but no scores",
        "x: scored, but has no ground truth",
    ]


@pytest.mark.parametrize(
    ("values", "events", "says"),
    [
        (np.array([0.1, np.nan]), [], "one finite number a frame"),
        (np.zeros(0), [], "one finite number a frame"),
        (np.zeros((2, 2)), [], "one finite number a frame"),
        (np.zeros(5), [(3, 6)], r"range \[3, 6\) does not lie within 5 frames; correct events"),
    ],
)
def test_bad_input_names_the_video(
    values: np.ndarray, events: list[tuple[int, int]], says: str
) -> None:
    with pytest.raises(InputError, match=f"^v: .*{says}"):
        evaluate({"v": values}, {"v": GroundTruth(True, 10, events)}, threshold=0.5)


def test_events_are_matched_once_and_best_first() -> None:
    assert temporal_iou((0, 10), (5, 15)) == pytest.approx(5 / 15)
    assert temporal_iou((0, 5), (5, 10)) == 0
    predicted, true = [(0, 10), (0, 8)], [(0, 8), (20, 30)]
    assert match_events(predicted, true) == [(1, 0)]
    assert match_events([(0, 10)], [(0, 5)]) == [(0, 0)]  # IoU 0.5 is enough
    assert match_events([(0, 10)], [(0, 4)]) == []


def test_reliability_bins() -> None:
    scores = np.array([0.0, 0.05, 0.55, 0.95, 1.0])
    truth = np.array([False, True, True, True, True])
    bins = reliability_bins(truth, scores)
    assert [(b.low, b.frames, b.share_abnormal) for b in bins] == [
        (0.0, 2, 0.5),
        (0.5, 1, 1.0),
        (0.9, 2, 1.0),
    ]
    assert bins[2].mean_score == pytest.approx(0.975)


def random_videos(count: int) -> tuple[dict[str, np.ndarray], dict[str, GroundTruth]]:
    rng = np.random.default_rng(0)
    scores, truth = {}, {}
    for i in range(count):
        values = np.repeat(rng.random(6).round(1), 16)  # rounded, so that scores tie
        if i % 2:
            values[16:48] = np.minimum(values[16:48] + 0.3, 1)
        scores[f"v{i}"] = values
        truth[f"v{i}"] = GroundTruth(bool(i % 2), 10, [(16, 48)] if i % 2 else [])
    return scores, truth


def literal_bootstrap(
    scores: dict[str, np.ndarray], truth: dict[str, GroundTruth], resamples: int, seed: int
) -> tuple[float, float]:
    videos = sorted(truth)
    draws = np.random.default_rng(seed).multinomial(
        len(videos), [1 / len(videos)] * len(videos), size=resamples
    )
    aucs = []
    for draw in draws:
        mask: list[bool] = []
        values: list[float] = []
        for video, times in zip(videos, draw, strict=True):
            events = truth[video].events or []
            for _ in range(times):
                values += scores[video].tolist()
                mask += [any(a <= f < b for a, b in events) for f in range(len(scores[video]))]
        if any(mask) and not all(mask):
            aucs.append(roc_auc_score(mask, values))
    low, high = np.quantile(aucs, [0.025, 0.975])
    return float(low), float(high)


def test_bootstrap_resamples_whole_videos() -> None:
    scores, truth = random_videos(8)
    ours = bootstrap_frame_auc([scores], truth, resamples=60, seed=4)
    assert ours == pytest.approx(literal_bootstrap(scores, truth, 60, 4))
    assert ours == bootstrap_frame_auc([scores], truth, resamples=60, seed=4)
    low, high = ours
    auc = evaluate(scores, truth, threshold=0.5, resamples=0).figures["frame_auc"]
    assert low < auc < high


def test_bootstrap_over_seeds_is_of_their_mean() -> None:
    scores, truth = random_videos(8)
    flipped = {video: 1 - values for video, values in scores.items()}
    low, high = bootstrap_frame_auc([scores, flipped], truth, resamples=60)
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)


def test_more_videos_narrow_the_interval() -> None:
    def width(count: int) -> float:
        low, high = bootstrap_frame_auc([random_videos(count)[0]], random_videos(count)[1])
        return high - low

    assert width(60) < width(8) / 1.5


def test_bootstrap_without_events_is_refused() -> None:
    with pytest.raises(InputError, match="no draw"):
        bootstrap_frame_auc([{"n": np.zeros(20)}], {"n": NORMAL}, resamples=5)


def test_summary_over_seeds() -> None:
    summary = summarize([0.8, 0.9, 1.0])
    assert (summary.mean, summary.std, summary.seeds) == (pytest.approx(0.9), pytest.approx(0.1), 3)
    assert summarize([0.7]).std == 0.0
