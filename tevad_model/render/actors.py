"""Who and what moves through the rendered scene, and which of it is abnormal.

An actor says, for any time, which solids it consists of. How they are drawn, and what lies in view,
is :mod:`tevad_model.render.scene`'s business; who appears when, the package's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol

import numpy as np

from tevad_model.render.scene import Array, Colour, Part, Point, Solids, place

GRAVITY = 9.81
WALKING_MPS = (0.8, 1.5)
RUNNING_MPS = (4.4, 5.6)
CYCLING_MPS = (4.5, 6.0)
CART_MPS = (3.2, 4.2)

_SHOES: Colour = (45, 40, 38)
_RUBBER: Colour = (38, 38, 40)
_ROOF: Colour = (226, 224, 216)
_BALL_RADIUS = 0.2
_WIND_UP_S = 0.5
_FALL_S = 0.7


class Actor(Protocol):
    """Something that may be in view.

    Attributes:
        kind: the class of anomaly that it is whenever it is in view, or empty.
    """

    kind: ClassVar[str]

    def solids(self, t: float) -> Solids | None:
        """What it consists of at a time in seconds; None while it is not there."""
        ...


def _together(first: Solids, second: Solids) -> Solids:
    return Solids(
        np.concatenate([first.ends, second.ends]),
        np.concatenate([first.radii, second.radii]),
        first.colours + second.colours,
    )


@dataclass(frozen=True)
class Course:
    """A straight way over the ground at a constant speed.

    Attributes:
        x: metres to the right at time 0.
        z: metres away at time 0.
        heading: radians from x towards z.
        speed: metres a second; 0 for somebody who stands.
    """

    x: float
    z: float
    heading: float
    speed: float

    def at(self, t: float) -> Array:
        """The place on the ground, shape (3,)."""
        return place(np.array([self.x, 0.0, self.z]), self.heading, (self.speed * t, 0.0, 0.0))


@dataclass(frozen=True)
class Body:
    """A person's build and clothes; height in metres."""

    height: float
    skin: Colour
    hair: Colour
    top: Colour
    trousers: Colour


@dataclass(frozen=True)
class Pose:
    """Angles in radians from hanging down, forward positive: (left, right) limbs and the trunk."""

    thighs: tuple[float, float]
    knees: tuple[float, float]
    arms: tuple[float, float]
    elbows: tuple[float, float]
    lean: float = 0.0
    hip: float = 0.52
    """Height of the hip as a share of the body's height."""


def figure(body: Body, base: Array, heading: float, pose: Pose, pitch: float = 0.0) -> Solids:
    """A person made of capsules.

    Args:
        body: build and clothes.
        base: the ground below the hip, shape (3,).
        heading: radians from x towards z.
        pose: the joints.
        pitch: how far the whole body has tipped forward about its feet, 0 to π/2.
    """
    hip = (0.0, pose.hip, 0.0)
    chest, neck, crown = (_swung(hip, reach, math.pi - pose.lean) for reach in (0.29, 0.41, 0.44))
    parts: list[Part] = [
        (hip, chest, 0.075, 0.085, body.top),
        (neck, neck, 0.062, 0.062, body.skin),
        (crown, crown, 0.056, 0.056, body.hair),
    ]
    for limb, side in enumerate((-1.0, 1.0)):
        light = 1.0 if side < 0 else 0.8  # tells a figure's two sides apart
        trousers, sleeve = _shade(body.trousers, light), _shade(body.top, 0.92 * light)
        thigh, arm = pose.thighs[limb], pose.arms[limb]
        leg = (hip[0], hip[1], 0.05 * side)
        knee = _swung(leg, 0.25, thigh)
        foot = _swung(knee, 0.25, thigh - pose.knees[limb])
        shoulder = (chest[0], chest[1], 0.11 * side)
        elbow = _swung(shoulder, 0.17, arm)
        parts += [
            (leg, knee, 0.055, 0.042, trousers),
            (knee, foot, 0.042, 0.03, trousers),
            (foot, (foot[0] + 0.07, *foot[1:]), 0.026, 0.02, _SHOES),
            (shoulder, elbow, 0.04, 0.032, sleeve),
            (elbow, _swung(elbow, 0.15, arm + pose.elbows[limb]), 0.03, 0.026, body.skin),
        ]
    tall = body.height
    return Solids.of(
        [
            (_tipped(a, pitch, tall), _tipped(b, pitch, tall), ra * tall, rb * tall, colour)
            for a, b, ra, rb, colour in parts
        ],
        base,
        heading,
    )


