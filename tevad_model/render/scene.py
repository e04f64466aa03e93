"""Camera, ground and paint of the rendered dataset: solids in a world of metres become pixels.

Nothing here knows who or what moves through the scene; :mod:`tevad_model.render.actors` does.
World coordinates are metres: x to the right, y up, z away from the camera, the ground at y = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from tevad_model.encoders.base import Frame

Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""Columns and rows ``(x0, y0, x1, y1)``, half-open, within the picture."""

_SUBPIXEL_BITS = 4
_SUN = np.array([0.55, 0.0, 0.35])
"""How far a shadow reaches for each metre of height."""
_SHADOW = 0.45
_WALL_Z = 34.0
_PATH_Z = (7.0, 27.0)
"""The paved strip people use, from its near to its far edge."""


@dataclass(frozen=True)
class Capsule:
    """A limb, tube or ball: two spheres and what lies between them.

    Attributes:
        ends: shape (2, 3).
        radii: the spheres' radii in metres.
        colour: RGB.
    """

    ends: Points
    radii: tuple[float, float]
    colour: Colour


@dataclass(frozen=True)
class Face:
    """A flat convex polygon: ``corners`` has shape (n, 3)."""

    corners: Points
    colour: Colour


Solid = Capsule | Face


@dataclass(frozen=True)
class Outline:
    """A solid in the picture.

    Attributes:
        pixels: its ends or corners, shape (n, 2).
        reach: how many pixels it extends around each, shape (n,).
    """

    pixels: Points
    reach: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera on a mast, looking along z and a little down."""

    width: int
    height: int
    mast_m: float = 5.5
    tilt: float = 0.30

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return 0.95 * self.width

    def project(self, points: Points) -> tuple[Points, npt.NDArray[np.float64]]:
        """Pixels (n, 2) of world points (n, 3), and how many pixels a metre takes there (n,)."""
        x, down, z = points[:, 0], self.mast_m - points[:, 1], points[:, 2]
        depth = z * np.cos(self.tilt) + down * np.sin(self.tilt)
        below_axis = down * np.cos(self.tilt) - z * np.sin(self.tilt)
        scale = self.focal / depth
        centre = np.array([self.width, self.height]) / 2
        return centre + scale[:, None] * np.stack([x, below_axis], axis=1), scale

    def half_width(self, z: float) -> float:
        """Metres to either side that the camera sees of the ground at a distance."""
        _, scale = self.project(np.array([[0.0, 0.0, z]]))
        return float(self.width / 2 / scale[0])

    def outlines(self, solids: Sequence[Solid]) -> list[Outline]:
        """Where solids come to lie in the picture, one outline each, all projected at once."""
        points = [s.ends if isinstance(s, Capsule) else s.corners for s in solids]
        pixels, scale = self.project(np.concatenate(points))
        at = np.cumsum([len(p) for p in points])[:-1]
        return [
            Outline(px, sc * s.radii if isinstance(s, Capsule) else 0.0 * sc)
            for s, px, sc in zip(solids, np.split(pixels, at), np.split(scale, at), strict=True)
        ]

    def box(self, solids: Sequence[Solid]) -> Box | None:
        """The part of the picture that solids may touch, or None if they are out of view."""
        if not solids:
            return None
        outlines = self.outlines(solids)
        pixels = np.concatenate([outline.pixels for outline in outlines])
        reach = np.concatenate([outline.reach for outline in outlines])[:, None]
        low, high = (pixels - reach).min(axis=0), (pixels + reach).max(axis=0)
        x0, y0 = (int(v) for v in np.maximum(np.floor(low), 0))
        x1, y1 = (int(v) for v in np.minimum(np.ceil(high), (self.width, self.height)))
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def box_faces(
    base: Points, size: tuple[float, float, float], heading: float, colour: Colour
) -> list[Solid]:
    """The six faces of a box that stands at ``base`` (centre of its floor), shaded by direction.

    Args:
        base: shape (3,).
        size: length along the heading, height, width.
        heading: radians from x towards z.
        colour: of the brightest face.
    """
    length, height, width = size
    local = np.array([(f, u, s) for f in (-0.5, 0.5) for u in (0.0, 1.0) for s in (-0.5, 0.5)]) * (
        length,
        height,
        width,
    )
    corners = place(base, heading, local)
    faces = (((2, 3, 7, 6), 1.0), ((0, 2, 6, 4), 0.85), ((1, 3, 7, 5), 0.85), ((0, 1, 3, 2), 0.65), ((4, 5, 7, 6), 0.65))  # fmt: skip
    return [Face(corners[list(index)], shade(colour, light)) for index, light in faces]


def place(base: Points, heading: float, local: npt.ArrayLike) -> Points:
    """World points of local ones (n, 3) given as (forward, up, to the side)."""
    forward = np.array([np.cos(heading), 0.0, np.sin(heading)])
    side = np.array([-np.sin(heading), 0.0, np.cos(heading)])
    axes = np.stack([forward, np.array([0.0, 1.0, 0.0]), side])
    return base + np.asarray(local, dtype=np.float64) @ axes


def shade(colour: Colour, light: float) -> Colour:
    """A colour under more or less light."""
    red, green, blue = (min(255, int(channel * light)) for channel in colour)
    return red, green, blue


def paint(picture: Frame, camera: Camera, groups: Sequence[Sequence[Solid]]) -> None:
    """Draw groups of solids and their shadows onto a picture, what is far first.

    A group is one actor: groups are ordered as wholes, so that actors do not interlock.
    """
    shadow = np.zeros(picture.shape[:2], dtype=np.uint8)
    for group in groups:
        for outline in camera.outlines([_flattened(solid) for solid in group]):
            _fill(shadow, outline, 255)
    _darken(picture, cv2.GaussianBlur(shadow, (0, 0), 1.2))
    for group in sorted(groups, key=lambda group: max(map(_distance, group)), reverse=True):
        solids = sorted(group, key=_distance, reverse=True)
        for solid, outline in zip(solids, camera.outlines(solids), strict=True):
            _fill(picture, outline, solid.colour)


def _darken(picture: Frame, shadow: npt.NDArray[np.uint8]) -> None:
    weight = 256 - (shadow.astype(np.uint16) * int(256 * _SHADOW) >> 8)
    picture[:] = picture * weight[..., None] >> 8


def _distance(solid: Solid) -> float:
    points = solid.ends if isinstance(solid, Capsule) else solid.corners
    return float(points[:, 2].sum()) / len(points)


def _flattened(solid: Solid) -> Solid:
    """A solid's shadow on the ground."""
    if isinstance(solid, Capsule):
        return Capsule(_on_ground(solid.ends), solid.radii, solid.colour)
    return Face(_on_ground(solid.corners), solid.colour)


