"""Arrivals: noticing what is new at a dataset's source, and taking it in once it has settled.

A file that somebody still copies looks like any other, so a change counts only when it has been seen
unchanged for a while; until then a video stays as it was listed last, and the others are taken in.
What was seen is remembered between looks as :class:`Seen`. Which run an arrival asks for is the
sensor's business.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from assets.raw_videos import taken_in
from assets.workspace import listing
from assets.workspace.locks import HeldElsewhereError
from assets.workspace.project import Dataset
from assets.workspace.sources import SourceFile

_FORMAT = 2
_GONE = "gone"
_BUSY = "busy, looks again"
_SHOWN = 3


@dataclass(frozen=True)
class Waiting:
    """A change that has not settled, or a listing that has not been taken in.

    Attributes:
        version: what is there now: of a file size and version, or that it is gone; of a listing its
            digest.
        since: when it was first seen to be there.
    """

    version: str
    since: datetime


@dataclass(frozen=True)
class Seen:
    """What is remembered of a dataset's source between two looks.

    Attributes:
        tables: by name, the version of each file that is no video as it was taken in last. Of
            videos the listing says so.
        waiting: by name, the changes that have not settled.
        due: the listing that had not been taken in.
    """

    tables: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    due: Waiting | None = None


@dataclass(frozen=True)
class Arrival:
    """What came of looking at a dataset's source.

    Attributes:
        seen: to be remembered.
        said: what was found, for people.
        due: the listing that is to be taken in; None if it has been.
    """

    seen: Seen
    said: str
    due: Waiting | None = None


def look(dataset: Dataset, seen: Seen, now: datetime) -> Arrival:
    """Look at a source; bring the listing up to date with what has settled.

    Args:
        dataset: whose source.
        seen: what the last look remembered.
        now: the time.

    Raises:
        InputError: if the source cannot be reached, or one of its tables cannot be read.
    """
    taken = taken_in(dataset)
    if taken is None:
        return Arrival(seen, f"not taken in yet: `tevad run {dataset.name}` does that first")
    try:
        with dataset.run_held(wait=False):  # what goes on must not have its listing changed
            return _look(dataset, taken, seen, now)
    except HeldElsewhereError:
        return Arrival(seen, _BUSY)


def _look(dataset: Dataset, taken: str, seen: Seen, now: datetime) -> Arrival:
    """Look at a source that was taken in by a listing before."""
    if dataset.is_held:
        return Arrival(seen, _BUSY)
    settle = timedelta(seconds=dataset.project.params.arrivals.settle_seconds)
    there = {name: _version(file) for name, file in listing.look(dataset).items()}
    waiting = _changes(there, _known(dataset, seen), seen.waiting, now)
    settled = {name for name, change in waiting.items() if now - change.since >= settle}
    unsettled = waiting.keys() - settled
    tables_settled = all(map(listing.is_video, unsettled))
    tables = seen.tables
    if settled and tables_settled:
        listing.refresh(dataset, unsettled)
        tables, waiting = _tables(there), {name: waiting[name] for name in unsettled}
    else:
        settled = set()
    due = _due(listing.digest(dataset), taken, seen.due, now)
    return Arrival(Seen(tables, waiting, due), _said(settled, unsettled), due)


def _due(digest: str, taken: str, before: Waiting | None, now: datetime) -> Waiting | None:
    """The listing that is to be taken in, and since when: one that comes back is due anew."""
    if digest == taken:
        return None
    return before if before and before.version == digest else Waiting(digest, now)


def read_cursor(cursor: str | None) -> dict[str, Seen]:
    """What was remembered by dataset; of a cursor that cannot be read, nothing.

    Nothing is lost by that: what is new is only waited for anew.
    """
    try:
        data: dict[str, Any] = json.loads(cursor or "{}")
        if data["version"] != _FORMAT:
            return {}
        return {name: _read_seen(each) for name, each in data["datasets"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def written_cursor(seen: Mapping[str, Seen]) -> str:
    """What is remembered, as a sensor's cursor."""
    datasets = {
        name: {
            "tables": dict(each.tables),
            "waiting": {file: _written(change) for file, change in each.waiting.items()},
            "due": _written(each.due) if each.due else None,
        }
        for name, each in seen.items()
    }
    return json.dumps({"version": _FORMAT, "datasets": datasets}, sort_keys=True)


def _read_seen(data: Mapping[str, Any]) -> Seen:
    return Seen(
        {str(name): str(version) for name, version in data["tables"].items()},
        {str(name): _read(change) for name, change in data["waiting"].items()},
        _read(data["due"]) if data["due"] else None,
    )


def _written(change: Waiting) -> list[str]:
    return [change.version, change.since.isoformat()]


def _read(change: Sequence[str]) -> Waiting:
    version, since = change
    return Waiting(str(version), datetime.fromisoformat(since))


def _version(file: SourceFile) -> str:
    return f"{file.bytes}:{file.version}"


def _tables(there: Mapping[str, str]) -> dict[str, str]:
    return {name: version for name, version in there.items() if not listing.is_video(name)}


def _known(dataset: Dataset, seen: Seen) -> dict[str, str]:
    """What has been listed: videos by the listing, and the tables it was made from."""
    videos = {path: _version(file) for path, file in listing.read(dataset).files.items()}
    return videos | dict(seen.tables)


def _changes(
    there: Mapping[str, str],
    known: Mapping[str, str],
    waited: Mapping[str, Waiting],
    now: datetime,
) -> dict[str, Waiting]:
    """What differs from what is known; how long depends on whether it was seen like this before."""
    changes = {}
    for name in sorted(there.keys() | known.keys()):
        version = there.get(name, _GONE)
        if version != known.get(name, _GONE):
            before = waited.get(name)
            is_same = before is not None and before.version == version
            changes[name] = before if is_same and before else Waiting(version, now)
    return changes


def _said(settled: Collection[str], unsettled: Collection[str]) -> str:
    parts = []
    if settled:
        parts.append(f"new or changed: {_named(settled)}")
    if unsettled:
        parts.append(f"waiting until it has settled: {_named(unsettled)}")
    return "; ".join(parts) or "nothing new"


def _named(names: Collection[str]) -> str:
    shown = ", ".join(name.partition(":")[2] or name for name in sorted(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
