"""Blobs over time: who is who, what size is usual where, and the facts of a window.

Here belongs what needs several frames. Pixels are measured in :mod:`.measure`; the facts are put
into words in :mod:`.words`. Speeds in facts are body heights a second, so that far and near objects
compare.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tevad_model.encoders.motion.measure import Blob, Fast

STILL = 0.1
"""Body heights a second below which an object stands still."""

_Q = 0.65
_RACING = 1.6
"""Times the usual pace from which a part of a blob may be an object of its own."""

_MOST_OF_A_BODY = 0.6
"""Of the usual height; what moves as one and is smaller is a limb."""

_MEMORY = 500
"""Observations that tell what is usual, the oldest forgotten first."""

_ENOUGH_SIZES = 40
"""Blobs at about one row that make a usual height."""

_ENOUGH_SPEEDS = 60
"""Blobs that make a usual pace."""

_ROWS = 30
"""Bands of the picture that have a usual height each; a band and its two neighbours count."""

_SEEN = 6
"""Samples in which an object must be seen, or half of a window that is shorter."""

_FRAGMENT = 0.5
"""Of the usual height; what is smaller is a part of something."""

Floats = npt.NDArray[np.float64]

_REACH = 0.6
"""Body heights that an object may be off its expected place from one frame to the next."""

_LOST_AFTER = 3
"""Frames without a blob after which an object is gone."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A blob, the object it belongs to and the sample (measured frame) it was seen in."""

    sample: int
    track: int
    blob: Blob


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured frame: what was seen in it, and whether most of the picture changed at once."""

    observations: list[Observation]
    view_changed: bool = False


@dataclass(frozen=True, slots=True)
class Mover:
    """One object over a window.

    Attributes:
        speed: body heights a second.
        vx: share of its motion to the right, -1 to 1.
        vy: share of its motion downwards, -1 to 1.
        size: its height over the usual height at its place; 1 where none is known.
        aspect: width over height in all but its narrowest moments (the lower quartile).
        fell: it was upright, turned flat and lies still.
    """

    speed: float
    vx: float
    vy: float
    size: float
    aspect: float
    fell: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What is measured in a window.

    Attributes:
        view_changed: share of its samples in which most of the picture changed at once.
        count: objects seen at a time (median).
        movers: the objects that were seen long enough to measure, fastest first.
        pace: the usual speed of what moves in this scene, body heights a second; None before
            enough objects moved.
    """

    view_changed: float
    count: int
    movers: tuple[Mover, ...]
    pace: float | None


class Tracker:
    """Links the blobs of successive samples to objects by the nearest expected place."""

    def __init__(self, seconds_a_sample: float) -> None:
        self._step = seconds_a_sample
        self._sample = -1
        self._next = 0
        self._live: dict[int, Observation] = {}

    def follow(self, blobs: Sequence[Blob]) -> list[Observation]:
        """Give each blob of the next sample the number of its object."""
        self._sample += 1
        pairs = sorted(
            (distance, track, index)
            for track, seen in self._live.items()
            for index, blob in enumerate(blobs)
            if (distance := self._distance(seen, blob)) < _REACH
        )
        owner: dict[int, int] = {}
        taken: set[int] = set()
        for _, track, index in pairs:
            if index not in owner and track not in taken:
                owner[index] = track
                taken.add(track)
        observations = []
        for index, blob in enumerate(blobs):
            if index not in owner:
                owner[index] = self._next
                self._next += 1
            observations.append(Observation(self._sample, owner[index], blob))
        self._live |= {seen.track: seen for seen in observations}
        self._live = {
            track: seen
            for track, seen in self._live.items()
            if self._sample - seen.sample < _LOST_AFTER
        }
        return observations

    def _distance(self, seen: Observation, blob: Blob) -> float:
        """How far a blob is from where an object is expected, in body heights."""
        elapsed = (self._sample - seen.sample) * self._step
        x = seen.blob.x + seen.blob.vx * elapsed
        foot = seen.blob.foot + seen.blob.vy * elapsed
        return math.hypot(blob.x - x, blob.foot - foot) / max(seen.blob.height, blob.height)


