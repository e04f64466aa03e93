"""Camera, ground and paint of the rendered dataset: solids in a world of metres become pixels.

Nothing here knows who or what moves through the scene; :mod:`tevad_model.render.actors` does.
World coordinates are metres: x to the right, y up, z away from the camera, the ground at y = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from tevad_model.encoders.base import Frame

Array = npt.NDArray[np.float64]
Colour = tuple[int, int, int]
Point = tuple[float, float, float]
"""Local coordinates in metres: (forward, up, to the side)."""
Part = tuple[Point, Point, float, float, Colour]
"""A capsule in local coordinates: its two ends, their radii, its colour."""
Box = tuple[int, int, int, int]
"""Columns and rows ``(x0, y0, x1, y1)``, half-open, within the picture."""

_SUBPIXEL_BITS = 4
_ROUND = np.linspace(-np.pi / 2, np.pi / 2, 6)
"""Angles of the corners that stand for half a circle."""
_SUN = np.array([0.55, 0.0, 0.35])
"""How far a shadow reaches for each metre of height."""
_SHADOW = 0.42
"""Share of the light that a shadow takes away."""
_PATH_Z = (5.5, 20.0)
"""The paved strip that people use, from its near to its far edge."""
_WALL_Z = 24.0


@dataclass(frozen=True)
class Solids:
    """Limbs, tubes and balls: n capsules, each two spheres and what lies between them.

    Attributes:
        ends: the spheres' centres, shape (n, 2, 3).
        radii: the spheres' radii in metres, shape (n, 2).
        colours: RGB, n of them.
    """

    ends: Array
    radii: Array
    colours: tuple[Colour, ...]

    @classmethod
    def of(cls, parts: Sequence[Part], base: Array, heading: float) -> Self:
        """Parts in local coordinates, put at a place (3,) and turned (radians from x towards z)."""
        ends = place(base, heading, [end for a, b, *_ in parts for end in (a, b)])
        radii = np.array([radii for _, _, *radii, _ in parts])
        return cls(ends.reshape(-1, 2, 3), radii, tuple(part[-1] for part in parts))


def place(base: Array, heading: float, local: npt.ArrayLike) -> Array:
    """World points of local ones (…, 3) given as (forward, up, to the side)."""
    cos, sin = np.cos(heading), np.sin(heading)
    axes = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    placed: Array = base + np.asarray(local, dtype=np.float64) @ axes
    return placed


@dataclass(frozen=True)
class Camera:
    """A pinhole camera on a mast, looking along z and a little down."""

    width: int
    height: int
    mast_m: float = 5.0
    tilt: float = 0.33

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return 1.1 * self.width

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (…, 2) of world points (…, 3), and how many pixels a metre takes there (…)."""
        x, down, z = points[..., 0], self.mast_m - points[..., 1], points[..., 2]
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        scale: Array = self.focal / (z * cos + down * sin)
        columns = self.width / 2 + scale * x
        rows = self.height / 2 + scale * (down * cos - z * sin)
        return np.stack([columns, rows], axis=-1), scale

    def half_width(self, z: float) -> float:
        """Metres to either side that the camera sees of the ground at a distance."""
        _, scale = self.project(np.array([0.0, 0.0, z]))
        return float(self.width / 2 / scale)

    def box(self, solids: Solids) -> Box | None:
        """The part of the picture that solids may touch, or None if they are out of view."""
        pixels, scale = self.project(solids.ends)
        if scale.min() <= 0:  # beside the camera or behind it
            return None
        reach = (scale * solids.radii)[..., None]
        x0, y0 = np.floor((pixels - reach).min(axis=(0, 1))).astype(int).clip(0).tolist()
        x1, y1 = np.ceil((pixels + reach).max(axis=(0, 1))).astype(int).tolist()
        x1, y1 = min(x1, self.width), min(y1, self.height)
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def outlines(self, solids: Solids) -> npt.NDArray[np.int32]:
        """Each capsule's convex outline, shape (n, corners, 2), as the fixed point of OpenCV."""
        pixels, scale = self.project(solids.ends)
        reach = scale * solids.radii
        along = pixels[:, 1] - pixels[:, 0]
        angle = np.arctan2(along[:, 1], along[:, 0])
        # Half a circle around either end, turned away from the other.
        turns = angle[:, None, None] + np.stack([_ROUND + np.pi, _ROUND])
        rim = reach[..., None, None] * np.stack([np.cos(turns), np.sin(turns)], axis=-1)
        corners = (pixels[:, :, None] + rim).reshape(len(pixels), -1, 2)
        return np.asarray(np.rint(corners * (1 << _SUBPIXEL_BITS)), dtype=np.int32)


