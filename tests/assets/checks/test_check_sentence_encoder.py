from dataclasses import asdict, replace
from pathlib import Path

import pytest
from small_dataset import failed
from tiny_models import tiny_bert

from assets.checks.sentence_encoder import CHECKS, check_sentence_encoder
from assets.sentence_encoder import STAGE, TUNING, TuningRecord, tuned_model
from assets.workspace import files
from assets.workspace.project import Dataset
from tevad_model.encoders import hub
from tevad_model.errors import InputError

FIGURES = {
    "before": {"alignment": 0.3, "uniformity": -1.0},
    "after": {"alignment": 0.2, "uniformity": -2.0},
}


def write(dataset: Dataset, record: TuningRecord) -> None:
    files.write_json(dataset.stage(STAGE) / TUNING, asdict(record))


@pytest.fixture
def kept(dataset: Dataset) -> TuningRecord:
    """A dataset with an encoder that was tuned and kept."""
    tiny_bert(tuned_model(dataset))
    weights = hub.weights_hash(tuned_model(dataset))
    record = TuningRecord("key", True, "it helped", 1200, weights, FIGURES)
    write(dataset, record)
    return record


def test_a_kept_encoder_passes_every_check(dataset: Dataset, kept: TuningRecord) -> None:
    outcomes = check_sentence_encoder(dataset)
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert failed(outcomes) == {}


def test_an_encoder_that_was_not_tuned_passes_too(dataset: Dataset) -> None:
    write(dataset, TuningRecord("key", False, "too few captions", 12))
    assert failed(check_sentence_encoder(dataset)) == {}


def test_weights_that_were_not_measured_fail(dataset: Dataset, kept: TuningRecord) -> None:
    config: Path = tuned_model(dataset) / "config.json"
    config.write_text(config.read_text() + " ")
    assert failed(check_sentence_encoder(dataset)) == {"a_kept_encoder_is_whole": ["small"]}


@pytest.mark.parametrize("measure", ["alignment", "uniformity"])
def test_an_encoder_that_was_kept_though_worse_fails(
    dataset: Dataset, kept: TuningRecord, measure: str
) -> None:
    worse = {**FIGURES, "after": {**FIGURES["after"], measure: 0.5}}
    write(dataset, replace(kept, figures=worse))
    assert failed(check_sentence_encoder(dataset)) == {"a_kept_encoder_improves": ["small"]}


def test_a_stage_that_has_not_run_is_named(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="materialize sentence_encoder first"):
        check_sentence_encoder(dataset)