class Scene:
    """What is usual here, from all that was seen so far: the size at each row, and the pace."""

    def __init__(self, picture_height: int) -> None:
        self._height = picture_height
        self._row = picture_height / _ROWS
        self._heights: list[deque[float]] = [deque(maxlen=_MEMORY) for _ in range(_ROWS + 1)]
        self._speeds: deque[float] = deque(maxlen=_MEMORY)
        self._usual: dict[int, float | None] = {}

    def learn(self, blobs: Iterable[Blob]) -> None:
        """Take in the blobs of one sample."""
        for blob in blobs:
            speed = math.hypot(blob.vx, blob.vy) / self.body_height(blob)
            if speed > STILL:
                self._heights[self._band(blob.foot)].append(blob.height)
                self._speeds.append(speed)
        self._usual.clear()

    @property
    def pace(self) -> float | None:
        """Median speed of what moves, body heights a second; None before enough did."""
        return float(np.quantile(self._speeds, _Q)) if len(self._speeds) >= _ENOUGH_SPEEDS else None

    def fast(self) -> Fast | None:
        """What makes a fast object in each row; None before a pace and a size are known.

        A row without a usual height takes it from the nearest rows that have one.
        """
        pace = self.pace
        usual = {band: height for band in range(_ROWS + 1) if (height := self._usual_of(band))}
        if pace is None or not usual:
            return None
        rows = np.arange(self._height) / self._row
        bodies = np.interp(rows, list(usual), list(usual.values())).astype(np.float32)
        return Fast(speed=_RACING * pace * bodies, height=_MOST_OF_A_BODY * bodies)

    def usual_height(self, blob: Blob) -> float | None:
        """Usual height of what moves where the blob does; None before enough moved there."""
        return self._usual_of(self._band(blob.foot))

    def body_height(self, blob: Blob) -> float:
        """The height that speeds are relative to: the blob's own, held near the usual one.

        Merged objects are taller than a body, and parts of one are shorter.
        """
        usual = self.usual_height(blob)
        return blob.height if usual is None else min(max(blob.height, 0.8 * usual), 1.3 * usual)

    def relative_size(self, blob: Blob) -> float:
        """The blob's height over the usual one at its place; 1 where that is not known."""
        usual = self.usual_height(blob)
        return 1.0 if usual is None else blob.height / usual

    def _usual_of(self, band: int) -> float | None:
        if band not in self._usual:
            near = [h for heights in self._heights[max(0, band - 1) : band + 2] for h in heights]
            # Below the median, for merged blobs are taller than one object.
            usual = float(np.quantile(near, 0.4)) if len(near) >= _ENOUGH_SIZES else None
            self._usual[band] = usual
        return self._usual[band]

    def _band(self, foot: float) -> int:
        return int(foot / self._row)


def summarise(samples: Sequence[Sample], scene: Scene) -> Facts:
    """The facts of a window from its samples."""
    seen: dict[int, list[Observation]] = {}
    for sample in samples:
        for observation in sample.observations:
            seen.setdefault(observation.track, []).append(observation)
    enough = min(_SEEN, (len(samples) + 1) // 2)
    movers = [_mover(track, scene) for track in seen.values() if len(track) >= enough]
    movers = [mover for mover in movers if mover.size >= _FRAGMENT]
    movers.sort(key=lambda mover: -mover.speed)
    counts = [len(sample.observations) for sample in samples]
    return Facts(
        view_changed=float(np.mean([sample.view_changed for sample in samples])),
        count=math.ceil(np.median(counts)) if movers else 0,
        movers=tuple(movers),
        pace=scene.pace,
    )


def _mover(track: Sequence[Observation], scene: Scene) -> Mover:
    blobs = [observation.blob for observation in track]
    bodies = np.array([scene.body_height(blob) for blob in blobs])
    velocity = np.array([(blob.vx, blob.vy) for blob in blobs]) / bodies[:, None]
    vx, vy = np.median(velocity, axis=0)
    flow_speed = float(np.hypot(vx, vy))
    aspects = np.array([blob.width / blob.height for blob in blobs])
    return Mover(
        speed=flow_speed,
        vx=float(vx) / flow_speed if flow_speed else 0.0,
        vy=float(vy) / flow_speed if flow_speed else 0.0,
        size=float(np.median([scene.relative_size(blob) for blob in blobs])),
        aspect=float(np.quantile(aspects, 0.25)),
        fell=_fell(aspects, np.hypot(*velocity.T)),
    )


def _fell(aspects: Floats, speeds: Floats) -> bool:
    """Whether an object that stood upright at first lies flat and still at the end."""
    third = len(aspects) // 3
    if third < 2:
        return False
    upright, flat = np.median(aspects[:third]), np.median(aspects[-third:])
    return bool(upright < 0.75 and flat > 1.25 and np.median(speeds[-third:]) < STILL)