def _on_ground(points: Points) -> Points:
    return (points + points[:, 1:2] * _SUN) * (1.0, 0.0, 1.0)


def _fill(canvas: npt.NDArray[np.uint8], outline: Outline, colour: Colour | int) -> None:
    pixels, reach = outline.pixels, outline.reach
    if reach.any():
        for (x, y), radius in zip(_fixed(pixels).tolist(), _fixed(reach).tolist(), strict=True):
            cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        along = pixels[1] - pixels[0]
        length = float(np.hypot(along[0], along[1]))
        if length < 0.5:
            return
        across = np.array([-along[1], along[0]]) / length
        a, b = reach[:, None] * across
        pixels = np.stack([pixels[0] + a, pixels[1] + b, pixels[1] - b, pixels[0] - a])
    cv2.fillConvexPoly(canvas, _fixed(pixels), colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Pixels as the fixed-point numbers that OpenCV takes."""
    return np.rint(values * (1 << _SUBPIXEL_BITS)).astype(np.int32)


@cache
def backdrop(camera: Camera, seed: int) -> Frame:
    """The empty scene: grass, a paved strip and a wall with windows behind it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    right = (columns - camera.width / 2) / camera.focal
    below = (rows - camera.height / 2) / camera.focal
    # The ray of each pixel, from the camera's tilted axes back to the world's.
    down = below * np.cos(camera.tilt) + np.sin(camera.tilt)
    ahead = np.cos(camera.tilt) - below * np.sin(camera.tilt)
    reach = np.minimum(
        np.where(down > 0, camera.mast_m / np.maximum(down, 1e-6), np.inf), _WALL_Z / ahead
    )
    x, y, z = right * reach, camera.mast_m - down * reach, ahead * reach
    wall = y > 1e-6
    paved = ~wall & (z > _PATH_Z[0]) & (z < _PATH_Z[1])
    picture = np.where(paved[..., None], _paving(x, z, rng), _grass(x, z, rng))
    picture = np.where(wall[..., None], _wall(x, y, rng), picture)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _paving(x: Points, z: Points, rng: np.random.Generator) -> Points:
    stone = np.floor(x / 1.2) * 7 + np.floor(z / 1.2) * 13
    joint = ((x % 1.2 < 0.07) | (z % 1.2 < 0.12)) * 16.0
    tone = 148 + 7 * np.sin(stone * 12.9898) - joint + _texture(x, z, 1.5, 10, rng)
    return tone[..., None] * (1.0, 0.97, 0.92)


def _grass(x: Points, z: Points, rng: np.random.Generator) -> Points:
    tone = 96 + _texture(x, z, 0.6, 18, rng) + _texture(x, z, 4.0, 10, rng)
    return tone[..., None] * (0.82, 1.0, 0.58)


def _wall(x: Points, y: Points, rng: np.random.Generator) -> Points:
    window = ((x % 4.0 > 1.0) & (x % 4.0 < 3.0) & (y % 3.2 > 1.1) & (y % 3.2 < 2.5))[..., None]
    bricks = (126 + _texture(x, y, 0.8, 12, rng) - (y < 0.5) * 25.0)[..., None]
    return np.where(window, (74.0, 86.0, 98.0), bricks * (1.0, 0.86, 0.76))


def _texture(u: Points, v: Points, size_m: float, depth: float, rng: np.random.Generator) -> Points:
    """Smooth noise over two world coordinates, its grains about ``size_m`` wide."""
    grains = rng.standard_normal((64, 64)).astype(np.float32)
    field = cv2.GaussianBlur(grains, (0, 0), 0.8, borderType=cv2.BORDER_REFLECT)
    at = [(np.abs(w) / size_m * 2 % 63).astype(np.float32) for w in (u, v)]
    return depth * cv2.remap(field, at[0], at[1], cv2.INTER_LINEAR).astype(np.float64)
