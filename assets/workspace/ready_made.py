"""Taking in what was made elsewhere: which file holds it, what it is, and whether it fits its video.

Part of the stage raw_videos, which lists and checks; nothing is copied but captions, which are
small. Turning arrays and captions into a stage's results is that stage's business
(:mod:`assets.imports`); the formats are :mod:`tevad_model.ready_made`'s.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from assets.workspace import files
from assets.workspace.listing import ALL_VIDEOS, Listing
from assets.workspace.manifest import RawVideoRow
from assets.workspace.project import Dataset
from assets.workspace.sources import SourceFile, read_file
from tevad_model import timeline
from tevad_model.errors import SourceUnreachableError, VideoError
from tevad_model.fingerprint import sha256_file
from tevad_model.ready_made import (
    ASSUMED_FPS,
    CAPTIONS,
    EMBEDDINGS,
    FEATURES,
    SUFFIXES,
    TOLERANCE,
    Captions,
    parse_captions,
    read_shape,
)

TABLE = "ready_made.csv"
CAPTIONS_FILE = "captions.jsonl"
ARRAYS = (FEATURES, EMBEDDINGS)

_NAMED = 5
"""Videos that a warning names before it counts the rest."""


@dataclass(frozen=True)
class ArrayFile:
    """A ready-made array of one video.

    Attributes:
        path: below the folder of its kind.
        sha256: hash of the file's bytes.
        snippets: its length.
    """

    path: str
    sha256: str
    snippets: int


@dataclass(frozen=True)
class _Seen:
    stamp: str
    sha256: str
    snippets: int


class ArrayFolder:
    """The ready-made arrays of one kind; a file is hashed once as long as it does not change.

    Attributes:
        hashed: files that were hashed, because nothing was known of them yet.

    Raises:
        SourceUnreachableError: when a file is asked for and the folder is not there.
    """

    def __init__(self, dataset: Dataset, kind: str) -> None:
        self.kind = kind
        self.hashed = 0
        self.folder = dataset.project.root / Path(str(getattr(dataset.entry, kind))).expanduser()
        self._log = dataset.work / f"{kind}.json"
        self._seen = _read_log(self._log)

    def identity(self, path: str) -> ArrayFile:
        """What a file is.

        Raises:
            VideoError: if it is not there or no array of the kind.
        """
        file = self.file(path)
        try:
            stamp = _stamp(file)
        except FileNotFoundError:
            raise VideoError(f"{file}: not there any more; refresh the dataset") from None
        seen = self._seen.get(path)
        if seen is None or seen.stamp != stamp:
            seen = _Seen(stamp, sha256_file(file), read_shape(file, self.kind)[0])
            self._seen[path] = seen
            self.hashed += 1
        return ArrayFile(path, seen.sha256, seen.snippets)

    def file(self, path: str) -> Path:
        """Where a file of the folder lies."""
        if not self.folder.is_dir():
            raise SourceUnreachableError(f"{self.folder}: no such folder of {self.kind}")
        return self.folder / path

    def save(self) -> None:
        """Keep what was learned."""
        files.write_json(self._log, {path: asdict(seen) for path, seen in self._seen.items()})


class ReadyMadeIntake:
    """Matches a dataset's videos with what was made of them elsewhere.

    Attributes:
        arrays: by kind and video, of the videos that were matched.
        seconds: what each video took that was not matched with the same before.
    """

    def __init__(self, dataset: Dataset, listed: Listing) -> None:
        self._dataset = dataset
        self._listed = listed.ready_made
        self._folders = {
            kind: ArrayFolder(dataset, kind) for kind in ARRAYS if kind in self._listed
        }
        self._captions_text, self._captions_are_new = _captions_text(
            dataset, self._listed.get(CAPTIONS, {})
        )
        self._captions: dict[str, Captions] = {}
        self._caption_problems: dict[str, str] = {}
        if self._captions_text:
            name = Path(str(dataset.entry.captions)).name
            self._captions, self._caption_problems = parse_captions(self._captions_text, name)
        self._reconciled: dict[str, list[str]] = defaultdict(list)
        self._assumed_fps = False
        self.arrays: dict[str, dict[str, ArrayFile]] = {kind: {} for kind in self._folders}
        self.seconds: dict[str, float] = {}

    def match(self, row: RawVideoRow) -> RawVideoRow:
        """The row with what its ready-made parts say of it, or with why they cannot be used."""
        if row.problem or not self._dataset.entry.is_ready_made:
            return row
        begun, hashed = time.perf_counter(), self._hashed
        try:
            matched = self._match(row)
        except VideoError as error:
            return replace(row, path="", problem=f"{row.video}: {error}")
        if self._captions_are_new or self._hashed > hashed:
            self.seconds[row.video] = time.perf_counter() - begun
        return matched

    @property
    def _hashed(self) -> int:
        return sum(folder.hashed for folder in self._folders.values())

    def _match(self, row: RawVideoRow) -> RawVideoRow:
        found = {kind: self._array(kind, row.video) for kind in self._folders}
        captions = self._captions_of(row.video)
        if not row.path:
            row = self._without_pixels(row, found, captions)
        lengths = {kind: array.snippets for kind, array in found.items()}
        if captions and captions.texts is not None:
            lengths[CAPTIONS] = len(captions.texts)
        self._check_lengths(row, lengths)
        for kind, array in found.items():
            self.arrays[kind][row.video] = array
        return row

    def _array(self, kind: str, video: str) -> ArrayFile:
        """The one file there must be."""
        listed = self._listed[kind].get(video, [])
        folder = self._folders[kind]
        if not listed:
            names = " or ".join(f"{video}{suffix}" for suffix in SUFFIXES[kind])
            raise VideoError(
                f"no {kind}: {names} is not in {folder.folder}; add it or drop the video"
            )
        if len(listed) > 1:
            paths = ", ".join(file.path for file in listed)
            raise VideoError(f"{kind} are there {len(listed)} times ({paths}); keep one")
        return folder.identity(listed[0].path)

    def _captions_of(self, video: str) -> Captions | None:
        if not self._captions_text:
            return None
        if video in self._caption_problems:
            raise VideoError(self._caption_problems[video])
        if video not in self._captions:
            raise VideoError(f"{self._dataset.entry.captions}: has no line for it; add one")
        return self._captions[video]

    def _without_pixels(
        self, row: RawVideoRow, found: Mapping[str, ArrayFile], captions: Captions | None
    ) -> RawVideoRow:
        """The row of a video of which there are no pixels: its length is that of what there is."""
        fps = row.fps or self._dataset.entry.fps or ASSUMED_FPS
        self._assumed_fps |= not (row.fps or self._dataset.entry.fps)
        frames = row.frames
        if not frames:
            array = found.get(FEATURES) or found.get(EMBEDDINGS)
            snippets = array.snippets if array else captions.snippets(fps) if captions else 0
            frames = snippets * timeline.SNIPPET_FRAMES
        digests = json.dumps({kind: array.sha256 for kind, array in found.items()}, sort_keys=True)
        digest = hashlib.sha256(digests.encode()).hexdigest() if found else ""
        return replace(row, frames=frames, fps=fps, sha256=digest)

    def _check_lengths(self, row: RawVideoRow, lengths: Mapping[str, int]) -> None:
        due = timeline.snippet_count(row.frames)
        differing = {kind: length for kind, length in lengths.items() if length != due}
        if any(abs(length - due) > TOLERANCE for length in differing.values()):
            told = ", ".join(f"{length} of {kind}" for kind, length in lengths.items())
            raise VideoError(
                f"{row.frames} frames are {due} snippets, but there are {told}; "
                "make all of them from the same video at the same frame rate"
            )
        for kind in differing:
            self._reconciled[kind].append(row.video)

    def warnings(self) -> tuple[str, ...]:
        """What was reconciled or assumed."""
        said = [
            f"{len(videos)} videos: {kind} are a snippet longer or shorter than the video; what is "
            f"over is dropped, the last row repeated: {_names(videos)}"
            for kind, videos in self._reconciled.items()
        ]
        if self._assumed_fps:
            said.append(f"nobody says the frames a second, {ASSUMED_FPS:g} are assumed (--fps)")
        return tuple(said)

    def write(self, folder: Path, usable: Mapping[str, RawVideoRow]) -> None:
        """Write which file is whose, and the captions, into the stage's folder."""
        for array_folder in self._folders.values():
            array_folder.save()
        _write_table(folder / TABLE, self.arrays, usable)
        if self._captions_text:
            files.write_text(folder / CAPTIONS_FILE, self._captions_text)
        else:
            (folder / CAPTIONS_FILE).unlink(missing_ok=True)


