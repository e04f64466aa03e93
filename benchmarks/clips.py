"""Datasets of many short clips, each with its own texture and motion, to measure what a video costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from assets.workspace import files
from assets.workspace.params import DEFAULT_PRESET, DatasetParams
from assets.workspace.project import Dataset, Project
from orchestration.datasets import add_dataset
from tevad_model.encoders.base import Frame
from tevad_model.video import encode

CLIP_FRAMES = 48
WIDTH, HEIGHT = 160, 120
_EVENT = (8, 24)


def clips(
    project: Project,
    name: str,
    numbers: Iterable[int],
    *,
    frames: int = CLIP_FRAMES,
    preset: str = DEFAULT_PRESET,
) -> Dataset:
    """A dataset of clips by number; those that are there already stay as they are.

    Every other clip is abnormal: what moves in it runs for a while. One of four is for testing, but
    never number 0 or a multiple of 100.
    """
    folder = project.state / "clips" / name
    videos, events = [], []
    for number in numbers:
        abnormal, test = number % 2 == 1, number % 8 in (3, 6)
        path = folder / "videos" / f"{number}.mp4"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            encode(path, _pictures(number, frames, runs=abnormal), 10.0)
        label, split = "abnormal" if abnormal else "normal", "test" if test else "train"
        videos.append((number, f"videos/{number}.mp4", label, split))
        if abnormal and test:
            events.append((number, *_EVENT))
    files.write_csv(folder / "videos.csv", ("video", "path", "label", "split"), videos)
    files.write_csv(folder / "events.csv", ("video", "start_frame", "end_frame"), events)
    return add_dataset(project, name, DatasetParams(source=str(folder), preset=preset))


def _pictures(number: int, frames: int, *, runs: bool) -> Iterator[Frame]:
    texture = np.random.default_rng(number).integers(90, 130, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    left, top = 0, 20 + number % 50
    for frame in range(frames):
        picture = texture.copy()
        left += 5 if runs and _EVENT[0] <= frame < _EVENT[1] else 1
        picture[top : top + 30, left : left + 15] = 220
        yield picture
