"""Built once: what several threads ask for at the same time is built by one of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tevad_model.encoders.once import built_once

THREADS = 8


class Holder:
    """Gives every other thread the time to build another one."""

    def __init__(self) -> None:
        self.built = 0
        self.again = threading.Event()
        self.asking = threading.Barrier(THREADS)

    @built_once
    def model(self) -> object:
        self.built += 1
        if self.built > 1:
            self.again.set()
        self.again.wait(0.2)
        return object()

    def ask(self) -> object:
        self.asking.wait(60)
        return self.model


def test_threads_that_ask_at_once_get_the_same() -> None:
    holder = Holder()
    with ThreadPoolExecutor(THREADS) as pool:
        found = [each.result() for each in [pool.submit(holder.ask) for _ in range(THREADS)]]
    assert all(each is holder.model for each in found)
    assert holder.built == 1


def test_each_object_has_its_own() -> None:
    assert Holder().model is not Holder().model