def read_arrays(folder: Path, kind: str) -> dict[str, ArrayFile]:
    """Which file is whose, as :meth:`ReadyMadeIntake.write` wrote it."""
    if not (folder / TABLE).is_file():
        return {}
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return {
            row["video"]: ArrayFile(row["path"], row["sha256"], int(row["snippets"]))
            for row in csv.DictReader(file)
            if row["kind"] == kind
        }


def read_captions(folder: Path) -> dict[str, Captions]:
    """The ready-made captions that were taken in, by video."""
    path = folder / CAPTIONS_FILE
    if not path.is_file():
        return {}
    return parse_captions(path.read_text(encoding="utf-8"), str(path))[0]


def _write_table(
    path: Path,
    arrays: Mapping[str, Mapping[str, ArrayFile]],
    usable: Mapping[str, RawVideoRow],
) -> None:
    if not arrays:
        path.unlink(missing_ok=True)
        return
    rows = (
        (kind, video, array.path, array.sha256, array.snippets)
        for kind, by_video in arrays.items()
        for video, array in sorted(by_video.items())
        if video in usable
    )
    files.write_csv(path, ("kind", "video", "path", "sha256", "snippets"), rows)


def _captions_text(
    dataset: Dataset, listed: Mapping[str, Sequence[SourceFile]]
) -> tuple[str, bool]:
    """The captions as listed, and whether they are new: not those that were taken in before."""
    if ALL_VIDEOS not in listed:
        return "", False
    [file] = listed[ALL_VIDEOS]
    copy = dataset.stage("raw_videos") / CAPTIONS_FILE
    if copy.is_file() and sha256_file(copy) == file.version:
        return copy.read_text(encoding="utf-8"), False
    return read_file(str(dataset.entry.captions), dataset.project.root), True


def _names(videos: list[str]) -> str:
    more = f" and {len(videos) - _NAMED} more" if len(videos) > _NAMED else ""
    return ", ".join(videos[:_NAMED]) + more


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _read_log(path: Path) -> dict[str, _Seen]:
    """What earlier runs learned; a lost or outdated log only costs the work again."""
    try:
        return {name: _Seen(**seen) for name, seen in files.read_json(path).items()}
    except (FileNotFoundError, ValueError, TypeError):
        return {}
