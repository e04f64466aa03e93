"""What time it is, from one place, so that a test can play a month in minutes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The time, with its zone."""
        ...


@dataclass(frozen=True)
class SystemClock:
    """The time it is."""

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.now(UTC)


SYSTEM = SystemClock()
