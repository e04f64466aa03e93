import pytest
from small_dataset import change_row, failed

from assets.checks.raw_videos import CHECKS, check_raw_videos
from assets.workspace import files, listing
from assets.workspace.project import Dataset
from tevad_model.dataset import LABELS, SPLITS

STAGE = "raw_videos"
VIDEO = "train-normal-0"


def quarantine(dataset: Dataset, *videos: str) -> None:
    for video in videos:
        change_row(dataset, STAGE, video, problem=f"{video}.mp4: cut off", sha256="")


def test_sound_videos_pass_every_check(dataset: Dataset) -> None:
    outcomes = check_raw_videos(dataset)
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert failed(outcomes) == {}


def test_a_video_file_that_is_gone_is_named(dataset: Dataset) -> None:
    (dataset.stage(STAGE) / "videos" / f"{VIDEO}.mp4").unlink()
    assert failed(check_raw_videos(dataset)) == {"videos_are_accounted_for": [VIDEO]}


def test_a_video_file_that_was_changed_is_named(dataset: Dataset) -> None:
    (dataset.stage(STAGE) / "videos" / f"{VIDEO}.mp4").write_bytes(b"half")
    assert failed(check_raw_videos(dataset)) == {"videos_are_accounted_for": [VIDEO]}


def test_a_listed_video_without_a_row_is_named(dataset: Dataset) -> None:
    with (dataset.source / listing.VIDEOS).open("a") as file:
        file.write("forgotten,forgotten.mp4,normal,train,\n")
    assert failed(check_raw_videos(dataset)) == {"videos_are_accounted_for": ["forgotten"]}


def test_a_quarantined_video_is_a_warning_with_its_reason(dataset: Dataset) -> None:
    quarantine(dataset, VIDEO)
    outcomes = check_raw_videos(dataset)
    assert failed(outcomes) == {"no_video_is_quarantined": [VIDEO]}
    [outcome] = [outcome for outcome in outcomes if not outcome.passed]
    assert not outcome.check.is_error
    assert f"| {VIDEO} | {VIDEO}.mp4: cut off |" in outcome.offenders_table


def test_too_many_quarantined_videos_block(dataset: Dataset) -> None:
    quarantine(dataset, VIDEO, "test-normal-0")
    outcomes = {outcome.check.name: outcome for outcome in check_raw_videos(dataset)}
    outcome = outcomes["few_videos_are_quarantined"]
    assert not outcome.passed
    assert outcome.check.is_error
    assert outcome.check.blocking
    assert "| quarantined share | 0.25 | at most 0.2 | 1 |" in outcome.figures_table


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("label", LABELS)
def test_a_split_without_a_label_blocks(dataset: Dataset, split: str, label: str) -> None:
    quarantine(dataset, f"{split}-{label}-0", f"{split}-{label}-1")
    outcomes = {outcome.check.name: outcome for outcome in check_raw_videos(dataset)}
    outcome = outcomes["both_labels_in_each_split"]
    assert outcome.check.blocking
    assert outcome.offenders == ({"split": split, "label": label, "usable_videos": 0},)


def test_what_the_stage_warned_of_is_shown(dataset: Dataset) -> None:
    warning = "extra.mp4: in the source, but not listed in videos.csv"
    files.write_json(dataset.reports / f"{STAGE}.json", {"warnings": [warning]})
    assert failed(check_raw_videos(dataset)) == {"nothing_strange_in_the_source": [warning]}
