"""Pixels to blobs: what stands out from the background of one frame and how fast it moves.

Here belong pictures, masks and optical flow. What a blob does over time is followed in
:mod:`.tracks`; nothing here knows of windows or words. Lengths are pixels of the working picture,
speeds are such pixels a second.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from tevad_model.encoders.base import Frame

Grey = npt.NDArray[np.uint8]
"""One grey picture, shape (height, width)."""

Flow = npt.NDArray[np.float32]
"""Displacement of every pixel from one picture to the next, shape (height, width, 2), x before y."""

Mask = npt.NDArray[np.uint8]
"""1 where a pixel belongs, else 0, shape (height, width)."""

Rows = npt.NDArray[np.float32]
"""One value for each picture row, shape (height,)."""

_SMALLEST_SIDE = 16
"""Optical flow needs about 12 pixels; smaller pictures are padded."""

_ABOVE_SHADOW = 0.75
"""Share of a blob's height, from its top, in which its width is taken: shadows lie at its foot."""

_MARGIN = 32
"""Rows around the foreground in which the flow is measured, too.

The band also begins and ends at multiples of it: so the flow's pyramid divides it alike in each
picture.
"""

_BACKGROUND_SAMPLES = 15
"""An odd number of pictures, so that their median is one of them."""

_CACHED_BYTES = 32 * 1024
"""Of each picture whose median is taken at once: with those of the others they fit a core's cache."""

_NOISE_GAIN = 1.4826
"""Standard deviation over median absolute deviation, for Gaussian noise."""


@dataclass(frozen=True, slots=True)
class Fast:
    """What makes a fast object in each picture row.

    Attributes:
        speed: pixels a second from which a pixel is fast, shape (height,).
        height: the least height of an object whose foot is there, shape (height,).
    """

    speed: Rows
    height: Rows


@dataclass(frozen=True, slots=True)
class Blob:
    """One connected foreground region of one frame.

    Attributes:
        x: horizontal centre.
        foot: lowest row, where an upright object meets the ground.
        width: of its upper three quarters, for shadows lie at the foot.
        height: from its highest to its lowest row.
        vx: median speed of its pixels to the right.
        vy: median speed of its pixels downwards.
    """

    x: float
    foot: float
    width: float
    height: float
    vx: float
    vy: float


@dataclass(frozen=True, slots=True)
class Region:
    """Where a blob is in a mask.

    Attributes:
        box: its rows and columns.
        inside: which pixels of the box are the blob's, shape (height, width) of the box.
    """

    box: tuple[slice, slice]
    inside: npt.NDArray[np.bool_]


def working_picture(frame: Frame, longest_side: int) -> Frame:
    """A frame scaled down to ``longest_side`` where it is larger."""
    height, width = frame.shape[:2]
    scale = longest_side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    bottom, right = (max(0, _SMALLEST_SIDE - side) for side in frame.shape[:2])
    if bottom or right:
        frame = cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(frame, dtype=np.uint8)


