"""How much faster ONNX Runtime reads pictures than PyTorch does, with the same network and numbers.

PyTorch runs in two layouts: ``encoder_ratio`` is against eager PyTorch as it is ordinarily fed, with
channels first, and ``encoder_channels_last_ratio`` against its faster layout. All take the same pictures, one batch at a time, on the same number of threads, in alternation; the
medians are compared, and the feature maps must be equal. ``python -m benchmarks.encoder`` prints a
table, ``--json`` one object.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import print_figures
from tevad_model.encoders.efficientnet import exported_network, network

PICTURES, SIDE, RUNS, TOLERANCE = 8, 224, 9, 1e-4


def measure(cache: Path | None = None) -> dict[str, float]:
    """Time both runtimes.

    Args:
        cache: folder of the exported network; without one it is exported for this measurement.

    Returns:
        ``encoder_ratio`` and ``encoder_channels_last_ratio`` (PyTorch's time over ONNX Runtime's),
        and the times, in milliseconds for one picture of 224 × 224.
    """
    if cache is None:
        with tempfile.TemporaryDirectory() as folder:
            return measure(Path(folder))
    import onnxruntime
    import torch

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(exported_network(cache), settings)
    eager = network()
    pictures = np.random.default_rng(0).integers(0, 256, (PICTURES, SIDE, SIDE, 3), dtype=np.uint8)

    def run_onnx() -> Any:
        return session.run(None, {"pictures": pictures})[0]

    def run_channels_last() -> Any:
        with torch.inference_mode():
            return eager(torch.from_numpy(pictures)).numpy()

    def run_eager() -> Any:
        # Laid out channels first in memory; the network's own permutation then changes nothing.
        first = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        with torch.inference_mode():
            return eager(first).numpy()

    for run in (run_eager, run_channels_last):
        np.testing.assert_allclose(run_onnx(), run(), atol=TOLERANCE)
    eager_ms, last_ms, onnx_ms = _alternate(run_eager, run_channels_last, run_onnx)
    return {
        "encoder_ratio": eager_ms / onnx_ms,
        "encoder_channels_last_ratio": last_ms / onnx_ms,
        "encoder_eager_ms": eager_ms,
        "encoder_channels_last_ms": last_ms,
        "encoder_onnx_ms": onnx_ms,
    }


def _alternate(*ways: Callable[[], Any]) -> list[float]:
    """Median milliseconds a picture of each way, run in turns so that load falls on all alike."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(RUNS):
        for way, taken in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
    return [1e3 * statistics.median(taken) / PICTURES for taken in times]


if __name__ == "__main__":
    print_figures(measure, __doc__)
