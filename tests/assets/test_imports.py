"""Results made elsewhere, and which videos a stage's results are of while others change those."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from waiting import when_it_waits

from assets.raw_videos import ingest_raw_videos
from assets.snippet_features import (
    extract_snippet_features,
    has_current_features,
)
from assets.workspace import listing, versions
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project

HEADER = "video,label,split,frames,fps"
ROWS = ["a,normal,train,48,25", "b,abnormal,train,48,25", "c,normal,test,48,25"]


class Elsewhere:
    """A dataset of features of three snippets that somebody else made, and its table of labels."""

    def __init__(self, project_root: Path, folder: Path) -> None:
        (folder / "features").mkdir(parents=True)
        for number, row in enumerate(ROWS):
            array = np.full((3, 1, 4), number, np.float32)
            np.save(folder / "features" / f"{row.partition(',')[0]}.npy", array)
        self._labels = folder / "labels.csv"
        entry = DatasetParams(features=str(folder / "features"), labels=str(self._labels))
        write_dataset(project_root, "site", entry)

    @property
    def dataset(self) -> Dataset:
        return Project.find().dataset("site")

    def list(self, rows: Sequence[str]) -> None:
        self._labels.write_text("\n".join([HEADER, *rows, ""]))
        listing.refresh(self.dataset)


@pytest.fixture
def elsewhere(project_root: Path, tmp_path: Path) -> Elsewhere:
    """Two of its videos are listed and taken in."""
    made = Elsewhere(project_root, tmp_path / "elsewhere")
    made.list(ROWS[:2])
    ingest_raw_videos(made.dataset)
    return made


@pytest.mark.parametrize("row", [ROWS[2], "b,abnormal,train,50,25"], ids=["new", "corrected"])
def test_features_are_of_the_videos_that_lie_there(elsewhere: Elsewhere, row: str) -> None:
    dataset = elsewhere.dataset
    for stage, make in (
        ("raw_videos", ingest_raw_videos),
        ("snippet_features", extract_snippet_features),
    ):
        make(dataset)
        versions.commit(dataset, stage)
    assert has_current_features(dataset)

    elsewhere.list([*(each for each in ROWS[:2] if each[0] != row[0]), row])
    ingest_raw_videos(elsewhere.dataset)
    for stage in ("raw_videos", "snippet_features"):  # as if it had changed before its commit
        versions.commit(elsewhere.dataset, stage)
    assert versions.is_up_to_date(elsewhere.dataset, "snippet_features")
    assert not has_current_features(elsewhere.dataset)
    extract_snippet_features(elsewhere.dataset)
    versions.commit(elsewhere.dataset, "snippet_features")
    assert has_current_features(elsewhere.dataset)


def test_a_stage_that_waited_reads_what_changed_meanwhile(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    dataset, before, after = elsewhere.dataset, tmp_path / "before", tmp_path / "after"
    raw_videos = dataset.stage("raw_videos")
    raw_videos.rename(before)
    elsewhere.list(ROWS)
    ingest_raw_videos(elsewhere.dataset)
    raw_videos.rename(after)
    elsewhere.list(ROWS[:2])
    before.rename(raw_videos)

    waits = threading.Event()
    with ThreadPoolExecutor() as pool, when_it_waits(waits.set), elsewhere.dataset.held():
        made = pool.submit(extract_snippet_features, dataset)
        assert waits.wait(timeout=60)
        elsewhere.list(ROWS)
        shutil.rmtree(raw_videos)
        after.rename(raw_videos)
    assert made.result().done == len(ROWS)
