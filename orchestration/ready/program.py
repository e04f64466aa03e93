"""The program ``tevad``: hands its command to the process that is ready, or runs it itself.

Belongs here: what happens before a command is parsed. Imports nothing heavy before that is decided.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from orchestration.ready import ACCEPTED, SOCKET

_LONG = frozenset({"up", "serve", "watch"})
"""Commands that go on until they are told to stop, and are themselves what others wait for."""

_ANSWERS_SECONDS = 5.0
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_KILLED = 128 + signal.SIGKILL
"""The exit code that a shell gives what was killed."""


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
    connection = _connected()
    if connection is None:
        return None
    with connection:
        try:
            connection.settimeout(_ANSWERS_SECONDS)
            _send(connection, arguments)
            if connection.recv(1) != ACCEPTED:
                return None
            connection.settimeout(None)
        except OSError:  # it went, starts itself anew, or is too busy
            return None
        with _forwarded(connection):
            code = connection.recv(1)
        return code[0] if code else _KILLED


def _connected() -> socket.socket | None:
    start = Path(os.environ.get("TEVAD_PROJECT") or Path.cwd()).absolute()
    for folder in (start, *start.parents):
        state = folder / ".tevad"
        if (state / SOCKET).is_socket():
            return _connected_in(state)
    return None


def _connected_in(state: Path) -> socket.socket | None:
    """Connected through the folder's descriptor: a socket's whole path may have 107 bytes only."""
    connection = socket.socket(socket.AF_UNIX)
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
    except (ConnectionRefusedError, FileNotFoundError, PermissionError):
        connection.close()
        return None
    finally:
        os.close(folder)
    return connection


def _send(connection: socket.socket, arguments: Sequence[str]) -> None:
    mask = os.umask(0)
    os.umask(mask)
    request = {
        "arguments": list(arguments),
        "code": str(Path(__file__).parent),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "umask": mask,
    }
    socket.send_fds(connection, [b"\n"], [0, 1, 2])
    connection.sendall(json.dumps(request).encode() + b"\n")


@contextmanager
def _forwarded(connection: socket.socket) -> Iterator[None]:
    """Signals go to the command, which runs in a session of its own."""

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(BrokenPipeError):  # it has ended
            connection.send(bytes([number]))

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
