"""The smoke set: a few test videos kept with a version, scored again through the served model.

Served means: as MLflow serves it, from the registered files, with the code that was packed with them,
in a process of its own. What lies in the smoke set's folder::

    smoke.json     the table's rows, and the score of each snippet when the version was decided on
    <video files>  as raw_videos keeps them; .npy files of what was ready-made
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assets.raw_videos import video_path
from assets.registered_model import ready_made_parts
from assets.workspace import files
from assets.workspace.manifest import RawVideoRow
from assets.workspace.project import Dataset
from tevad_model.errors import InputError
from tevad_model.ready_made import CAPTIONS
from tevad_model.timeline import FloatArray

SMOKE_FILE = "smoke.json"
_PATHS = ("video", "features", "embeddings")
_LAST_LINES = 3

_PREDICT = """\
import atexit, gc, sys
gc.disable()  # a fifth of the time would go into looking through what libraries make
atexit.register(gc.freeze)
from mlflow.models import predict
model, table, answer = sys.argv[1:]
predict(model, input_path=table, content_type="json", output_path=answer, env_manager="local")
"""
"""What ``mlflow models predict`` does, without the rest of that program."""


def choose(rows: Sequence[RawVideoRow], count: int) -> list[RawVideoRow]:
    """The shortest videos, of either label in turn."""
    by_label = [
        sorted((r for r in rows if r.label == label), key=lambda r: (r.frames, r.video))
        for label in ("abnormal", "normal")
    ]
    longest = max(map(len, by_label))
    in_turn = [videos[i] for i in range(longest) for videos in by_label if i < len(videos)]
    return in_turn[:count]


def write_smoke_set(
    dataset: Dataset,
    rows: Sequence[RawVideoRow],
    takes: Sequence[str],
    scores: Mapping[str, FloatArray],
    folder: Path,
) -> None:
    """Write a smoke set.

    Args:
        dataset: whose videos.
        rows: the videos.
        takes: what else the model takes of a video (:attr:`tevad_model.pipeline.Pipeline.takes`).
        scores: (snippets,) by video.
        folder: to write to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, row in enumerate(rows, 1):
        entry: dict[str, Any] = {"video": row.video}
        if row.path:
            source = video_path(dataset, row)
            entry["video"] = f"{number}{source.suffix}"
            shutil.copyfile(source, folder / entry["video"])
        for kind, part in ready_made_parts(dataset, row.video, takes).items():
            if kind == CAPTIONS:
                entry[kind] = list(part)
            else:
                entry[kind] = f"{number}-{kind}.npy"
                np.save(folder / entry[kind], part, allow_pickle=False)
        entries.append({"name": row.video, "row": entry, "scores": scores[row.video].tolist()})
    files.write_json(folder / SMOKE_FILE, entries)


def largest_difference(model: Path, folder: Path, cache: Path) -> float:
    """Score a smoke set through the served model; the largest difference of a snippet's score.

    Args:
        model: the registered version's files, on this machine.
        folder: of the smoke set.
        cache: for what encoders can make again.

    Raises:
        InputError: if the model does not load, or does not score the set, with the reason.
    """
    entries = files.read_json(folder / SMOKE_FILE)
    rows = [
        {
            column: str(folder / value)
            if column in _PATHS and (folder / value).is_file()
            else value
            for column, value in entry["row"].items()
        }
        for entry in entries
    ]
    expected = np.concatenate([entry["scores"] for entry in entries])
    found = np.array([row["score"] for row in _predict(model, rows, cache)])
    if found.shape != expected.shape:
        raise InputError(
            f"{model.name}: the served model gives {len(found)} snippets of the smoke set, "
            f"{len(expected)} are expected"
        )
    return float(np.abs(found - expected).max())


def _predict(model: Path, rows: Sequence[Mapping[str, Any]], cache: Path) -> list[dict[str, Any]]:
    """MLflow's own prediction, in a process that imports the code packed with the model."""
    with tempfile.TemporaryDirectory() as scratch:
        table, answer = Path(scratch) / "table.json", Path(scratch) / "answer.json"
        table.write_text(json.dumps({"dataframe_records": rows}), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", _PREDICT, str(model), str(table), str(answer)],
            cwd=scratch,
            env={**os.environ, "TEVAD_CACHE": str(cache.absolute())},
            capture_output=True,
            text=True,
        )
        if done.returncode or not answer.is_file():
            last = " ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
            raise InputError(f"the served model does not score the smoke set: {last}")
        predictions: list[dict[str, Any]] = files.read_json(answer)["predictions"]
    return predictions
