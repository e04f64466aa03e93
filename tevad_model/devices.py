"""Where to compute: the device that a name stands for on this machine, and by how many threads."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from tevad_model.errors import InputError

if TYPE_CHECKING:
    import torch


def device_kind(name: str) -> str:
    """The kind of device that a name stands for here: ``cuda``, ``mps`` or ``cpu``.

    Where PyTorch was built for the CPU alone, it is not imported to be asked: that takes seconds.

    Raises:
        InputError: as :func:`resolve_device`.
    """
    built_for_cpu = version("torch").endswith("+cpu") and sys.platform != "darwin"
    if name == "cpu" or (name == "auto" and built_for_cpu):
        return "cpu"
    return resolve_device(name).type


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``mps`` stands for here.

    Raises:
        InputError: if the named device is not there.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _mps_is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    if not present.get(name, False):
        raise InputError(f"device: {name!r} is not available here; use 'auto' or 'cpu'")
    return torch.device(name)


def cores() -> int:
    """The processors that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def set_threads(count: int) -> None:
    """Let PyTorch and OpenCV compute by so many threads each, in all of this process."""
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def _mps_is_available() -> bool:
    import torch

    return torch.backends.mps.is_available()
