"""Features and captions that were made elsewhere, in the layouts the field shares.

RTFM and TEVAD keep a video's features in ``<video>_i3d.npy`` (snippets, crops, dim), its sentence
embeddings in ``<video>_emb.npy`` (snippets, dim), and name the videos of a split in list files, a
path a line. Captions come as JSON lines, as segments with seconds or one text a snippet. Reading
these and bringing them to a video's snippets belongs here; finding the files and keeping what was
read does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from tevad_model import timeline
from tevad_model.dataset import VideoRow
from tevad_model.errors import InputError, VideoError

Array = npt.NDArray[Any]

FEATURES, EMBEDDINGS, CAPTIONS = "features", "embeddings", "captions"
SUFFIXES = {FEATURES: ("_i3d.npy", ".npy"), EMBEDDINGS: ("_emb.npy", ".npy")}
"""What follows a video's name in the name of its file, by kind, the likelier one first."""

AXES = {FEATURES: (2, 3), EMBEDDINGS: (2,)}
"""Numbers of axes an array may have; features with two are of one crop."""

STORED_AS = {FEATURES: np.float16, EMBEDDINGS: np.float32}
"""The precision in which the stages keep them, and so in which a model reads them."""

ASSUMED_FPS = 30.0
"""Frames a second of videos without pixels where nobody says: that of UCF-Crime."""

TOLERANCE = 1
"""Snippets by which the lengths of what is made of one video may differ.

Extractors disagree on whether the frames left over at a video's end are a snippet; a larger
difference means another video or another frame rate.
"""

_NAMED = 3
"""Videos that a message names before it counts the rest."""

_XD_CLASSES = {
    "B1": "Fighting",
    "B2": "Shooting",
    "B4": "Riot",
    "B5": "Abuse",
    "B6": "Car accident",
    "G": "Explosion",
}
"""What the codes in XD-Violence's names mean (Wu et al., ECCV 2020)."""


def rows_from_list(text: str, source: str) -> list[VideoRow]:
    """The videos a list file names, with the label their names give them, if they do.

    The split is ``test`` for a list file with "test" in its name, else ``train``, as all the
    published ones are named.

    Args:
        text: the file's content: a path to a feature file a line.
        source: the file's path.

    Raises:
        InputError: if it names no video.
    """
    split = "test" if "test" in PurePosixPath(source).name.lower() else "train"
    rows = []
    for line in text.splitlines():
        if line.strip():
            video = video_name(line.strip())
            label, category = label_by_name(video)
            rows.append(VideoRow(video, "", label, split, category, recording(video)))
    if not rows:
        raise InputError(f"{source}: names no video; it must have a path to a feature file a line")
    return rows


def video_name(path: str) -> str:
    """The video a feature file is of: its name without folders and what the layout adds."""
    name = PurePosixPath(path.replace("\\", "/")).name
    return re.sub(r"(_i3d|_emb)?(\.npy)?$", "", name)


def label_by_name(video: str) -> tuple[str, str]:
    """Label and class of a video of UCF-Crime or XD-Violence by its name; empty of any other."""
    if code := re.search(r"_label_([A-Z0-9]+)", video):
        label = "normal" if code[1] == "A" else "abnormal"
        return label, _XD_CLASSES.get(code[1], "")
    if video.startswith(("Normal_Videos", "Testing_Normal_Videos")):
        return "normal", ""
    if crime := re.fullmatch(r"([A-Z][A-Za-z]+)\d{3}(_x264)?", video):
        return "abnormal", crime[1]
    return "", ""


def recording(video: str) -> str:
    """The film that a clip of XD-Violence is cut from; empty for other videos."""
    film, cut, _ = video.partition("__#")
    return film if cut else ""


def laid_over(listed: Sequence[VideoRow], table: Iterable[VideoRow]) -> list[VideoRow]:
    """Listed videos with what a table says of them, which knows better than their names.

    Raises:
        InputError: if a listed video has no label: it is meant to be trained on or evaluated.
    """
    said = {row.video: row for row in table}
    rows = [
        replace(said[row.video], split=row.split or said[row.video].split, path="")
        if row.video in said
        else row
        for row in listed
    ]
    nameless = [row.video for row in rows if not row.label]
    if nameless:
        shown = ", ".join(nameless[:_NAMED]) + (", …" if len(nameless) > _NAMED else "")
        raise InputError(
            f"{len(nameless)} of {len(rows)} listed videos have no label, neither by name nor in "
            f"a table ({shown}); give a CSV with the columns video,label (--labels)"
        )
    return rows


def find_files(paths: Iterable[str], kind: str) -> dict[str, list[str]]:
    """The files of a folder that hold a kind of array, by the video they are of.

    Args:
        paths: POSIX paths relative to the folder.
        kind: ``features`` or ``embeddings``.
    """
    likely, plain = SUFFIXES[kind]
    found: dict[str, dict[str, list[str]]] = {likely: {}, plain: {}}
    for path in paths:
        name = PurePosixPath(path).name
        suffix = next((suffix for suffix in (likely, plain) if name.endswith(suffix)), None)
        if suffix:
            found[suffix].setdefault(name.removesuffix(suffix), []).append(path)
    return {**found[plain], **found[likely]}


