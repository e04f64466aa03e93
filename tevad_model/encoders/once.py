"""What is built when it is first asked for, once, however many threads ask at once.

Several streams or requests share one encoder, whose model is loaded at its first use. Belongs here:
that they wait for one model. Doesn't: what is loaded.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any, Self, TypeVar, overload

_Built = TypeVar("_Built", covariant=True)

# One for everything that is built: loading a model sets PyTorch's and transformers' global state.
_BUILDING = threading.RLock()


class built_once(cached_property[_Built]):  # noqa: N801 - a decorator, as the one it extends is
    """A :class:`functools.cached_property` that several threads at once build only once.

    From Python 3.12 on the one it extends has no lock.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> _Built: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Self | _Built:
        """The value; once it is built this is no longer called."""
        with _BUILDING:
            return super().__get__(instance, owner)
