"""Training: it learns, repeats itself bit for bit, goes on after a kill, and stops when it must."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tevad_model.artifact import Model
from tevad_model.bags import VideoExample, cut_bags
from tevad_model.config import TrainingParams
from tevad_model.errors import InputError
from tevad_model.scoring import score
from tevad_model.training import StepReport, TrainingResult, fitting_rows, train

VISUAL, TEXT = 12, 8


def examples(
    count: int = 16, crops: int = 2, seed: int = 0, scale: float = 1.0
) -> list[VideoExample]:
    """Videos of 1 to 20 snippets; an abnormal one has a stretch that both modalities see."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        snippets = [1, 2, 3][i // 2] if i < 6 else int(rng.integers(8, 21))
        visual = rng.normal(size=(snippets, crops, VISUAL))
        text = rng.normal(size=(snippets, TEXT))
        abnormal = i % 2 == 0
        if abnormal:
            event = slice(snippets // 3, snippets // 3 + max(1, snippets // 4))
            visual[event, :, :3] += 4
            text[event, :2] += 4
        made.append(
            VideoExample.from_arrays(
                f"v{i:02}", abnormal, (scale * visual).astype(np.float16), text.astype(np.float32)
            )
        )
    return made


def quick(**settings: object) -> TrainingParams:
    defaults = {"iterations": 12, "evaluate_every": 4, "batch_size": 4, "segments": 8}
    return TrainingParams.model_validate(defaults | settings)


def same_weights(a: Model, b: Model) -> bool:
    first, second = a.network.state_dict(), b.network.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def same(a: TrainingResult, b: TrainingResult) -> bool:
    return (
        same_weights(a.picked, b.picked)
        and same_weights(a.last, b.last)
        and a.history == b.history
        and (a.picked.step, a.picked.threshold) == (b.picked.step, b.picked.threshold)
    )


@pytest.mark.parametrize(
    ("modality", "fusion", "crops"),
    [
        *itertools.product(["both"], ["concat", "add", "product"], [1, 5, 10]),
        *itertools.product(["visual"], ["concat"], [1, 5, 10]),
        ("text", "concat", 1),
    ],
)
def test_every_combination_trains_and_scores(
    tmp_path: Path, modality: str, fusion: str, crops: int
) -> None:
    given = examples(crops=crops)
    params = quick(modality=modality, fusion=fusion, iterations=4, selection="holdout")
    model = train(given, params, seed=0, work_dir=tmp_path).picked
    for example in given:
        features = example.load()
        result = score(model, features.visual, features.text)
        assert result.scores.shape == (features.snippets,)
        assert ((result.scores >= 0) & (result.scores <= 1)).all()


@pytest.mark.parametrize(
    "settings", [{}, {"paper_compat": True}, {"standardize": True, "weight_averaging": 0.9}]
)
def test_training_finds_the_abnormal_snippets(tmp_path: Path, settings: dict[str, object]) -> None:
    params = quick(iterations=120, evaluate_every=20, selection="last", dropout=0.3, **settings)
    model = train(examples(40), params, seed=0, work_dir=tmp_path).picked
    inside, outside = [], []
    for example in examples(40, seed=1):
        features = example.load()
        scores = score(model, features.visual, features.text).scores
        event = slice(len(scores) // 3, len(scores) // 3 + max(1, len(scores) // 4))
        if example.label and len(scores) > 3:
            inside.append(scores[event].mean())
            outside.append(np.delete(scores, np.arange(len(scores))[event]).mean())
    assert np.mean(np.array(inside) > np.array(outside)) > 0.9


@pytest.mark.parametrize("selection", ["holdout", "cross_validation", "last"])
def test_same_arguments_give_the_same_weights(tmp_path: Path, selection: str) -> None:
    params = quick(selection=selection)
    first = train(examples(), params, seed=1, work_dir=tmp_path / "a")
    second = train(examples()[::-1], params, seed=1, work_dir=tmp_path / "b")
    assert same(first, second)
    other = train(examples(), params, seed=2, work_dir=tmp_path / "a")
    assert not same_weights(first.last, other.last)


class KilledError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("selection", ["holdout", "cross_validation", "last"])
@pytest.mark.parametrize("kill_at", [1, 6, 11])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, selection: str, kill_at: int, decay: float
) -> None:
    params = quick(selection=selection, standardize=True, folds=2, weight_averaging=decay)
    whole = train(examples(), params, seed=1, work_dir=tmp_path / "whole")
    last_phase = "train" if selection != "cross_validation" else "fold 2/2"

    def kill(report: StepReport) -> None:
        if (report.phase, report.step) == (last_phase, kill_at):
            raise KilledError

    with pytest.raises(KilledError):
        train(examples(), params, seed=1, work_dir=tmp_path / "cut", on_step=kill)
    seen: list[tuple[str, int]] = []
    resumed = train(
        examples(),
        params,
        seed=1,
        work_dir=tmp_path / "cut",
        on_step=lambda report: seen.append((report.phase, report.step)),
    )
    assert same(whole, resumed)
    assert seen[0] == (last_phase, 4 * (kill_at // 4) + 1)


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = train(examples(), quick(), seed=1, work_dir=tmp_path)
    seen: list[StepReport] = []
    again = train(examples(), quick(), seed=1, work_dir=tmp_path, on_step=seen.append)
    assert not seen
    assert same(first, again)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-2},
        {"top_k": 2},
        {"fusion": "add"},
        {"selection": "cross_validation", "folds": 2},
    ],
)
def test_a_checkpoint_of_other_parameters_is_not_taken_up(
    tmp_path: Path, change: dict[str, object]
) -> None:
    train(examples(), quick(selection="last"), seed=1, work_dir=tmp_path)
    params = quick(**{"selection": "last"} | change)
    beside = train(examples(), params, seed=1, work_dir=tmp_path)
    alone = train(examples(), params, seed=1, work_dir=tmp_path / "alone")
    assert same(beside, alone)
    assert beside.selection == params.selection


