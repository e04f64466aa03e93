"""The program ``tevad``: hands its command to the process that is ready, or runs it itself.

Belongs here: what happens before a command is parsed. Imports nothing heavy before that is decided.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from orchestration.ready import ACCEPTED, FORWARDED, SOCKET, peer

_LONG = frozenset({"up", "serve", "watch"})
"""Commands that go on until they are told to stop, and are themselves what others wait for."""

_ANSWERS_SECONDS = 5.0


def main() -> None:
    """Run a command, here or from the process that is ready."""
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _LONG:
        code = hand_over(arguments)
        if code is not None:
            sys.exit(code)
    from orchestration.cli import main as command_line

    command_line()


def hand_over(arguments: Sequence[str]) -> int | None:
    """The exit code of the command, run by the process that is ready for this project.

    None if there is no such process, or if it would not do just what this one does.
    """
    try:
        connection = _accepted(arguments)
    except OSError:  # it went, starts itself anew, is too busy; or a stream is closed
        return None
    if connection is None:
        return None
    with connection, _forwarded(connection) as forwarded:
        code = connection.recv(1)
        # Without a word it was killed; the shell's code for that.
        return code[0] if code else 128 + (forwarded[-1] if forwarded else signal.SIGKILL)


def granted() -> dict[str, Any]:
    """What the system lets this process do: as JSON has it."""
    limits = sorted(name for name in vars(resource) if name.startswith("RLIMIT_"))
    return {
        "nice": os.nice(0),
        "processors": sorted(os.sched_getaffinity(0)),
        "limits": {name: list(resource.getrlimit(getattr(resource, name))) for name in limits},
    }


def _accepted(arguments: Sequence[str]) -> socket.socket | None:
    """The connection to the process that runs the command from here on."""
    for stream in (0, 1, 2):
        os.fstat(stream)  # a new descriptor must not take the place of one that is closed
    state = _state()
    if state is None or not (state / SOCKET).is_socket():
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_ANSWERS_SECONDS)
        _connect(connection, state)
        if peer(connection) == os.getuid():
            _send(connection, arguments)
            if connection.recv(1) == ACCEPTED:
                connection.sendall(ACCEPTED)
                connection.settimeout(None)
                return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _state() -> Path | None:
    """The state of the project, which is found as ``Project.find`` does it."""
    start = Path(os.environ.get("TEVAD_PROJECT") or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder / ".tevad"
    return None


def _connect(connection: socket.socket, state: Path) -> None:
    """Connect through the folder's descriptor: a socket's path may have 107 bytes only."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
    finally:
        os.close(folder)


def _send(connection: socket.socket, arguments: Sequence[str]) -> None:
    mask = os.umask(0)
    os.umask(mask)
    request = {
        "arguments": list(arguments),
        "code": str(Path(__file__).parent),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "granted": granted(),
        "ignored": [number for number in FORWARDED if _is_ignored(number)],
        "umask": mask,
    }
    socket.send_fds(connection, [b"\n"], [0, 1, 2])
    connection.sendall(json.dumps(request).encode() + b"\n")


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def _forwarded(connection: socket.socket) -> Iterator[list[int]]:
    """Signals go to the command, which runs in a session of its own; those that have gone."""
    gone: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        gone.append(number)
        with suppress(OSError):  # it has ended
            connection.send(bytes([number]))

    before = {
        number: signal.signal(number, forward) for number in FORWARDED if not _is_ignored(number)
    }
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield gone
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
