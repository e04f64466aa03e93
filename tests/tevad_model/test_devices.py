"""By how many threads is computed, and on how many cores."""

from __future__ import annotations

import os

import cv2
import pytest
import torch

from tevad_model.devices import cores, set_threads


def test_cores_are_those_that_the_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)


@pytest.mark.parametrize("count", [1, 2])
def test_both_libraries_compute_by_so_many_threads(count: int) -> None:
    before = torch.get_num_threads()
    try:
        set_threads(count)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (count, count)
    finally:
        set_threads(before)
