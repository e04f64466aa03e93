"""raw_videos: take a dataset's videos in, whole and checked, or put them in quarantine.

Fetches each listed video from the source, hashes it, decodes it once to learn what it really holds,
matches it with what was made of it elsewhere, and writes the manifest every later stage reads.
Nothing of a video's content is judged here.
"""

import errno
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets.workspace import files, listing, versions
from assets.workspace.face import committed, dataset_of, explained, stage_asset
from assets.workspace.listing import Listing
from assets.workspace.manifest import Manifest, RawVideoRow, read_manifest
from assets.workspace.progress import over_videos
from assets.workspace.project import Dataset
from assets.workspace.ready_made import ReadyMadeIntake
from assets.workspace.sources import Source, SourceFile, open_source
from assets.workspace.stage import StageReport
from tevad_model.atomic import replacing
from tevad_model.dataset import EventRow, VideoRow, format_events, parse_events
from tevad_model.errors import InputError, VideoError
from tevad_model.fingerprint import sha256_file
from tevad_model.timeline import SNIPPET_FRAMES

if TYPE_CHECKING:
    from tevad_model.encoders.base import Frame

STAGE = "raw_videos"
CODE_VERSION = "1"
"""Changes when the same source file would be taken in differently."""

VIDEOS = "videos"
EVENTS = "events.csv"

INCOMING = "incoming"
"""Below the dataset's work folder: where a file is until it is whole and known to be a video."""

_TAKEN_IN = "taken_in.json"
_SAVE_EVERY_SECONDS = 2.0
_SHOWN = 8
_THUMBNAIL = 320


def ingest_raw_videos(dataset: Dataset, unreached: str = "") -> StageReport:
    """Take in what the listing lists; fetch only what is new or changed.

    Args:
        dataset: whose.
        unreached: why the listing is an older one, if it is
            (:func:`assets.workspace.listing.refresh_if_reachable`); a warning of the report.

    Raises:
        InputError: if the source was never looked at, or cannot be reached though a video has to be
            fetched from it.
    """
    with dataset.held():
        return _ingest(dataset, unreached)


def _ingest(dataset: Dataset, unreached: str) -> StageReport:
    started = time.perf_counter()
    digest, listed = listing.digest(dataset), listing.read(dataset)
    intake = _Intake(dataset, listed)
    ready_made = ReadyMadeIntake(dataset, listed)
    taken = [
        ready_made.match(intake.take(row))
        for row in over_videos(listed.rows, f"{dataset.name}/{STAGE}")
    ]
    listed = _with_clipped_events(listed, taken)
    taken = _quarantine_same_content(_quarantine_unsound_events(taken, listed))
    by_video = {row.video: row for row in listed.rows}
    rows = [intake.restore(by_video[row.video], row) for row in taken]
    intake.save()
    manifest = Manifest.of(rows)
    ready_made.write(dataset.stage(STAGE), manifest.by_video())
    _write(dataset, manifest, listed)
    files.write_json(dataset.work / _TAKEN_IN, {"listing": digest, "unreached": unreached})
    seconds = {**ready_made.seconds, **intake.seconds}
    report = StageReport(
        stage=STAGE,
        dataset=dataset.name,
        done=len(seconds),
        reused=len(rows) - len(seconds),
        quarantined=manifest.quarantined,
        seconds=time.perf_counter() - started,
        frames=sum(row.frames for row in rows if row.video in intake.seconds),
        video_seconds=seconds,
        warnings=(
            *([unreached] if unreached else []),
            *_warnings(listed),
            *ready_made.warnings(),
        ),
    )
    report.publish(dataset)
    return report


def has_taken_in(dataset: Dataset) -> bool:
    """Whether all that the listing lists is in, and lies there as it was committed.

    A video that could not be fetched is not in, and is tried again.
    """
    if taken_in(dataset) != listing.digest(dataset) or not versions.is_up_to_date(dataset, STAGE):
        return False
    listed = listing.read(dataset)
    intake = _Intake(dataset, listed)
    return not any(intake.is_due(row) for row in listed.rows)


def read_raw_videos(dataset: Dataset) -> Manifest[RawVideoRow]:
    """The manifest of this stage."""
    return read_manifest(dataset.stage(STAGE), RawVideoRow)


def taken_in(dataset: Dataset) -> str | None:
    """The digest of the listing that was taken in last; None if none was on this machine."""
    return _taken_in(dataset).get("listing")


def was_unreached(dataset: Dataset) -> bool:
    """Whether the source could not be reached when videos were taken in last."""
    return bool(_taken_in(dataset).get("unreached"))


