"""Starting the servers people look at: what ``tevad up`` does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from assets.workspace.project import Project
from assets.workspace.tracking import Tracking
from tevad_model.errors import InputError

LOOPBACK = "127.0.0.1"
_READY_SECONDS = 120.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """A server to start: its name, its command, and the address that answers when it is ready.

    Attributes:
        environment: what it is told besides, where other users of the machine do not see it.
    """

    name: str
    command: Sequence[str]
    address: str
    health: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def servers(project: Project, *, dagster_port: int, mlflow_port: int) -> list[Server]:
    """The servers of a project, all on loopback."""
    python = Path(sys.executable)
    dagster = f"http://{LOOPBACK}:{dagster_port}"
    found = [
        Server(
            "Dagster",
            [
                str(python.with_name("dagster")), "dev", "-m", "orchestration.definitions",
                "-h", LOOPBACK, "-p", str(dagster_port),
            ],
            dagster,
            f"{dagster}/server_info",
        )
    ]  # fmt: skip
    tracking = Tracking.of(project)
    if tracking.artifacts is not None:
        mlflow = f"http://{LOOPBACK}:{mlflow_port}"
        found.append(
            Server(
                "MLflow",
                [
                    str(python.with_name("mlflow")), "server",
                    "--artifacts-destination", tracking.artifacts,
                    "--host", LOOPBACK, "--port", str(mlflow_port), "--workers", "1",
                ],
                mlflow,
                f"{mlflow}/health",
                {"MLFLOW_BACKEND_STORE_URI": tracking.uri},
            )
        )  # fmt: skip
    return found


def start(project: Project, wanted: Sequence[Server]) -> list[subprocess.Popen[bytes]]:
    """Start servers, each in a session of its own, and wait until every one answers.

    Raises:
        InputError: if an address is taken, or one ends or does not answer in time; the others are
            stopped.
    """
    for server in wanted:
        _refuse_if_taken(server)
    logs = project.state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    running: list[subprocess.Popen[bytes]] = []
    try:
        for server in wanted:
            with (logs / f"{server.name.lower()}.log").open("wb") as log:
                running.append(
                    subprocess.Popen(
                        server.command,
                        cwd=project.root,
                        env={**environment, **server.environment},
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        for server, process in zip(wanted, running, strict=True):
            _wait_until_ready(server, process, logs)
    except BaseException:
        stop(running)
        raise
    return running


def stop(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop servers and what they started; afterwards none of it runs."""
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _end_group(process.pid)


def _end_group(leader: int) -> None:
    """End what a server started and left running: Dagster's webserver and code servers go later."""
    deadline = time.monotonic() + _STOP_SECONDS
    with suppress(ProcessLookupError):  # raised as soon as nobody is left
        os.killpg(leader, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.killpg(leader, 0)
            time.sleep(0.05)
        os.killpg(leader, signal.SIGKILL)


def _refuse_if_taken(server: Server) -> None:
    """Another server at the address would answer, and be taken for the one that cannot start."""
    address = urllib.parse.urlsplit(server.address)
    with socket.socket() as client:
        if client.connect_ex((address.hostname, address.port)) == 0:
            raise InputError(
                f"{server.name}: something listens on {server.address} already; stop it or give "
                "another port"
            )


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], logs: Path) -> None:
    log = logs / f"{server.name.lower()}.log"
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise InputError(f"{server.name} ended at once, see {log}: {' '.join(last)}")
        if _answers(server.health):
            return
        time.sleep(0.2)
    raise InputError(f"{server.name} did not answer within {_READY_SECONDS:.0f} s, see {log}")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:  # noqa: S310 - own http address
            return bool(response.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
