"""The Dagster instance of a project: where it keeps its state, and how many runs go at once.

``dagster.yaml`` in ``DAGSTER_HOME`` is written from the one setting there is, so that everything
that starts Dagster (``tevad``, ``dagster``, ``dg``) finds the same instance. It never has a secret:
user and password are references to the environment.
"""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from assets.workspace.database import SCHEME, VARIABLE, Database, losses_named
from assets.workspace.project import Dataset, Project
from tevad_model.atomic import replacing
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

DEFINITIONS = "orchestration.definitions"
"""The module of the definitions, and the name of their code location."""

USER, PASSWORD = "TEVAD_DATABASE_USER", "TEVAD_DATABASE_PASSWORD"
"""The variables that ``dagster.yaml`` refers to; made from the database's address."""

PARTITION = "dagster/partition"
"""The tag by which Dagster says of a run which partition, and so which dataset, it is of."""

WORKSPACE = "tevad.workspace"
"""The tag of a run from the command line that says which project's folder it is from."""

KILLED = "The process was killed; the next run goes on."
"""What is told of a run from the command line that came to no end."""

_HEADER = """\
# Written by tevad. Without this line it is yours, and left alone.
"""

_SETTINGS: dict[str, Any] = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
    "python_logs": {"managed_python_loggers": ["tevad"], "python_log_level": "INFO"},
    # Two runs on the same dataset queue; those on different ones go side by side.
    "concurrency": {
        "runs": {
            "tag_concurrency_limits": [
                {
                    "key": PARTITION,
                    "value": {"applyLimitPerUniqueValue": True},
                    "limit": 1,
                }
            ]
        }
    },
}


def configure_instance(project: Project) -> None:
    """Point Dagster at the project's instance, for this process and its children.

    A ``DAGSTER_HOME`` of somebody's own, and a ``dagster.yaml`` that was made theirs, are left alone.

    Raises:
        InputError: if ``TEVAD_DATABASE_URL`` cannot be understood, or is not set where the state has
            been in PostgreSQL.
    """
    database = Database.of_environment()
    if database is not None:
        os.environ.update({USER: database.user, PASSWORD: database.password})
    home = project.state / "dagster"
    if os.environ.setdefault("DAGSTER_HOME", str(home)) == str(home):
        home.mkdir(parents=True, exist_ok=True)
        settings = home / "dagster.yaml"
        if database is None:
            _refuse_to_leave_postgresql(settings)
        _write(settings, {**_SETTINGS, **_storage(home, database)})


def _refuse_to_leave_postgresql(settings: Path) -> None:
    """One shell without the variable must not take a team's servers to an empty SQLite."""
    written = settings.read_text(encoding="utf-8") if settings.is_file() else ""
    if written.startswith(_HEADER) and PASSWORD in written:
        raise InputError(
            f"{settings}: the state of Dagster and MLflow is in PostgreSQL, but {VARIABLE} is not set; "
            "set it as for the servers, or, to begin anew in SQLite without that state, remove the file"
        )


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The instance that the environment names.

    Raises:
        InputError: if its database cannot be reached, at the start or later.
    """
    import dagster as dg

    database = Database.of_environment()
    if database is not None:
        database.prepare("dagster")
    losses = losses_named(database) if database else _losses_of_sqlite_named()
    with losses, dg.DagsterInstance.get() as instance:
        yield instance


@contextmanager
def _losses_of_sqlite_named() -> Iterator[None]:
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        raise InputError(
            f"Dagster's state in {os.environ['DAGSTER_HOME']}: {error.orig}; see that no other "
            "program holds it and that there is room, and run again: what was made is kept"
        ) from None


def workspace_file(project: Project) -> Path:
    """Where a daemon and a webserver that do not start the code location read where it is."""
    return project.state / "dagster" / "workspace.yaml"


def write_workspace(path: Path, host: str, port: int) -> None:
    """Say where the code location is."""
    location = {"host": host, "port": port, "location_name": DEFINITIONS}
    _write(path, {"load_from": [{"grpc_server": location}]})


def end_lost_runs(instance: dg.DagsterInstance) -> None:
    """Let no run whose code location went, and it with it, seem to go on and keep others waiting.

    For the machine that the code locations of this instance run on.
    """
    import dagster as dg
    from dagster._core.storage.tags import GRPC_INFO_TAG

    status = dg.DagsterRunStatus
    unfinished = [status.STARTING, status.STARTED, status.CANCELING]
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        place = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
        if place and not _answers(place):
            instance.report_run_failed(run, "The code location went; the next run goes on.")


def end_killed_commands(project: Project, instance: dg.DagsterInstance) -> None:
    """Let no run of a killed `tevad run` seem to go on and keep those of Dagster's queue waiting.

    For runs of this project's folder, whose locks tell whether their process is there.
    """
    for run in unfinished_commands(project, instance):
        if Dataset(project, run.tags[PARTITION]).is_run_held:
            continue
        # Its process has let go of the lock: it was killed, or has just come to its end.
        found = instance.get_run_by_id(run.run_id)
        if found is not None and not found.is_finished:
            instance.report_run_failed(found, KILLED)


def unfinished_commands(project: Project, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs of this project's folder that the command line executes, by what Dagster knows.

    Those that Dagster executes again at somebody's request have the tags of the first, and its own.
    """
    import dagster as dg
    from dagster._core.storage.tags import GRPC_INFO_TAG

    status = dg.DagsterRunStatus
    unfinished = [status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING]
    mine = dg.RunsFilter(statuses=unfinished, tags={WORKSPACE: project.identity})
    return [run for run in instance.get_runs(mine) if GRPC_INFO_TAG not in run.tags]


def _answers(place: dict[str, Any]) -> bool:
    """Whether the code location that Dagster noted at a run, by socket or port, is still there."""
    by_socket = "socket" in place
    with socket.socket(socket.AF_UNIX if by_socket else socket.AF_INET) as client:
        try:
            client.connect(place["socket"] if by_socket else (place["host"], place["port"]))
        except OSError:
            return False
        return True


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write YAML, unless it is there already or has been made somebody's own."""
    from ruamel.yaml import YAML

    text = io.StringIO(_HEADER)
    text.seek(0, io.SEEK_END)
    YAML(typ="safe").dump(content, text)
    before = path.read_text(encoding="utf-8") if path.is_file() else _HEADER
    if before.startswith(_HEADER) and before != text.getvalue():
        with replacing(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


def _storage(home: Path, database: Database | None) -> dict[str, Any]:
    """Where Dagster keeps its state: by default SQLite, beside its settings."""
    if database is None:
        kept = {
            "module": "orchestration.event_log",
            "class": "KeptSqliteEventLogStorage",
            "config": {"base_dir": str(home / "history" / "runs")},
        }
        return {"event_log_storage": kept}
    postgres = {
        "scheme": SCHEME,
        "hostname": database.host,
        "port": database.port,
        "db_name": database.name,
        "username": {"env": USER},
        "password": {"env": PASSWORD},
        "params": database.options("dagster"),
    }
    return {"storage": {"postgres": {"postgres_db": postgres}}}
