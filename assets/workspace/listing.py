"""What a dataset's source held when last looked at: ``data/<dataset>/source/``.

The listing is to a dataset what an import is to DVC: a record of the outside that changes only when
someone looks again, so that ``dvc status`` needs no network and a version can be told from the next.
It holds ``videos.csv`` as the source has it (or one made from folder names or list files),
``events.csv`` where there is one, ``files.csv`` with the size and version of each video that is to
be taken in, ``unlisted.txt`` with the videos that no row lists, and ``ready_made.csv`` with the
features, embeddings and captions that were made elsewhere.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from assets.workspace.files import folder_stamp, write_csv, write_text
from assets.workspace.params import DatasetParams
from assets.workspace.project import Dataset
from assets.workspace.sources import (
    Source,
    SourceFile,
    file_at,
    open_source,
    read_file,
    versions,
)
from tevad_model.dataset import (
    EventRow,
    VideoRow,
    format_videos,
    parse_events,
    parse_videos,
    rows_from_paths,
    rows_of_unlisted,
    unlisted_videos,
    without_paths,
)
from tevad_model.errors import InputError, SourceRefusedError, SourceUnreachableError
from tevad_model.fingerprint import sha256_file
from tevad_model.ready_made import (
    CAPTIONS,
    EMBEDDINGS,
    FEATURES,
    find_files,
    laid_over,
    rows_from_list,
)

logger = logging.getLogger("tevad")

VIDEOS = "videos.csv"
EVENTS = "events.csv"
FILES = "files.csv"
READY_MADE = "ready_made.csv"
UNLISTED = "unlisted.txt"

VIDEO = "video"
"""The kind of a :class:`Part` that is a video."""

ALL_VIDEOS = ""
"""Whose captions a file holds: no one video's."""


@dataclass(frozen=True)
class Listing:
    """The listing as read back.

    Attributes:
        rows: the videos; those that cannot be used carry their problem. Unlisted ones that are to
            be taken in have no label.
        files: size and version by path, of the videos to take in that the source has.
        ready_made: the same of ready-made features, embeddings and captions, by kind and video; a
            video with several files of a kind has them all. Captions are one file
            (:data:`ALL_VIDEOS`), whose version is the SHA-256 of its content.
        events: ranges by video, or None where the source has no ``events.csv``.
        event_problems: reason by video whose events are unsound.
        unlisted: video files that the source has and no row lists, and that are left out.
    """

    rows: Sequence[VideoRow]
    files: Mapping[str, SourceFile]
    ready_made: Mapping[str, Mapping[str, Sequence[SourceFile]]]
    events: Sequence[EventRow] | None
    event_problems: Mapping[str, str]
    unlisted: Sequence[str]


def refresh(dataset: Dataset, unsettled: Set[str] = frozenset()) -> None:
    """Look at the source and write the listing anew.

    Args:
        dataset: whose.
        unsettled: paths of videos that may still be copied to, which stay as they were listed last;
            a new one is left out with its row.

    Raises:
        InputError: if the source cannot be reached or its tables cannot be read at all. The last
            listing stays as it was.
    """
    entry, root = dataset.entry, dataset.project.root
    source = open_source(entry.source, root) if entry.source else None
    available = versions(source.files()) if source else {}
    available, left_out = _as_listed_last(dataset, available, unsettled)
    videos = _videos_text(entry, root, source, available)
    if left_out:
        videos = without_paths(videos, left_out)
    events = _events_text(entry, root, source, available)
    rows = parse_videos(videos, VIDEOS, with_pixels=not entry.is_ready_made)
    if events:
        parse_events(events, entry.events or f"{entry.source}/{EVENTS}")
    ready_made = _ready_made_files(entry, root, {row.video for row in rows})
    listed = {row.path for row in rows if row.path}
    unlisted = _unlisted(rows, available)
    taken = listed.union(unlisted) if scores_unlisted(dataset) else listed
    present = (available[path] for path in sorted(taken) if path in available)
    write_csv(
        dataset.source / FILES,
        ("path", "bytes", "version"),
        ((file.path, file.bytes, file.version) for file in present),
    )
    _write_ready_made(dataset.source / READY_MADE, ready_made)
    _write_or_remove(dataset.source / EVENTS, events)
    _write_or_remove(dataset.source / UNLISTED, "".join(f"{path}\n" for path in unlisted))
    write_text(dataset.source / VIDEOS, videos)


