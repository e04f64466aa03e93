"""What a training run keeps of the project, so that its models can be made again.

The data are addressed by their versions and the code by its commit. What neither DVC nor git is
sure to have is kept with the run, as artifacts in the folder :data:`FOLDER`::

    params.yaml, dvc.lock     as they were
    source/                   what the dataset's source listed
    changes.diff              how the code differed from its commit, if it did
    libraries.json            what was installed, and on how many threads it computed

No data and no model are kept here, and nothing of the environment, which may hold secrets.
"""

from __future__ import annotations

import platform
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from assets.workspace import files
from assets.workspace.code import CodeState
from assets.workspace.params import FILE_NAME as PARAMS
from assets.workspace.project import Dataset
from assets.workspace.tracking import RunLog
from assets.workspace.versions import LOCK_FILE
from tevad_model.errors import InputError

FOLDER = "project"
SOURCE = "source"
CHANGES = "changes.diff"
LIBRARIES = "libraries.json"
THREADS = "threads"
"""The key of the number of threads in it: sums are split by it, so results depend on it."""

_PACKAGE = "tevad"


@dataclass(frozen=True)
class Record:
    """A record as read back.

    Attributes:
        folder: where it lies.
        libraries: installed versions by name, of then.
    """

    folder: Path
    libraries: dict[str, str]

    @classmethod
    def read(cls, folder: Path, what: str) -> Record:
        """Read what :func:`write` wrote.

        Args:
            folder: where it lies.
            what: whose record it is, for messages.

        Raises:
            InputError: if a part is missing.
        """
        missing = [n for n in (PARAMS, LIBRARIES, SOURCE) if not (folder / n).exists()]
        if missing:
            raise InputError(f"{what}: its run has lost its artifacts {', '.join(missing)}")
        return cls(folder, files.read_json(folder / LIBRARIES))

    @property
    def changes(self) -> Path | None:
        """How the code differed from its commit, if it did."""
        path = self.folder / CHANGES
        return path if path.is_file() else None

    @property
    def threads(self) -> str | None:
        """On how many threads its run computed; None if it is of a time when runs kept no number."""
        return self.libraries.get(THREADS)

    def restore(self, dataset: Dataset) -> None:
        """Put parameters, lock file and listing into their places in a project."""
        for name in (PARAMS, LOCK_FILE):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, dataset.project.root / name)
        shutil.rmtree(dataset.source, ignore_errors=True)
        shutil.copytree(self.folder / SOURCE, dataset.source)


def write(dataset: Dataset, code: CodeState, parent: Path) -> Path:
    """Write the record of a dataset and its code as they are now, and return its folder."""
    folder, root = parent / FOLDER, dataset.project.root
    folder.mkdir()
    for path in (root / PARAMS, root / LOCK_FILE):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    if dataset.source.is_dir():
        shutil.copytree(dataset.source, folder / SOURCE)
    if code.changes:
        files.write_bytes(folder / CHANGES, code.changes)
    files.write_json(folder / LIBRARIES, {**libraries(), THREADS: _threads()})
    return folder


def keep_code_of(run: RunLog, parent: Path) -> None:
    """Let a record that was written hold the code and libraries of a run that trained before."""
    for path in (f"{FOLDER}/{CHANGES}", f"{FOLDER}/{LIBRARIES}"):
        (parent / path).unlink(missing_ok=True)
        if path in run.paths(FOLDER):
            run.fetch(path, parent).replace(parent / path)


def _threads() -> str:
    import torch

    return str(torch.get_num_threads())


def libraries() -> dict[str, str]:
    """What is installed here of what the project depends on, and the interpreter."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for requirement in requires(_PACKAGE) or ():
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # of an extra that is not wanted here
    return found
