"""A throwaway project to measure in, and the real dataset that figures are stated on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assets.workspace.project import Project
from orchestration.running import use_project
from tevad_model.errors import InputError

REPOSITORY = Path(__file__).parents[1]


@contextmanager
def temporary_project() -> Iterator[Project]:
    """An empty project with this repository's parameters and pipeline, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tevad-benchmark-") as folder:
        root = Path(folder)
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
        subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=root, check=True)
        for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvc/config"):
            shutil.copy(REPOSITORY / name, root / name)
        (root / "mlflow").symlink_to(REPOSITORY / "mlflow")
        os.environ["DAGSTER_HOME"] = str(root / ".tevad" / "dagster")
        project = Project.at(root)
        project.state.mkdir()
        use_project(project)
        (root / ".tevad" / "dagster").mkdir(exist_ok=True)
        yield project


def shared(name: str) -> Path:
    """The folder of a real dataset: ``$TEVAD_SHARED_DATA/<name>``.

    Raises:
        InputError: if it is not there.
    """
    named = os.environ.get("TEVAD_SHARED_DATA")
    folder = (Path(named) if named else REPOSITORY.parent / "shared" / "data") / name
    if not (folder / "videos.csv").is_file():
        raise InputError(
            f"{folder}: no videos.csv; set TEVAD_SHARED_DATA to the folder with {name}/"
        )
    return folder
