"""MLflow as the stages use it: find or open a run, log to it, close it whatever happens.

Runs are found again by the data version they produced, never by a local note of their id: whoever
ran the stage, and wherever, the run of a version is the run tagged with it. Nothing here knows a
particular stage.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from assets.workspace import s3
from assets.workspace.database import Database
from assets.workspace.project import Project
from assets.workspace.storage import Storage
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

DATA_TAG = "tevad.data."
"""Prefix of the tags that hold data versions: ``tevad.data.<stage>`` = DVC md5."""

CHAMPION, CHALLENGER = "champion", "challenger"
"""The aliases of the version that is served and of the one that is proposed."""

MODEL_PREFIX = "tevad-"

LOCAL_PAGES = "http://127.0.0.1:5000"
"""Where `tevad up` shows a local store's runs."""

PAGES = "TEVAD_MLFLOW_PAGES"
"""The variable that says where people see MLflow, if that is not where programs reach it."""

WORKSPACE = "logged_from"
"""The tag that says which project's folder a run or a logged model is from."""

PARENT = "mlflow.parentRunId"
"""The tag that names the run above."""

_SQLITE = "sqlite:///"
_NAME = "mlflow.runName"
_METRICS_AT_ONCE = 1000
_EXISTS = "RESOURCE_ALREADY_EXISTS"
_NO_MODEL = "RESOURCE_DOES_NOT_EXIST"
_NO_ALIAS = "INVALID_PARAMETER_VALUE"
"""What MLflow says of an alias that a model does not have."""


