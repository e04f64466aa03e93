"""Ports for the servers that tests start, and waiting for what others do."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable


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


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Return as soon as it holds; fail where it does not in reasonable time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) != 0