def paint(picture: Frame, camera: Camera, actors: Sequence[Solids]) -> None:
    """Draw actors and their shadows onto a picture, what is far first.

    Actors are ordered as wholes, so that they do not interlock.
    """
    shadows = np.full(picture.shape[:2], 255, dtype=np.uint8)
    for solids in actors:
        for outline in camera.outlines(_flattened(solids)):
            _fill(shadows, outline, int(255 * (1 - _SHADOW)))
    shadows = cv2.GaussianBlur(shadows, (5, 5), 1.1)
    cv2.multiply(picture, cv2.merge([shadows] * 3), dst=picture, scale=1 / 255)
    for solids in sorted(actors, key=lambda actor: actor.ends[..., 2].mean(), reverse=True):
        outlines = camera.outlines(solids)
        for part in np.argsort(-solids.ends[..., 2].sum(axis=1), kind="stable"):
            _fill(picture, outlines[part], solids.colours[part])


def _flattened(solids: Solids) -> Solids:
    """The solids' shadows on the ground."""
    ends = (solids.ends + solids.ends[..., 1:2] * _SUN) * (1.0, 0.0, 1.0)
    return Solids(ends, solids.radii, solids.colours)


def _fill(canvas: Frame, outline: npt.NDArray[np.int32], colour: Colour | int) -> None:
    cv2.fillConvexPoly(canvas, outline, colour, cv2.LINE_AA, _SUBPIXEL_BITS)


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


def _paving(x: Array, z: Array, rng: np.random.Generator) -> Array:
    stones = rng.normal(0, 5, (64, 64))[(x // 1.2).astype(int) % 64, (z // 1.2).astype(int) % 64]
    joints = ((x % 1.2 < 0.06) | (z % 1.2 < 0.11)) * 14.0
    tone = 148 + stones - joints + _texture(x, z, 1.5, 8, rng)
    return _tinted(tone, (1.0, 0.97, 0.92))


def _grass(x: Array, z: Array, rng: np.random.Generator) -> Array:
    tone = 96 + _texture(x, z, 0.6, 18, rng) + _texture(x, z, 4.0, 10, rng)
    return _tinted(tone, (0.82, 1.0, 0.58))


def _wall(x: Array, y: Array, rng: np.random.Generator) -> Array:
    window = ((x % 4.0 > 1.0) & (x % 4.0 < 3.0) & (y % 3.2 > 1.1) & (y % 3.2 < 2.5))[..., None]
    bricks = 126 + _texture(x, y, 0.8, 12, rng) - (y < 0.5) * 25.0
    return np.where(window, (74.0, 86.0, 98.0), _tinted(bricks, (1.0, 0.86, 0.76)))


def _tinted(tone: Array, tint: tuple[float, float, float]) -> Array:
    """Grey levels (…) as colours (…, 3)."""
    return np.stack([tone * share for share in tint], axis=-1)


def _texture(u: Array, v: Array, size_m: float, depth: float, rng: np.random.Generator) -> Array:
    """Smooth noise over two world coordinates, its grains about ``size_m`` wide."""
    field = cv2.GaussianBlur(rng.standard_normal((64, 64)), (0, 0), 0.8)
    at = [np.mod(2 * w / size_m, 64).astype(np.float32) for w in (u, v)]
    noise = cv2.remap(field, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(depth * noise, dtype=np.float64)
