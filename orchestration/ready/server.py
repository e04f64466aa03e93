"""The process that is ready: loads the libraries, and forks for each command.

``python -m orchestration.ready.server`` in a project; ``tevad up`` starts it. It never has a second
thread of Python, an open database or anything of a project in memory: a fork must find what a new
process would. Where a command's environment or limits are other than its own, it refuses; where its
code has changed, it starts itself anew.

Belongs here: loading, forking, and becoming the command's process. What commands do is the command
line's.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import logging
import os
import pkgutil
import signal
import site
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeAlias

import numpy as np
import torch

import assets
import orchestration
import tevad_model
from assets.workspace import files
from assets.workspace.project import Project
from orchestration.ready import ACCEPTED, COMMAND, FORWARDED, REFUSED, SOCKET, peer
from orchestration.ready.program import granted
from orchestration.running import use_project
from tevad_model.errors import InputError

logger = logging.getLogger("tevad.ready")

Code: TypeAlias = dict[Path, files.Stamp]

_PACKAGES = (tevad_model, assets, orchestration)

_NOT_LOADED = ("orchestration.definitions", "orchestration.ready", "orchestration.pages")
"""Modules that read a project when they are imported, or that no command needs."""

_LIBRARIES = (
    "dagster._core.storage.sqlite_storage",
    "dvc.repo",
    "great_expectations.expectations",
    "great_expectations.render.view",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "pyarrow.parquet",
    "scmrepo.git",
    "sentence_transformers",
    "sklearn.decomposition",
    "transformers.models.bert.modeling_bert",
)
"""What the project's code imports where it is used only."""

_MAY_DIFFER = {
    "_", "COLUMNS", "DVC_ROOT", "DVC_STAGE", "INVOCATION_ID", "JOURNAL_STREAM", "LINES", "LS_COLORS",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "OLDPWD", "PROMPT_COMMAND", "PS1", "PWD", "SHLVL", "STY",
    "TEVAD_MLFLOW_PAGES", "WINDOW", "WINDOWID", "WT_SESSION",
}  # fmt: skip
_MAY_DIFFER_FROM = (
    "ALACRITTY_", "COLORTERM", "GNOME_TERMINAL_", "ITERM_", "KITTY_", "KONSOLE_", "SSH_", "TERM",
    "TMUX", "VSCODE_", "VTE_", "WEZTERM_", "XDG_SESSION_",
)  # fmt: skip
"""Variables of terminals, sessions, links and of what starts commands, and how such begin: read, if at
all, when they are used and not when a library is imported."""


def main() -> None:
    """Serve the project that the working folder lies in, until ended; in a fork, be the command."""
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    code, project = _code(), Project.find()
    use_project(project)
    environment, end = dict(os.environ), _End()
    load()
    connection = _forked_for_a_command(project, code, environment)
    arguments = _become(connection, project, environment)
    end.tell_to(connection)
    _run(arguments, end)


