"""Classes of one's own, named in ``params.yaml`` by their place, ``package.module:Class``.

Finding them belongs here; what they must offer is for whoever asks for them to see.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from tevad_model.errors import InputError


def named_class(name: str, key: str, known: Iterable[str]) -> Any:
    """What a place means.

    Args:
        name: the place.
        key: of ``params.yaml`` that has it.
        known: names that may stand there as well.

    Raises:
        InputError: if it is no place, or cannot be imported.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        raise InputError(
            f"{key}: {name!r} is unknown; there are {', '.join(sorted(known))}, and one's own by "
            "its place, package.module:Class"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{key}: {name!r} cannot be imported ({error}); a module of one's own must be "
            "installed or on PYTHONPATH"
        ) from None
