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
from statistics import fmean, median

import numpy as np

from tevad_model.encoders.motion.measure import Blob, Fast

STILL = 0.1
"""Body heights a second below which an object stands still."""

_RACING = 1.6
"""Times the usual pace from which a part of a blob may be an object of its own."""

_MOST_OF_A_BODY = 0.6
"""Of the usual height; what moves as one and is smaller is a limb."""

_MEMORY = 500
"""Observations that tell what is usual, the oldest forgotten first."""

_ENOUGH_SIZES = 40
"""Blobs at about one row that make a usual height."""

_ENOUGH_SPEEDS = 10
"""Blobs that make a usual pace."""

_USUAL_HEIGHT_QUANTILE = 0.4
"""Below the median, for merged blobs are taller than one object."""

_PACE_QUANTILE = 0.65
"""Above the median, for merged blobs that cross seem slower than they are."""

_ROWS = 30
"""Bands of the picture that have a usual height each; a band and its two neighbours count."""

_SEEN = 6
"""Samples in which an object must be seen, or half of a window that is shorter."""

_FRAGMENT = 0.5
"""Of the usual height; what is smaller is a part of something."""

_FALL_SAMPLES = 3
"""Samples that an object must stand and lie to have fallen."""

_REACH = 0.6
"""Body heights that an object may be off its expected place from one sample to the next."""

_LOST_AFTER = 3
"""Samples without a blob after which an object is gone."""


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
        ratio: its speed over the usual pace of the others; None where no others were seen.
        vx: share of its motion to the right, -1 to 1.
        vy: share of its motion downwards, -1 to 1.
        size: its height over the usual height at its place; 1 where none is known.
        aspect: width over height in all but its narrowest moments (the lower quartile).
        fell: it was upright, turned flat and lies still.
    """

    speed: float
    ratio: float | None
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
    """

    view_changed: float
    count: int
    movers: tuple[Mover, ...]


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
        self._usual: dict[int, float | None] = {}
        self._speeds: deque[float] = deque(maxlen=_MEMORY)
        self._owners: deque[int] = deque(maxlen=_MEMORY)

    def learn(self, observations: Iterable[Observation]) -> None:
        """Take in what was seen in one sample; what stands still teaches nothing."""
        taught = set()
        for seen in observations:
            speed = math.hypot(seen.blob.vx, seen.blob.vy) / self.body_height(seen.blob)
            if speed > STILL:
                band = self._band(seen.blob.foot)
                self._heights[band].append(seen.blob.height)
                self._speeds.append(speed)
                self._owners.append(seen.track)
                taught |= {band - 1, band, band + 1}
        for band in taught:
            self._usual.pop(band, None)

    def pace(self, without: int | None = None) -> float | None:
        """Usual speed of what moves, body heights a second; None before enough was seen.

        Args:
            without: an object that does not count, for it is compared with the others.
        """
        speeds = [
            speed
            for speed, owner in zip(self._speeds, self._owners, strict=True)
            if owner != without
        ]
        return _quantile(speeds, _PACE_QUANTILE) if len(speeds) >= _ENOUGH_SPEEDS else None

    def fast(self) -> Fast | None:
        """What makes a fast object in each row; None before a pace and a size are known.

        A row without a usual height takes it from the nearest rows that have one.
        """
        pace = self.pace()
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
            enough = len(near) >= _ENOUGH_SIZES
            self._usual[band] = _quantile(near, _USUAL_HEIGHT_QUANTILE) if enough else None
        return self._usual[band]

    def _band(self, foot: float) -> int:
        return int(foot / self._row)


def summarise(samples: Sequence[Sample], scene: Scene) -> Facts:
    """The facts of a window from its samples."""
    tracks: dict[int, list[Blob]] = {}
    for sample in samples:
        for seen in sample.observations:
            tracks.setdefault(seen.track, []).append(seen.blob)
    enough = min(_SEEN, (len(samples) + 1) // 2)
    movers = [
        _mover(track, tracks[track], scene) for track in tracks if len(tracks[track]) >= enough
    ]
    movers = [mover for mover in movers if mover.size >= _FRAGMENT]
    count = math.ceil(median([len(sample.observations) for sample in samples]))
    return Facts(
        view_changed=fmean(sample.view_changed for sample in samples),
        count=max(1, count) if movers else 0,
        movers=tuple(sorted(movers, key=lambda mover: -mover.speed)),
    )


def _mover(track: int, blobs: Sequence[Blob], scene: Scene) -> Mover:
    bodies = [scene.body_height(blob) for blob in blobs]
    all_vx = [blob.vx / body for blob, body in zip(blobs, bodies, strict=True)]
    all_vy = [blob.vy / body for blob, body in zip(blobs, bodies, strict=True)]
    vx, vy = median(all_vx), median(all_vy)
    speed = math.hypot(vx, vy)
    pace = scene.pace(without=track)
    aspects = [blob.width / blob.height for blob in blobs]
    return Mover(
        speed=speed,
        ratio=None if pace is None else speed / pace,
        vx=vx / speed if speed else 0.0,
        vy=vy / speed if speed else 0.0,
        size=median([scene.relative_size(blob) for blob in blobs]),
        aspect=_quantile(aspects, 0.25),
        fell=_fell(blobs, list(map(math.hypot, all_vx, all_vy))),
    )


def _fell(blobs: Sequence[Blob], speeds: Sequence[float]) -> bool:
    """Whether an object that stood upright at first lies flat, low and still at the end."""
    third = len(blobs) // 3
    if third < _FALL_SAMPLES:
        return False
    first, last = blobs[:third], blobs[-third:]
    upright = all(blob.width < 0.9 * blob.height for blob in first)
    flat = all(blob.width > 1.2 * blob.height for blob in last)
    lower = max(blob.height for blob in last) < 0.7 * min(blob.height for blob in first)
    return upright and flat and lower and median(speeds[-third:]) < STILL


def _quantile(values: Iterable[float], share: float) -> float:
    """What ``np.quantile`` gives, to the bit, in a tenth of the time for some hundred numbers."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    index = int(place)
    low, high = ordered[index], ordered[min(index + 1, len(ordered) - 1)]
    part, step = place - index, high - low
    return low + step * part if part < 0.5 else high - step * (1 - part)
