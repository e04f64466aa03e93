"""Videos as other programs write them, sound or not."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tevad_model.encoders.base import Frame


def write(
    path: Path,
    pictures: Sequence[Frame],
    *,
    codec: str = "libx264",
    rotation: int = 0,
    times_ms: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write a video as other programs would: any container, codec, rotation and time stamps."""
    with av.open(f"file:{path}", "w", container_options=options or {}) as container:
        stream = container.add_stream(codec, 25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture)
            if times_ms:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a file that has a sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """A copy beside a file that ends after a share of its bytes."""
    data = path.read_bytes()
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short
