"""What is worth telling people, read from the events of ended runs.

A failed run, a failed check (blocking or not) and a refused promotion each make a notice, in the
order they happened. Where a notifier stands in Dagster's history is a :class:`Position`, which moves
on only past what has been told. How people are told is :mod:`orchestration.notifications`'s.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import dagster as dg

from orchestration.instance import PARTITION
from orchestration.notifications import (
    Kind,
    Notice,
    NoticeRefusedError,
    Notifier,
    NotToldError,
    pass_on,
)
from orchestration.running import why_failed

logger = logging.getLogger("tevad")

ENDED = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS)
"""The ends of a run that are looked at. Who cancels a run knows of it."""

RUNS_AT_ONCE = 50
"""Of each end, in one look; the next look goes on with the others."""

TELLING_S = 30.0
"""Seconds of telling in one look. Dagster cuts a sensor's tick off after 60, and with it the place in
history that was reached: the same notices would be told again, for ever."""

PROMOTION = dg.AssetKey("promotion_decision")

_FORMAT = 1


@dataclass(frozen=True)
class Position:
    """How far a notifier has come.

    Attributes:
        cursors: by end of run, Dagster's own cursor of the last run whose notices are all told.
        told: by end of run, notices told of the run after that.
    """

    cursors: dict[str, str]
    told: dict[str, int]

    @classmethod
    def now(cls, instance: dg.DagsterInstance) -> Self:
        """After everything that has happened: what came before a notifier is no news."""
        cursors = {
            end.value: instance.fetch_run_status_changes(end, limit=1).cursor for end in ENDED
        }
        return cls(cursors, dict.fromkeys(cursors, 0))

    @classmethod
    def read(cls, cursor: str | None) -> Self | None:
        """From a sensor's cursor; None if there is none, or none of this version."""
        try:
            data: dict[str, Any] = json.loads(cursor or "null")
            if data["version"] != _FORMAT:
                return None
            position = cls(dict(data["cursors"]), dict(data["told"]))
        except (ValueError, TypeError, KeyError):
            return None
        ends = {end.value for end in ENDED}
        return position if position.cursors.keys() == position.told.keys() == ends else None

    def written(self) -> str:
        """As a sensor's cursor."""
        return json.dumps({"version": _FORMAT, **asdict(self)}, sort_keys=True)

    def after_notice(self, end: str) -> Self:
        """One notice further within a run."""
        return replace(self, told={**self.told, end: self.told[end] + 1})

    def after_run(self, end: str, cursor: str) -> Self:
        """Past a run."""
        return replace(self, cursors={**self.cursors, end: cursor}, told={**self.told, end: 0})


@dataclass(frozen=True)
class Told:
    """What came of telling.

    Attributes:
        position: where the notifier stands now.
        count: notices that were told.
        dropped: notices that the receiver refused for good.
        rest: why the others were not told, or empty.
    """

    position: Position
    count: int
    dropped: int = 0
    rest: str = ""


def tell_news(
    instance: dg.DagsterInstance,
    notifier: Notifier,
    position: Position,
    seconds: float = TELLING_S,
) -> Told:
    """Tell a notifier all that has happened since, until it cannot pass a notice on.

    That one, and all after it, stay for the next time; so do those for which there is no time left.
    One that the receiver refuses for good is dropped, or it would hold up all others.

    Args:
        instance: whose runs.
        notifier: who is told.
        position: where it stands.
        seconds: after which no other notice is begun with; one is told in any case.
    """
    deadline = time.monotonic() + seconds
    count = dropped = 0
    for notice, further in _news(instance, position):
        if notice is not None:
            if count + dropped and time.monotonic() >= deadline:
                return Told(position, count, dropped, "there are more")
            try:
                pass_on(notifier, notice)
                count += 1
            except NoticeRefusedError as error:
                logger.warning("%s, so this was not told: %s", error, notice.text)
                dropped += 1
            except NotToldError as error:
                return Told(position, count, dropped, str(error))
        position = further
    return Told(position, count, dropped)


def _news(
    instance: dg.DagsterInstance, position: Position
) -> Iterator[tuple[Notice | None, Position]]:
    """Each notice since, and the end of each run as None, with the position after it."""
    for end in ENDED:
        for _ in range(RUNS_AT_ONCE):
            found = instance.fetch_run_status_changes(
                end, limit=1, cursor=position.cursors[end.value], ascending=True
            )
            if not found.records:
                break
            notices = notices_of_run(instance, found.records[0])
            for notice in notices[position.told[end.value] :]:
                position = position.after_notice(end.value)
                yield notice, position
            position = position.after_run(end.value, found.cursor)
            yield None, position


def notices_of_run(instance: dg.DagsterInstance, ended: dg.EventLogRecord) -> list[Notice]:
    """What is worth telling of a run that ended."""
    entry = ended.event_log_entry
    run = instance.get_run_by_id(entry.run_id)
    if run is None:  # its records were deleted
        return []
    dataset = run.tags.get(PARTITION, "")
    at = datetime.fromtimestamp(entry.timestamp, UTC).isoformat(timespec="seconds")

    def notice(kind: Kind, subject: str, reason: str) -> Notice:
        return Notice(kind, dataset, subject, reason, run.run_id, at)

    found = [notice("check failed", *failed) for failed in _failed_checks(instance, entry.run_id)]
    found += [
        notice("promotion refused", *refused) for refused in _refusals(instance, entry.run_id)
    ]
    if run.status == dg.DagsterRunStatus.FAILURE:
        found.append(notice("run failed", run.job_name, _why(instance, entry)))
    return found


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, str]]:
    for event in _events(instance, run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        check = event.asset_check_evaluation_data
        if not check.passed:
            reason = check.description or "see its page for the offenders"
            yield f"{check.asset_key.to_user_string()}: {check.check_name}", reason


def _refusals(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, str]]:
    """A refused promotion is a materialization like any other: only its metadata tell."""
    for event in _events(instance, run_id, dg.DagsterEventType.ASSET_MATERIALIZATION):
        if event.asset_key != PROMOTION:
            continue
        said = {name: value.value for name, value in event.materialization.metadata.items()}
        if said.get("outcome") == "refused":
            yield f"version {said.get('challenger')}", str(said.get("why"))


def _why(instance: dg.DagsterInstance, ended: dg.EventLogEntry) -> str:
    """Why each step failed, else what Dagster says of the run's end."""
    failures = _events(instance, ended.run_id, dg.DagsterEventType.STEP_FAILURE)
    causes = [f"{event.step_key}: {why_failed(event)}" for event in failures]
    return "; ".join(causes) or ended.user_message or str(ended.message)


def _events(
    instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType
) -> list[dg.DagsterEvent]:
    entries = instance.all_logs(run_id, of_type=kind)
    return [entry.dagster_event for entry in entries if entry.dagster_event is not None]
