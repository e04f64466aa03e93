"""A rendered dataset: short surveillance videos with exact ground truth, for trying things out.

Renders one fixed camera over a square. People walk and stand about in every video; in the abnormal
ones somebody cycles, runs, drives a cart, falls, or throws something besides. Here is who appears
when; :mod:`tevad_model.render.actors` says what they look like, :mod:`tevad_model.render.scene` how
it becomes pixels.

Every video depends on the seed and its own name alone, so the same seed gives the same bytes in any
order and on any number of threads.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tevad_model import timeline, video
from tevad_model.dataset import EventRow, VideoRow, format_events, format_videos
from tevad_model.devices import cores
from tevad_model.encoders.base import Frame
from tevad_model.errors import InputError
from tevad_model.render import actors
from tevad_model.render.actors import Actor, Body, Course, Thrower, Walker
from tevad_model.render.scene import Box, Camera, Colour, Solids, backdrop, paint

CLASSES = ("cycling", "cart", "running", "fall", "thrown_object")

_CRF = 22
_NOISE = 2.5
"""Standard deviation of the camera's noise, in grey levels."""

_TOPS: tuple[Colour, ...] = ((168, 60, 54), (52, 84, 140), (214, 208, 196), (60, 62, 66), (84, 118, 84), (190, 150, 70), (120, 84, 120))  # fmt: skip
_TROUSERS: tuple[Colour, ...] = ((44, 52, 76), (38, 38, 40), (112, 98, 80), (86, 92, 98))
_SKINS: tuple[Colour, ...] = ((226, 184, 154), (190, 138, 104), (124, 84, 60))
_HAIRS: tuple[Colour, ...] = ((50, 38, 30), (28, 26, 26), (132, 100, 62), (150, 148, 144))
_PAINTS: tuple[Colour, ...] = ((196, 60, 48), (60, 110, 170), (230, 226, 214), (70, 130, 90))


@dataclass(frozen=True)
class Clip:
    """One video to be: who is in it, seen by which camera, for how long."""

    name: str
    camera: Camera
    fps: int
    frames: int
    cast: tuple[Actor, ...]
    seed: int

    def boxes(self, frame: int) -> list[tuple[str, Box]]:
        """Ground truth: of everything in view in a frame, its class of anomaly (or "") and box."""
        return [(kind, box) for kind, box, _ in self._in_view(frame, self.cast)]

    def events(self) -> list[tuple[int, int, str]]:
        """The runs of frames with something abnormal in view: (start, end, class), half-open."""
        abnormal = [actor for actor in self.cast if actor.kind]
        seen = [[kind for kind, *_ in self._in_view(f, abnormal)] for f in range(self.frames)]
        return sorted(
            (*run, kind)
            for kind in {actor.kind for actor in abnormal}
            for run in timeline.runs([kind in kinds for kinds in seen])
        )

    def pictures(self) -> Iterator[Frame]:
        """Render the frames one after another."""
        rng = _rng(self.seed, self.name, "light")
        tint = rng.uniform(0.88, 1.08) * rng.uniform(0.98, 1.02, 3)
        flicker = rng.uniform(0, 2 * np.pi)
        # A few noise fields shifted at random look as good as fresh noise and cost far less.
        grain = rng.normal(0, _NOISE, (4, self.camera.height, self.camera.width, 1))
        fields = np.rint(grain).astype(np.int16).repeat(3, axis=-1)
        levels = np.arange(256)[:, None]
        scene = backdrop(self.camera, self.seed)
        for frame in range(self.frames):
            picture = scene.copy()
            paint(picture, self.camera, [solids for *_, solids in self._in_view(frame, self.cast)])
            picture = cv2.GaussianBlur(picture, (3, 3), 0.55)
            light = tint * (1 + 0.008 * np.sin(flicker + 0.9 * frame))
            table = np.clip(levels * light, 0, 255).astype(np.uint8)[None]
            shift = rng.integers(0, (self.camera.height, self.camera.width))
            noise = np.roll(fields[rng.integers(len(fields))], shift, axis=(0, 1))
            lit = cv2.LUT(picture, table)
            yield np.asarray(cv2.add(lit, noise, dtype=cv2.CV_8U), dtype=np.uint8)

    def _in_view(self, frame: int, cast: Iterable[Actor]) -> list[tuple[str, Box, Solids]]:
        seconds = timeline.seconds(frame, self.fps)
        there = [(actor.kind, solids) for actor in cast if (solids := actor.solids(seconds))]
        boxes = [(kind, self.camera.box(solids), solids) for kind, solids in there]
        return [(kind, box, solids) for kind, box, solids in boxes if box is not None]


def render(
    folder: Path,
    *,
    train: int = 16,
    test: int = 12,
    seed: int = 0,
    lengths: tuple[int, int] = (160, 320),
) -> None:
    """Write a rendered dataset: ``videos/*.mp4``, ``videos.csv`` and ``events.csv``.

    Args:
        folder: where to; made if it is missing.
        train: videos of the training split, every second one abnormal, the classes in turn.
        test: the same for the test split.
        seed: another seed gives other videos.
        lengths: the fewest and the most frames of a video.

    Raises:
        InputError: if a split would lack a label, or the lengths leave no room for an event.
    """
    planned = plan(train=train, test=test, seed=seed, lengths=lengths)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rows = []
    for clip, split, kind in planned:
        label = "abnormal" if kind else "normal"
        rows.append(VideoRow(clip.name, f"videos/{clip.name}.mp4", label, split, kind))

    def write(clip: Clip) -> list[EventRow]:
        video.encode(folder / "videos" / f"{clip.name}.mp4", clip.pictures(), clip.fps, crf=_CRF)
        return [EventRow(clip.name, start, end, kind) for start, end, kind in clip.events()]

    with ThreadPoolExecutor(cores()) as pool:
        events = [
            row for of_clip in pool.map(write, [clip for clip, *_ in planned]) for row in of_clip
        ]
    (folder / "events.csv").write_text(format_events(events))
    (folder / "videos.csv").write_text(format_videos(rows))


