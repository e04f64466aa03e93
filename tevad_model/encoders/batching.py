"""Running a model over batches that fit the memory, whatever it is.

Halves the batch when memory runs out and stays with the smaller one. What a batch holds is the
encoders' business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from tevad_model.errors import InputError

logger = logging.getLogger("tevad")

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # PyTorch's CPU allocator
    "Failed to allocate memory",  # ONNX Runtime
)


class Batches:
    """Runs a function over batches, halving them when memory runs out.

    Args:
        size: items of a batch at first.
        key: of ``params.yaml`` that gives it, for messages.
    """

    def __init__(self, size: int, key: str) -> None:
        self.size = size
        self._key = key

    def run(
        self, items: Sequence[_Item], function: Callable[[Sequence[_Item]], Sequence[_Result]]
    ) -> list[_Result]:
        """The results of a function that takes some items and gives as many results, in order.

        Raises:
            InputError: if not even one item fits.
        """
        results: list[_Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            try:
                results.extend(function(batch))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(len(batch))
        return results

    def _halve(self, tried: int) -> None:
        if tried == 1:
            raise InputError(
                f"{self._key}: not even one fits the memory; take a smaller model or picture, "
                "or another device"
            )
        self.size = tried // 2
        logger.warning("%s: out of memory with %d, going on with %d", self._key, tried, self.size)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, of whichever device."""
    return isinstance(error, MemoryError) or any(said in str(error) for said in _OUT_OF_MEMORY)