def read_shape(path: Path, kind: str) -> tuple[int, ...]:
    """The shape of an array in a ``.npy`` file, without reading its values.

    Raises:
        VideoError: if it is no array of numbers with the kind's axes, or holds a pickle.
    """
    return _mapped(path, kind).shape


def read_array(path: Path, kind: str, dtype: npt.DTypeLike) -> Array:
    """Read the array of a ``.npy`` file in a precision; features always get an axis for crops.

    Raises:
        VideoError: as :func:`read_shape`, or if a value is not finite or beyond the precision.
    """
    with np.errstate(over="ignore"):
        array = _mapped(path, kind).astype(dtype)
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        raise VideoError(
            f"{path}: NaN, infinity or a value beyond {array.dtype} in {len(bad)} of {len(array)} "
            f"snippets, the first {bad[0]}; extract the video's features anew"
        )
    return array[:, None] if kind == FEATURES and array.ndim == 2 else array


def _mapped(path: Path, kind: str) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from None
    return _checked(array, path, kind)


def _unreadable(path: Path, error: Exception) -> VideoError:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return VideoError(
            f"{path}: holds pickled objects, which can run code when they are read; save it anew "
            "as a plain array of numbers (np.save(path, array.astype('float32')))"
        )
    return VideoError(f"{path}: not a whole .npy file ({error}); copy or make it anew")


def _checked(array: Any, path: Path, kind: str) -> Array:
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
        raise VideoError(
            f"{path}: {kind} must be an array of floating-point numbers, got "
            f"{getattr(array, 'dtype', type(array).__name__)}"
        )
    if array.ndim not in AXES[kind] or 0 in array.shape:
        expected = "(snippets, crops, dim)" if kind == FEATURES else "(snippets, dim)"
        raise VideoError(
            f"{path}: {kind} have the shape {array.shape}; expected {expected}, no axis empty"
        )
    return array


def fit(array: Array, snippets: int) -> Array:
    """Bring an array to a video's snippets: what is over is dropped, the last row repeated.

    Raises:
        ValueError: if the lengths differ by more than :data:`TOLERANCE`.
    """
    if abs(len(array) - snippets) > TOLERANCE:
        raise ValueError(f"{len(array)} snippets cannot be brought to {snippets}")
    return array[np.minimum(np.arange(snippets), len(array) - 1)]


@dataclass(frozen=True)
class Captions:
    """What is said of one video.

    Attributes:
        segments: ``(start_s, end_s, text)``, or None where there is one text a snippet.
        texts: one a snippet, or None where there are segments.
    """

    segments: tuple[tuple[float, float, str], ...] | None = None
    texts: tuple[str, ...] | None = None

    def snippets(self, fps: float) -> int:
        """Snippets of the shortest video that all of it can be said of."""
        if self.texts is not None:
            return len(self.texts)
        end = max(end for _, end, _ in self.segments or ())
        return timeline.snippet_count(max(1, timeline.frame_at(end, fps)))

    def by_snippet(self, frames: int, fps: float) -> list[str]:
        """One text for each snippet of the video (:func:`tevad_model.timeline.snippet_texts`).

        Raises:
            ValueError: if there is one text a snippet, and their number is another.
        """
        if self.texts is None:
            return timeline.snippet_texts(self.segments or (), frames, fps)
        due = timeline.snippet_count(frames)
        fitted = fit(np.arange(len(self.texts)), due)
        return [self.texts[index] for index in fitted]


def parse_captions(text: str, source: str) -> tuple[dict[str, Captions], dict[str, str]]:
    """Read captions, JSON lines of one video each, and say of those that cannot be used why.

    A line is ``{"video": …, "segments": [{"start_s": …, "end_s": …, "text": …}, …]}`` or
    ``{"video": …, "captions": ["one a snippet", …]}``.

    Args:
        text: the file's content.
        source: how messages name the file.

    Returns:
        Captions by video, and the reason by video that has none that can be used.

    Raises:
        InputError: if a line is no JSON object, or does not name its video.
    """
    found: dict[str, Captions] = {}
    problems: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{source} line {number}"
        entry = _json_object(line, where)
        video = entry["video"]
        try:
            if video in found or video in problems:
                raise ValueError("the video has a line already")
            found[video] = _captions(entry)
        except (KeyError, TypeError, ValueError) as error:
            found.pop(video, None)
            said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            problems[video] = f"{where}: {said}"
    return found, problems


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); it must have one object a line") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("video"), str):
        raise InputError(f'{where}: not an object with a "video"; name the video it is of')
    return entry


def _captions(entry: Mapping[str, Any]) -> Captions:
    if "captions" in entry:
        return Captions(texts=_texts(entry["captions"]))
    segments = [
        (float(part["start_s"]), float(part["end_s"]), str(part["text"]).strip())
        for part in entry["segments"]
    ]
    for start, end, text in segments:
        if not (0 <= start <= end < float("inf")) or not text:
            raise ValueError(
                f"the segment from {start} s to {end} s is reversed, negative or says nothing"
            )
    if not segments:
        raise ValueError("no segment is given")
    return Captions(segments=tuple(segments))


def _texts(captions: Sequence[object]) -> tuple[str, ...]:
    texts = tuple(str(caption).strip() for caption in captions)
    if not texts or not all(texts):
        raise ValueError("captions must have one text for every snippet, none empty")
    return texts