def plan(
    *, train: int, test: int, seed: int, lengths: tuple[int, int] = (160, 320)
) -> list[tuple[Clip, str, str]]:
    """The videos :func:`render` writes, each with its split and its class of anomaly (or "").

    Raises:
        InputError: as :func:`render`.
    """
    if min(train, test) < 2:
        raise InputError(
            f"train={train}, test={test}: each split needs at least 2 videos, one normal and one abnormal"
        )
    if not 48 <= lengths[0] <= lengths[1]:
        raise InputError(f"lengths={lengths}: give the fewest and the most frames, 48 or more")
    return [
        (_clip(f"{split}_{index:03d}", index, kind, seed, lengths), split, kind)
        for split, count in (("train", train), ("test", test))
        for index in range(count)
        for kind in [CLASSES[index // 2 % len(CLASSES)] if index % 2 else ""]
    ]


def _clip(name: str, index: int, kind: str, seed: int, lengths: tuple[int, int]) -> Clip:
    rng = _rng(seed, name, "cast")
    # One pair in eight, a normal and an abnormal video, comes from each of two other cameras.
    width, height, fps = {6: (352, 288, 15), 7: (320, 240, 10)}.get(index // 2 % 8, (320, 240, 12))
    camera = Camera(width, height)
    frames = int(rng.integers(lengths[0], lengths[1] + 1))
    cast = _public(rng, camera, frames / fps)
    if kind:
        cast += _abnormal(rng, camera, frames / fps, kind)
    return Clip(name, camera, fps, frames, tuple(cast), seed)


def _public(rng: np.random.Generator, camera: Camera, length_s: float) -> list[Actor]:
    """The people of every video: some walk through, some stand about."""
    walkers = max(4, round(length_s * rng.uniform(0.25, 0.45)))
    cast: list[Actor] = [
        Walker(_body(rng), _crossing(rng, camera, (8, 19), actors.WALKING_MPS, moment))
        for moment in rng.uniform(0, length_s, walkers)
    ]
    for _ in range(rng.integers(0, 3)):
        x, z = rng.uniform(-5, 5), rng.uniform(14, 20)
        cast.append(Walker(_body(rng), Course(x, z, rng.uniform(0, 2 * np.pi), 0.0)))
    return cast


def _abnormal(rng: np.random.Generator, camera: Camera, length_s: float, kind: str) -> list[Actor]:
    """What makes a video abnormal, in the middle part of its time."""
    moments = np.linspace(0.3, 0.7, int(rng.integers(1, 4))) + rng.uniform(-0.06, 0.06)
    moments *= length_s
    match kind:
        case "cycling":
            return [
                actors.Cyclist(
                    _body(rng),
                    _crossing(rng, camera, (8, 16), actors.CYCLING_MPS, t),
                    _pick(rng, _PAINTS),
                )
                for t in moments
            ]
        case "cart":
            return [
                actors.Cart(
                    _body(rng),
                    _crossing(rng, camera, (10, 17), actors.CART_MPS, t),
                    _pick(rng, _PAINTS),
                )
                for t in moments
            ]
        case "running":
            return [
                actors.Runner(_body(rng), _crossing(rng, camera, (8, 16), actors.RUNNING_MPS, t))
                for t in moments
            ]
        case "fall":
            falls_at = length_s * rng.uniform(0.35, 0.65)
            course = _crossing(rng, camera, (8, 15), actors.WALKING_MPS, falls_at)
            walker = Walker(_body(rng), course, until=falls_at)
            return [walker, actors.Fall(walker)]
        case _:
            heading = float(rng.choice([0.0, np.pi]) + rng.uniform(-0.15, 0.15))
            x, z = -np.cos(heading) * rng.uniform(1, 3), rng.uniform(8, 13)
            releases = tuple(float(t) for t in moments)
            thrower = Thrower(_body(rng), x, z, heading, releases)
            colour = _pick(rng, _PAINTS)
            throws = [actors.Thrown(thrower, t, rng.uniform(6, 8), colour) for t in releases]
            return [thrower, *throws]


def _crossing(
    rng: np.random.Generator,
    camera: Camera,
    z: tuple[float, float],
    speed: tuple[float, float],
    moment: float,
) -> Course:
    """A way across the view, left or right, that is near its middle at a moment in seconds."""
    depth, pace = rng.uniform(*z), rng.uniform(*speed)
    heading = float(rng.choice([0.0, np.pi]) + rng.uniform(-0.12, 0.12))
    middle = rng.uniform(-0.4, 0.4) * camera.half_width(depth)
    x = middle - pace * np.cos(heading) * moment
    return Course(x, depth - pace * np.sin(heading) * moment, heading, pace)


def _body(rng: np.random.Generator) -> Body:
    height = rng.uniform(1.58, 1.9)
    return Body(
        height, _pick(rng, _SKINS), _pick(rng, _HAIRS), _pick(rng, _TOPS), _pick(rng, _TROUSERS)
    )


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[rng.integers(len(colours))]


def _rng(seed: int, *names: str) -> np.random.Generator:
    """A generator for one purpose, the same on every machine and in any order."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])