@contextmanager
def _passed_over(*codes: str) -> Iterator[None]:
    """Pass over what MLflow refuses by one of these codes."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in codes:
            raise


@dataclass(frozen=True)
class Tracking:
    """An MLflow tracking server or store.

    Attributes:
        uri: its address, with the password where it is a database's and without where it is a
            server's; ``address`` is to be shown.
        artifacts: where a local store's artifacts go, a folder or an address in the team's bucket;
            None where a server decides.
        workspace: the identity of the project's folder that logs.
    """

    uri: str = field(repr=False)
    artifacts: str | None
    workspace: str

    @classmethod
    def of(cls, project: Project) -> Tracking:
        """What ``MLFLOW_TRACKING_URI`` names, else ``TEVAD_DATABASE_URL``, else SQLite in the project.

        The artifacts of a store in one of the latter go to the bucket that ``TEVAD_STORAGE`` names.
        User and password of a server's address go where MLflow looks for them.

        Raises:
            InputError: if the database cannot be reached.
        """
        workspace = project.identity
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            return cls(_with_password_apart(uri), None, workspace)
        storage = Storage.of_environment()
        artifacts = storage.mlflow if storage else str(project.state / "mlartifacts")
        if database := Database.of_environment():
            database.prepare("mlflow")
            return cls(database.url("mlflow"), artifacts, workspace)
        project.state.mkdir(exist_ok=True)
        return cls(f"{_SQLITE}{project.state / 'mlflow.db'}", artifacts, workspace)

    @property
    def address(self) -> str:
        """The address without user, password and options, which may be a password too."""
        parts = urlsplit(self.uri)
        place = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{place}{parts.path}" if parts.scheme else self.uri

    @property
    def is_lost(self) -> bool:
        """Whether it is a local store that is not there; to open one makes it, empty."""
        path = self.uri.removeprefix(_SQLITE)
        return path != self.uri and not Path(path).is_file()

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client for everything not wrapped here.

        Raises:
            InputError: if it knows no such address.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        # It logs with a stack trace what it raises as well.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        with self.answering():
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return client

    def reach_artifacts(self) -> None:
        """See that the bucket answers, where artifacts go to one: before hours of work, not after.

        Raises:
            SourceUnreachableError: if it does not, or refuses.
        """
        if self.artifacts and self.artifacts.startswith(s3.SCHEME):
            s3.reach(self.artifacts)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Say where it is, in a message for the user, if it does not answer or refuses.

        Raises:
            InputError: if the tracking server or its database is lost, locked or damaged.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import DBAPIError

        try:
            yield
        except (MlflowException, DBAPIError) as error:
            said = " ".join(str(error).replace(self.uri, self.address).partition("[SQL")[0].split())
            repair = ", or if it is damaged, move it away" if self.uri.startswith("sqlite:") else ""
            raise InputError(
                f"MLflow at {self.address}: {said}; once it answers{repair}, run again: "
                "what was made is kept"
            ) from None  # which may quote the address

    def experiment(self, name: str) -> str:
        """The id of an experiment, made if absent.

        Raises:
            InputError: if the tracking server cannot be reached.
        """
        from mlflow.exceptions import MlflowException

        client = self.client
        with self.answering():
            if found := client.get_experiment_by_name(name):
                return str(found.experiment_id)
            location = f"{self.artifacts}/{name}" if self.artifacts else None
            try:
                return str(client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                made_meanwhile = error.error_code == _EXISTS and client.get_experiment_by_name(name)
                if not made_meanwhile:
                    raise
                return str(made_meanwhile.experiment_id)

    def find_runs(self, experiment: str, tags: Mapping[str, str]) -> list[Run]:
        """The finished runs that carry all the tags, latest first."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return list(
            self.client.search_runs(
                [self.experiment(experiment)],
                filter_string=f"{condition} and attributes.status = 'FINISHED'",
                order_by=["attributes.start_time DESC"],
            )
        )

    @contextmanager
    def start_run(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        *,
        parent: RunLog | None = None,
    ) -> Iterator[RunLog]:
        """Open a run; it ends as FINISHED, as FAILED if the block raises, as KILLED on a signal."""
        client = self.client
        all_tags = {
            _NAME: name,
            WORKSPACE: self.workspace,
            **tags,
            **({PARENT: parent.run_id} if parent else {}),
        }
        run = client.create_run(self.experiment(experiment), tags=all_tags)
        status = "KILLED"
        try:
            yield RunLog(client, run.info.run_id)
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            client.set_terminated(run.info.run_id, status=status)

    @contextmanager
    def start_model(self, experiment: str, name: str, run: Run) -> Iterator[LoggedModel]:
        """Open a logged model of a run to be filled; it ends as READY, or as FAILED."""
        client, tags = self.client, {WORKSPACE: self.workspace}
        model = client.create_logged_model(
            self.experiment(experiment), name=name, source_run_id=run.info.run_id, tags=tags
        )
        status: Literal["READY", "FAILED"] = "FAILED"
        try:
            with s3.told(f"MLflow's artifacts of model {name}"):
                yield model
            status = "READY"
        finally:
            client.finalize_logged_model(model.model_id, status)

    def end_killed(self, experiment: str) -> None:
        """End what killed processes of this workspace left open, so that nothing seems to go on.

        For whoever holds the dataset: nobody else of the workspace then logs to its experiment.
        """
        client, folder = self.client, [self.experiment(experiment)]
        for run in client.search_runs(folder, filter_string="attributes.status = 'RUNNING'"):
            if run.data.tags.get(WORKSPACE) == self.workspace:
                client.set_terminated(run.info.run_id, status="KILLED")
        for model in client.search_logged_models(folder):
            if model.status == "PENDING" and model.tags.get(WORKSPACE) == self.workspace:
                client.finalize_logged_model(model.model_id, "FAILED")

    def aliased(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias of a registered model means now; None if there is none.

        Raises:
            InputError: if the registry cannot be reached.
        """
        found: ModelVersion | None = None
        with self.answering(), _passed_over(_NO_MODEL, _NO_ALIAS):
            found = self.client.get_model_version_by_alias(name, alias)
        return found

    def registered_models(self) -> tuple[RegisteredModel, ...]:
        """The registered models of all datasets.

        Raises:
            InputError: if the registry cannot be reached.
        """
        of_datasets = f"name LIKE '{MODEL_PREFIX}%'"
        with self.answering():
            return all_pages(
                lambda token: self.client.search_registered_models(of_datasets, page_token=token)
            )

    def registered_model(self, name: str) -> RegisteredModel | None:
        """A registered model; None if there is none of that name.

        Raises:
            InputError: if the registry cannot be reached.
        """
        found: RegisteredModel | None = None
        with self.answering(), _passed_over(_NO_MODEL):
            found = self.client.get_registered_model(name)
        return found

    def name_model(self, name: str) -> None:
        """Have a registered model of that name; another process may make it meanwhile.

        Raises:
            InputError: if the registry cannot be reached.
        """
        with self.answering(), _passed_over(_EXISTS):
            self.client.create_registered_model(name)

    def run_page(self, run_id: str) -> str:
        """The address of a run's page.

        It is where ``TEVAD_MLFLOW_PAGES`` says, else on the tracking server, else on the one that
        `tevad up` starts.
        """
        experiment = self.client.get_run(run_id).info.experiment_id
        return f"{self._pages}/#/experiments/{experiment}/runs/{run_id}"

    def version_page(self, name: str, version: str) -> str:
        """The address of a registered version's page, in the same place."""
        return f"{self._pages}/#/models/{name}/versions/{version}"

    @property
    def _pages(self) -> str:
        server = self.address if self.uri.startswith("http") else LOCAL_PAGES
        return (os.environ.get(PAGES) or server).rstrip("/")

    def log(self, run_id: str) -> RunLog:
        """Log more to a run that is there."""
        return RunLog(self.client, run_id)


@dataclass(frozen=True)
class RunLog:
    """Logging to one run."""

    client: MlflowClient
    run_id: str

    def params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, nested ones by dotted names."""
        from mlflow.entities import Param

        flat = [Param(key, str(value)) for key, value in flatten(params).items()]
        self.client.log_batch(self.run_id, params=flat)

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step."""
        self.metric_rows([(step, metrics)])

    def metric_rows(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log metrics of many steps at once."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        flat = [
            Metric(name, float(value), now, step)
            for step, metrics in rows
            for name, value in metrics.items()
        ]
        for start in range(0, len(flat), _METRICS_AT_ONCE):
            self.client.log_batch(self.run_id, metrics=flat[start : start + _METRICS_AT_ONCE])

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file with the run.

        Raises:
            SourceUnreachableError: if the bucket it goes to does not take it.
        """
        with s3.told(f"MLflow's artifacts of run {self.run_id}"):
            self.client.log_artifact(self.run_id, str(path), folder)

    def paths(self, folder: str) -> list[str]:
        """The paths of the artifacts in a folder; empty if there is no such folder."""
        return [file.path for file in self.client.list_artifacts(self.run_id, folder)]

    def fetch(self, path: str, folder: Path) -> Path:
        """Bring an artifact, or a folder of them, into a folder, and return where it came to lie.

        Raises:
            InputError: if the run has no such artifact, or it cannot be fetched.
        """
        from mlflow.exceptions import MlflowException

        try:
            with s3.told(f"MLflow's artifacts of run {self.run_id}"):
                return Path(self.client.download_artifacts(self.run_id, path, str(folder)))
        except (MlflowException, OSError) as error:
            raise InputError(f"run {self.run_id}: its artifact {path}: {error}") from None

    def artifacts(self, path: Path, folder: str) -> None:
        """Keep all files of a folder with the run, under another folder's name."""
        with s3.told(f"MLflow's artifacts of run {self.run_id}"):
            self.client.log_artifacts(self.run_id, str(path), folder)


def all_pages(page: Callable[[str | None], Any]) -> tuple[Any, ...]:
    """The entries of all pages of one of MLflow's answers.

    Args:
        page: asks for the page that a token stands for; None is the first.
    """
    found = page(None)
    entries = list(found)
    while found.token:
        found = page(found.token)
        entries += found
    return tuple(entries)


def _with_password_apart(uri: str) -> str:
    """A server's address without user and password, which MLflow finds in variables of its own.

    MLflow quotes the address in what it says of a server that does not answer. Options, of which a
    server has none, would be quoted too.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return uri
    if parts.username and parts.password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def registered_name(dataset: str) -> str:
    """The name of a dataset's registered model."""
    return f"{MODEL_PREFIX}{dataset}"


def data_tags(found: Mapping[str, str]) -> dict[str, str]:
    """Tags that hold the versions of stages' outputs."""
    return {f"{DATA_TAG}{stage}": version for stage, version in found.items()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat
