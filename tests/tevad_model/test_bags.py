"""Bags: what is cut, what is reused, what is refused, and what a step takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tevad_model.bags import (
    VideoExample,
    VideoFeatures,
    batch_indices,
    cut,
    cut_bags,
    hold_out,
    split_folds,
)
from tevad_model.errors import InputError, MismatchError, VideoError
from tevad_model.timeline import segment_bounds

RNG = np.random.default_rng(0)


def features(snippets: int = 7, crops: int = 2, dim: int = 4, text_dim: int = 3) -> VideoFeatures:
    visual = RNG.normal(size=(snippets, crops, dim)).astype(np.float16)
    return VideoFeatures(visual, RNG.normal(size=(snippets, text_dim)).astype(np.float32))


def example(video: str, label: bool, given: VideoFeatures | None = None) -> VideoExample:
    given = given or features()
    return VideoExample.from_arrays(video, label, given.visual, given.text)


@pytest.mark.parametrize("snippets", [1, 2, 3, 31, 32, 33, 100])
def test_a_segment_is_the_mean_of_its_snippets(snippets: int) -> None:
    values = RNG.normal(size=(snippets, 2, 5)).astype(np.float16)
    literal = np.stack(
        [
            values[start:end].astype(np.float64).mean(axis=0)
            for start, end in segment_bounds(snippets, 32)
        ]
    )
    np.testing.assert_allclose(cut(values, 32), literal, atol=1e-6)


def test_bags_hold_each_video_under_its_own_name(tmp_path: Path) -> None:
    given = {f"v{i}": features(snippets=i + 1) for i in range(4)}
    examples = [example(video, i % 2 == 0, f) for i, (video, f) in enumerate(given.items())]
    bags = cut_bags(examples[::-1], "both", 8, tmp_path)
    assert bags.videos == ("v0", "v1", "v2", "v3")
    assert bags.labels.tolist() == [True, False, True, False]
    assert bags.visual is not None
    assert bags.text is not None
    assert bags.visual.dtype == np.float16
    for row, video in enumerate(bags.videos):
        visual, text = given[video].visual, given[video].text
        assert visual is not None
        assert text is not None
        expected = cut(visual, 8).transpose(1, 0, 2)
        np.testing.assert_array_equal(bags.visual[row], expected.astype(np.float16))
        np.testing.assert_array_equal(bags.text[row], cut(text, 8))


def counted(video: str, label: bool, loads: list[str], digest: str = "d") -> VideoExample:
    given = features()

    def load() -> VideoFeatures:
        loads.append(video)
        return given

    return VideoExample(video, label, load, digest)


def test_bags_are_cut_once_and_anew_when_content_changes(tmp_path: Path) -> None:
    loads: list[str] = []
    examples = [counted("a", True, loads), counted("b", False, loads)]
    first = cut_bags(examples, "both", 8, tmp_path)
    again = cut_bags(examples[::-1], "both", 8, tmp_path)
    assert loads == ["a", "b"]
    assert again.key == first.key
    changed = cut_bags([examples[0], counted("b", False, loads, "other")], "both", 8, tmp_path)
    assert changed.key != first.key
    assert loads == ["a", "b", "a", "b"]
    for other in (
        cut_bags(examples, "text", 8, tmp_path),
        cut_bags(examples, "both", 16, tmp_path),
        cut_bags([counted("a", False, loads), counted("b", True, loads)], "both", 8, tmp_path),
    ):
        assert other.key != first.key


def test_an_interrupted_cut_is_not_taken_for_whole(tmp_path: Path) -> None:
    def killed() -> VideoFeatures:
        raise KeyboardInterrupt

    loads: list[str] = []
    first, second = counted("a", True, loads), counted("b", False, loads)
    with pytest.raises(KeyboardInterrupt):
        cut_bags([first, VideoExample("b", False, killed, "d")], "both", 8, tmp_path)
    bags = cut_bags([first, second], "both", 8, tmp_path)
    assert loads == ["a", "a", "b"]
    assert bags.text is not None
    assert np.asarray(bags.text).any(axis=(1, 2)).all()


def test_only_the_features_the_modality_reads_are_needed(tmp_path: Path) -> None:
    text = RNG.normal(size=(3, 4))
    bags = cut_bags(
        [VideoExample.from_arrays(v, v == "a", text=text) for v in "ab"], "text", 8, tmp_path
    )
    assert bags.visual is None
    assert bags.text is not None


def with_nan() -> VideoFeatures:
    bad = features()
    assert bad.visual is not None
    bad.visual[3, 1, 2] = np.nan
    return bad


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (with_nan(), "NaN or infinity in 1 snippets, the first 3"),
        (VideoFeatures(features().visual, None), "no text features"),
        (VideoFeatures(features(6).visual, features(7).text), "6 snippets .* 7 of text"),
        (VideoFeatures(features().text, features().text), r"shape \(7, 3\); expected 3 axes"),
        (VideoFeatures(np.zeros((0, 1, 4)), np.zeros((0, 3))), "none empty"),
    ],
)
def test_unusable_features_name_the_video(tmp_path: Path, bad: VideoFeatures, says: str) -> None:
    with pytest.raises(VideoError, match=f"^b: .*{says}"):
        cut_bags([example("a", True), example("b", False, bad)], "both", 8, tmp_path)


def test_different_dimensions_are_all_listed(tmp_path: Path) -> None:
    with pytest.raises(MismatchError) as caught:
        cut_bags(
            [example("a", True), example("b", False, features(crops=5, dim=6))],
            "both",
            8,
            tmp_path,
        )
    assert caught.value.differences == [
        "visual crops: a has 2, b has 5",
        "visual dim: a has 4, b has 6",
    ]


@pytest.mark.parametrize(
    ("names", "labels", "says"),
    [
        ("", [], "no video"),
        ("ab", [True, True], "all 2 videos are abnormal; add normal ones"),
        ("ab", [False, False], "all 2 videos are normal; add abnormal ones"),
        ("aba", [True, False, True], "named more than once: a$"),
    ],
)
def test_unusable_sets_are_refused(
    tmp_path: Path, names: str, labels: list[bool], says: str
) -> None:
    examples = [example(v, label) for v, label in zip(names, labels, strict=True)]
    with pytest.raises(InputError, match=says):
        cut_bags(examples, "both", 8, tmp_path)


def test_a_round_of_batches_takes_every_bag_once() -> None:
    labels = np.arange(20) < 12
    seen: list[int] = []
    for step in range(3):  # 12 abnormal bags in batches of 4
        normal, abnormal = batch_indices(labels, 4, seed=5, step=step)
        assert not labels[normal].any()
        assert labels[abnormal].all()
        assert len(normal) == len(abnormal) == 4
        seen += abnormal.tolist()
    assert sorted(seen) == list(range(12))
    later = np.concatenate([batch_indices(labels, 4, seed=5, step=s)[1] for s in (3, 4, 5)])
    assert sorted(later.tolist()) == list(range(12))
    assert later.tolist() != seen


def test_batches_follow_from_seed_and_step_alone() -> None:
    labels = np.arange(20) < 12
    first = batch_indices(labels, 4, seed=1, step=7)
    batch_indices(labels, 4, seed=2, step=0)
    np.testing.assert_array_equal(first, batch_indices(labels, 4, seed=1, step=7))
    assert not np.array_equal(first, batch_indices(labels, 4, seed=2, step=7))


def test_a_small_class_gives_all_its_bags() -> None:
    normal, abnormal = batch_indices(np.arange(10) < 6, 32, seed=0, step=3)
    assert sorted(normal.tolist()) == [6, 7, 8, 9]
    assert sorted(abnormal.tolist()) == list(range(6))


def test_holding_out_is_by_source_and_class() -> None:
    labels = np.arange(100) < 40
    sources = [f"s{i // 2}" for i in range(100)]
    held_out = hold_out(labels, sources, 0.25, seed=0)
    assert labels[held_out].sum() == 10
    assert (~labels[held_out]).sum() == 16  # 30 sources, 7.5 rounded to even, two videos each
    rest = {sources[i] for i in range(100)} - {sources[i] for i in held_out}
    assert not rest & {sources[i] for i in held_out}
    assert not np.array_equal(held_out, hold_out(labels, sources, 0.25, seed=1))


def test_folds_part_the_sources() -> None:
    labels = np.array([True] * 6 + [False] * 4)
    sources = [f"s{i}" for i in range(10)]
    folds = split_folds(labels, sources, 4, seed=3)
    assert sorted(np.concatenate(folds).tolist()) == list(range(10))
    for fold in folds:
        assert labels[fold].sum() in (1, 2)
        assert (~labels[fold]).sum() == 1


def test_a_source_with_both_labels_stays_in_one_fold() -> None:
    labels = np.array([True, False, True, False, True, False])
    folds = split_folds(labels, ["mixed", "mixed", "a", "b", "c", "d"], 2, seed=0)
    assert any({0, 1} <= set(fold.tolist()) for fold in folds)