def test_a_run_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(examples(), quick(iterations=4, selection="last"), seed=1, work_dir=tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_checkpoint_callbacks_do_cannot_change_the_result(tmp_path: Path) -> None:
    steps: list[int] = []

    def meddle(model: Model) -> None:
        steps.append(model.step)
        torch.manual_seed(0)
        for parameter in model.network.parameters():
            parameter.data.zero_()

    params = quick(selection="holdout")
    watched = train(examples(), params, seed=1, work_dir=tmp_path / "a", on_checkpoint=meddle)
    alone = train(examples(), params, seed=1, work_dir=tmp_path / "b")
    assert steps == [4, 8, 12]
    assert same(watched, alone)


def test_the_picked_step_is_the_best_on_videos_held_out(tmp_path: Path) -> None:
    result = train(
        examples(30), quick(selection="holdout", iterations=40), seed=1, work_dir=tmp_path
    )
    assert result.selection == "holdout"
    labels = {example.video: example.label for example in examples(30)}
    held_out = [labels[video] for video in result.validation_videos]
    assert (sum(held_out), len(held_out)) == (3, 6)
    best = max(
        result.history,
        key=lambda row: (
            row.validation["validation_auc"],
            -row.validation["validation_loss"],
            row.step,
        ),
    )
    assert result.picked.step == best.step
    assert result.picked.metrics == best.validation
    assert result.last.step == 40


def test_held_out_videos_do_not_touch_the_weights(tmp_path: Path) -> None:
    params = quick(selection="holdout", standardize=True)
    result = train(examples(), params, seed=1, work_dir=tmp_path / "a")
    others = {example.video: example for example in examples(seed=9)}
    changed = [
        others[example.video] if example.video in result.validation_videos else example
        for example in examples()
    ]
    again = train(changed, params, seed=1, work_dir=tmp_path / "b")
    assert same_weights(result.last, again.last)
    assert result.history != again.history


def test_few_videos_are_cross_validated_and_then_all_trained_on(tmp_path: Path) -> None:
    phases: list[str] = []
    result = train(
        examples(10),
        quick(),
        seed=1,
        work_dir=tmp_path,
        on_step=lambda report: phases.append(report.phase),
    )
    assert list(dict.fromkeys(phases)) == [
        "fold 1/4",
        "fold 2/4",
        "fold 3/4",
        "fold 4/4",
        "train",
    ]
    assert result.selection == "cross_validation"
    assert len(result.validation_videos) == 10
    assert all(row.validation for row in result.history)
    plain = train(examples(10), quick(selection="last"), seed=1, work_dir=tmp_path / "plain")
    assert same_weights(result.last, plain.last)


def test_many_videos_are_held_out_by_default(tmp_path: Path) -> None:
    params = quick(iterations=2, validation_share=0.4)
    assert train(examples(100), params, seed=0, work_dir=tmp_path).selection == "holdout"


def test_two_videos_train_without_validation(tmp_path: Path) -> None:
    result = train(examples(2), quick(), seed=0, work_dir=tmp_path)
    assert result.selection == "last"
    assert result.picked.validated == "last"
    assert same_weights(result.picked, result.last)
    assert result.picked.threshold == 0.5
    assert not result.validation_videos
    with pytest.raises(InputError, match="selection: 'holdout' needs more videos"):
        train(examples(2), quick(selection="holdout"), seed=0, work_dir=tmp_path)


def test_patience_stops_after_the_best_evaluation(tmp_path: Path) -> None:
    params = quick(selection="holdout", iterations=400, patience=2)
    result = train(examples(), params, seed=1, work_dir=tmp_path)
    assert result.last.step < 400
    assert result.last.step == result.picked.step + 2 * 4


def test_losses_and_validation_are_reported(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    params = quick(selection="holdout")
    result = train(examples(), params, seed=1, work_dir=tmp_path, on_step=reports.append)
    assert [report.step for report in reports] == list(range(1, 13))
    for report in reports:
        parts = dict(report.losses)
        assert parts.pop("loss") == pytest.approx(sum(parts.values()))
        assert bool(report.validation) == (report.step % 4 == 0)
    row = result.history[0]
    assert row.losses["loss"] == pytest.approx(np.mean([r.losses["loss"] for r in reports[:4]]))
    assert row.validation == reports[3].validation


def test_the_threshold_parts_validation_videos(tmp_path: Path) -> None:
    params = quick(iterations=120, evaluate_every=20, dropout=0.3, selection="holdout")
    result = train(examples(60), params, seed=0, work_dir=tmp_path)
    assert result.picked.metrics["validation_auc"] > 0.9
    assert 0 < result.picked.threshold < 1


def test_averaged_weights_are_the_moving_average_of_each_steps(tmp_path: Path) -> None:
    """Against the plain statement: average ← decay · average + (1 − decay) · weights."""
    seen: dict[float, list[dict[str, torch.Tensor]]] = {0.0: [], 0.9: []}
    for decay, weights in seen.items():
        train(
            examples(),
            quick(evaluate_every=1, weight_averaging=decay, selection="last"),
            seed=1,
            work_dir=tmp_path,
            on_checkpoint=lambda model, kept=weights: kept.append(
                {name: value.clone() for name, value in model.network.state_dict().items()}
            ),
        )
    average = seen[0.0][0]
    for step, weights in enumerate(seen[0.0][1:], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in weights.items():
            if value.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * value
    for name, value in seen[0.9][-1].items():
        torch.testing.assert_close(
            value, average[name] if value.is_floating_point() else weights[name]
        )


def test_a_diverging_loss_stops_with_step_part_and_video(tmp_path: Path) -> None:
    params = quick(selection="last", learning_rate=1e25)
    with pytest.raises(InputError, match=r"stopped at step \d \(train\): .* not finite.* in v\d\d"):
        train(examples(), params, seed=0, work_dir=tmp_path)


def test_a_loss_that_runs_away_is_named_with_its_part(tmp_path: Path) -> None:
    params = quick(selection="last", learning_rate=1e4)
    with pytest.raises(InputError, match=r"stopped at step \d .*the magnitude loss has grown"):
        train(examples(), params, seed=0, work_dir=tmp_path)


def test_mixed_precision_stays_close(tmp_path: Path) -> None:
    plain = train(examples(), quick(selection="last"), seed=0, work_dir=tmp_path)
    mixed = train(
        examples(), quick(selection="last", mixed_precision=True), seed=0, work_dir=tmp_path
    )
    first, second = plain.history[-1].losses["loss"], mixed.history[-1].losses["loss"]
    assert first != second
    assert second == pytest.approx(first, rel=0.05)


def test_mixed_precision_ends_with_training(tmp_path: Path) -> None:
    """Validation scores, and so step and threshold, are those that the kept model gives."""
    params = quick(selection="holdout", mixed_precision=True)
    result = train(examples(), params, seed=0, work_dir=tmp_path)
    bags = cut_bags(examples(), params.modality, params.segments, tmp_path)
    held_out = [bags.videos.index(video) for video in result.validation_videos]
    assert bags.visual is not None
    assert bags.text is not None
    visual, text = (torch.from_numpy(each[held_out]).float() for each in (bags.visual, bags.text))
    with torch.no_grad():
        scores = result.picked.network(visual, text).scores
    np.testing.assert_allclose(result.validation_scores, scores.numpy(), rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 13, 1000])
def test_what_is_fitted_on_is_every_segment_of_the_bags_in_their_order(at_once: int) -> None:
    array = np.random.default_rng(0).normal(size=(7, 2, 3, 4)).astype(np.float16)
    bags = np.array([6, 0, 3, 2, 5])
    rows = torch.cat(list(fitting_rows(array, bags, at_once)))
    assert rows.dtype == torch.float32
    assert torch.equal(rows, torch.from_numpy(array[bags].reshape(-1, 4)).float())
