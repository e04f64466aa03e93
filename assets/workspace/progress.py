"""How far long work is: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm

logger = logging.getLogger("tevad")

LOG_EVERY_SECONDS = 30.0

_T = TypeVar("_T")


class Progress:
    """Counts work that is done and says how fast it goes and how long it will take.

    Args:
        title: of the work.
        total: units of it.
        unit: such as ``frame``.
    """

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._title = title
        self._total = total
        self._unit = unit
        self._done = 0
        self._started = self._said = time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = self._open.enter_context(
                tqdm(
                    total=self._total,
                    desc=self._title,
                    unit=self._unit,
                    unit_scale=self._total >= 1000,
                )
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def advance(self, units: int = 1) -> None:
        """Count units as done."""
        self._done += units
        if self._bar is not None:
            self._bar.update(units)
            return
        now = time.monotonic()
        if now - self._said > LOG_EVERY_SECONDS:
            self._said = now
            logger.info("%s", self._line(now - self._started))

    def reach(self, units: int) -> None:
        """Count as done what is missing to a number of units."""
        if units > self._done:
            self.advance(units - self._done)

    def over(self, items: Iterable[_T]) -> Iterator[_T]:
        """Yield items and count each as done when the next one is asked for."""
        for item in items:
            yield item
            self.advance()

    def _line(self, seconds: float) -> str:
        speed = self._done / seconds
        left = (self._total - self._done) / speed
        return (
            f"{self._title}: {self._done:,} of {self._total:,} {self._unit}s, "
            f"{speed:.1f} {self._unit}s/s, {left:.0f} s left"
        )


def over_videos(items: Sequence[_T], title: str) -> Iterator[_T]:
    """Yield items, one a video, and show how far it is."""
    with Progress(title, len(items), "video") as progress:
        yield from progress.over(items)
