"""What MLflow keeps for nobody: what this workspace logged that came to nothing.

A model that failed to be logged, a run that was killed with those below it, and the artifacts of a
run that somebody deleted; never what a registered version is of. Runs that failed stay: they say
what went wrong. So do runs that seem to go on: the next run of the chain ends those that were
killed.

Artifacts go at once; the record is marked as deleted, as MLflow's own pages do it, and ``mlflow gc``
purges it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.workspace.tracking import PARENT, WORKSPACE, Tracking, all_pages
from orchestration.garbage.heap import Heap
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

MODELS, RUNS, ARTIFACTS = "models that failed", "killed runs", "artifacts of deleted runs"
_AT_ONCE = 1000


@dataclass(frozen=True)
class Store:
    """What an MLflow store holds.

    Attributes:
        tracking: where it is.
        runs: those that are not deleted.
        deleted: those that are.
        models: the logged models.
        versions: of all registered models.
    """

    tracking: Tracking
    runs: tuple[Run, ...]
    deleted: tuple[Run, ...]
    models: tuple[LoggedModel, ...]
    versions: tuple[ModelVersion, ...]

    @classmethod
    def read(cls, tracking: Tracking) -> Store:
        """Ask for all of it.

        Raises:
            InputError: if it cannot be asked, or a local one is not there.
        """
        from mlflow.entities import ViewType
        from mlflow.exceptions import MlflowException

        if tracking.is_lost:
            raise InputError(
                f"{tracking.address}: there is no such store, so nobody can say which data its models "
                "need; restore it, or name the server by MLFLOW_TRACKING_URI"
            )
        client = tracking.client
        try:
            experiments = all_pages(
                lambda token: client.search_experiments(ViewType.ALL, page_token=token)
            )
            folders = [each.experiment_id for each in experiments]

            def runs(view: int) -> tuple[Run, ...]:
                return all_pages(
                    lambda token: client.search_runs(folders, "", view, _AT_ONCE, None, token)
                )

            return cls(
                tracking,
                runs(ViewType.ACTIVE_ONLY),
                runs(ViewType.DELETED_ONLY),
                all_pages(lambda token: client.search_logged_models(folders, page_token=token)),
                all_pages(lambda token: client.search_model_versions(None, _AT_ONCE, None, token)),
            )
        except MlflowException as error:
            raise InputError(
                f"MLflow at {tracking.address}: {error.message}; without it nobody can say which data "
                "its models need"
            ) from None

    @property
    def killed(self) -> tuple[Run, ...]:
        """Runs of this workspace that were killed, and those below them."""
        killed = {run.info.run_id for run in self._own(self.runs) if run.info.status == "KILLED"}
        return tuple(
            run
            for run in self._own(self.runs)
            if killed & {run.info.run_id, run.data.tags.get(PARENT)}
        )

    @property
    def needed(self) -> tuple[Run, ...]:
        """The runs whose data are needed: all but the killed ones."""
        gone = {run.info.run_id for run in self.killed}
        return tuple(run for run in self.runs if run.info.run_id not in gone)

    def heaps(self) -> list[Heap]:
        """What nobody needs."""
        client = self.tracking.client
        failed = [m for m in self._own_models() if str(m.status) == "FAILED"]
        return [
            _heap(
                MODELS,
                {model.model_id: model.artifact_location for model in failed},
                client.delete_logged_model,
            ),
            _heap(
                RUNS,
                {run.info.run_id: run.info.artifact_uri for run in self.killed},
                client.delete_run,
            ),
            _heap(
                ARTIFACTS,
                {
                    run.info.run_id: run.info.artifact_uri
                    for run in self._own(self.deleted)
                    if _size(run.info.artifact_uri)
                },
            ),
        ]

    def _own(self, runs: Iterable[Run]) -> Iterator[Run]:
        """Those of this workspace that no registered version is of."""
        registered = {version.run_id for version in self.versions}
        for run in runs:
            own = run.data.tags.get(WORKSPACE) == self.tracking.workspace
            if own and run.info.run_id not in registered:
                yield run

    def _own_models(self) -> Iterator[LoggedModel]:
        registered = {version.model_id for version in self.versions}
        for model in self.models:
            own = model.tags.get(WORKSPACE) == self.tracking.workspace
            if own and model.model_id not in registered:
                yield model


def _heap(
    kind: str, artifacts: dict[str, str], forget: Callable[[str], object] | None = None
) -> Heap:
    """A heap of entries by id, with where their artifacts are."""

    def remove() -> None:
        for entry, uri in artifacts.items():
            _repository(uri).delete_artifacts()  # type: ignore[no-untyped-call]
            if forget:
                forget(entry)

    return Heap(kind, tuple(artifacts), sum(map(_size, artifacts.values())), remove)


def _size(uri: str) -> int:
    """Bytes of all artifacts at an address."""
    repository, folders, size = _repository(uri), [""], 0
    while folders:
        for found in repository.list_artifacts(folders.pop() or None):
            if found.is_dir:
                folders.append(found.path)
            else:
                size += int(found.file_size or 0)
    return size


def _repository(uri: str) -> ArtifactRepository:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri)
