"""What of one kind nobody needs, and how it is removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Heap:
    """What of one kind nobody needs.

    Attributes:
        kind: what it is and where, for people.
        names: of the things, each once.
        bytes: how much space they take.
        remove: removes them; what a killed process left of them is found again.
    """

    kind: str
    names: tuple[str, ...]
    bytes: int
    remove: Callable[[], None]