class Part(NamedTuple):
    """Something that a dataset is listed from.

    Attributes:
        kind: :data:`VIDEO`; else ``table`` or what in ``params.yaml`` names it, such as ``features``.
        path: in the source or in the folder of its kind; of a single file its address.
    """

    kind: str
    path: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video, not a table or what was made elsewhere."""
        return self.kind == VIDEO


def look(dataset: Dataset) -> dict[Part, SourceFile]:
    """What the source holds now of what :func:`refresh` would read.

    Raises:
        InputError: if the source cannot be reached or its table of videos cannot be read.
    """
    entry, root = dataset.entry, dataset.project.root
    found: dict[Part, SourceFile] = {}
    if entry.source:
        source = open_source(entry.source, root)
        available = versions(source.files())
        text = _videos_text(entry, root, source, available)
        rows = parse_videos(text, VIDEOS, with_pixels=not entry.is_ready_made)
        wanted = {row.path for row in rows}
        if scores_unlisted(dataset):
            wanted.update(_unlisted(rows, available))
        found = {Part(VIDEO, path): available[path] for path in wanted if path in available}
        tables = (name for name in (VIDEOS, EVENTS) if name in available)
        found |= {Part("table", name): available[name] for name in tables}
    for kind in ("labels", "events", CAPTIONS):
        if address := getattr(entry, kind):
            found[Part(kind, address)] = file_at(address, root)
    found |= {Part("list", address): file_at(address, root) for address in entry.lists}
    for kind in (FEATURES, EMBEDDINGS):
        if address := getattr(entry, kind):
            files = open_source(address, root).files()
            found |= {Part(kind, file.path): file for file in files}
    return found


def digest(dataset: Dataset) -> str:
    """What changes when the listing does; empty if there is none."""
    whole = hashlib.sha256()
    paths = sorted(dataset.source.glob("[!.]*"))
    for path in paths:
        whole.update(f"{path.name}\0{sha256_file(path)}\n".encode())
    return whole.hexdigest() if paths else ""


def scores_unlisted(dataset: Dataset) -> bool:
    """Whether videos that no row lists are taken in without a label."""
    policy = dataset.entry.unlisted or dataset.project.params.arrivals.unlisted
    return policy == "score"


def refresh_if_reachable(dataset: Dataset) -> str:
    """Refresh, or go on with the last listing where the source is gone but was looked at before.

    Returns:
        Why it goes on with the last listing; empty if it looked.

    Raises:
        InputError: if there is no listing to go on with, the source refuses, or a table cannot be
            read: what somebody has to repair, somebody must hear of.
    """
    try:
        refresh(dataset)
    except SourceRefusedError:
        raise
    except SourceUnreachableError as error:
        if not (dataset.source / VIDEOS).is_file():
            raise
        unreached = f"going on with the last listing: {error}"
        logger.warning("%s: %s", dataset.name, unreached)
        return unreached
    return ""


def read(dataset: Dataset) -> Listing:
    """Read the listing, once for as long as it stays the same; what is returned is shared.

    Raises:
        InputError: if the source was never looked at.
    """
    folder = dataset.source
    if not (folder / VIDEOS).is_file():
        raise InputError(
            f"{folder / VIDEOS}: not there; look at the source first "
            f"(`tevad dataset refresh {dataset.name}`)"
        )
    return _read(folder, not dataset.entry.is_ready_made, folder_stamp(folder))


@lru_cache(maxsize=2)
def _read(folder: Path, with_pixels: bool, _: str) -> Listing:
    text = (folder / VIDEOS).read_text(encoding="utf-8")
    rows = parse_videos(text, VIDEOS, with_pixels=with_pixels)
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
    paths = unlisted.read_text(encoding="utf-8").split("\n")[:-1] if unlisted.is_file() else []
    return Listing(
        rows=rows + rows_of_unlisted((path for path in paths if path in files), rows),
        files=files,
        ready_made=_read_ready_made(folder / READY_MADE),
        events=events,
        event_problems=problems,
        unlisted=[path for path in paths if path not in files],
    )


def _as_listed_last(
    dataset: Dataset, available: Mapping[str, SourceFile], unsettled: Set[str]
) -> tuple[dict[str, SourceFile], Set[str]]:
    """The source's files with the unsettled ones as they were, and those that were not there."""
    if not unsettled:
        return dict(available), frozenset()
    last = read(dataset).files
    settled = {path: file for path, file in available.items() if path not in unsettled}
    settled |= {path: last[path] for path in unsettled if path in last}
    return settled, unsettled - last.keys()