def _swung(start: Point, reach: float, angle: float) -> Point:
    """Where a limb ends that swings forward by an angle from hanging down."""
    return start[0] + reach * math.sin(angle), start[1] - reach * math.cos(angle), start[2]


def _tipped(point: Point, pitch: float, tall: float) -> Point:
    """A point of a body of height 1 that is ``tall`` and has tipped forward about its feet."""
    forward, up, side = (tall * share for share in point)
    cos, sin = math.cos(pitch), math.sin(pitch)
    above_ground = max(up * cos - forward * sin, 0.08 * sin)
    return forward * cos + up * sin, above_ground, side


def _shade(colour: Colour, light: float) -> Colour:
    red, green, blue = (int(channel * light) for channel in colour)
    return red, green, blue


STANDING = Pose((0.04, -0.04), (0.03, 0.03), (0.05, -0.03), (0.15, 0.15))


def stride(phase: float, swing: float, lean: float, elbow: float) -> Pose:
    """A walking or running pose; ``phase`` goes by 2π every two steps."""
    left, right = np.sin(phase), -np.sin(phase)
    lift = np.cos(phase), -np.cos(phase)  # the knee bends while its leg comes forward
    return Pose(
        thighs=(swing * left, swing * right),
        knees=(swing * (0.25 + max(0.0, lift[0])), swing * (0.25 + max(0.0, lift[1]))),
        arms=(-0.85 * swing * left, -0.85 * swing * right),
        elbows=(elbow, elbow),
        lean=lean,
        hip=0.525 - 0.05 * swing * abs(left),
    )


@dataclass(frozen=True)
class Walker:
    """A person who walks, or stands if the course has no speed, and is there until a time."""

    kind: ClassVar[str] = ""

    body: Body
    course: Course
    until: float = np.inf

    def pose(self, t: float) -> Pose:
        """The joints at a time: a step of 0.42 body heights, whatever the speed."""
        if self.course.speed == 0:
            return STANDING
        steps = self.course.speed * t / (0.42 * self.body.height)
        return stride(np.pi * steps, swing=0.45, lean=0.03, elbow=0.25)

    def solids(self, t: float) -> Solids | None:
        """See :class:`Actor`."""
        if t >= self.until:
            return None
        return figure(self.body, self.course.at(t), self.course.heading, self.pose(t))


@dataclass(frozen=True)
class Runner:
    """A person who runs."""

    kind: ClassVar[str] = "running"

    body: Body
    course: Course

    def solids(self, t: float) -> Solids:
        """See :class:`Actor`."""
        steps = self.course.speed * t / (0.75 * self.body.height)
        pose = stride(np.pi * steps, swing=0.9, lean=0.2, elbow=1.5)
        return figure(self.body, self.course.at(t), self.course.heading, pose)


@dataclass(frozen=True)
class Fall:
    """A walker from the time ``until`` on: falls forward and lies still."""

    kind: ClassVar[str] = "fall"

    walker: Walker

    def solids(self, t: float) -> Solids | None:
        """See :class:`Actor`."""
        walker, begin = self.walker, self.walker.until
        if t < begin:
            return None
        share = min((t - begin) / _FALL_S, 1.0)
        pitch = share**2 * np.pi / 2  # slow at first, as what topples does
        course = walker.course
        return figure(walker.body, course.at(begin), course.heading, walker.pose(begin), pitch)


@dataclass(frozen=True)
class Cyclist:
    """A person on a bicycle."""

    kind: ClassVar[str] = "cycling"

    body: Body
    course: Course
    paint: Colour

    def solids(self, t: float) -> Solids:
        """See :class:`Actor`."""
        base, heading = self.course.at(t), self.course.heading
        crank = self.course.speed * t / 0.9
        push, lift = math.sin(crank), math.cos(crank)
        pose = Pose(
            thighs=(1.05 + 0.35 * push, 1.05 - 0.35 * push),
            knees=(1.25 + 0.3 * lift, 1.25 - 0.3 * lift),
            arms=(1.15, 1.15),
            elbows=(0.2, 0.2),
            lean=0.5,
            hip=0.92 / self.body.height,
        )
        rider = figure(self.body, place(base, heading, (-0.2, 0.0, 0.0)), heading, pose)
        return _together(Solids.of(self._bicycle(), base, heading), rider)

    def _bicycle(self) -> list[Part]:
        saddle, bars, crank = (-0.2, 0.88, 0.0), (0.42, 0.98, 0.0), (-0.05, 0.3, 0.0)
        back, front = (-0.52, 0.34, 0.0), (0.55, 0.34, 0.0)
        frame = [(back, saddle), (back, crank), (crank, saddle), (crank, bars), (saddle, bars)]
        tubes = [(a, b, 0.025, 0.025, self.paint) for a, b in [*frame, (bars, front)]]
        for hub in (back, front):
            rim = [_swung(hub, 0.33, angle) for angle in np.linspace(0, 2 * np.pi, 13)]
            tubes += [(a, b, 0.025, 0.025, _RUBBER) for a, b in pairwise(rim)]
        return tubes


