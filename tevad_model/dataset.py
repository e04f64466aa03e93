"""The tables of a dataset: ``videos.csv`` and ``events.csv``, and folders that stand in for them.

Reading and checking only: what a row says and whether it may be trusted. Fetching, decoding and
storing the videos are a stage's business.

``videos.csv`` has the columns ``video,path,label[,split][,class][,source]``; videos without pixels
have ``frames`` and ``fps`` in place of ``path``. ``events.csv`` has
``video,start_frame,end_frame[,class]`` with 0-based half-open frame ranges.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from tevad_model.errors import InputError

LABELS = ("normal", "abnormal")
SPLITS = ("train", "test")
UNLABELLED = ""
"""The label of a video nobody has judged: it is scored, but neither trained on nor evaluated."""

VIDEO_SUFFIXES = frozenset(
    ".avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ts .webm .wmv".split()  # noqa: SIM905
)
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})

TEST_SHARE = 0.3
"""Share of each label that goes to the test split where ``videos.csv`` has no ``split`` column."""

_NAME_BYTES = 200  # leaves room for suffixes within the 255 bytes of common file systems


@dataclass(frozen=True)
class VideoRow:
    """One row of ``videos.csv``.

    Attributes:
        video: the name that every other table and file uses for it.
        path: the file (or frame folder) relative to the dataset's folder; empty for a video
            without pixels, of which only features or captions are there.
        label: ``normal``, ``abnormal`` or empty (not labelled).
        split: ``train``, ``test`` or empty (unlabelled videos belong to neither).
        category: the ``class`` column: what kind of anomaly, for per-class figures only.
        source: the recording it is cut from, so that cuts of one are never on both sides of a
            validation split; empty if it is one by itself.
        frames: of a video without pixels, where that is known; else 0.
        fps: frames a second of a video without pixels, where that is known; else 0.
        problem: why the row cannot be used, or empty.
    """

    video: str
    path: str
    label: str
    split: str = ""
    category: str = ""
    source: str = ""
    frames: int = 0
    fps: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class EventRow:
    """One row of ``events.csv``: frames ``[start_frame, end_frame)`` of a video are abnormal."""

    video: str
    start_frame: int
    end_frame: int
    category: str = ""


def parse_videos(text: str, source: str, *, with_pixels: bool = True) -> list[VideoRow]:
    """Read ``videos.csv``. Rows that cannot be used carry their ``problem``; the others stand.

    Args:
        text: the file's content.
        source: how messages name the file.
        with_pixels: whether every row must name a file.

    Raises:
        InputError: if a column is missing or there is no row at all.
    """
    required = ("video", "path", "label") if with_pixels else ("video", "label")
    table = _table(text, source, required=required)
    if not table:
        raise InputError(
            f"{source}: no video is listed; add at least one row `{','.join(required)}`"
        )
    has_split = "split" in table[0][1]
    rows = [_video_row(fields, line, source, with_pixels) for line, fields in table]
    rows = _mark_repeated(rows, source)
    return rows if has_split else assign_splits(rows)


def parse_events(text: str, source: str) -> tuple[list[EventRow], dict[str, str]]:
    """Read ``events.csv``: the sound rows, and for each video with an unsound row the reason.

    Raises:
        InputError: if a column is missing.
    """
    rows: list[EventRow] = []
    problems: dict[str, str] = {}
    for line, fields in _table(text, source, required=("video", "start_frame", "end_frame")):
        video = fields["video"]
        try:
            start, end = int(fields["start_frame"]), int(fields["end_frame"])
        except ValueError:
            problems[video] = (
                f"{source} line {line}: start_frame and end_frame must be whole numbers, got "
                f"{fields['start_frame']!r} and {fields['end_frame']!r}"
            )
            continue
        if start < 0 or end <= start:
            problems[video] = (
                f"{source} line {line}: the range [{start}, {end}) is reversed, empty or negative; "
                "ranges are 0-based and half-open"
            )
            continue
        rows.append(EventRow(video, start, end, fields.get("class", "")))
    return rows, problems


def format_videos(rows: Sequence[VideoRow]) -> str:
    """The text of a ``videos.csv``: five columns, and of the others those that say something."""
    columns: dict[str, Sequence[object]] = {
        "video": [row.video for row in rows],
        "path": [row.path for row in rows],
        "label": [row.label for row in rows],
        "split": [row.split for row in rows],
        "class": [row.category for row in rows],
    }
    further: dict[str, Sequence[object]] = {
        "source": [row.source for row in rows],
        "frames": [row.frames or "" for row in rows],
        "fps": [row.fps or "" for row in rows],
    }
    columns |= {name: values for name, values in further.items() if any(values)}
    return _format(list(columns), zip(*columns.values(), strict=True))


def format_events(rows: Iterable[EventRow]) -> str:
    """The text of an ``events.csv``."""
    return _format(
        ("video", "start_frame", "end_frame", "class"),
        ((row.video, row.start_frame, row.end_frame, row.category) for row in rows),
    )


def rows_from_paths(paths: Sequence[str], source: str) -> list[VideoRow]:
    """Rows for a folder without ``videos.csv``, whose sub-folders ``normal/`` and ``abnormal/`` label it.

    Args:
        paths: POSIX paths relative to the folder. Video files count one by one; a sub-folder that
            holds pictures counts as one video (a frame folder).

    Raises:
        InputError: if neither sub-folder holds a video.
    """
    found: dict[str, str] = {}
    for path in sorted(paths):
        parts = PurePosixPath(path).parts
        if parts[0] not in LABELS or len(parts) < 2:
            continue
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in VIDEO_SUFFIXES:
            found[path] = parts[0]
        elif suffix in PICTURE_SUFFIXES and len(parts) > 2:
            found[str(PurePosixPath(path).parent)] = parts[0]
    if not found:
        raise InputError(
            f"{source}: no videos.csv, and no video below sub-folders normal/ and abnormal/; "
            "add a videos.csv with the columns video,path,label or sort the videos into the two"
        )
    names = _unique_names(list(found))
    return assign_splits([VideoRow(names[p], p, label) for p, label in found.items()])


def unlisted_videos(rows: Iterable[VideoRow], paths: Iterable[str]) -> list[str]:
    """Video files that lie in the folder but no row lists."""
    listed = {row.path for row in rows}
    return sorted(
        path
        for path in paths
        if PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES and path not in listed
    )


def rows_of_unlisted(paths: Iterable[str], rows: Iterable[VideoRow]) -> list[VideoRow]:
    """Unlabelled rows for files that none of the ``rows`` lists, under names that those leave free.

    Args:
        paths: POSIX paths of video files relative to the dataset's folder.
        rows: the listed videos.
    """
    taken = {row.video for row in rows}
    found = []
    for path in sorted(paths):
        pure = PurePosixPath(path)
        whole = path.replace("/", "-")
        names = (pure.stem, whole.removesuffix(pure.suffix), whole.replace(".", "-"))
        name = next((name for name in names if name not in taken), names[-1])
        problem = f"{path}: its name is taken" if name in taken else name_problem(name)
        taken.add(name)
        found.append(VideoRow(name, path, UNLABELLED, problem=problem))
    return found


def without_paths(text: str, paths: Container[str]) -> str:
    """A ``videos.csv`` without the rows of some paths; all else stays as it is."""
    table = [fields for fields in csv.reader(io.StringIO(text.removeprefix("\ufeff"))) if fields]
    columns = [name.strip() for name in table[0]]
    if "path" not in columns:
        return text
    place = columns.index("path")
    kept = [
        fields for fields in table[1:] if "".join(fields[place : place + 1]).strip() not in paths
    ]
    return _format(table[0], kept)


def assign_splits(rows: Sequence[VideoRow]) -> list[VideoRow]:
    """Give labelled rows without a split one that other videos coming or going does not change.

    A video's place follows from a hash of its name, so that a video once trained on is hardly ever
    tested on later. Each label gets at least one test video where it has two or more.
    """
    by_label: dict[str, list[VideoRow]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    test: set[str] = set()
    for label in LABELS:
        ranked = sorted((_unit_hash(row.video), row.video) for row in by_label[label])
        chosen = {video for position, video in ranked if position < TEST_SHARE}
        if not chosen and len(ranked) > 1:
            chosen = {ranked[0][1]}
        if ranked and len(chosen) == len(ranked):
            chosen.discard(ranked[-1][1])
        test |= chosen
    return [
        replace(row, split=("test" if row.video in test else "train") if row.label else "")
        for row in rows
    ]


def _unit_hash(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


def _table(text: str, source: str, required: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    columns = [name.strip() for name in reader.fieldnames or []]
    missing = [name for name in required if name not in columns]
    if missing:
        raise InputError(
            f"{source}: column {', '.join(map(repr, missing))} is missing; the header must have "
            f"{','.join(required)}, it has {','.join(columns) or 'nothing'}"
        )
    reader.fieldnames = columns
    return [
        (reader.line_num, {key: (value or "").strip() for key, value in fields.items() if key})
        for fields in reader
    ]


def _video_row(fields: dict[str, str], line: int, source: str, with_pixels: bool) -> VideoRow:
    path = fields.get("path", "")
    row = VideoRow(
        video=fields["video"] or PurePosixPath(path).stem,
        path=path,
        label=fields["label"].lower(),
        split=fields.get("split", "").lower() if fields["label"] else "",
        category=fields.get("class", ""),
        source=fields.get("source", ""),
    )
    problem = _row_problem(row, has_split="split" in fields, with_pixels=with_pixels)
    if not path and not problem:
        row, problem = _with_length(row, fields)
    return replace(row, problem=f"{source} line {line}: {problem}" if problem else "")


def _with_length(row: VideoRow, fields: dict[str, str]) -> tuple[VideoRow, str]:
    """The row with its frames and frames a second, or why they cannot be taken."""
    try:
        frames, fps = int(fields.get("frames") or 0), float(fields.get("fps") or 0)
    except ValueError:
        frames, fps = -1, -1.0
    if frames < 0 or not 0 <= fps < math.inf:
        return row, (
            f"frames {fields.get('frames')!r} and fps {fields.get('fps')!r} must be a whole number "
            "and a number, above 0 or left empty"
        )
    return replace(row, frames=frames, fps=fps), ""


def _row_problem(row: VideoRow, *, has_split: bool, with_pixels: bool) -> str:
    if problem := name_problem(row.video):
        return problem
    path = PurePosixPath(row.path)
    if (with_pixels and not row.path) or path.is_absolute() or ".." in path.parts:
        return f"path {row.path!r} must stay within the dataset's folder (no '..', not absolute)"
    if row.label not in (*LABELS, UNLABELLED):
        return f"label {row.label!r} is unknown; use normal, abnormal, or leave it empty"
    if has_split and row.label and row.split not in SPLITS:
        return f"split {row.split!r} is unknown; use train or test"
    return ""


def name_problem(video: str) -> str:
    """Why a name cannot be a file's name below the dataset's folders, or empty."""
    if not video or video in {".", ".."} or "/" in video or "\\" in video or video.startswith("."):
        return f"video name {video!r} must be a plain name: no '/', '\\' or leading '.'"
    if any(ord(char) < 32 for char in video) or len(video.encode()) > _NAME_BYTES:
        return f"video name {video!r} holds control characters or is over {_NAME_BYTES} bytes long"
    return ""


def _mark_repeated(rows: Sequence[VideoRow], source: str) -> list[VideoRow]:
    """Keep one of rows that say the same; rows of one name that contradict each other lose all."""
    by_name: dict[str, list[VideoRow]] = defaultdict(list)
    for row in rows:
        by_name[row.video].append(row)
    kept = []
    for video, same in by_name.items():
        first, *others = same
        if all(replace(row, problem="") == replace(first, problem="") for row in others):
            kept.append(first)
        else:
            problem = f"{source}: video {video!r} is listed {len(same)} times with different values"
            kept.append(replace(first, problem=problem))
    return kept


def _unique_names(paths: Sequence[str]) -> dict[str, str]:
    """Name videos by the last part of their path, with the folders before it only where needed."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        pure = PurePosixPath(path)
        by_stem[pure.stem if pure.suffix.lower() in VIDEO_SUFFIXES else pure.name].append(path)
    return {
        path: stem if len(same) == 1 else f"{PurePosixPath(path).parent}/{stem}".replace("/", "-")
        for stem, same in by_stem.items()
        for path in same
    }


def _format(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