def median_picture(pictures: Sequence[Frame]) -> Frame:
    """Median of each pixel over the pictures (the lower one of an even number).

    They pass a sorting network, whose minima and maxima run at the speed of memory: thirty times
    faster than ``np.median`` along an axis. A few rows at a time, so that the memory is the cache.
    """
    median = np.empty_like(pictures[0])
    rows = max(1, _CACHED_BYTES // pictures[0][0].nbytes)
    for top in range(0, len(median), rows):
        layers = [picture[top : top + rows] for picture in pictures]
        for low, high, wants_low, wants_high in _median_network(len(layers)):
            one, other = layers[low], layers[high]
            if wants_low:
                layers[low] = np.minimum(one, other)
            if wants_high:
                layers[high] = np.maximum(one, other)
        median[top : top + rows] = layers[(len(layers) - 1) // 2]
    return median


@cache
def _median_network(count: int) -> tuple[tuple[int, int, bool, bool], ...]:
    """What of a sorting network the median depends on.

    Returns:
        Comparisons in their order: where the lower and the higher value go, and whether each is
        ever looked at again.
    """
    wanted = {(count - 1) // 2}
    network = []
    for low, high in reversed(list(_merge_exchange(count))):
        if low in wanted or high in wanted:
            network.append((low, high, low in wanted, high in wanted))
            wanted |= {low, high}
    return tuple(reversed(network))


def _merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    """Batcher's sorting network (Knuth, The Art of Computer Programming 3, algorithm 5.2.2 M)."""
    p = top = (1 << (count - 1).bit_length()) >> 1
    while p:
        q, r, d = top, 0, p
        while True:
            yield from ((i, i + d) for i in range(count - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2


class Background:
    """The still scene: the median of pictures spread over the recent past."""

    def __init__(self) -> None:
        self._samples: deque[Frame] = deque(maxlen=_BACKGROUND_SAMPLES)
        self._picture: Frame | None = None

    def learn(self, pictures: Sequence[Frame]) -> None:
        """Take in pictures; the oldest are forgotten."""
        self._samples.extend(pictures)
        self._picture = median_picture(self._samples)

    def forget(self) -> None:
        """Drop what was learned, after the view changed."""
        self._samples.clear()

    def foreground(self, picture: Frame, contrast: int, changed_view: float) -> Mask | None:
        """Mask of what differs from the scene by ``contrast`` and by four deviations of the noise.

        None if more than the share ``changed_view`` of the picture differs by ``contrast``.

        A change of brightness over the whole picture is taken out first, so that a camera's
        exposure control makes no object.
        """
        if self._picture is None:
            raise RuntimeError("a background is learned before it is used")
        scene = self._picture
        change = picture[::4, ::4].astype(np.int16) - scene[::4, ::4]
        shift = np.median(change, axis=(0, 1)).astype(np.int16)
        if shift.any():
            shifted = np.clip(np.arange(256)[:, None] + shift, 0, 255).astype(np.uint8)
            scene = cv2.LUT(scene, shifted[None])
        red, green, blue = cv2.split(cv2.absdiff(picture, scene))
        difference = cv2.GaussianBlur(cv2.max(cv2.max(red, green), blue), (3, 3), 0)
        sparse = difference[::4, ::4]
        if np.count_nonzero(sparse > contrast) > changed_view * sparse.size:
            return None
        noise = _NOISE_GAIN * float(np.median(sparse))
        _, mask = cv2.threshold(difference, max(contrast, 4 * noise), 1, cv2.THRESH_BINARY)
        # Legs and heads part from bodies that look like the ground: join upwards, then drop specks.
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 3), np.uint8))
        return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)))


