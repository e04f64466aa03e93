"""A dataset's footage: more rendered videos, as another camera films them, and the tables of all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tevad_model.dataset import (
    EventRow,
    VideoRow,
    format_events,
    format_videos,
    parse_events,
    parse_videos,
)
from tevad_model.render import plan
from tevad_model.video import encode

KINDS = ("cycling", "cart")
"""What is abnormal in them: the classes that are told from walkers most surely."""


@dataclass(frozen=True)
class Footage:
    """Videos, and what is said of them."""

    rows: tuple[VideoRow, ...]
    events: tuple[EventRow, ...]

    @property
    def videos(self) -> set[str]:
        """Their names."""
        return {row.video for row in self.rows}

    def __add__(self, other: Footage) -> Footage:
        return Footage(self.rows + other.rows, self.events + other.events)

    def of(self, split: str) -> Footage:
        """That of one split."""
        rows = tuple(row for row in self.rows if row.split == split)
        videos = {row.video for row in rows}
        return Footage(rows, tuple(event for event in self.events if event.video in videos))

    def mistaken(self) -> Footage:
        """The same as somebody lists it who takes normal for abnormal, and the reverse."""
        other = {"normal": "abnormal", "abnormal": "normal"}
        rows = (replace(row, label=other[row.label], category="") for row in self.rows)
        return Footage(tuple(rows), ())


def film(
    source: Path,
    name: str,
    pairs: int,
    *,
    split: str,
    seed: int,
    light: float,
    frames: tuple[int, int] = (64, 80),
) -> Footage:
    """Write ``videos/<name>-<n>.mp4`` below a source, normal and abnormal ones in turn.

    The source's tables are left as they are.

    Args:
        source: the folder of a dataset's videos.
        name: what the videos are called by.
        pairs: how many there are of each label.
        split: that they are meant for; each has videos of its own.
        seed: of the place. The tests' dataset was filmed at 0.
        light: share of the light that there is.
        frames: the fewest and the most of a video.
    """
    enough = 10 * pairs
    planned = plan(train=enough, test=enough, seed=seed, lengths=frames)
    clips = [(clip, kind) for clip, of_split, kind in planned if of_split == split]
    normal = [each for each in clips if not each[1]][:pairs]
    abnormal = [each for each in clips if each[1] in KINDS][:pairs]
    rows, events = [], []
    in_turn = (each for pair in zip(normal, abnormal, strict=True) for each in pair)
    for number, (clip, kind) in enumerate(in_turn):
        video, path = f"{name}-{number}", f"videos/{name}-{number}.mp4"
        pictures = ((picture * light).astype(np.uint8) for picture in clip.pictures())
        encode(source / path, pictures, clip.fps, crf=22)
        rows.append(VideoRow(video, path, "abnormal" if kind else "normal", split, kind))
        events += [EventRow(video, start, end, shown) for start, end, shown in clip.events()]
    return Footage(tuple(rows), tuple(events))


def read_tables(source: Path) -> Footage:
    """What a source's tables say."""
    videos, events = source / "videos.csv", source / "events.csv"
    rows = parse_videos(videos.read_text(encoding="utf-8"), str(videos))
    marked, _ = parse_events(events.read_text(encoding="utf-8"), str(events))
    return Footage(tuple(rows), tuple(marked))


def write_tables(source: Path, footage: Footage) -> None:
    """Let a source's tables say just this."""
    (source / "events.csv").write_text(format_events(footage.events), encoding="utf-8")
    (source / "videos.csv").write_text(format_videos(footage.rows), encoding="utf-8")
