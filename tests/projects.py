"""Throwaway projects: making a copy, being in one, and what a trained one offers."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking
from orchestration.running import RunOutcome, use_project


@dataclass(frozen=True)
class TrainedProject:
    """A project whose whole chain has run once, through Dagster, for the dataset ``rendered``."""

    dataset: Dataset
    outcome: RunOutcome

    @property
    def root(self) -> Path:
        return self.dataset.project.root

    @property
    def tracking(self) -> Tracking:
        return Tracking.of(self.dataset.project)


def copy_project(template: Path, folder: Path) -> Path:
    """Copy a project into a folder."""
    root = folder / "project"
    shutil.copytree(template, root, symlinks=True)
    return root


def copy_trained(template: Path, folder: Path) -> Path:
    """Copy a project that has runs in MLflow into a folder."""
    root = copy_project(template, folder)
    relocate(root / ".tevad" / "mlflow.db", template, root)
    return root


def relocate(database: Path, old: Path, new: Path) -> None:
    """MLflow's store names its artifacts by full paths; make them those of the copy."""
    with closing(sqlite3.connect(database)) as store, store:
        tables = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for _, column, kind, *_ in store.execute(f"PRAGMA table_info({table})").fetchall():
                if kind.startswith(("VARCHAR", "TEXT")):
                    store.execute(
                        f"UPDATE {table} SET {column} = replace({column}, ?, ?) "  # noqa: S608
                        f"WHERE instr({column}, ?)",
                        (str(old), str(new), str(old)),
                    )


def forget_artifacts() -> None:
    """Let MLflow look up anew where a run's artifacts are.

    It remembers that for the process, by the run's id, which the run has in every copy of a project.
    """
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


def enter_project(root: Path, encoder_cache: Path, patch: pytest.MonkeyPatch) -> Path:
    """Point the working folder and the environment at a project."""
    patch.chdir(root)
    patch.setenv("TEVAD_PROJECT", str(root))
    patch.setenv("TEVAD_CACHE", str(encoder_cache))
    patch.setenv("DAGSTER_HOME", str(root / ".tevad" / "dagster"))
    for setting in ("MLFLOW_TRACKING_URI", "TEVAD_DATABASE_URL", "TEVAD_STORAGE"):
        patch.delenv(setting, raising=False)
    use_project(Project.at(root))
    forget_artifacts()
    return root


def digests(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def holding(folder: Path, text: str) -> list[Path]:
    """The files below a folder, of any kind, that a text stands in."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and text.encode() in path.read_bytes()
    ]


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder as a user who is nobody in particular."""
    identity = {
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
    }
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **identity},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
