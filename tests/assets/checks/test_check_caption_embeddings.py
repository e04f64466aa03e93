import numpy as np
import pytest
from small_dataset import CAPTIONS, TEXT_DIM, change_row, failed, write_array

from assets.caption_embeddings import load_embeddings
from assets.checks.caption_embeddings import CHECKS, check_caption_embeddings
from assets.workspace.project import Dataset

STAGE = "caption_embeddings"
VIDEO = "test-normal-0"  # 3 snippets, one of each caption


def test_sound_embeddings_pass_every_check(dataset: Dataset) -> None:
    outcomes = check_caption_embeddings(dataset)
    assert [outcome.check for outcome in outcomes] == list(CHECKS)
    assert failed(outcomes) == {}


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_value_that_is_not_finite_is_named(dataset: Dataset, value: float) -> None:
    array = load_embeddings(dataset, VIDEO)
    array[0, 0] = value
    write_array(dataset, STAGE, VIDEO, array)
    assert failed(check_caption_embeddings(dataset))["embeddings_are_finite"] == [VIDEO]


def test_a_caption_with_two_embeddings_is_named(dataset: Dataset) -> None:
    array = load_embeddings(dataset, VIDEO)
    array[1] += 0.01
    write_array(dataset, STAGE, VIDEO, array)
    failures = failed(check_caption_embeddings(dataset))
    assert failures == {"equal_captions_have_equal_embeddings": [CAPTIONS[1]]}


def test_a_wrong_number_of_rows_is_named(dataset: Dataset) -> None:
    write_array(dataset, STAGE, VIDEO, load_embeddings(dataset, VIDEO)[:2])
    assert failed(check_caption_embeddings(dataset)) == {"a_result_for_every_snippet": [VIDEO]}


def test_another_length_than_the_commonest_is_named(dataset: Dataset) -> None:
    write_array(dataset, STAGE, VIDEO, np.ones((3, TEXT_DIM + 1)))
    assert failed(check_caption_embeddings(dataset))["one_shape"] == [VIDEO]


def test_embeddings_of_another_encoder_are_named(dataset: Dataset) -> None:
    change_row(dataset, STAGE, VIDEO, fingerprint="another")
    assert failed(check_caption_embeddings(dataset)) == {"one_encoder_made_all": [VIDEO]}


def test_a_norm_out_of_range_is_named(dataset: Dataset) -> None:
    write_array(dataset, STAGE, VIDEO, load_embeddings(dataset, VIDEO) * 1000)
    assert failed(check_caption_embeddings(dataset))["embedding_norms_in_range"] == [VIDEO]
