from small_dataset import CAPTIONS, change_row, failed, write_captions

from assets.checks.captions import CHECKS, check_captions
from assets.workspace.manifest import StageRow, read_manifest
from assets.workspace.project import Dataset

STAGE = "captions"
VIDEO = "test-normal-0"  # 3 snippets


def caption_all(dataset: Dataset, caption: str) -> None:
    for row in read_manifest(dataset.stage(STAGE), StageRow).rows:
        write_captions(dataset, row.video, [caption] * row.snippets)


def test_sound_captions_pass_every_check(dataset: Dataset) -> None:
    outcomes = check_captions(dataset)
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert failed(outcomes) == {}


def test_an_empty_caption_is_named(dataset: Dataset) -> None:
    write_captions(dataset, VIDEO, [CAPTIONS[0], " ", CAPTIONS[1]])
    assert failed(check_captions(dataset)) == {"no_caption_is_empty": [VIDEO]}


def test_a_wrong_number_of_captions_is_named(dataset: Dataset) -> None:
    write_captions(dataset, VIDEO, list(CAPTIONS[:2]))
    assert failed(check_captions(dataset)) == {"a_result_for_every_snippet": [VIDEO]}


def test_a_file_that_is_cut_is_named(dataset: Dataset) -> None:
    path = dataset.stage(STAGE) / f"{VIDEO}.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert failed(check_captions(dataset)) == {"a_result_for_every_snippet": [VIDEO]}


def test_captions_of_another_captioner_are_named(dataset: Dataset) -> None:
    change_row(dataset, STAGE, VIDEO, fingerprint="another")
    assert failed(check_captions(dataset)) == {"one_encoder_made_all": [VIDEO]}


def test_a_captioner_that_says_the_same_everywhere_is_a_warning(dataset: Dataset) -> None:
    caption_all(dataset, "Five words are said here.")
    outcomes = check_captions(dataset)
    assert failed(outcomes) == {"captions_differ": ["small"]}
    assert not next(outcome for outcome in outcomes if not outcome.passed).check.is_error


def test_punctuation_and_case_make_no_vocabulary(dataset: Dataset) -> None:
    for row in read_manifest(dataset.stage(STAGE), StageRow).rows:
        captions = [
            ("Nobody moves.", "nobody moves", "Moves, nobody!")[i % 3] for i in range(row.snippets)
        ]
        write_captions(dataset, row.video, captions)
    [outcome] = [o for o in check_captions(dataset) if not o.passed]
    assert outcome.check.name == "captions_have_a_vocabulary"
    assert outcome.offenders == ({"dataset": "small", "vocabulary": 2},)