class _End:
    """How a command ended, told to whoever handed it over.

    To be made before the libraries are loaded: exit handlers are called last first, and theirs must
    have been. What Python would do afterwards, taking thousands of modules apart, is left out.

    Attributes:
        code: the exit code.
    """

    def __init__(self) -> None:
        self.code = 1
        self._connection: socket.socket | None = None
        atexit.register(self._tell)

    def tell_to(self, connection: socket.socket) -> None:
        """Tell it there; until then, let happen here what happens to the process there."""
        self._connection = connection
        threading.Thread(target=self._heed, args=(connection,), daemon=True).start()

    def _heed(self, connection: socket.socket) -> None:
        with suppress(ConnectionResetError):
            while received := connection.recv(1):
                os.kill(os.getpid(), received[0])
        if self._connection is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    def _tell(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:  # the process is no command's
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
                stream.flush()
        _take_streams([os.open(os.devnull, os.O_RDWR) for _ in range(3)])  # who reads sees the end
        with suppress(ConnectionError):  # whoever handed it over is gone
            connection.sendall(bytes([self.code]))
        os._exit(self.code)


def load() -> None:
    """Import what commands need."""
    for package in _PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(_NOT_LOADED):
                importlib.import_module(module.name)
    for name in _LIBRARIES:
        importlib.import_module(name)
    _draw()
    gc.collect()
    gc.freeze()  # what all forks share is not looked through, and so not copied, by any of them


def _draw() -> None:
    """Draw something: with the first picture, matplotlib reads its fonts."""
    from tevad_model.figures import Thumbnail, contact_sheet

    contact_sheet([Thumbnail(np.zeros((1, 1, 3), np.uint8), title="tevad")])


def _forked_for_a_command(
    project: Project, code: Code, environment: Mapping[str, str]
) -> socket.socket:
    """The connection to the command that the process, a fork from here on, is to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries what has ended
    with _listener(project.state) as listener:
        logger.info("ready for %s", project.root)
        while True:
            connection, _ = listener.accept()
            if _code() != code:
                _start_anew(environment)
            try:
                if os.fork() == 0:
                    return connection
            except OSError as error:
                logger.warning("a command runs by itself: %s", error)
            connection.close()


def _listener(state: Path) -> socket.socket:
    state.mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before, mask = Path.cwd(), os.umask(0o077)
    os.chdir(state)  # a socket's path may have 107 bytes only
    try:
        if _answers():
            raise SystemExit("another process is ready for this project")
        Path(SOCKET).unlink(missing_ok=True)
        listener.bind(SOCKET)
    finally:
        os.chdir(before)
        os.umask(mask)
    listener.listen()
    return listener


def _answers() -> bool:
    with socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(SOCKET) == 0


def _code() -> Code:
    """The files of the project's code, and the folders of installed libraries, as they are now."""
    roots = [Path(str(package.__file__)).parent for package in _PACKAGES]
    sources = [path for root in roots for path in root.rglob("*.py")]
    return {path: files.stamp(path) for path in (*sources, *map(Path, site.getsitepackages()))}


def _start_anew(environment: Mapping[str, str]) -> NoReturn:
    """Start as before: what libraries have set in the environment is theirs to set again."""
    logger.info("the code has changed: loads it again")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.execve(COMMAND[0], COMMAND, environment)  # noqa: S606


def _become(
    connection: socket.socket, project: Project, environment: Mapping[str, str]
) -> list[str]:
    """Take over all that the command was started with, or refuse and end.

    Returns:
        The command's arguments.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()  # what ends the servers does not end the command
    request, streams = _received(connection)
    arguments: list[str] = request["arguments"]
    if refusal := _refusal(request, project, environment, peer(connection)):
        logger.info("tevad %s: runs by itself: %s", arguments[0], refusal)
        connection.sendall(REFUSED)
        os._exit(0)
    connection.sendall(ACCEPTED)
    if connection.recv(1) != ACCEPTED:  # it has given up, and runs by itself or not at all
        os._exit(0)
    _take_signals(request["ignored"])
    _take_streams(streams)
    return arguments


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The request, whose folder and environment are this process's from here on; its streams."""
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    if not streams:  # somebody only looked whether there is an answer
        os._exit(0)
    with connection.makefile("rb") as lines:
        request: dict[str, Any] = json.loads(lines.readline())
    os.umask(request["umask"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    return request, streams


def _refusal(
    request: Mapping[str, Any], project: Project, environment: Mapping[str, str], user: int
) -> str:
    """Why the command, which this process stands for, would not do here what it does by itself."""
    if request["code"] != str(Path(__file__).parent):
        return f"its code is {request['code']}"
    if user != os.getuid():
        return f"it is of user {user}"
    if request["granted"] != granted():
        return "other limits, processors or niceness"
    try:
        found = Project.find()
        use_project(found)
    except InputError as error:
        return str(error)
    if found != project:
        return f"its project is {found.root}"
    names = sorted(
        name
        for name in {*os.environ, *environment} - _MAY_DIFFER
        if os.environ.get(name) != environment.get(name) and not name.startswith(_MAY_DIFFER_FROM)
    )
    return f"other values of {', '.join(names)}" if names else ""


def _take_signals(ignored: Sequence[int]) -> None:
    """Heed what the command would, however the servers were started."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _take_streams(streams: Sequence[int]) -> None:
    """Make them the standard ones, buffered as suits what they go to."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115 - to the end
    sys.stdout, sys.stderr = _renewed(sys.stdout, 1), _renewed(sys.stderr, 2)


def _renewed(before: Any, number: int) -> TextIO:
    at_once = os.isatty(number) or number == 2 or before.write_through
    return open(
        number,
        "w",
        buffering=1 if at_once else -1,
        encoding=before.encoding,
        errors=before.errors,
        closefd=False,
    )


def _run(arguments: Sequence[str], end: _End) -> None:
    """Run the command as Python does that was started for it."""
    from orchestration.cli import main as command_line

    np.random.seed()  # a fork seeds Python's own anew, but not these
    torch.seed()
    sys.argv = ["tevad", *arguments]
    try:
        command_line(prog_name="tevad")
    except SystemExit as exit_:
        end.code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        raise


if __name__ == "__main__":
    main()
