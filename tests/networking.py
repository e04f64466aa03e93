"""The servers that tests start: ports for them, asking them, waiting for them, and their processes."""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; below those the system gives to clients, and so are theirs + 10,000.

    Where to look first differs from process to process, so that two test runs do not race for one.
    """
    found: list[int] = []
    candidates = list(range(11000, 22000))
    random.Random(os.getpid()).shuffle(candidates)
    for port in candidates:
        if _is_free(port) and _is_free(port + 10000):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Return as soon as it holds; fail where it does not in reasonable time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) != 0


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    return not _is_free(port)


@contextmanager
def http_server(
    handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A server on loopback for the time of the block; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def post(address: str, content: dict[str, Any]) -> Any:
    """Send JSON and read the JSON that comes back."""
    request = urllib.request.Request(  # noqa: S310 - this machine's own server
        address, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        return json.load(response)


def children(process: int) -> list[int]:
    """The processes that a process of one thread started and that have not been buried."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listed.split()]


def in_session(leader: int) -> list[int]:
    """The processes of a session, by Linux's own list of processes."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def command_lines(processes: list[int]) -> str:
    """What everybody on the machine may read of how processes were started."""
    lines = []
    for process in processes:
        try:
            lines.append(
                Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
    return "\n".join(lines)
