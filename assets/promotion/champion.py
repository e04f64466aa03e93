"""The alias ``champion`` and its history: moved here alone, one move at a time.

A move holds a lock of this machine's and compares: it is made only if the champion is still the one
it was decided against, and looked at again afterwards, since MLflow's server may serve other machines.
Each move is a tag of the registered model, so the history is where the alias is. It is written before
the alias moves, as pending: whether a move was made that a kill cut short is seen by the alias.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
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
        pending: written, and the alias not known to have moved yet.
    """

    version: str
    previous: str
    kind: Literal["promotion", "rollback"]
    moment: str
    by: str
    why: str
    pending: bool = False


def now() -> str:
    """This moment as it is recorded."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def champion_version(tracking: Tracking, name: str) -> str:
    """The number of the champion's version; empty if there is none."""
    found = tracking.aliased(name, CHAMPION)
    return str(found.version) if found else ""


def history(tracking: Tracking, name: str) -> tuple[Move, ...]:
    """All moves that the alias made, the oldest first."""
    moves = _written(tracking, name)
    if moves and moves[-1].pending:
        *moves, last = moves
        if champion_version(tracking, name) == last.version:
            moves.append(replace(last, pending=False))
    return tuple(moves)


def move(dataset: Dataset, tracking: Tracking, made: Move) -> None:
    """Make a move and add it to the history.

    Raises:
        ChampionMovedError: if the champion is not ``made.previous``, or somebody else on another
            machine moved the alias at the same time.
    """
    name = registered_name(dataset.name)
    with _locked(dataset):
        _expect(tracking, name, made.previous)
        number = len(_settled(tracking, name)) + 1
        _write(tracking, name, number, replace(made, pending=True))
        tracking.client.set_registered_model_alias(name, CHAMPION, made.version)
        _write(tracking, name, number, made)
        _expect(tracking, name, made.version)


def complete_history(dataset: Dataset, tracking: Tracking, made: Move) -> None:
    """Add the promotion of a version that is champion, if only because somebody set the alias by hand.

    Raises:
        ChampionMovedError: if it is not champion.
    """
    name = registered_name(dataset.name)
    with _locked(dataset):
        _expect(tracking, name, made.version)
        known = _settled(tracking, name)
        if not known or known[-1].version != made.version:
            _write(tracking, name, len(known) + 1, made)


def _settled(tracking: Tracking, name: str) -> tuple[Move, ...]:
    """The history, its last move confirmed if a kill left it pending; one not made is overwritten."""
    moves, written = history(tracking, name), _written(tracking, name)
    if moves and written[len(moves) - 1].pending:
        _write(tracking, name, len(moves), moves[-1])
    return moves


def _written(tracking: Tracking, name: str) -> list[Move]:
    tags = tracking.client.get_registered_model(name).tags
    return [
        Move(**json.loads(value))
        for key, value in sorted(tags.items())
        if key.startswith(HISTORY_TAG)
    ]


def _write(tracking: Tracking, name: str, number: int, made: Move) -> None:
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
