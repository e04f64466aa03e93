"""Which servers ``tevad up`` starts: one person's, or a team's as separate processes.

Here is what each is called with; ``orchestration.serving`` starts and stops them. A team's servers
are the services of ``docker-compose.yml`` too, each by ``tevad up --profile team --only NAME``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from assets.workspace.database import VARIABLE, Database
from assets.workspace.project import Project
from assets.workspace.tracking import PAGES, Tracking
from orchestration.instance import DEFINITIONS, workspace_file, write_workspace
from orchestration.ready import COMMAND
from orchestration.serving import LOOPBACK, Server
from tevad_model.errors import InputError

MLFLOW, CODE, DAEMON, WEBSERVER = TEAM = ("mlflow", "code", "daemon", "webserver")
"""A team's servers: runs and models; the definitions, whose runs are its children; queue and
sensors; Dagster's pages."""

PERSONAL_MLFLOW = "MLflow"
"""One person's server of runs and models."""

_HEARTBEAT_SECONDS = "120"
"""A daemon says every 30 s that it is there; by default one is believed in for half an hour."""

_HERE = (LOOPBACK, "localhost", "::1")


@dataclass(frozen=True)
class Places:
    """Where servers listen.

    Attributes:
        host: of those that people look at.
        code_host: where the daemon and the webserver find the code location.
    """

    dagster: int = 3000
    mlflow: int = 5000
    code: int = 4000
    pages: int = 5050
    host: str = LOOPBACK
    code_host: str = LOOPBACK

    @property
    def is_open(self) -> bool:
        """Whether others than this machine's users reach the pages."""
        return self.host not in _HERE

    @property
    def code_is_open(self) -> bool:
        """Whether they reach the code location."""
        return self.code_host not in _HERE


def personal(project: Project, places: Places) -> list[Server]:
    """The servers of one person's project: Dagster with all its processes, MLflow, review pages."""
    dagster = f"http://{_reached(places.host)}:{places.dagster}"
    command = [
        _program("dagster"), "dev", "-m", DEFINITIONS, "-h", places.host, "-p", str(places.dagster)
    ]  # fmt: skip
    tracking = Tracking.of(project)
    mlflow = [_mlflow(tracking, places, PERSONAL_MLFLOW)] if tracking.artifacts is not None else []
    # Links of what its runs log; whoever has said where people see MLflow is heeded.
    pages = {PAGES: os.environ.get(PAGES) or mlflow[0].address} if mlflow else {}
    shown = Server("Dagster", command, dagster, f"{dagster}/server_info", pages)
    return [shown, *mlflow, review(places)]


def ready() -> Server:
    """What commands start from at once; nobody waits for it, and nothing ends with it."""
    return Server("Ready", COMMAND, "", "")


def team(project: Project, places: Places, only: str | None = None) -> list[list[Server]]:
    """A team's servers in two groups: those that the others ask are first.

    There is none for MLflow where ``MLFLOW_TRACKING_URI`` names another.

    Args:
        project: whose.
        places: where they listen.
        only: the one that is to be started; where the code location is, is written for those alone
            that look there.

    Raises:
        InputError: if there is no ``TEVAD_DATABASE_URL``, or the database cannot be reached.
    """
    if Database.of_environment() is None:
        raise InputError(
            f"--profile team keeps its state in PostgreSQL: set {VARIABLE} to "
            "postgresql://user:password@host:port/database"
        )
    tracking = Tracking.of(project)
    mlflow = [_mlflow(tracking, places, MLFLOW)] if tracking.artifacts is not None else []
    workspace = workspace_file(project)
    if only not in (MLFLOW, CODE):
        write_workspace(workspace, _reached(places.code_host), places.code)
    asked = [*mlflow, _code(places, mlflow[0].address if mlflow else tracking.uri)]
    return [asked, [_daemon(str(workspace)), _webserver(str(workspace), places)]]


def review(places: Places) -> Server:
    """The server of the review pages, on loopback whatever the others are told: it shows videos."""
    address = f"http://{LOOPBACK}:{places.pages}"
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "orchestration.pages:create",
        "--host", LOOPBACK, "--port", str(places.pages), "--log-level", "warning",
    ]  # fmt: skip
    return Server("Review", command, address, f"{address}/")


def _mlflow(tracking: Tracking, places: Places, name: str) -> Server:
    assert tracking.artifacts is not None  # noqa: S101 - the caller looked
    address = f"http://{_reached(places.host)}:{places.mlflow}"
    command = [
        _program("mlflow"), "server", "--artifacts-destination", tracking.artifacts,
        "--host", places.host, "--port", str(places.mlflow), "--workers", "1",
    ]  # fmt: skip
    secret = {"MLFLOW_BACKEND_STORE_URI": tracking.uri}
    return Server(name, command, address, f"{address}/health", secret)


def _code(places: Places, runs_go_to: str) -> Server:
    port = str(places.code)
    command = [
        _program("dagster"), "code-server", "start", "-m", DEFINITIONS,
        "--location-name", DEFINITIONS, "-h", places.code_host, "-p", port,
    ]  # fmt: skip
    reached = _reached(places.code_host)
    health = [_program("dagster"), "api", "grpc-health-check", "-h", reached, "-p", port]
    environment = {"MLFLOW_TRACKING_URI": runs_go_to}
    return Server(CODE, command, f"grpc://{reached}:{port}", health, environment)


def _daemon(workspace: str) -> Server:
    program = _program("dagster-daemon")
    environment = {"DAGSTER_DAEMON_HEARTBEAT_TOLERANCE": _HEARTBEAT_SECONDS}
    command = [program, "run", "-w", workspace]
    return Server(DAEMON, command, "", [program, "liveness-check"], environment)


def _webserver(workspace: str, places: Places) -> Server:
    address = f"http://{_reached(places.host)}:{places.dagster}"
    command = [
        _program("dagster-webserver"), "-w", workspace,
        "-h", places.host, "-p", str(places.dagster),
    ]  # fmt: skip
    return Server(WEBSERVER, command, address, f"{address}/server_info")


def _reached(host: str) -> str:
    """Where this machine reaches what listens there."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104 - asks, does not bind


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
