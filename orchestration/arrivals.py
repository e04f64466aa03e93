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
from assets.workspace.listing import Part
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
        tables: the version of each file that is no video as it was taken in last. Of videos the
            listing says so.
        waiting: the changes that have not settled.
        due: the listing that had not been taken in.
    """

    tables: Mapping[Part, str] = field(default_factory=dict)
    waiting: Mapping[Part, Waiting] = field(default_factory=dict)
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
    there = {part: _version(file) for part, file in listing.look(dataset).items()}
    waiting = _changes(there, _known(dataset, seen), seen.waiting, now)
    settled = {part for part, change in waiting.items() if now - change.since >= settle}
    unsettled = waiting.keys() - settled
    tables_settled = all(part.is_video for part in unsettled)
    tables = seen.tables
    if settled and tables_settled:
        listing.refresh(dataset, {part.path for part in unsettled})
        tables, waiting = _tables(there), {part: waiting[part] for part in unsettled}
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
            "tables": [[*part, version] for part, version in each.tables.items()],
            "waiting": [[*part, *_written(change)] for part, change in each.waiting.items()],
            "due": _written(each.due) if each.due else None,
        }
        for name, each in seen.items()
    }
    return json.dumps({"version": _FORMAT, "datasets": datasets}, sort_keys=True)


def _read_seen(data: Mapping[str, Any]) -> Seen:
    return Seen(
        {Part(str(kind), str(path)): str(version) for kind, path, version in data["tables"]},
        {Part(str(kind), str(path)): _read(change) for kind, path, *change in data["waiting"]},
        _read(data["due"]) if data["due"] else None,
    )


def _written(change: Waiting) -> list[str]:
    return [change.version, change.since.isoformat()]


def _read(change: Sequence[str]) -> Waiting:
    version, since = change
    return Waiting(str(version), datetime.fromisoformat(since))


def _version(file: SourceFile) -> str:
    return f"{file.bytes}:{file.version}"


def _tables(there: Mapping[Part, str]) -> dict[Part, str]:
    return {part: version for part, version in there.items() if not part.is_video}


def _known(dataset: Dataset, seen: Seen) -> dict[Part, str]:
    """What has been listed: videos by the listing, and the tables it was made from."""
    listed = listing.read(dataset).files
    videos = {Part(listing.VIDEO, path): _version(file) for path, file in listed.items()}
    return videos | dict(seen.tables)


def _changes(
    there: Mapping[Part, str],
    known: Mapping[Part, str],
    waited: Mapping[Part, Waiting],
    now: datetime,
) -> dict[Part, Waiting]:
    """What differs from what is known; how long depends on whether it was seen like this before."""
    changes = {}
    for part in sorted(there.keys() | known.keys()):
        version = there.get(part, _GONE)
        if version != known.get(part, _GONE):
            before = waited.get(part)
            is_same = before is not None and before.version == version
            changes[part] = before if is_same and before else Waiting(version, now)
    return changes


def _said(settled: Collection[Part], unsettled: Collection[Part]) -> str:
    parts = []
    if settled:
        parts.append(f"new or changed: {_named(settled)}")
    if unsettled:
        parts.append(f"waiting until it has settled: {_named(unsettled)}")
    return "; ".join(parts) or "nothing new"


def _named(parts: Collection[Part]) -> str:
    shown = ", ".join(sorted(part.path for part in parts)[:_SHOWN])
    return shown if len(parts) <= _SHOWN else f"{shown} and {len(parts) - _SHOWN} more"
