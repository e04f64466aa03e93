import numpy as np
import pytest
from small_dataset import CROPS, VISUAL_DIM, change_row, failed, write_array

from assets.checks.snippet_features import CHECKS, check_snippet_features
from assets.workspace.manifest import StageRow, read_manifest
from assets.workspace.project import Dataset

STAGE = "snippet_features"
VIDEO = "test-normal-0"  # 33 frames, 3 snippets
SHAPE = (3, CROPS, VISUAL_DIM)


def features(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape)


def test_sound_features_pass_every_check(dataset: Dataset) -> None:
    outcomes = check_snippet_features(dataset)
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert failed(outcomes) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_is_named(dataset: Dataset, value: float) -> None:
    array = features()
    array[1, 0, 3] = value
    write_array(dataset, STAGE, VIDEO, array)
    assert failed(check_snippet_features(dataset))["features_are_finite"] == [VIDEO]


@pytest.mark.parametrize("snippets", [2, 4])
def test_a_wrong_number_of_snippets_is_named(dataset: Dataset, snippets: int) -> None:
    write_array(dataset, STAGE, VIDEO, features((snippets, CROPS, VISUAL_DIM)))
    assert failed(check_snippet_features(dataset)) == {"a_result_for_every_snippet": [VIDEO]}


def test_a_file_that_is_cut_is_named(dataset: Dataset) -> None:
    path = dataset.stage(STAGE) / f"{VIDEO}.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert failed(check_snippet_features(dataset))["a_result_for_every_snippet"] == [VIDEO]


def test_a_video_the_stage_does_not_know_is_named(dataset: Dataset) -> None:
    change_row(dataset, STAGE, VIDEO, video="another")
    failures = failed(check_snippet_features(dataset))
    assert failures["a_result_for_every_snippet"] == ["another"]
    assert failures["one_encoder_made_all"] == [VIDEO]


def test_a_video_the_stage_put_in_quarantine_needs_no_features(dataset: Dataset) -> None:
    change_row(dataset, STAGE, VIDEO, problem="cannot be encoded", snippets=0)
    (dataset.stage(STAGE) / f"{VIDEO}.safetensors").unlink()
    assert failed(check_snippet_features(dataset)) == {}


@pytest.mark.parametrize("shape", [(3, CROPS, VISUAL_DIM + 1), (3, CROPS + 1, VISUAL_DIM)])
def test_another_shape_than_the_commonest_is_named(
    dataset: Dataset, shape: tuple[int, ...]
) -> None:
    write_array(dataset, STAGE, VIDEO, features(shape))
    assert failed(check_snippet_features(dataset)) == {"one_shape": [VIDEO]}


def test_features_of_another_encoder_are_named(dataset: Dataset) -> None:
    change_row(dataset, STAGE, VIDEO, fingerprint="another")
    assert failed(check_snippet_features(dataset)) == {"one_encoder_made_all": [VIDEO]}


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_norms_out_of_range_are_a_warning(dataset: Dataset, scale: float) -> None:
    write_array(dataset, STAGE, VIDEO, features() * scale)
    outcomes = check_snippet_features(dataset)
    assert failed(outcomes) == {"feature_norms_in_range": [VIDEO]}
    assert not next(outcome for outcome in outcomes if not outcome.passed).check.is_error


def test_dimensions_that_never_vary_are_counted(dataset: Dataset) -> None:
    dead = VISUAL_DIM // 2 + 1
    for row in read_manifest(dataset.stage(STAGE), StageRow).rows:
        array = features((row.snippets, CROPS, VISUAL_DIM))
        array[..., :dead] = 0.5
        write_array(dataset, STAGE, row.video, array)
    [outcome] = [o for o in check_snippet_features(dataset) if not o.passed]
    assert outcome.check.name == "few_dead_dimensions"
    assert outcome.offenders == ({"dataset": "small", "dead_dimensions": dead / VISUAL_DIM},)
