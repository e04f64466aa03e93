"""The way back in a real registry: which version is gone back to, and what is said where none is left."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from assets.promotion import champion
from assets.promotion.champion import Move
from assets.promotion.rollback import rollback
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking
from tevad_model.errors import InputError

NAME = "tevad-site"


@pytest.fixture
def dataset(project_root: Path) -> Dataset:
    return Dataset(Project.at(project_root), "site")


@pytest.fixture
def tracking(dataset: Dataset, tmp_path: Path) -> Tracking:
    """A registry whose versions 1, 2 and 3 became champion one after the other."""
    tracking = Tracking.of(dataset.project)
    with tracking.start_run("site", "train-site", {}) as run:
        pass
    tracking.client.create_registered_model(NAME)
    for number in range(1, 4):
        tracking.client.create_model_version(NAME, source=str(tmp_path), run_id=run.run_id)
        previous = str(number - 1) if number > 1 else ""
        made = Move(str(number), previous, "promotion", champion.now(), "policy", "better")
        champion.move(dataset, tracking, made)
    return tracking


def test_versions_that_were_deleted_are_passed_over(dataset: Dataset, tracking: Tracking) -> None:
    tracking.client.delete_model_version(NAME, "2")
    with pytest.raises(InputError, match=r"tevad-site/1: not rolled back to, .*no smoke set"):
        rollback(dataset, tracking, by="anna", reason="blind")
    move = rollback(dataset, tracking, by="anna", reason="blind", force=True)
    assert (move.version, move.previous) == ("1", "3")
    assert champion.champion_version(tracking, NAME) == "1"


def test_where_all_champions_before_were_deleted_it_is_said(
    dataset: Dataset, tracking: Tracking
) -> None:
    for version in ("1", "2"):
        tracking.client.delete_model_version(NAME, version)
    with pytest.raises(InputError, match=r"before version 3 were deleted in MLflow \(1, 2\)"):
        rollback(dataset, tracking, by="anna", reason="blind", force=True)
    assert champion.champion_version(tracking, NAME) == "3"


def test_a_registry_that_fails_meanwhile_is_named(dataset: Dataset, tracking: Tracking) -> None:
    with closing(sqlite3.connect(tracking.uri.removeprefix("sqlite:///"))) as store, store:
        store.execute("DROP TABLE registered_model_tags")
    with pytest.raises(InputError, match=r"MLflow at sqlite:.*no such table.*run again"):
        rollback(dataset, tracking, by="anna", reason="blind")
