"""Batches that fit the memory: order, halving, and what is no question of memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch

from tevad_model.encoders.batching import Batches
from tevad_model.errors import InputError


class Doubler:
    """Doubles numbers, and has memory for only so many of them."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room = room
        self.error = error
        self.sizes: list[int] = []

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.sizes.append(len(batch))
        if len(batch) > self.room:
            raise self.error
        return [2 * item for item in batch]


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


def test_results_come_in_order() -> None:
    double = Doubler(8, MemoryError())
    assert Batches(4, "key").run(range(10), double) == [2 * item for item in range(10)]
    assert double.sizes == [4, 4, 2]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:12])
def test_a_batch_that_does_not_fit_is_halved_once_and_for_all(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    double, batches = Doubler(3, error), Batches(8, "captions.options.batch_size")
    with caplog.at_level(logging.WARNING, "tevad"):
        assert batches.run(range(9), double) == [2 * item for item in range(9)]
        assert batches.run(range(3), double) == [0, 2, 4]
    assert double.sizes == [8, 4, 2, 2, 2, 2, 1, 2, 1]
    assert batches.size == 2
    said = "captions.options.batch_size: out of memory with"
    assert [record.message.startswith(said) for record in caplog.records] == [True, True]


def test_not_even_one_is_an_error() -> None:
    with pytest.raises(InputError, match=r"captions\.options\.batch_size: not even one fits"):
        Batches(4, "captions.options.batch_size").run(range(4), Doubler(0, MemoryError()))


def test_other_errors_are_let_through() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Batches(4, "key").run(range(4), Doubler(0, RuntimeError("shapes do not match")))


def test_a_real_allocation_that_cannot_be_is_recognised() -> None:
    def allocate(batch: Sequence[int]) -> list[int]:
        if len(batch) > 1:
            torch.empty(1 << 60, dtype=torch.uint8)
        return list(batch)

    assert Batches(4, "key").run(range(3), allocate) == [0, 1, 2]
