"""What a dataset's source held when last looked at: ``data/<dataset>/source/``.

The listing is to a dataset what an import is to DVC: a record of the outside that changes only when
someone looks again, so that ``dvc status`` needs no network and a version can be told from the next.
It holds ``videos.csv`` as the source has it (or one made from folder names), ``events.csv`` where there is one, and
``files.csv`` with each listed file's size and version.
"""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

from assets.workspace.files import write_csv, write_text
from assets.workspace.project import Dataset
from assets.workspace.sources import Source, SourceFile, open_source, versions
from tevad_model.dataset import (
    EventRow,
    VideoRow,
    format_videos,
    parse_events,
    parse_videos,
    rows_from_paths,
    unlisted_videos,
)
from tevad_model.errors import InputError, SourceUnreachableError

logger = logging.getLogger("tevad")

VIDEOS = "videos.csv"
EVENTS = "events.csv"
FILES = "files.csv"
UNLISTED = "unlisted.txt"


@dataclass(frozen=True)
class Listing:
    """The listing as read back.

    Attributes:
        rows: the videos; those that cannot be used carry their problem.
        files: size and version by path, of listed files that the source has.
        events: ranges by video, or None where the source has no ``events.csv``.
        event_problems: reason by video whose events are unsound.
        unlisted: video files the source has but no row lists.
    """

    rows: list[VideoRow]
    files: dict[str, SourceFile]
    events: list[EventRow] | None
    event_problems: dict[str, str]
    unlisted: list[str]


def refresh(dataset: Dataset) -> None:
    """Look at the source and write the listing anew.

    Raises:
        InputError: if the source cannot be reached or its tables cannot be read at all. The last
            listing stays as it was.
    """
    entry = dataset.entry
    source = open_source(entry.source, dataset.project.root)
    available = versions(source.files())
    texts = _texts(source, available, entry.source)
    rows = parse_videos(texts[VIDEOS], VIDEOS)
    if EVENTS in texts:
        parse_events(texts[EVENTS], f"{entry.source}/{EVENTS}")
    listed = {row.path for row in rows}
    inside = {path for path in available if any(path.startswith(f"{row}/") for row in listed)}
    unlisted = unlisted_videos(rows, available.keys() - inside)
    present = (available[path] for path in sorted(listed) if path in available)
    write_csv(
        dataset.source / FILES,
        ("path", "bytes", "version"),
        ((file.path, file.bytes, file.version) for file in present),
    )
    _write_or_remove(dataset.source / EVENTS, texts.get(EVENTS, ""))
    _write_or_remove(dataset.source / UNLISTED, "".join(f"{path}\n" for path in unlisted))
    write_text(dataset.source / VIDEOS, texts[VIDEOS])


def refresh_if_reachable(dataset: Dataset) -> None:
    """Refresh, or go on with the last listing where the source is gone but was looked at before.

    Raises:
        InputError: if there is no listing to go on with, or a table cannot be read: then somebody
            changed it, and must hear of it.
    """
    try:
        refresh(dataset)
    except SourceUnreachableError as error:
        if not (dataset.source / VIDEOS).is_file():
            raise
        logger.warning("%s: going on with the last listing: %s", dataset.name, error)


def read(dataset: Dataset) -> Listing:
    """Read the listing.

    Raises:
        InputError: if the source was never looked at.
    """
    folder = dataset.source
    if not (folder / VIDEOS).is_file():
        raise InputError(
            f"{folder / VIDEOS}: not there; look at the source first "
            f"(`tevad dataset refresh {dataset.name}`)"
        )
    rows = parse_videos((folder / VIDEOS).read_text(encoding="utf-8"), VIDEOS)
    events: list[EventRow] | None = None
    problems: dict[str, str] = {}
    if (folder / EVENTS).is_file():
        text = (folder / EVENTS).read_text(encoding="utf-8")
        events, problems = parse_events(text, EVENTS)
    with (folder / FILES).open(encoding="utf-8", newline="") as file:
        files = {
            row["path"]: SourceFile(row["path"], int(row["bytes"]), row["version"])
            for row in csv.DictReader(file)
        }
    unlisted = folder / UNLISTED
    return Listing(
        rows=rows,
        files=files,
        events=events,
        event_problems=problems,
        unlisted=unlisted.read_text(encoding="utf-8").split("\n")[:-1]
        if unlisted.is_file()
        else [],
    )


def _texts(source: Source, available: dict[str, SourceFile], address: str) -> dict[str, str]:
    texts = {name: source.read_text(name) for name in (VIDEOS, EVENTS) if name in available}
    if VIDEOS not in texts:
        rows = rows_from_paths(sorted(available), address)
        texts[VIDEOS] = format_videos(rows)
    return texts


def _write_or_remove(path: Path, text: str) -> None:
    if text:
        write_text(path, text)
    else:
        path.unlink(missing_ok=True)
