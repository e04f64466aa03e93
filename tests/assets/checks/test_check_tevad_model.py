import math

import pytest
import torch
from small_dataset import TEXT_DIM, VISUAL_DIM, failed, save_model

from assets import tevad_model as models
from assets.checks.tevad_model import CHECKS, check_tevad_model
from assets.workspace import files
from assets.workspace.project import Dataset
from tevad_model.errors import InputError
from tevad_model.network import TevadNetwork


def change_history(dataset: Dataset, seed: int, change: dict[str, object]) -> None:
    """Put values into a seed's history, as JSON that other writers may have made."""
    path = models.picked_folder(dataset, seed).parent / models.HISTORY
    path.write_text(
        str({**files.read_json(path), **change}).replace("'", '"').replace("nan", "NaN")
    )


def test_sound_models_pass_every_check(dataset: Dataset) -> None:
    outcomes = check_tevad_model(dataset)
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert failed(outcomes) == {}


def test_a_seed_whose_loss_is_no_number_is_named(dataset: Dataset) -> None:
    row = {"step": 20, "losses": {"loss": math.nan}, "validation": {}}
    change_history(dataset, 1, {"rows": [row]})
    assert failed(check_tevad_model(dataset)) == {"losses_are_finite": [1]}


def test_a_served_model_that_scores_nothing_is_found(dataset: Dataset) -> None:
    params = dataset.params.tevad_model
    network = TevadNetwork(params, VISUAL_DIM, TEXT_DIM)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(math.nan)
    save_model(dataset, params.seeds[0], network, params)
    training = ["train-abnormal-0", "train-abnormal-1", "train-normal-0", "train-normal-1"]
    assert failed(check_tevad_model(dataset)) == {"training_scores_in_range": training}


def test_a_seed_no_better_than_chance_is_a_warning(dataset: Dataset) -> None:
    change_history(dataset, 1, {"metrics": {"validation_auc": 0.5}})
    outcomes = check_tevad_model(dataset)
    assert failed(outcomes) == {"validation_better_than_chance": [1]}
    assert not next(outcome for outcome in outcomes if not outcome.passed).check.is_error


def test_models_without_validation_pass(dataset: Dataset) -> None:
    for seed in (0, 1):
        change_history(dataset, seed, {"metrics": {}})
    assert failed(check_tevad_model(dataset)) == {}


def test_models_that_are_not_there_are_asked_for(dataset: Dataset) -> None:
    (dataset.stage("tevad_model") / models.TRAINING).unlink()
    with pytest.raises(InputError, match=r"training\.json: not there; materialize tevad_model"):
        check_tevad_model(dataset)
