"""Where things are kept: the project's folders, and the parameters that hold there.

The layout (docs/architecture.md shows it whole)::

    params.yaml  dvc.yaml  dvc.lock
    data/<dataset>/source/        what the source listed when last looked at
    data/<dataset>/<stage>/       what a stage made: a DVC output
    .tevad/                       state that is no data: Dagster, MLflow, caches, reports
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from socket import gethostname

from assets.workspace import params as params_file
from assets.workspace.locks import is_locked, locked
from assets.workspace.params import DatasetParams, Params, StageParams
from tevad_model.atomic import replacing
from tevad_model.errors import InputError

STAGES = (
    "raw_videos",
    "snippet_features",
    "captions",
    "sentence_encoder",
    "caption_embeddings",
    "tevad_model",
    "evaluation_metrics",
)
"""The stages that write a folder of data, upstream first."""

FEATURE_STAGES = STAGES[: STAGES.index("tevad_model")]
"""Those before training."""

CHAIN = (*STAGES, "registered_model", "promotion_decision")
"""All of the chain."""

_RUNS_HELD: ContextVar[frozenset[Path]] = ContextVar("runs held", default=frozenset())
"""The locks of runs that are held where this is asked."""


@dataclass(frozen=True)
class Project:
    """A folder with ``params.yaml`` and ``dvc.yaml``, and all that is kept below it."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project that ``TEVAD_PROJECT`` names, else the one the working folder lies in.

        Raises:
            InputError: if there is none.
        """
        named = os.environ.get("TEVAD_PROJECT")
        start = Path(named or start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if (folder / params_file.FILE_NAME).is_file() and (folder / "dvc.yaml").is_file():
                return cls(folder)
        raise InputError(
            f"{start}: no params.yaml and dvc.yaml here or above; change into the project's folder "
            "or set TEVAD_PROJECT to it"
        )

    @classmethod
    def at(cls, root: str | Path) -> Project:
        """The project in a known folder."""
        return cls(Path(root).resolve())

    @property
    def params(self) -> Params:
        """The parameters as the file has them now."""
        return params_file.load_params(self.root)

    @property
    def state(self) -> Path:
        """State that is no data."""
        return self.root / ".tevad"

    @cached_property
    def identity(self) -> str:
        """Whose runs these are: the folder's that has the locks and the work, wherever it is mounted.

        Made up once, of where that was and a random number: a container has another machine's name
        each time it is made anew. A copy of the whole folder that logs to the same servers has to
        be given one of its own, by removing the copied file.
        """
        path = self.state / "identity"
        if not path.is_file():
            with locked(path.with_suffix(".lock"), "the project's identity"):
                if not path.is_file():
                    with replacing(path) as temporary:
                        temporary.write_text(f"{gethostname()}:{self.root}:{token_hex(8)}\n")
        return path.read_text(encoding="utf-8").strip()

    @cached_property
    def cache(self) -> Path:
        """What can be made again at any time, such as exported encoders."""
        return Path(os.environ.get("TEVAD_CACHE") or self.state / "cache")

    @property
    def data(self) -> Path:
        """The datasets."""
        return self.root / "data"

    @property
    def mlflow_folder(self) -> Path:
        """What MLflow and its server read."""
        return self.root / "mlflow"

    def mlflow_file(self, name: str) -> Path:
        """A file that MLflow, its server or what is kept there is made with.

        Raises:
            InputError: if it is not there.
        """
        path = self.mlflow_folder / name
        if not path.is_file():
            raise InputError(f"{path}: not there; restore the project's folder mlflow")
        return path

    def dataset(self, name: str) -> Dataset:
        """One dataset.

        Raises:
            InputError: if ``params.yaml`` does not have it.
        """
        self.params.dataset(name)
        return Dataset(self, name)


@dataclass(frozen=True)
class Dataset:
    """The folders of one dataset."""

    project: Project
    name: str

    @cached_property
    def entry(self) -> DatasetParams:
        """Its own entry in ``params.yaml``, as it was when first asked for."""
        return self.project.params.dataset(self.name)

    @cached_property
    def params(self) -> StageParams:
        """The parameters of its stages, as they were when first asked for."""
        return self.project.params.for_dataset(self.name)

    @cached_property
    def folder(self) -> Path:
        """Everything of this dataset that is data."""
        return self.project.data / self.name

    @property
    def source(self) -> Path:
        """What the source listed when last looked at."""
        return self.folder / "source"

    def stage(self, name: str) -> Path:
        """The folder a stage writes."""
        if name not in self._stages:
            raise ValueError(f"no stage {name!r}; there are {', '.join(STAGES)}")
        return self._stages[name]

    @cached_property
    def _stages(self) -> dict[str, Path]:
        """The folders by stage, put together once: they are asked for with every video."""
        return {name: self.folder / name for name in STAGES}

    @property
    def reports(self) -> Path:
        """What the last runs did: times and counts, data docs. Not versioned."""
        return self.project.state / "reports" / self.name

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes' stages from this dataset; waits for one that runs."""
        with locked(self.work / "lock", self.name):
            yield

    @contextmanager
    def run_held(self, *, wait: bool = True) -> Iterator[None]:
        """Keep other runs, and whoever would change the listing under them, from this dataset.

        Waits for one that goes on. Within the block it may be held again, as a run does that is
        executed where it was already waited for.

        Not :meth:`held`, which a stage takes and gives back: a stage that `dvc repro` started comes
        in between, or each of the two would wait for the other's locks.

        Args:
            wait: whether to wait.

        Raises:
            HeldElsewhereError: if a run goes on that is not waited for.
        """
        path = self.work / "run.lock"
        if path in _RUNS_HELD.get():
            yield
            return
        with locked(path, f"run of {self.name}", wait=wait):
            before = _RUNS_HELD.set(_RUNS_HELD.get() | {path})
            try:
                yield
            finally:
                _RUNS_HELD.reset(before)

    @property
    def is_run_held(self) -> bool:
        """Whether a run goes on."""
        return is_locked(self.work / "run.lock")

    @property
    def is_held(self) -> bool:
        """Whether a stage works on this dataset just now."""
        return is_locked(self.work / "lock")

    @property
    def work(self) -> Path:
        """Unversioned intermediate files, such as training checkpoints."""
        return self.project.state / "work" / self.name
