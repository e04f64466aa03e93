"""By how many threads is computed."""

from __future__ import annotations

import cv2
import pytest
import torch

from tevad_model.devices import set_threads


@pytest.mark.parametrize("count", [1, 2])
def test_both_libraries_compute_by_so_many_threads(count: int) -> None:
    before = torch.get_num_threads()
    try:
        set_threads(count)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (count, count)
    finally:
        set_threads(before)
