"""A clock that a test sets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass
class SimulatedClock:
    """Stands still until it is moved on."""

    time: datetime = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)  # a Monday

    def now(self) -> datetime:
        return self.time

    def move_on(self, **by: float) -> datetime:
        """By so many seconds, hours, days …; the time it is then."""
        self.time += timedelta(**by)
        return self.time
