"""Who and what moves through the rendered scene, and which of it is abnormal.

An actor says, for any time, which solids it consists of. How they are drawn, and what lies in view,
is :mod:`tevad_model.render.scene`'s business; who appears when, the package's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from tevad_model.render.scene import Capsule, Colour, Points, Solid, box_faces, place, shade

GRAVITY = 9.81
WALKING_MPS = (0.8, 1.5)
RUNNING_MPS = (4.4, 5.6)
CYCLING_MPS = (4.5, 6.0)
CART_MPS = (3.2, 4.2)

_BALL_RADIUS = 0.2
_WIND_UP_S = 0.5
_FALL_S = 0.7


class Actor(Protocol):
    """Something that may be in view.

    Attributes:
        kind: the class of anomaly that it is whenever it is in view, or empty.
    """

    kind: ClassVar[str]

    def solids(self, t: float) -> Sequence[Solid]:
        """What it consists of at a time in seconds; nothing while it is not there."""
        ...


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

    def at(self, t: float) -> Points:
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


def figure(
    body: Body, base: Points, heading: float, pose: Pose, pitch: float = 0.0
) -> list[Capsule]:
    """A person made of capsules.

    Args:
        body: build and clothes.
        base: the ground below the hip, shape (3,).
        heading: radians from x towards z.
        pose: the joints.
        pitch: how far the whole body has tipped forward about its feet, 0 to π/2.
    """
    h = body.height
    hip = np.array([0.0, pose.hip * h, 0.0])
    chest = hip + 0.29 * h * _swing(np.pi - pose.lean)
    head = hip + 0.42 * h * _swing(np.pi - pose.lean)
    parts: list[tuple[Points, Points, float, float, Colour]] = [
        (hip, chest, 0.075, 0.085, body.top),
        (head, head + (0.0, 0.012 * h, 0.0), 0.062, 0.062, body.skin),
        (head + (-0.015 * h, 0.03 * h, 0.0), head + (-0.01 * h, 0.03 * h, 0.0), 0.056, 0.056, body.hair),
    ]  # fmt: skip
    for limb, sign in enumerate((-1.0, 1.0)):
        aside = np.array([0.0, 0.0, sign * h])
        light = 1.0 if sign < 0 else 0.82  # tells a figure's two sides apart
        trousers, sleeve = shade(body.trousers, light), shade(body.top, 0.92 * light)
        top = hip + 0.05 * aside
        knee = top + 0.25 * h * _swing(pose.thighs[limb])
        foot = knee + 0.25 * h * _swing(pose.thighs[limb] - pose.knees[limb])
        shoulder = chest + 0.11 * aside
        elbow = shoulder + 0.17 * h * _swing(pose.arms[limb])
        hand = elbow + 0.15 * h * _swing(pose.arms[limb] + pose.elbows[limb])
        parts += [
            (top, knee, 0.055, 0.042, trousers),
            (knee, foot, 0.042, 0.03, trousers),
            (foot, foot + (0.07 * h, 0.0, 0.0), 0.026, 0.02, (45, 40, 38)),
            (shoulder, elbow, 0.04, 0.032, sleeve),
            (elbow, hand, 0.03, 0.026, body.skin),
        ]
    local = np.stack([end for a, b, *_ in parts for end in (a, b)])
    ends = place(base, heading, _tipped(local, pitch)).reshape(-1, 2, 3)
    return [
        Capsule(pair, (ra * h, rb * h), colour)
        for pair, (_, _, ra, rb, colour) in zip(ends, parts, strict=True)
    ]


def _swing(angle: float) -> Points:
    """The unit vector (forward, up, side) of a limb that swings by an angle from hanging."""
    return np.array([np.sin(angle), -np.cos(angle), 0.0])


def _tipped(points: Points, pitch: float) -> Points:
    """Points (forward, up, side) turned forward about the feet, and kept above the ground."""
    forward, up, side = points.T
    turned = np.stack(
        [forward * np.cos(pitch) + up * np.sin(pitch), up * np.cos(pitch) - forward * np.sin(pitch), side],
        axis=1,
    )  # fmt: skip
    turned[:, 1] = np.maximum(turned[:, 1], 0.08 * np.sin(pitch))
    return turned


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

    def solids(self, t: float) -> Sequence[Solid]:
        """See :class:`Actor`."""
        if t >= self.until:
            return []
        return figure(self.body, self.course.at(t), self.course.heading, self.pose(t))


@dataclass(frozen=True)
class Runner:
    """A person who runs."""

    kind: ClassVar[str] = "running"

    body: Body
    course: Course

    def solids(self, t: float) -> Sequence[Solid]:
        """See :class:`Actor`."""
        steps = self.course.speed * t / (0.75 * self.body.height)
        pose = stride(np.pi * steps, swing=0.9, lean=0.2, elbow=1.5)
        return figure(self.body, self.course.at(t), self.course.heading, pose)


@dataclass(frozen=True)
class Fall:
    """A walker from the time ``until`` on: falls forward and lies still."""

    kind: ClassVar[str] = "fall"

    walker: Walker

    def solids(self, t: float) -> Sequence[Solid]:
        """See :class:`Actor`."""
        walker, begin = self.walker, self.walker.until
        if t < begin:
            return []
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

    def solids(self, t: float) -> Sequence[Solid]:
        """See :class:`Actor`."""
        base, heading = self.course.at(t), self.course.heading
        crank = self.course.speed * t / 0.9
        rider = Pose(
            thighs=(1.05 + 0.35 * np.sin(crank), 1.05 - 0.35 * np.sin(crank)),
            knees=(1.25 + 0.3 * np.cos(crank), 1.25 - 0.3 * np.cos(crank)),
            arms=(1.15, 1.15),
            elbows=(0.2, 0.2),
            lean=0.5,
            hip=0.92 / self.body.height,
        )
        return self._bicycle(base, heading) + figure(
            self.body, place(base, heading, (-0.2, 0.0, 0.0)), heading, rider
        )

    def _bicycle(self, base: Points, heading: float) -> Sequence[Solid]:
        saddle, bars = (-0.2, 0.88), (0.42, 0.98)
        crank, back, front = (-0.05, 0.3), (-0.52, 0.34), (0.55, 0.34)
        tubes = ((back, saddle), (back, crank), (crank, saddle), (crank, bars), (saddle, bars), (bars, front))  # fmt: skip
        lines = [(a, b, 0.025, self.paint) for a, b in tubes]
        turn = np.linspace(0, 2 * np.pi, 15)
        for hub in (back, front):
            rim = [(hub[0] + 0.33 * np.cos(w), hub[1] + 0.33 * np.sin(w)) for w in turn]
            lines += [(a, b, 0.025, (35, 35, 35)) for a, b in zip(rim, rim[1:], strict=False)]
        return [
            Capsule(place(base, heading, [(*a, 0.0), (*b, 0.0)]), (radius, radius), colour)
            for a, b, radius, colour in lines
        ]


@dataclass(frozen=True)
class Cart:
    """A small electric cart with a roof and a driver."""

    kind: ClassVar[str] = "cart"

    driver: Body
    course: Course
    paint: Colour

    def solids(self, t: float) -> Sequence[Solid]:
        """See :class:`Actor`."""
        base, heading = self.course.at(t), self.course.heading
        seated = Pose((1.4, 1.4), (1.3, 1.3), (1.0, 1.0), (0.3, 0.3), lean=-0.1, hip=0.5)
        driver = figure(self.driver, place(base, heading, (-0.2, 0.0, -0.2)), heading, seated)
        posts = [
            Capsule(place(base, heading, [(f, 0.6, s), (f, 1.95, s)]), (0.03, 0.03), (60, 60, 64))
            for f in (-1.0, 0.9)
            for s in (-0.55, 0.55)
        ]
        wheels = [
            Capsule(place(base, heading, [(f, 0.26, s), (f, 0.26, 0.9 * s)]), (0.26, 0.26), (30, 30, 32))
            for f in (-0.75, 0.75)
            for s in (-0.62, 0.62)
        ]  # fmt: skip
        body = box_faces(place(base, heading, (0, 0.25, 0)), (2.3, 0.5, 1.2), heading, self.paint)
        roof = box_faces(place(base, heading, (-0.05, 1.92, 0)), (2.0, 0.08, 1.25), heading, (226, 224, 216))  # fmt: skip
        return [*body, *wheels, *driver, *posts, *roof]


@dataclass(frozen=True)
class Thrower:
    """A person who stands and throws, once at each release time."""

    kind: ClassVar[str] = ""

    body: Body
    x: float
    z: float
    heading: float
    releases: tuple[float, ...]

    def solids(self, t: float) -> Sequence[Solid]:
        """See :class:`Actor`."""
        return self._figure(t)

    def hand(self, t: float) -> Points:
        """Where the throwing hand is, shape (3,)."""
        return self._figure(t)[-1].ends[1]

    def _figure(self, t: float) -> list[Capsule]:
        return figure(self.body, np.array([self.x, 0.0, self.z]), self.heading, self._pose(t))

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

    def solids(self, t: float) -> Sequence[Solid]:
        """See :class:`Actor`."""
        if t < self.release - _WIND_UP_S:
            return []
        at = self._flight(t - self.release) if t > self.release else self.thrower.hand(t)
        return [Capsule(np.stack([at, at]), (_BALL_RADIUS, _BALL_RADIUS), self.colour)]

    def _flight(self, since: float) -> Points:
        start = self.thrower.hand(self.release)
        distance, height, rise = self.speed * since, float(start[1]), 2.5
        while rise > 0.3:  # each round is the way to the next bounce
            landing = (rise + np.sqrt(rise**2 + 2 * GRAVITY * (height - _BALL_RADIUS))) / GRAVITY
            if since < landing:
                height += rise * since - GRAVITY / 2 * since**2
                break
            since, height, rise = since - landing, _BALL_RADIUS, 0.55 * (GRAVITY * landing - rise)
        ground = place(start * (1, 0, 1), self.thrower.heading, (distance, 0.0, 0.0))
        return ground + (0.0, height, 0.0)
