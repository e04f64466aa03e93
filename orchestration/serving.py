"""Starting servers, waiting until they answer, and stopping them: how ``tevad up`` does it.

Which servers, and by which commands, is said in ``orchestration.profiles``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from assets.workspace.project import Project
from tevad_model.errors import InputError

LOOPBACK = "127.0.0.1"
_READY_SECONDS = 300.0
_CHECK_SECONDS = 60.0
_STOP_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.5
_LINES_SHOWN, _BYTES_SHOWN = 3, 4096
"""Of the log of a server that ended."""


@dataclass(frozen=True)
class Server:
    """A server to start.

    Attributes:
        name: what its log is called.
        command: its program's whole path and arguments.
        address: where it listens; empty for one that does not.
        health: the address that answers, or the command that succeeds, when it is ready; empty for
            one that nobody waits for, and that may end.
        environment: what it is told besides, where other users of the machine do not see it.
    """

    name: str
    command: Sequence[str]
    address: str
    health: str | Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def start(project: Project, *groups: Sequence[Server]) -> list[subprocess.Popen[bytes]]:
    """Start servers, each in a session of its own, and wait until every one answers.

    The log of a server's start before this one is kept beside its log, for why it ended.

    Args:
        project: whose folder they run in and whose state has their logs.
        groups: those of one start side by side, once all of the group before it answer.

    Raises:
        InputError: if an address is taken, or one ends or does not answer in time; the others are
            stopped.
    """
    for server in (server for group in groups for server in group):
        _refuse_if_taken(server)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for group in groups:
            started = []
            for server in group:
                started.append(_start(server, project))
                running.append(started[-1])
            for server, process in zip(group, started, strict=True):
                if server.health:
                    _wait_until_ready(server, process, _log(server, project))
    except BaseException:
        stop(running)
        raise
    return running


def wait(
    project: Project, servers: Sequence[Server], running: Sequence[subprocess.Popen[bytes]]
) -> NoReturn:
    """Wait until one ends that was waited for when it started.

    Raises:
        InputError: then; it names the server and says how it ended.
    """
    while True:
        for server, process in zip(servers, running, strict=True):
            if server.health and process.poll() is not None:
                raise InputError(f"{server.name} {_end(process, _log(server, project))}")
        time.sleep(_LOOK_AGAIN_SECONDS)


def become(project: Project, server: Server) -> NoReturn:
    """Let this process be the server, as a container's only one is."""
    os.chdir(project.root)
    os.execve(server.command[0], list(server.command), _environment(server))  # noqa: S606


def _log(server: Server, project: Project) -> Path:
    return project.state / "logs" / f"{server.name.lower()}.log"


def _start(server: Server, project: Project) -> subprocess.Popen[bytes]:
    path = _log(server, project)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_suffix(".previous.log"))
    with path.open("wb") as log:
        return subprocess.Popen(
            server.command,
            cwd=project.root,
            env=_environment(server),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _environment(server: Server) -> dict[str, str]:
    return {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **server.environment}


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
    if not server.address:
        return
    address = urllib.parse.urlsplit(server.address)
    with socket.socket() as client:
        if client.connect_ex((address.hostname, address.port)) == 0:
            raise InputError(
                f"{server.name}: something listens on {server.address} already; stop it or give "
                "another port"
            )


def _end(process: subprocess.Popen[bytes], log: Path) -> str:
    """How a process ended, and what it said last."""
    code = process.returncode
    how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
    with log.open("rb") as file:  # which may have grown for months
        file.seek(max(0, log.stat().st_size - _BYTES_SHOWN))
        last = file.read().decode(errors="replace").strip().splitlines()[-_LINES_SHOWN:]
    return f"ended {how}, see {log}: {' '.join(last)}"


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise InputError(f"{server.name}, just started, {_end(process, log)}")
        if _is_ready(server):
            return
        time.sleep(0.2)
    raise InputError(f"{server.name} did not answer within {_READY_SECONDS:.0f} s, see {log}")


def _is_ready(server: Server) -> bool:
    if isinstance(server.health, str):
        return _answers(server.health)
    environment = _environment(server)
    try:
        done = subprocess.run(
            server.health, env=environment, capture_output=True, timeout=_CHECK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:  # noqa: S310 - own http address
            return bool(response.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
