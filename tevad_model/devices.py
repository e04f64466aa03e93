"""Where to compute: the device that a name stands for on this machine."""

from __future__ import annotations

import torch

from tevad_model.errors import InputError


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``mps`` stands for here.

    Raises:
        InputError: if the named device is not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _mps_is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    if not present.get(name, False):
        raise InputError(f"device: {name!r} is not available here; use 'auto' or 'cpu'")
    return torch.device(name)


def _mps_is_available() -> bool:
    return torch.backends.mps.is_available()
