"""The alias ``champion`` and its history: moved here alone, one move at a time.

A move holds a lock of this machine's and compares: it is made only if the champion is still the one
it was decided against, and looked at again afterwards, since MLflow's server may serve other machines.
Each move is a tag of the registered model, so the history is where the alias is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from assets.workspace.locks import locked
from assets.workspace.project import Dataset
from assets.workspace.tracking import CHAMPION, Tracking, registered_name
from tevad_model.errors import InputError

HISTORY_TAG = "tevad.champion."
"""Prefix of the registered model's tags that tell of a move: ``tevad.champion.00001`` = JSON."""

_LONGEST_REASON = 1000


class ChampionMovedError(InputError):
    """The alias is not where it was when the move was decided."""


@dataclass(frozen=True)
class Move:
    """One move of the alias.

    Attributes:
        version: the champion from then on.
        previous: the champion until then; empty if there was none.
        kind: a promotion puts a version on top of those before, a rollback takes it off.
        moment: when, ISO 8601 in UTC.
        by: who or what moved it.
        why: in a few words.
    """

    version: str
    previous: str
    kind: Literal["promotion", "rollback"]
    moment: str
    by: str
    why: str


def now() -> str:
    """This moment as it is recorded."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def champion_version(tracking: Tracking, name: str) -> str:
    """The number of the champion's version; empty if there is none."""
    found = tracking.aliased(name, CHAMPION)
    return str(found.version) if found else ""


def history(tracking: Tracking, name: str) -> tuple[Move, ...]:
    """All moves of the alias, the oldest first."""
    tags = tracking.client.get_registered_model(name).tags
    return tuple(
        Move(**json.loads(value))
        for key, value in sorted(tags.items())
        if key.startswith(HISTORY_TAG)
    )


def move(dataset: Dataset, tracking: Tracking, made: Move) -> None:
    """Make a move and add it to the history.

    Raises:
        ChampionMovedError: if the champion is not ``made.previous``, or somebody else on another
            machine moved the alias at the same time.
    """
    name = registered_name(dataset.name)
    with _locked(dataset):
        _expect(tracking, name, made.previous)
        tracking.client.set_registered_model_alias(name, CHAMPION, made.version)
        _append(tracking, name, made)
        _expect(tracking, name, made.version)


def complete_history(dataset: Dataset, tracking: Tracking, made: Move) -> None:
    """Add a move to the history whose process was killed before it could."""
    name = registered_name(dataset.name)
    with _locked(dataset):
        known = history(tracking, name)
        if champion_version(tracking, name) == made.version and (
            not known or known[-1].version != made.version
        ):
            _append(tracking, name, made)


def _append(tracking: Tracking, name: str, made: Move) -> None:
    number = len(history(tracking, name)) + 1
    fields = {**asdict(made), "why": made.why[:_LONGEST_REASON]}
    text = json.dumps(fields, ensure_ascii=False)
    tracking.client.set_registered_model_tag(name, f"{HISTORY_TAG}{number:05d}", text)


def _expect(tracking: Tracking, name: str, version: str) -> None:
    found = champion_version(tracking, name)
    if found != version:
        raise ChampionMovedError(
            f"{name}: the champion is version {found or 'none'}, not {version or 'none'} as when "
            "this was decided; somebody else moved it. Look at it (`tevad promote`) and decide anew"
        )


def _locked(dataset: Dataset) -> AbstractContextManager[None]:
    """Keep other processes of this machine from the alias; a stage at work is not waited for."""
    return locked(dataset.work / "champion.lock", f"the champion of {dataset.name}")


def line_of_champions(moves: Sequence[Move], current: str) -> list[str]:
    """The champions that each came after the other, without those that were rolled back.

    The last is ``current``, also where somebody set the alias by hand.
    """
    line: list[str] = []
    for each in moves:
        if each.kind == "promotion":
            line.append(each.version)
        else:
            while line and line[-1] != each.version:
                line.pop()
            line = line or [each.version]
    if current and (not line or line[-1] != current):
        line.append(current)
    return line


def rolled_back(moves: Sequence[Move], version: str) -> Move | None:
    """The rollback that took a version off, unless it was promoted again since."""
    for each in reversed(moves):
        if each.kind == "promotion" and each.version == version:
            return None
        if each.kind == "rollback" and each.previous == version:
            return each
    return None