class OpticalFlow:
    """Dense inverse search (Kroeger et al., ECCV 2016) at its fastest setting.

    Its result does not depend on the number of threads.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def __call__(self, before: Grey, after: Grey) -> Flow:
        """Displacements from one picture to the next."""
        return np.asarray(self._dis.calc(before, after, None), dtype=np.float32)


def regions(
    mask: Mask, flow: Flow, smallest_area: float, top: int = 0
) -> list[tuple[Blob, Region]]:
    """The connected regions of a mask that lie wholly between the picture's left and right side.

    Args:
        mask: what belongs to blobs, shape (height, width).
        flow: speeds, shape (height, width, 2).
        smallest_area: smaller regions are noise.
        top: picture row at which mask and flow begin; blobs are told in rows of the picture.

    Returns:
        Each region's blob and its place in the mask.
    """
    if cv2.countNonZero(mask) < smallest_area:
        return []
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = []
    for label in np.flatnonzero(boxes[1:count, cv2.CC_STAT_AREA] >= smallest_area) + 1:
        x, y, width, height = (int(value) for value in boxes[label, :4])
        # What the picture's side cuts off has neither its own size nor a flow to trust.
        if x == 0 or x + width == mask.shape[1]:
            continue
        box = slice(y, y + height), slice(x, x + width)
        inside = labels[box] == label
        centre = x + width / 2
        upper = np.flatnonzero(inside[: math.ceil(_ABOVE_SHADOW * height)].any(axis=0))
        width = int(upper[-1] - upper[0]) + 1
        vx, vy = _median(flow[..., 0][box][inside]), _median(flow[..., 1][box][inside])
        blob = Blob(centre, top + y + height, width, height, vx, vy)
        found.append((blob, Region(box, inside)))
    return found


def _median(values: npt.NDArray[np.float32]) -> float:
    """What ``np.median`` gives, which asks more of its input than it computes."""
    half = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, half)[half])
    low, high = np.partition(values, (half - 1, half))[half - 1 : half + 1]
    return float((low + high) / 2)


def _grey(picture: Frame) -> Grey:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _band(mask: Mask) -> slice:
    """The picture rows that hold all of a mask's pixels, with a margin for the flow to see."""
    rows = np.flatnonzero(mask.any(axis=1))
    top = max(0, int(rows[0]) - _MARGIN) // _MARGIN * _MARGIN
    bottom = -(-(int(rows[-1]) + 1 + _MARGIN) // _MARGIN) * _MARGIN
    return slice(top, bottom)


class Meter:
    """Measures the pictures of one video, one after another."""

    def __init__(
        self,
        first: Sequence[Frame],
        per_second: float,
        *,
        contrast: int,
        smallest_object: float,
        changed_view: float,
    ) -> None:
        """Prepare to measure.

        Args:
            first: the video's first pictures; their median is the first background.
            per_second: pictures a second.
            contrast: grey levels by which an object differs from the scene.
            smallest_object: share of the picture; less is noise.
            changed_view: share of the picture; more that differs at once is no object.
        """
        self._per_second = per_second
        self._contrast = contrast
        self._smallest_area = smallest_object * first[0].shape[0] * first[0].shape[1]
        self._changed_view = changed_view
        self._flow = OpticalFlow()
        self._background = Background()
        self._background.learn(first[:: -(-len(first) // _BACKGROUND_SAMPLES)])
        self._previous = _grey(first[0])

    def measure(self, picture: Frame, fast: Fast | None) -> list[Blob] | None:
        """The blobs of the next picture; None if the view changed and is learned anew.

        Args:
            picture: of the size of the first ones, shape (height, width, 3).
            fast: what a fast object is here, so that a cyclist is told from the walkers he rides
                through; None while that is not known.
        """
        mask = self._background.foreground(picture, self._contrast, self._changed_view)
        grey = _grey(picture)
        previous, self._previous = self._previous, grey
        if mask is None:
            self._background.forget()
            self._background.learn([picture])
            return None
        if cv2.countNonZero(mask) < self._smallest_area:
            return []
        band = _band(mask)
        mask = mask[band]
        flow = self._flow(previous[band], grey[band]) * np.float32(self._per_second)
        racers = [] if fast is None else self._cut_out(mask, flow, fast, band.start)
        others = regions(mask, flow, self._smallest_area, band.start)
        return racers + [blob for blob, _ in others]

    def _cut_out(self, mask: Mask, flow: Flow, fast: Fast, top: int) -> list[Blob]:
        """Take the fast objects out of a mask that begins at picture row ``top``; return them.

        Only what is as high as most of a body counts: a walker's swinging leg is fast, too.
        """
        speed = cv2.magnitude(flow[..., 0], flow[..., 1])
        racing = mask & (speed > fast.speed[top : top + len(mask), None])
        racing = cv2.morphologyEx(racing, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        racers = []
        for blob, region in regions(racing, flow, self._smallest_area, top):
            if blob.height >= fast.height[int(blob.foot) - 1]:
                racers.append(blob)
                mask[region.box][region.inside] = 0
        return racers

    def learn(self, pictures: Sequence[Frame]) -> None:
        """Let the background follow slow changes of the scene."""
        self._background.learn(pictures)
