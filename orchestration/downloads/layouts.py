"""What each dataset's own lists and annotation say, as ``videos.csv`` and ``events.csv`` have it.

One function a dataset, from the folder it was unpacked in to the rows of the two tables. Labels,
splits and events are facts of the datasets; nothing is fetched, moved or decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from tevad_model import timeline
from tevad_model.dataset import VIDEO_SUFFIXES, EventRow, VideoRow, assign_splits
from tevad_model.errors import InputError, VideoError


@dataclass(frozen=True)
class Tables:
    """What ``videos.csv`` and ``events.csv`` are to hold.

    Attributes:
        videos: rows with paths relative to the folder.
        events: rows, or None where the dataset has no frame-level truth.
        fps: frames a second of its frame folders, or None if it has none.
        notes: what somebody should know who uses it, one line each.
    """

    videos: list[VideoRow]
    events: list[EventRow] | None
    fps: float | None = None
    notes: tuple[str, ...] = ()


Layout = Callable[[Path], Tables]
"""Read an unpacked dataset. Raises InputError if a part of it is missing, naming the part."""

Ranges = list[tuple[int, int]]


# UCSD Ped2 -------------------------------------------------------------------------------------

_PED2_FPS = 10.0
_PED2_TRAIN = frozenset(
    "Test002 Test006 Test009 Test010 Test011 Test012 "  # noqa: SIM905
    "Train007 Train008 Train014 Train015".split()
)
"""Training videos of the weakly supervised split that the TEVAD paper uses (section 4.1)."""


def ped2(folder: Path) -> Tables:
    """UCSD Ped2: frame folders ``Train/TrainNNN`` and ``Test/TestNNN``, masks in ``TestNNN_gt``.

    As published it has normal videos only for training; the split is the weakly supervised one of
    the TEVAD paper. A frame is abnormal if any pixel of its mask is set.
    """
    root = _only(folder, "UCSDped2", "the archive UCSD_Anomaly_Dataset.tar.gz")
    videos, events = [], []
    for video in sorted(path for path in root.glob("T*/T*") if re.fullmatch(r"T\D+\d+", path.name)):
        masks = video.with_name(f"{video.name}_gt")
        label = "abnormal" if video.parent.name == "Test" else "normal"
        split = "train" if video.name in _PED2_TRAIN else "test"
        videos.append(VideoRow(video.name, _relative(video, folder), label, split))
        if label == "abnormal":
            events += _rows(video.name, _mask_ranges(masks, frames=len(_pictures(video))))
    if missing := _PED2_TRAIN - {row.video for row in videos}:
        raise InputError(f"{root}: {', '.join(sorted(missing))} missing; download it again")
    return Tables(videos, events, fps=_PED2_FPS)


def _mask_ranges(folder: Path, frames: int) -> Ranges:
    masks = _pictures(folder)
    if len(masks) != frames:
        raise InputError(f"{folder}: {len(masks)} masks for {frames} frames; download it again")
    return timeline.runs([_is_set(mask) for mask in masks])


def _is_set(mask: Path) -> bool:
    import cv2

    pixels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"{mask}: cannot be read as a picture; download it again")
    return bool(np.any(pixels))


# UCF-Crime -------------------------------------------------------------------------------------

_UCF_EVENTS = (
    "Temporal_Anomaly_Annotation_for_Testing_Videos.txt",
    "Temporal_Anomaly_Annotation.txt",
)
_UCF_NORMAL = "Normal"


def ucf_crime(folder: Path) -> Tables:
    """UCF-Crime: the official lists, and frame ranges of the test videos.

    A line of a list is ``Class/NAME.mp4``; one of the annotation is ``NAME.mp4 Class s1 e1 s2 e2``
    with -1 for none. The authors' evaluation sets frames ``max(s, 1)`` to ``min(e, frames)`` of a
    1-based array, both included; 0-based and half-open that is ``[max(s, 1) - 1, min(e, frames))``.
    """
    found = _videos_by_name(folder)
    listed = {
        split: _lines(_filled(folder, f"Anomaly_{split.title()}.txt"))
        for split in ("train", "test")
    }
    videos = [
        _ucf_row(PurePosixPath(line), split, found)
        for split, lines in listed.items()
        for line in lines
    ]
    annotated = _annotation(_filled(folder, *_UCF_EVENTS), columns=2)
    ranges = {
        video: [(max(start, 1) - 1, end) for start, end in pairs]
        for video, pairs in annotated.items()
    }
    return _with_events(folder, videos, ranges)


def _ucf_row(listed: PurePosixPath, split: str, found: dict[str, list[str]]) -> VideoRow:
    paths = found.get(listed.name, [])
    exact = [path for path in paths if path.endswith(f"/{listed}")]
    path = (exact or paths or [str(listed)])[0]
    normal = _UCF_NORMAL in listed.parts[0]
    label, category = ("normal", "") if normal else ("abnormal", listed.parts[0])
    return VideoRow(listed.stem, path, label, split, category)


# ShanghaiTech Campus ---------------------------------------------------------------------------


def shanghaitech(folder: Path) -> Tables:
    """ShanghaiTech Campus in the weakly supervised split of Zhong et al. (CVPR 2019).

    ``training/videos/*.avi`` are normal; of the frame folders ``testing/frames/*`` those are
    abnormal whose frame mask ``testing/test_frame_mask/NAME.npy`` sets a frame. The split mixes the
    two, by lists of which a line starts with a video's name.
    """
    root = _only(folder, "testing", "the archive shanghaitech.tar.gz").parent
    splits = {name: split for split in ("train", "test") for name in _listed_names(folder, split)}
    recorded = {path.stem: path for path in sorted((root / "training" / "videos").glob("*.avi"))}
    filmed = {path.name: path for path in sorted((root / "testing" / "frames").iterdir())}
    videos, events = [], []
    for name, path in sorted((recorded | filmed).items()):
        ranges = _array_ranges(root / "testing" / "test_frame_mask", name) if name in filmed else []
        label = "abnormal" if ranges else "normal"
        if name in splits:
            videos.append(VideoRow(name, _relative(path, folder), label, splits[name]))
            events += _rows(name, ranges)
    _require_all(splits, videos, root)
    notes = (f"{len(recorded | filmed) - len(videos)} videos are in neither list",)
    fps = next((fps for path in recorded.values() if (fps := _header(path).fps)), None)
    return Tables(
        videos, events, fps=fps, notes=notes if len(recorded | filmed) > len(videos) else ()
    )


def _listed_names(folder: Path, split: str) -> set[str]:
    """Names of a list, whatever follows them: ``01_001``, ``a/01_001 264 0``, ``…/01_001_i3d.npy``."""
    lists = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".txt", ".list"} and split in path.name.lower()
    ]
    if len(lists) != 1:
        found = ", ".join(path.name for path in lists) or "none"
        raise InputError(
            f"{folder}: one list of the {split} split is needed, found {found}; give a .txt or .list "
            f"file with {split!r} in its name by --archive"
        )
    names = (re.split(r"[\s,]", line)[0] for line in _lines(lists[0]))
    return {PurePosixPath(name).stem.removesuffix("_i3d") for name in names}


def _array_ranges(folder: Path, name: str) -> Ranges:
    path = folder / f"{name}.npy"
    try:
        mask: npt.NDArray[np.generic] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as an array ({error}); download it again"
        ) from None
    if mask.ndim != 1:
        raise InputError(f"{path}: one value a frame is expected, its shape is {mask.shape}")
    return timeline.runs(mask != 0)


def _require_all(splits: dict[str, str], videos: list[VideoRow], root: Path) -> None:
    if missing := sorted(splits.keys() - {row.video for row in videos}):
        shown = ", ".join(missing[:5])
        raise InputError(f"{root}: {len(missing)} listed videos are not there, such as {shown}")


# XD-Violence -----------------------------------------------------------------------------------

_XD_NORMAL = "A"
_XD_CLASSES = {
    "B1": "fighting",
    "B2": "shooting",
    "B4": "riot",
    "B5": "abuse",
    "B6": "car accident",
    "G": "explosion",
}


def xd_violence(folder: Path) -> Tables:
    """XD-Violence: labels from file names, frame ranges of the test videos from ``annotations.txt``.

    A name ends in ``_label_A`` (normal) or up to three codes of violence, ``_label_B1-G-0``; the
    class is the first. What lies below a folder or archive with ``test`` in its name is the test
    split. A line of the annotation is ``NAME s1 e1 s2 e2 …``, which the authors' own script slices
    a 0-based array with, so it is half-open as it stands.
    """
    paths = sorted(same[0] for same in _videos_by_name(folder).values())
    if not paths:
        raise InputError(f"{folder}: no video in it; give the archives of the videos by --archive")
    videos = [_xd_row(PurePosixPath(path), folder) for path in paths]
    ranges = _annotation(_filled(folder, "annotations.txt"), columns=1)
    training = {row.video for row in videos if row.split == "train"}
    if misplaced := sorted(ranges.keys() & training):
        raise InputError(
            f"{folder}: {misplaced[0]} is annotated, so it belongs to the test split, but lies in no "
            "archive with 'test' in its name; rename the archive of the test videos"
        )
    return _with_events(folder, videos, ranges)


def _xd_row(path: PurePosixPath, folder: Path) -> VideoRow:
    name, mark, codes = path.stem.rpartition("_label_")
    first = codes.split("-")[0]
    if not mark or not name or first not in {_XD_NORMAL, *_XD_CLASSES}:
        raise InputError(
            f"{folder / path}: its name does not end in _label_A or _label_ and codes of "
            f"{', '.join(_XD_CLASSES)}; it is no video of XD-Violence"
        )
    split = "test" if any("test" in part.lower() for part in path.parts[:-1]) else "train"
    label = "normal" if first == _XD_NORMAL else "abnormal"
    return VideoRow(path.stem, str(path), label, split, _XD_CLASSES.get(first, ""))


# Surveillance camera fights --------------------------------------------------------------------

_FIGHT_FOLDERS = {"fight": "abnormal", "noFight": "normal"}


def surveillance_fights(folder: Path) -> Tables:
    """Surveillance camera fights: clips of two seconds in the folders ``fight`` and ``noFight``.

    It has neither a split nor frame-level truth: the split is made as for any dataset without one.
    """
    videos = []
    for name, label in _FIGHT_FOLDERS.items():
        clips = _only(folder, name, "the archive of the repository")
        videos += [
            VideoRow(clip.stem, _relative(clip, folder), label, category=name * (name == "fight"))
            for clip in sorted(clips.iterdir())
            if _is_video(clip)
        ]
    return Tables(assign_splits(videos), None)


# What several of them need ---------------------------------------------------------------------


def _only(folder: Path, name: str, wanted: str) -> Path:
    """The one folder of this name, wherever it lies."""
    found = [path for path in sorted(folder.rglob(name)) if path.is_dir()]
    if len(found) != 1:
        raise InputError(f"{folder}: {len(found)} folders {name!r} in it, not one; is it {wanted}?")
    return found[0]


def _filled(folder: Path, *names: str) -> Path:
    """The highest file of one of these names that is not empty (UCF-Crime's archive has such)."""
    found = [path for name in names for path in folder.rglob(name) if path.stat().st_size]
    if not found:
        raise InputError(f"{folder}: no {' or '.join(names)} in it; give it by --archive")
    return min(found, key=lambda path: (len(path.parts), path))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text; download it again") from None
    return [stripped for line in text.splitlines() if (stripped := line.strip())]


def _annotation(path: Path, columns: int) -> dict[str, Ranges]:
    """Ranges by video, as the file has them: a name, further columns, then starts and ends.

    Pairs of -1 stand for no event. The names lose the suffix of a video file.
    """
    annotated: dict[str, Ranges] = {}
    for line in _lines(path):
        fields = line.split()
        try:
            bounds = [int(number) for number in fields[columns:]]
            pairs = list(zip(bounds[::2], bounds[1::2], strict=True))
        except ValueError:
            raise InputError(
                f"{path}: {line!r} does not end in pairs of whole numbers; download it again"
            ) from None
        annotated[fields[0].removesuffix(".mp4")] = [pair for pair in pairs if pair[0] >= 0]
    return annotated


def _pictures(folder: Path) -> list[Path]:
    """The frames or masks of a folder; their names are numbers of one length."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in {".tif", ".bmp"})


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _videos_by_name(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if _is_video(path):
            found.setdefault(path.name, []).append(_relative(path, folder))
    return found


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _rows(video: str, ranges: Ranges) -> list[EventRow]:
    return [EventRow(video, start, end) for start, end in ranges]


@dataclass(frozen=True)
class _Stated:
    frames: int = 0
    fps: float = 0.0


def _header(path: Path) -> _Stated:
    """What a video's header says; nothing if it is damaged, which is for the intake to tell."""
    from tevad_model import video

    try:
        info = video.stated(path)
    except VideoError:
        return _Stated()
    return _Stated(info.frames, info.fps)


def _with_events(folder: Path, videos: list[VideoRow], ranges: dict[str, Ranges]) -> Tables:
    """The tables, with events cut at the end of their video as the authors' evaluations do."""
    events: list[EventRow] = []
    for row in videos:
        if row.label == "abnormal" and (folder / row.path).is_file():
            frames = _header(folder / row.path).frames if ranges.get(row.video) else 0
            cut = ((start, min(end, frames or end)) for start, end in ranges.get(row.video, []))
            events += _rows(row.video, [pair for pair in cut if pair[0] < pair[1]])
    absent = sum(not (folder / row.path).is_file() for row in videos)
    if absent == len(videos):
        raise InputError(
            f"{folder}: none of the {absent} listed videos is there; give their archive"
        )
    notes = (f"{absent} of {len(videos)} listed videos are not there",) if absent else ()
    return Tables(videos, events, notes=notes)