def _unlisted(rows: Sequence[VideoRow], available: Mapping[str, SourceFile]) -> list[str]:
    """Videos that no row lists, nor a frame folder that a row lists holds."""
    listed = {row.path for row in rows if row.path}
    inside = {
        path
        for path in available
        if any(str(folder) in listed for folder in PurePosixPath(path).parents)
    }
    return unlisted_videos(rows, available.keys() - inside)


def _videos_text(
    entry: DatasetParams, root: Path, source: Source | None, available: Mapping[str, SourceFile]
) -> str:
    """The table of videos: as it is, or made from list files or from the folders they lie in."""
    table, name = "", entry.labels or VIDEOS
    if entry.labels:
        table = read_file(entry.labels, root)
    elif source and VIDEOS in available:
        table = source.read_text(VIDEOS)
    if entry.lists:
        listed = [
            row for path in entry.lists for row in rows_from_list(read_file(path, root), path)
        ]
        labels = parse_videos(table, name, with_pixels=False) if table else []
        return format_videos(laid_over(listed, labels))
    return table or format_videos(rows_from_paths(sorted(available), str(entry.source)))


def _events_text(
    entry: DatasetParams, root: Path, source: Source | None, available: Mapping[str, SourceFile]
) -> str:
    if entry.events:
        return read_file(entry.events, root)
    return source.read_text(EVENTS) if source and EVENTS in available else ""


def _ready_made_files(
    entry: DatasetParams, root: Path, videos: Set[str]
) -> dict[str, dict[str, list[SourceFile]]]:
    """The files of features and embeddings of the listed videos, and the one of captions."""
    found: dict[str, dict[str, list[SourceFile]]] = {}
    if entry.captions:
        content = read_file(entry.captions, root).encode()
        digest = hashlib.sha256(content).hexdigest()
        name = PurePosixPath(entry.captions).name
        found[CAPTIONS] = {ALL_VIDEOS: [SourceFile(name, len(content), digest)]}
    for kind in (FEATURES, EMBEDDINGS):
        if address := getattr(entry, kind):
            files = {file.path: file for file in open_source(address, root).files()}
            by_video = find_files(files, kind)
            found[kind] = {
                video: [files[path] for path in by_video[video]]
                for video in sorted(videos & by_video.keys())
            }
    return found


def _write_ready_made(path: Path, found: Mapping[str, Mapping[str, list[SourceFile]]]) -> None:
    if not found:
        path.unlink(missing_ok=True)
        return
    rows = (
        (kind, video, file.path, file.bytes, file.version)
        for kind, by_video in found.items()
        for video, files in by_video.items()
        for file in files
    )
    write_csv(path, ("kind", "video", "path", "bytes", "version"), rows)


def _read_ready_made(path: Path) -> dict[str, dict[str, list[SourceFile]]]:
    found: dict[str, dict[str, list[SourceFile]]] = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                by_video = found.setdefault(row["kind"], {})
                listed = SourceFile(row["path"], int(row["bytes"]), row["version"])
                by_video.setdefault(row["video"], []).append(listed)
    return found


def _write_or_remove(path: Path, text: str) -> None:
    if text:
        write_text(path, text)
    else:
        path.unlink(missing_ok=True)
