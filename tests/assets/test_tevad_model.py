"""tevad_model: what a model depends on, and so when one is trained anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assets.raw_videos import ingest_raw_videos
from assets.snippet_features import extract_snippet_features, read_snippet_features
from assets.tevad_model import read_inputs
from assets.workspace import listing
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project

VIDEOS = {"a": "abnormal", "b": "normal", "c": "abnormal", "d": "normal"}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """The table of four videos of which there are features alone, ten snippets each."""
    folder = tmp_path / "elsewhere"
    (folder / "features").mkdir(parents=True)
    for seed, video in enumerate(VIDEOS):
        array = np.random.default_rng(seed).normal(size=(10, 1, 8)).astype(np.float32)
        np.save(folder / "features" / f"{video}.npy", array)
    rows = [f"{video},{label},train,160,25" for video, label in VIDEOS.items()]
    path = folder / "labels.csv"
    path.write_text("\n".join(["video,label,split,frames,fps", *rows, ""]))
    return path


@pytest.fixture
def dataset(project_root: Path, labels: Path) -> Dataset:
    params = project_root / "params.yaml"
    text = params.read_text().replace("  visual_projection: 16\n", "  modality: visual\n")
    params.write_text(text)
    entry = DatasetParams(features=str(labels.parent / "features"), labels=str(labels))
    write_dataset(project_root, "site", entry)
    return Project.at(project_root).dataset("site")


def key(dataset: Dataset) -> str:
    """Identity of what a model of the dataset depends on, after the stages before it have run."""
    listing.refresh(dataset)
    assert ingest_raw_videos(dataset).quarantined == {}
    extract_snippet_features(dataset)
    return read_inputs(dataset).key


@pytest.mark.parametrize(
    ("corrected", "snippets"),
    [("abnormal,train,170,25", 11), ("abnormal,train,155,25", 10), ("abnormal,train,160,10", 10)],
    ids=["frames to another snippet", "frames", "frames a second"],
)
def test_a_corrected_length_of_ready_made_features_is_another_model(
    dataset: Dataset, labels: Path, corrected: str, snippets: int
) -> None:
    before = key(dataset)
    assert key(dataset) == before
    labels.write_text(labels.read_text().replace("abnormal,train,160,25", corrected, 1))
    assert key(dataset) != before
    assert read_snippet_features(dataset).by_video()["a"].snippets == snippets


def test_another_number_of_snippets_is_another_bag(dataset: Dataset, labels: Path) -> None:
    key(dataset)
    before = read_inputs(dataset).digests
    labels.write_text(
        labels.read_text().replace("abnormal,train,160,25", "abnormal,train,170,25", 1)
    )
    key(dataset)
    after = read_inputs(dataset).digests
    assert {video for video in VIDEOS if before[video] != after[video]} == {"a"}