def _taken_in(dataset: Dataset) -> dict[str, str]:
    try:
        return dict(files.read_json(dataset.work / _TAKEN_IN))
    except (FileNotFoundError, ValueError):
        return {}


def read_events(dataset: Dataset) -> dict[str, list[tuple[int, int]]] | None:
    """Abnormal frame ranges by video, or None where the dataset has no ``events.csv``."""
    path = dataset.stage(STAGE) / EVENTS
    if not path.is_file():
        return None
    rows, _ = parse_events(path.read_text(encoding="utf-8"), str(path))
    events: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in rows:
        events[row.video].append((row.start_frame, row.end_frame))
    return dict(events)


def frame_of(dataset: Dataset, row: RawVideoRow, frame: int) -> "Frame":
    """One frame of a usable video, small enough for a picture of many."""
    from tevad_model import video

    pictures = video.frames(video_path(dataset, row), max_side=_THUMBNAIL)
    return next(islice(pictures, frame, None))


def contact_sheet(dataset: Dataset) -> bytes | None:
    """A PNG with a frame from the middle of some videos, evenly chosen; None without pixels."""
    from tevad_model import figures

    rows = with_pixels(read_raw_videos(dataset))
    if not rows:
        return None
    shown = [rows[i * len(rows) // _SHOWN] for i in range(_SHOWN)] if len(rows) > _SHOWN else rows
    thumbnails = [
        figures.Thumbnail(
            frame_of(dataset, row, row.frames // 2),
            title=f"{row.video} ({row.label or 'unlabelled'})",
            highlighted=row.label == "abnormal",
        )
        for row in shown
    ]
    return figures.contact_sheet(thumbnails, title=dataset.name)


def with_pixels(raw: Manifest[RawVideoRow]) -> list[RawVideoRow]:
    """The usable videos whose file lies there, in order of name."""
    return [row for row in raw.usable if row.path]


def video_path(dataset: Dataset, row: RawVideoRow) -> Path:
    """Where a usable video's file lies."""
    return dataset.stage(STAGE) / row.path


@dataclass(frozen=True)
class _Seen:
    """What an earlier run learned of a listed file.

    ``stamp`` is size and modification time of our copy: while they stand, its content does.
    """

    version: str
    stamp: str
    row: RawVideoRow


class _Intake:
    """Brings listed files in, remembering by their version which are in already.

    Attributes:
        seconds: what each fetched video took.
    """

    def __init__(self, dataset: Dataset, listed: Listing) -> None:
        self._dataset = dataset
        self._files = listed.files
        self._folder = dataset.stage(STAGE)
        self._incoming = dataset.work / INCOMING
        self._log = dataset.work / "intake.json"
        self._seen = _read_log(self._log)
        self._saved = time.monotonic()
        self.seconds: dict[str, float] = {}
        self._source: Source | None = None
        (self._folder / VIDEOS).mkdir(parents=True, exist_ok=True)

    def take(self, row: VideoRow) -> RawVideoRow:
        """The video's manifest row. A file of a version seen before is not fetched for it."""
        if row.problem or not row.path:
            return _row(row, row.problem)
        file = self._files.get(row.path)
        if file is None:
            where = self._dataset.entry.source
            return _row(row, f"{row.path}: listed, but not in {where}; add it or drop its row")
        if not self.is_due(row):
            return _relabelled(self._seen[row.video].row, row)
        return self._fetch(row, file)

    def is_due(self, row: VideoRow) -> bool:
        """Whether the source has a file for the video of another version than was seen before."""
        file = self._files.get(row.path)
        if row.problem or file is None:
            return False
        seen = self._seen.get(row.video)
        return seen is None or seen.version != self._version(file)

    def restore(self, row: VideoRow, taken: RawVideoRow) -> RawVideoRow:
        """See that a usable video's file lies there as it was taken in, or fetch it again."""
        if not taken.path or self._lies_there(taken):
            return taken
        return self._fetch(row, self._files[row.path])

    def _lies_there(self, row: RawVideoRow) -> bool:
        seen, path = self._seen[row.video], self._folder / row.path
        if seen.stamp == _stamp(path):
            return True
        if not path.is_file() or sha256_file(path) != row.sha256:
            return False
        self._seen[row.video] = replace(seen, stamp=_stamp(path))  # `dvc checkout` wrote it anew
        return True

    def _version(self, file: SourceFile) -> str:
        fps = self._dataset.entry.fps
        return f"{CODE_VERSION}:{file.path}:{file.bytes}:{file.version}:{fps}"

    def save(self) -> None:
        """Keep what was learned; what a killed run learned since the last time it learns again."""
        # Not asdict(), which copies every field: ten times as long as writing them.
        log = {video: {**vars(seen), "row": vars(seen.row)} for video, seen in self._seen.items()}
        files.write_json(self._log, log)
        self._saved = time.monotonic()

    def _fetch(self, row: VideoRow, file: SourceFile) -> RawVideoRow:
        """Bring one file in by way of a folder of its own; only a whole, sound video leaves it.

        What is wrong with the content is remembered; what went wrong on the way is not.
        """
        begun = time.perf_counter()
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)
        fetched = self._incoming / PurePosixPath(file.path).name
        try:
            self._open_source().fetch(file.path, fetched)
        except VideoError as error:
            return _row(row, str(error))
        taken = self._examine(row, fetched)
        stamp = _stamp(self._folder / taken.path) if taken.path else ""
        self._seen[row.video] = _Seen(self._version(file), stamp, taken)
        self.seconds[row.video] = time.perf_counter() - begun
        if time.monotonic() - self._saved > _SAVE_EVERY_SECONDS:
            self.save()
        return taken

    def _examine(self, row: VideoRow, fetched: Path) -> RawVideoRow:
        """Move what was fetched to its place if it is a sound video; else say what is wrong."""
        from tevad_model import video

        try:
            whole = self._as_video(fetched)
            info = video.probe(whole)
        except InputError as error:
            return _row(row, str(error).replace(str(fetched), row.path))
        digest, size = sha256_file(whole), whole.stat().st_size
        path = f"{VIDEOS}/{row.video}{whole.suffix.lower()}"
        _move(whole, self._folder / path)
        return replace(
            _row(row),
            path=path,
            frames=info.frames,
            fps=info.fps,
            width=info.width,
            height=info.height,
            bytes=size,
            sha256=digest,
        )

    def _as_video(self, fetched: Path) -> Path:
        """The file itself, or the video that a frame folder becomes."""
        from tevad_model import video

        if not fetched.is_dir():
            return fetched
        fps = self._dataset.entry.fps
        if fps is None:
            raise VideoError(
                f"{fetched}: a frame folder does not say its frames a second; "
                "give them by `tevad dataset add --fps`"
            )
        whole = fetched.with_name(f"{fetched.name}.encoded.mp4")
        video.encode_folder(fetched, whole, fps)
        return whole

    def _open_source(self) -> Source:
        if self._source is None:
            address = str(self._dataset.entry.source)  # rows with a path come from a source
            self._source = open_source(address, self._dataset.project.root)
        return self._source


def _move(path: Path, to: Path) -> None:
    """Move a file to its place, whole or not at all, from another file system too."""
    try:
        path.replace(to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(to) as temporary:
            shutil.copyfile(path, temporary)
        path.unlink()


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return "absent"
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _read_log(path: Path) -> dict[str, _Seen]:
    """What earlier runs learned; a lost or outdated log only costs the work again."""
    try:
        return {
            name: _Seen(seen["version"], seen["stamp"], RawVideoRow(**seen["row"]))
            for name, seen in files.read_json(path).items()
        }
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}


def _row(row: VideoRow, problem: str = "") -> RawVideoRow:
    return RawVideoRow(
        video=row.video,
        path="",
        label=row.label,
        split=row.split,
        category=row.category,
        frames=row.frames,
        fps=row.fps,
        width=0,
        height=0,
        bytes=0,
        sha256="",
        source=row.source,
        problem=problem,
    )


def _relabelled(taken: RawVideoRow, row: VideoRow) -> RawVideoRow:
    return replace(
        taken,
        video=row.video,
        label=row.label,
        split=row.split,
        category=row.category,
        source=row.source,
    )


def _quarantine(row: RawVideoRow, problem: str) -> RawVideoRow:
    return row if row.problem else replace(row, path="", problem=problem)


def _quarantine_same_content(rows: Sequence[RawVideoRow]) -> list[RawVideoRow]:
    """Of usable videos with one content keep the first, a labelled one if any; none if labels differ.

    The same pictures under two labels teach nothing, and under two splits they leak.
    """
    by_content: dict[str, list[RawVideoRow]] = defaultdict(list)
    for row in rows:
        if row.sha256 and not row.problem:
            by_content[row.sha256].append(row)
    problems = {}
    for same in by_content.values():
        labelled = [row for row in same if row.label]
        labels = sorted({row.label for row in labelled})
        if len(labels) > 1:
            names = ", ".join(repr(row.video) for row in same)
            problem = (
                f"the same content is listed as {' and '.join(labels)} ({names}); keep one row"
            )
            problems.update({row.video: problem for row in same})
        else:
            kept = (labelled or same)[0]
            problem = f"the same content as {kept.video!r}; it is taken once"
            problems.update({row.video: problem for row in same if row is not kept})
    return [
        _quarantine(row, f"{row.video}: {problems[row.video]}") if row.video in problems else row
        for row in rows
    ]


def _with_clipped_events(listed: Listing, rows: Sequence[RawVideoRow]) -> Listing:
    """End an event with its video where the video's length is only known in whole snippets.

    Features leave out the frames over at the end, so that an event to the last frame ends past
    what there are scores for.
    """
    if listed.events is None:
        return listed
    said = {row.video for row in listed.rows if row.path or row.frames}
    frames = {row.video: row.frames for row in rows if row.video not in said}
    events = [
        replace(event, end_frame=frames[event.video])
        if 0 < event.end_frame - frames.get(event.video, event.end_frame) < SNIPPET_FRAMES
        and event.start_frame < frames[event.video]
        else event
        for event in listed.events
    ]
    return replace(listed, events=events)


def _quarantine_unsound_events(rows: Sequence[RawVideoRow], listed: Listing) -> list[RawVideoRow]:
    """A video whose ground truth cannot be right would make every figure wrong."""
    problems = dict(listed.event_problems)
    by_video = {row.video: row for row in rows if not row.problem}
    for event in listed.events or ():
        row = by_video.get(event.video)
        if row is not None and (problem := _event_problem(event, row)):
            problems.setdefault(event.video, problem)
    return [
        _quarantine(row, f"{row.video}: {problems[row.video]}") if row.video in problems else row
        for row in rows
    ]


def _event_problem(event: EventRow, row: RawVideoRow) -> str:
    frames = f"[{event.start_frame}, {event.end_frame})"
    if event.end_frame > row.frames:
        return f"{EVENTS}: the range {frames} ends past the video's {row.frames} frames"
    if row.label == "normal":
        return f"{EVENTS}: names frames {frames}, yet the video is labelled normal"
    return ""


def _warnings(listed: Listing) -> tuple[str, ...]:
    known = {row.video for row in listed.rows}
    strangers = {event.video for event in listed.events or ()} | set(listed.event_problems)
    return (
        *(f"{path}: in the source, but not listed in videos.csv" for path in listed.unlisted),
        *(
            f"{EVENTS}: names {video!r}, which videos.csv does not list"
            for video in sorted(strangers - known)
        ),
    )


def _write(dataset: Dataset, manifest: Manifest[RawVideoRow], listed: Listing) -> None:
    folder = dataset.stage(STAGE)
    usable = manifest.by_video()
    files.remove_half_written(folder)
    files.remove_others(folder / VIDEOS, {folder / row.path for row in usable.values()})
    if listed.events is None:
        (folder / EVENTS).unlink(missing_ok=True)
    else:
        sound = (event for event in listed.events if event.video in usable)
        files.write_text(folder / EVENTS, format_events(sound))
    manifest.write(folder, RawVideoRow)


class RawVideosConfig(dg.Config):
    """How a run takes videos in."""

    look_at_source: bool = Field(
        True,
        description="Look at the source first. Runs that arrivals ask for take the listing as it "
        "is, without files that are still being copied.",
    )


@stage_asset(
    code_version=CODE_VERSION,
    group_name="data",
    kinds={"python", "dvc", "s3"},
)
def raw_videos(
    context: dg.AssetExecutionContext, config: RawVideosConfig
) -> dg.MaterializeResult[Any]:
    """The dataset's videos, whole and checked, with at most one label each; the rest in quarantine."""
    dataset = dataset_of(context)
    with explained():
        unreached = listing.refresh_if_reachable(dataset) if config.look_at_source else ""
        report = ingest_raw_videos(dataset, unreached)
    rows = read_raw_videos(dataset).usable
    counts = Counter(f"{row.split or 'no split'}, {row.label or 'unlabelled'}" for row in rows)
    return committed(
        dataset,
        report,
        {
            "videos": len(rows),
            "frames": sum(row.frames for row in rows),
            "hours": round(sum(row.frames / row.fps for row in rows) / 3600, 3),
            "videos by split and label": dg.MetadataValue.md(
                "\n".join(f"- {kind}: {count}" for kind, count in sorted(counts.items()))
            ),
        },
        {"contact sheet": partial(contact_sheet, dataset)},
    )
