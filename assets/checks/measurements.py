"""What was measured of each video's result, kept so that one more video is one more to measure.

A stage's results can be gigabytes, of which all but a few videos' are the bytes they were when last
measured: DVC knows which. A measurement holds while they are, and while the code that measures is.
All of a stage's are one file beside its verdicts; without it, everything is measured anew. What is
measured is the stage's file's business, and what is made of it :mod:`assets.checks.expectations`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import assets
import tevad_model
from assets.workspace import versions
from assets.workspace.files import Array
from assets.workspace.project import Dataset
from assets.workspace.stage import ARRAY, LINES
from tevad_model.atomic import replacing
from tevad_model.fingerprint import sha256_folder

FOLDER = "checks"
"""Of a dataset's reports: what is kept of its checks."""

_FILES = {"snippet_features": ARRAY, "captions": LINES, "caption_embeddings": ARRAY}
_TABLE = "measured"


@dataclass(frozen=True)
class Measurement:
    """What was measured of one video.

    Attributes:
        figures: its row in the table of videos.
        captions: by caption, what a table of all captions is made of.
        arrays: by name, what is made of all videos' arrays together.
    """

    figures: Mapping[str, Any]
    captions: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)


Measure = Callable[[str], Measurement]
"""Measures one video; ``snippets`` is among the figures."""

Identity = list[str | None]
"""The md5 of each file that is measured of a video; None for one that is not there."""


def measurements(
    dataset: Dataset, stage: str, videos: Sequence[str], measure: Measure, reads: Sequence[str]
) -> dict[str, Measurement]:
    """The measurement of each video, in their order; made where none of the same files was kept.

    Args:
        dataset: whose.
        stage: the stage that is checked.
        videos: the videos.
        measure: measures one of them.
        reads: the stages whose results of a video are measured.
    """
    path = dataset.reports / FOLDER / f"{stage}.safetensors"
    contents = {each: versions.contents(dataset, each) for each in reads}
    due: dict[str, Identity] = {
        video: [contents[each].get(f"{video}{_FILES[each].suffix}") for each in reads]
        for video in videos
    }
    kept = _read(path)
    fitting = {
        video: kept[video][1] for video in due if video in kept and kept[video][0] == due[video]
    }
    found = {video: fitting.get(video) or measure(video) for video in videos}
    if len(fitting) < len(found) or kept.keys() != found.keys():
        _write(path, due, found)
    return found


def _read(path: Path) -> dict[str, tuple[Identity, Measurement]]:
    """What was kept; nothing if the file is not there, not whole, or of other code."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            table = json.loads(file.get_tensor(_TABLE).tobytes())
            if table["code"] != measuring_code():
                return {}
            return {
                video: (
                    entry["identity"],
                    Measurement(
                        entry["figures"],
                        entry["captions"],
                        {name: file.get_tensor(f"{video}/{name}") for name in entry["arrays"]},
                    ),
                )
                for video, entry in table["videos"].items()
            }
    except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError):
        return {}


def _write(
    path: Path, identities: Mapping[str, Identity], found: Mapping[str, Measurement]
) -> None:
    from safetensors.numpy import save_file

    videos = {
        video: {
            "identity": identities[video],
            "figures": measured.figures,
            "captions": measured.captions,
            "arrays": list(measured.arrays),
        }
        for video, measured in found.items()
    }
    arrays = {
        f"{video}/{name}": array
        for video, measured in found.items()
        for name, array in measured.arrays.items()
    }
    table = json.dumps({"code": measuring_code(), "videos": videos}).encode()
    # As a tensor: safetensors limits the length of its own header, and so of its metadata.
    arrays[_TABLE] = np.frombuffer(table, dtype=np.uint8)
    with replacing(path) as temporary:
        save_file(arrays, temporary)


@cache
def measuring_code() -> str:
    """What changes with the code of the stages and of the library, which measures and judges."""
    folders = (Path(str(package.__file__)).parent for package in (assets, tevad_model))
    return "".join(sha256_folder(folder, ["*.py"]) for folder in folders)
