import pytest
from small_dataset import failed, read_scores, write_figures, write_scores

from assets.checks.evaluation_metrics import CHECKS, check_evaluation_metrics
from assets.evaluation_metrics import EVALUATION, SCORES
from assets.workspace.project import Dataset
from tevad_model.errors import InputError

STAGE = "evaluation_metrics"
VIDEO = "test-abnormal-0"  # 40 frames


def test_a_sound_evaluation_passes_every_check(dataset: Dataset) -> None:
    outcomes = check_evaluation_metrics(dataset)
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert failed(outcomes) == {}


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), None])
def test_a_score_out_of_range_is_named(dataset: Dataset, score: float | None) -> None:
    rows = read_scores(dataset)
    next(row for row in rows if row["video"] == VIDEO)["score"] = score
    write_scores(dataset, rows)
    assert failed(check_evaluation_metrics(dataset)) == {"scores_in_range": [VIDEO]}


@pytest.mark.parametrize("kept", [lambda row: row["start_frame"] > 0, lambda row: row["start_frame"] != 16, lambda row: row["start_frame"] < 32], ids=["first", "middle", "last"])  # fmt: skip
def test_a_video_with_a_snippet_missing_is_named(dataset: Dataset, kept: object) -> None:
    rows = read_scores(dataset)
    write_scores(dataset, [row for row in rows if row["video"] != VIDEO or kept(row)])
    assert failed(check_evaluation_metrics(dataset)) == {"every_test_frame_is_scored": [VIDEO]}


def test_a_snippet_that_is_scored_twice_is_named(dataset: Dataset) -> None:
    rows = read_scores(dataset)
    again = next(row for row in rows if (row["video"], row["start_frame"]) == (VIDEO, 16))
    write_scores(dataset, [again, *rows])
    [outcome] = [o for o in check_evaluation_metrics(dataset) if not o.passed]
    assert outcome.offenders == ({"video": VIDEO, "scored_frames": 32, "frames": 40},)


def test_a_video_that_should_not_be_scored_is_named(dataset: Dataset) -> None:
    rows = read_scores(dataset)
    strange = [row | {"video": "another"} for row in rows if row["video"] == VIDEO]
    write_scores(dataset, rows + strange)
    assert failed(check_evaluation_metrics(dataset)) == {"every_test_frame_is_scored": ["another"]}


def test_a_video_that_is_not_scored_is_named(dataset: Dataset) -> None:
    write_scores(dataset, [row for row in read_scores(dataset) if row["video"] != VIDEO])
    assert failed(check_evaluation_metrics(dataset))["every_test_frame_is_scored"] == [VIDEO]


@pytest.mark.parametrize(
    ("figures", "figure"),
    [
        ({"frame_auc": 0.5, "video_auc": 0.9}, "frame_auc"),
        ({"frame_auc": 0.4}, "frame_auc"),
        ({"video_auc": 0.5}, "video_auc"),
        ({}, "video_auc"),
    ],
)
def test_a_model_no_better_than_chance_blocks(
    dataset: Dataset, figures: dict[str, float], figure: str
) -> None:
    write_figures(dataset, figures)
    [outcome] = [o for o in check_evaluation_metrics(dataset) if not o.passed]
    assert outcome.check.name == "better_than_chance"
    assert outcome.check.blocking
    assert outcome.offenders[0]["figure"] == figure


def test_videos_are_judged_where_no_event_is_known(dataset: Dataset) -> None:
    write_figures(dataset, {"video_auc": 0.7})
    assert failed(check_evaluation_metrics(dataset)) == {}


@pytest.mark.parametrize("name", [SCORES, EVALUATION])
def test_a_missing_file_says_what_to_do(dataset: Dataset, name: str) -> None:
    (dataset.stage(STAGE) / name).unlink()
    with pytest.raises(InputError, match=f"{name}.*materialize evaluation_metrics"):
        check_evaluation_metrics(dataset)
