"""Telling when this process waits for another: the project says so in its log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def when_it_waits(act: Callable[[], None]) -> Iterator[list[str]]:
    """Do something as soon as this process says that it waits; what it said."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waits for" in record.getMessage():
                said.append(record.getMessage())
                act()

    listener, logger = Listener(), logging.getLogger("tevad")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
