"""Judging score arrays by the policy: what is better, what only looks so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assets.promotion.evidence import Evidence, judge_first, judge_pair
from assets.promotion.policy import Policy, read_policy
from assets.workspace.project import Project
from tevad_model.metrics import GroundTruth

Scores = dict[str, np.ndarray]
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The one that comes with the project."""
    return read_policy(Project.at(REPOSITORY))


class TestVideos:
    """Videos whose difficulty all models share, and models that each err in their own way."""

    __test__ = False

    def __init__(self, videos: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.truth: dict[str, GroundTruth] = {}
        self._shared: Scores = {}
        self._abnormal: dict[str, np.ndarray] = {}
        for i in range(videos):
            name, snippets = f"v{i:03d}", int(self._rng.integers(8, 40))
            abnormal = np.zeros(snippets, dtype=bool)
            if i % 2:
                start = int(self._rng.integers(0, snippets - 4))
                abnormal[start : start + int(self._rng.integers(3, snippets))] = True
            frames = np.flatnonzero(np.repeat(abnormal, 16))
            events = [(int(frames[0]), int(frames[-1]) + 1)] if len(frames) else []
            kind = ("fall", "fight")[i // 2 % 2] if events else None
            self.truth[name] = GroundTruth(bool(events), 25.0, events, kind)
            self._abnormal[name] = abnormal
            self._shared[name] = self._rng.normal(0, 0.5, 1) + self._rng.normal(0, 0.7, snippets)

    def model(self, quality: float = 1.2, *, blind_to: str = "") -> Scores:
        """Frame scores of a model: what it sees of the events, and noise of its own."""
        scores = {}
        for name, shared in self._shared.items():
            seen = 0.0 if blind_to and self.truth[name].event_class == blind_to else quality
            noise = self._rng.normal(0, 0.5, 1) + self._rng.normal(0, 0.7, len(shared))
            scores[name] = np.repeat(seen * self._abnormal[name] + shared + noise, 16)
        return scores


def outcomes(evidence: Evidence) -> dict[str, bool | None]:
    return {each.name: each.passed for each in evidence.conditions}


@pytest.mark.parametrize("videos", [12, 40])
def test_of_100_pairs_of_equal_models_at_most_5_are_promoted(policy: Policy, videos: int) -> None:
    passed = better = 0
    for seed in range(100):
        test = TestVideos(videos, seed)
        evidence = judge_pair(test.model(), test.model(), test.truth, {}, policy)
        passed += not evidence.failed
        better += evidence.figures["difference"] > 0
    print(f"{videos} videos: {passed} of 100 equal challengers promoted, {better} look better")
    assert better > 30
    assert passed <= 5


def test_a_better_challenger_is_promoted_and_the_worse_one_is_not(policy: Policy) -> None:
    test = TestVideos(40, 0)
    good, bad = test.model(2.4), test.model(0.6)
    won = judge_pair(good, bad, test.truth, {}, policy)
    assert won.failed == ()
    assert won.figures["low"] > 0
    lost = judge_pair(bad, good, test.truth, {}, policy)
    assert {each.name for each in lost.failed} >= {"better than the champion", "not by chance"}


def test_a_lucky_challenger_is_refused(policy: Policy) -> None:
    """Of many models that are all alike, the one that came out best."""
    test = TestVideos(24, 0)
    champion = test.model()
    tried = [judge_pair(test.model(), champion, test.truth, {}, policy) for _ in range(8)]
    lucky = max(tried, key=lambda evidence: evidence.figures["difference"])
    assert lucky.figures["difference"] > 0.01
    assert outcomes(lucky)["better than the champion"] is False
    assert outcomes(lucky)["not by chance"] is False


def test_the_same_model_twice_is_no_gain(policy: Policy) -> None:
    test = TestVideos(12, 0)
    scores = test.model()
    found = judge_pair(scores, scores, test.truth, {}, policy)
    assert (found.figures["low"], found.figures["high"], found.figures["chance"]) == (0, 0, 1)
    assert outcomes(found)["better than the champion"] is False


def test_another_scale_of_scores_changes_nothing(policy: Policy) -> None:
    test = TestVideos(20, 1)
    ours, theirs = test.model(2.0), test.model()
    squeezed = {video: 1 / (1 + np.exp(-values)) for video, values in ours.items()}
    assert judge_pair(ours, theirs, test.truth, {}, policy).figures == pytest.approx(
        judge_pair(squeezed, theirs, test.truth, {}, policy).figures
    )


def test_a_class_that_drops_is_refused_however_much_is_gained(policy: Policy) -> None:
    test = TestVideos(60, 0)
    evidence = judge_pair(test.model(6.0, blind_to="fall"), test.model(0.8), test.truth, {}, policy)
    assert outcomes(evidence)["no class drops"] is False
    [said] = [each.says for each in evidence.failed if each.name == "no class drops"]
    assert said.startswith("fall from 0.")


def test_a_source_that_drops_is_refused(policy: Policy) -> None:
    test = TestVideos(40, 0)
    sources = {video: f"camera-{i // 2 % 2}" for i, video in enumerate(test.truth)}
    good, bad = test.model(3.0), test.model(0.1)
    champion = test.model(1.0)
    mixed = {v: bad[v] if sources[v] == "camera-1" else good[v] for v in good}
    found = judge_pair(mixed, champion, test.truth, sources, policy)
    assert outcomes(found)["no source drops"] is False
    assert {p.name for p in found.parts if p.kind == "source"} == {"camera-0", "camera-1"}


def test_the_first_model_must_be_better_than_chance(policy: Policy) -> None:
    test = TestVideos(40, 0)
    assert judge_first(test.model(), test.truth, {}, policy).failed == ()
    blind = judge_first(test.model(0.0), test.truth, {}, policy)
    assert outcomes(blind) == {"above the floor": False}
    assert blind.figures["low"] < 0.5 < blind.figures["high"]


def test_without_events_videos_are_compared(policy: Policy) -> None:
    test = TestVideos(30, 0)
    unmarked = {v: GroundTruth(t.label, t.fps) for v, t in test.truth.items()}
    found = judge_pair(test.model(6.0), test.model(0.1), unmarked, {}, policy)
    assert found.conditions[0].says.startswith("video AUC")
    assert found.failed == ()


def test_one_label_alone_cannot_be_judged(policy: Policy) -> None:
    test = TestVideos(30, 0)
    normal = {video: GroundTruth(False, 25.0) for video in test.truth}
    found = judge_pair(test.model(), test.model(), normal, {}, policy)
    assert outcomes(found) == {"the same test data": False}
