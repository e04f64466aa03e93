"""Locks between the processes of one machine: gone with their holder, however it ends.

Who has to wait says so, and for whom. DVC has locks of its own
(:mod:`assets.workspace.dvc_repository`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tevad_model.atomic import storage_errors_named

logger = logging.getLogger("tevad")


class HeldElsewhereError(Exception):
    """A lock that is not waited for is another process's; says whose."""


@contextmanager
def locked(path: Path, what: str, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock, as soon as no other process does.

    Args:
        path: of the lock's file, which stays and says who held it last.
        what: is held, for the line that says that it is waited for.
        wait: whether to wait for it.

    Raises:
        HeldElsewhereError: if another process holds it, and it is not waited for.
        StorageError: if the file cannot be written.
    """
    with storage_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise HeldElsewhereError(f"{what}: held by {_holder(file)}") from None
            logger.info("%s: waits for %s", what, _holder(file))
            fcntl.flock(file, fcntl.LOCK_EX)
        with storage_errors_named(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} ({_command()}) since {time.strftime('%F %T')}")
            file.flush()
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock just now."""
    try:
        with path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read() or "another process"


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]])