@dataclass(frozen=True)
class Cart:
    """A small electric cart with a roof and a driver."""

    kind: ClassVar[str] = "cart"

    driver: Body
    course: Course
    paint: Colour

    def solids(self, t: float) -> Solids:
        """See :class:`Actor`."""
        base, heading = self.course.at(t), self.course.heading
        pose = Pose((1.4, 1.4), (1.3, 1.3), (1.0, 1.0), (0.3, 0.3), lean=-0.1, hip=0.5)
        driver = figure(self.driver, place(base, heading, (-0.2, 0.0, -0.2)), heading, pose)
        return _together(Solids.of(self._vehicle(), base, heading), driver)

    def _vehicle(self) -> list[Part]:
        across = (-0.45, -0.15, 0.15, 0.45)
        parts: list[Part] = [
            ((-1.0, 0.5, s), (1.0, 0.45, s), 0.27, 0.22, self.paint) for s in across
        ]
        parts += [((-1.0, 1.95, s), (0.9, 1.95, s), 0.09, 0.09, _ROOF) for s in across]
        for side in (-0.5, 0.5):
            for along in (-0.95, 0.85):
                parts.append(((along, 0.6, side), (along, 1.95, side), 0.03, 0.03, _RUBBER))
            for along in (-0.75, 0.75):
                hub = (along, 0.26, 1.3 * side)
                parts.append((hub, (along, 0.26, 1.2 * side), 0.26, 0.26, _RUBBER))
        return parts


@dataclass(frozen=True)
class Thrower:
    """A person who stands and throws, once at each release time."""

    kind: ClassVar[str] = ""

    body: Body
    x: float
    z: float
    heading: float
    releases: tuple[float, ...]

    def solids(self, t: float) -> Solids:
        """See :class:`Actor`."""
        return figure(self.body, np.array([self.x, 0.0, self.z]), self.heading, self._pose(t))

    def hand(self, t: float) -> Array:
        """Where the throwing hand holds a ball by its middle, shape (3,)."""
        return place(self.solids(t).ends[-1, 1], self.heading, (0.0, _BALL_RADIUS, 0.0))

    def _pose(self, t: float) -> Pose:
        since = min((t - release for release in self.releases), key=abs)
        if abs(since) > _WIND_UP_S:
            return STANDING
        # Drawn back before the release, then down in front of the body.
        arm = np.pi + 0.7 * np.sin(np.pi * since / _WIND_UP_S / 2) * (-1 if since < 0 else 1)
        return Pose((0.25, -0.25), (0.1, 0.2), (0.4, arm), (0.2, 0.1), lean=0.15)


@dataclass(frozen=True)
class Thrown:
    """A ball in the thrower's raised hand, then in the air, then bouncing on."""

    kind: ClassVar[str] = "thrown_object"

    thrower: Thrower
    release: float
    speed: float
    colour: Colour

    def solids(self, t: float) -> Solids | None:
        """See :class:`Actor`."""
        if t < self.release - _WIND_UP_S:
            return None
        at = self._flight(t - self.release) if t > self.release else self.thrower.hand(t)
        return Solids(np.stack([[at, at]]), np.full((1, 2), _BALL_RADIUS), (self.colour,))

    def _flight(self, since: float) -> Array:
        start = self.thrower.hand(self.release)
        distance, height, rise = self.speed * since, float(start[1]), 2.5
        while rise > 0.3:  # each round is the way to the next bounce
            landing = (rise + np.sqrt(rise**2 + 2 * GRAVITY * (height - _BALL_RADIUS))) / GRAVITY
            if since < landing:
                height += rise * since - GRAVITY / 2 * since**2
                break
            since, height, rise = since - landing, _BALL_RADIUS, 0.55 * (GRAVITY * landing - rise)
        return place(start * (1, 0, 1), self.thrower.heading, (distance, height, 0.0))
