"""A process that has loaded the libraries already, from which commands start at once.

Most of what a short command takes is importing Dagster, MLflow, Great Expectations and
transformers. ``tevad up`` keeps one process that has done so (:mod:`orchestration.ready.server`).
``tevad`` (:mod:`orchestration.ready.program`) hands its command over: the process forks, and the
fork takes over the command's arguments, folder, environment, standard streams and signals. The
manner is that of Mercurial's ``chg``. Where the fork would do anything else than a process of its
own, the command runs as without it. One thing is lost: Ctrl-Z does nothing.

Here is what both sides agree on.
"""

import signal
import socket
import struct
import sys

COMMAND = (sys.executable, "-P", "-m", "orchestration.ready.server")
"""Starts the process, in a project; without the working folder among the places of modules."""

SOCKET = "commands.socket"
"""Where the process listens, in the project's state: for this user alone."""

ACCEPTED, REFUSED = b"a", b"r"
"""The answer to a request. The command begins when an ``ACCEPTED`` was acknowledged by the same
byte; what comes after it is, one way, its exit code, and the other way, signals by number."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The signals that reach the command."""


def peer(connection: socket.socket) -> int:
    """The user at the other end, by number."""
    credentials = struct.Struct("3i")  # of struct ucred, unix(7): process, user, group
    option = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    return int(credentials.unpack(option)[1])
