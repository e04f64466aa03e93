"""What is measured once, and when again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_dataset import CROPS, TEXT_DIM, VISUAL_DIM, write_array, write_captions

from assets.checks import measurements as module
from assets.checks.caption_embeddings import measure_caption_embeddings
from assets.checks.captions import measure_captions
from assets.checks.expectations import Tables
from assets.checks.measurements import FOLDER, Measurement, measurements
from assets.checks.snippet_features import measure_snippet_features
from assets.workspace import files
from assets.workspace.project import Dataset

STAGE, CAPTIONS, EMBEDDINGS = "snippet_features", "captions", "caption_embeddings"
VIDEO, ANOTHER = "test-normal-0", "train-normal-0"


def kept(dataset: Dataset, stage: str = STAGE) -> Path:
    return dataset.reports / FOLDER / f"{stage}.safetensors"


def read(dataset: Dataset, *videos: str) -> tuple[list[str], dict[str, Measurement]]:
    """The videos that are measured, and what was found of all."""
    measured = []

    def measure(video: str) -> Measurement:
        measured.append(video)
        array = files.read_array(dataset.stage(STAGE) / f"{video}.safetensors", "features")
        figures = {"snippets": len(array), "mean": float(array.mean()), "nothing": None}
        return Measurement(figures, {"Ä caption\ud800": 2, "b": [1]}, {"first": array[0, 0]})

    found = measurements(dataset, STAGE, videos, measure, [STAGE, CAPTIONS])
    return measured, found


def test_what_was_measured_comes_back_as_it_was(dataset: Dataset) -> None:
    measured, first = read(dataset, VIDEO, ANOTHER)
    assert measured == [VIDEO, ANOTHER]
    measured, second = read(dataset, VIDEO, ANOTHER)
    assert measured == []
    assert list(second) == list(first)
    for video, found in first.items():
        assert second[video].figures == found.figures
        assert list(second[video].captions.items()) == list(found.captions.items())
        assert second[video].arrays["first"].dtype == np.float16
        assert np.array_equal(second[video].arrays["first"], found.arrays["first"])


def test_one_more_video_is_one_more_to_measure(dataset: Dataset) -> None:
    read(dataset, VIDEO)
    assert read(dataset, ANOTHER, VIDEO)[0] == [ANOTHER]
    assert list(read(dataset, ANOTHER, VIDEO)[1]) == [ANOTHER, VIDEO]


def test_a_video_that_is_gone_is_forgotten(dataset: Dataset) -> None:
    read(dataset, VIDEO, ANOTHER)
    assert read(dataset, VIDEO)[0] == []
    assert read(dataset, VIDEO, ANOTHER)[0] == [ANOTHER]


@pytest.mark.parametrize("stage", [STAGE, CAPTIONS])
def test_a_video_is_measured_again_when_a_file_of_it_changes(dataset: Dataset, stage: str) -> None:
    read(dataset, VIDEO, ANOTHER)
    if stage == STAGE:
        write_array(dataset, STAGE, VIDEO, np.ones((3, CROPS, VISUAL_DIM)))
    else:
        write_captions(dataset, VIDEO, ["Other", "words", "here"])
    assert read(dataset, VIDEO, ANOTHER)[0] == [VIDEO]


def test_a_file_that_is_written_again_as_it_was_is_not_measured_again(dataset: Dataset) -> None:
    read(dataset, VIDEO)
    path = dataset.stage(STAGE) / f"{VIDEO}.safetensors"
    files.write_bytes(path, path.read_bytes())
    assert read(dataset, VIDEO)[0] == []


def test_other_code_measures_everything_again(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(dataset, VIDEO)
    monkeypatch.setattr(module, "measuring_code", lambda: "other")
    assert read(dataset, VIDEO)[0] == [VIDEO]
    assert read(dataset, VIDEO)[0] == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def of_another_form(path: Path) -> None:
    table = {"code": module.measuring_code(), "videos": {VIDEO: {"identity": []}}}
    save_file({"measured": np.frombuffer(json.dumps(table).encode(), dtype=np.uint8)}, path)


@pytest.mark.parametrize("damage", [cut, of_another_form, Path.unlink])
def test_what_is_damaged_is_measured_again(
    dataset: Dataset, damage: Callable[[Path], None]
) -> None:
    read(dataset, VIDEO)
    damage(kept(dataset))
    assert read(dataset, VIDEO)[0] == [VIDEO]


@pytest.mark.parametrize(
    ("stage", "measure"),
    [
        (STAGE, measure_snippet_features),
        (CAPTIONS, measure_captions),
        (EMBEDDINGS, measure_caption_embeddings),
    ],
)
def test_what_is_made_of_all_videos_is_the_same_of_kept_measurements(
    dataset: Dataset, stage: str, measure: Callable[[Dataset], Tables]
) -> None:
    # Some captions are said by both, but embedded otherwise.
    write_array(dataset, EMBEDDINGS, VIDEO, np.random.default_rng(3).normal(size=(3, TEXT_DIM)))
    new = measure(dataset)
    assert kept(dataset, stage).is_file()
    before = files.stamp(kept(dataset, stage))
    again = measure(dataset)
    assert files.stamp(kept(dataset, stage)) == before
    for name, table in new.items():
        assert len(table.rows)
        assert table.rows.equals(again[name].rows)
