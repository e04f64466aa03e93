"""Pictures as a pretrained model wants them: resized, cropped and scaled as its processor says.

The library's own video processors need torchvision, which the project does without, and know one
crop; what they would do is in a small JSON file beside the weights, and done here. Which frames are
taken, and what is made of them, is the encoders' business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tevad_model.encoders.base import Frame
from tevad_model.errors import InputError

FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
"""Where a model says how it wants its pictures; the first that is there counts."""

Pixels = npt.NDArray[np.float32]
"""A picture for a network, shape (channels, height, width)."""

_BILINEAR = 2
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PixelFormat:
    """How pictures are made for a model.

    Attributes:
        shortest_edge: pixels of the shorter side after resizing, the aspect kept; None to resize
            to the crop whatever the aspect.
        height: of a crop.
        width: of a crop.
        resample: Pillow's number of the filter.
        scale: what values of 0 to 255 are multiplied by.
        offset: what is taken from them then.
        mean: of each channel, subtracted.
        std: of each channel, divided by.
    """

    shortest_edge: int | None
    height: int
    width: int
    resample: int
    scale: float
    offset: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, folder: Path, key: str) -> Self:
        """What the processor saved in a model's folder says.

        Args:
            folder: the model's.
            key: of ``params.yaml`` that names the model, for messages.

        Raises:
            InputError: if none is there, or it does not say a size.
        """
        path = next((folder / name for name in FILES if (folder / name).is_file()), None)
        if path is None:
            raise InputError(
                f"{key}: {folder} does not say how pictures are made for it (no "
                f"{' and no '.join(FILES)}); save the model's processor there (save_pretrained)"
            )
        said = json.loads(path.read_text(encoding="utf-8"))
        size, crop = _sides(said.get("size")), _sides(said.get("crop_size"))
        crop = crop if said.get("do_center_crop", bool(crop)) else {}
        sides = crop or size
        edge = sides.get("shortest_edge")
        height, width = sides.get("height", edge), sides.get("width", edge)
        if height is None or width is None:
            raise InputError(f"{path}: says no size of the model's pictures; save it anew")
        normalized = said.get("do_normalize", True)
        return cls(
            shortest_edge=size.get("shortest_edge"),
            height=height,
            width=width,
            resample=int(said.get("resample", _BILINEAR)),
            scale=said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0,
            offset=1.0 if said.get("offset") else 0.0,
            mean=tuple(said.get("image_mean", _IMAGENET_MEAN)) if normalized else (0.0,) * 3,
            std=tuple(said.get("image_std", _IMAGENET_STD)) if normalized else (1.0,) * 3,
        )

    def crops(self, frame: Frame, layout: int) -> list[Pixels]:
        """A frame's crops.

        Args:
            frame: the picture.
            layout: 1 for the centre; 5 for the corners and the centre; 10 for these and their
                mirror images.
        """
        resized = self._resized(frame)
        scaled = (resized.astype(np.float32) * self.scale - self.offset - self.mean) / self.std
        pixels = np.ascontiguousarray(scaled.transpose(2, 0, 1), dtype=np.float32)
        down, right = pixels.shape[1] - self.height, pixels.shape[2] - self.width
        corners = ((0, 0), (0, right), (down, 0), (down, right)) if layout > 1 else ()
        cut = [
            pixels[:, top : top + self.height, left : left + self.width]
            for top, left in (*corners, (down // 2, right // 2))
        ]
        return cut + [crop[:, :, ::-1] for crop in cut] if layout == 10 else cut

    def _resized(self, frame: Frame) -> Frame:
        """The frame with its shorter side as it should be, and at least as large as a crop."""
        from PIL import Image

        height, width = frame.shape[:2]
        if self.shortest_edge is None:
            target = (self.width, self.height)
        else:
            edge = max(self.shortest_edge, self.height, self.width)
            short = min(height, width)
            target = (int(edge * width / short), int(edge * height / short))
        picture = Image.fromarray(frame)
        if target != (width, height):
            picture = picture.resize(target, resample=Image.Resampling(self.resample))
        return np.asarray(picture)


def _sides(said: Any) -> Mapping[str, int]:
    """A size as its parts; some processors give one number for a square."""
    if said is None:
        return {}
    return said if isinstance(said, Mapping) else {"height": int(said), "width": int(said)}
