"""Where two versions of a folder first differ: which file, what in it, and by how much.

Looks into the formats the stages write. What led to a difference comes before what followed from
it: parameters, cards and manifests before arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

_CAUSES_FIRST = {".json": 0, ".parquet": 1}
_ABSENT = "absent"


def first_file(then: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """The name of the first file that differs; None if none does.

    Args:
        then: each file's hash by name.
        now: the same, of the other version.
    """
    names = sorted(then.keys() | now.keys(), key=_order)
    return next((name for name in names if then.get(name) != now.get(name)), None)


def _order(name: str) -> tuple[int, str]:
    return _CAUSES_FIRST.get(Path(name).suffix, len(_CAUSES_FIRST)), name


def within(name: str, then: Path, now: Path) -> str:
    """What differs first in two versions of a file.

    Args:
        name: what the file is called, which says its format.
        then: the one version.
        now: the other.
    """
    look = {
        ".safetensors": _of_tensors,
        ".json": _of_json,
        ".jsonl": _of_lines,
        ".csv": _of_lines,
        ".parquet": _of_tables,
    }.get(Path(name).suffix)
    found = look(then, now) if look else ""
    return found or f"{then.stat().st_size} bytes then, {now.stat().st_size} now"


def _of_tensors(then: Path, now: Path) -> str:
    """The first tensor that differs, and by how much at most."""
    import numpy as np
    from safetensors import safe_open

    with safe_open(str(then), framework="np") as old, safe_open(str(now), framework="np") as new:
        for name in sorted(set(old.keys()) | set(new.keys())):
            if name not in new.keys() or name not in old.keys():  # noqa: SIM118 - not a dictionary
                return f"tensor {name}: {'absent now' if name in old.keys() else 'absent then'}"  # noqa: SIM118
            a, b = old.get_tensor(name), new.get_tensor(name)
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                return f"tensor {name}: {a.dtype}{a.shape} then, {b.dtype}{b.shape} now"
            if a.tobytes() != b.tobytes():
                apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
                return (
                    f"tensor {name} {a.shape}: {np.count_nonzero(a != b)} of {a.size} values "
                    f"differ, by at most {np.nanmax(apart):.3g}"
                )
        return _of_values(dict(old.metadata() or {}), dict(new.metadata() or {}), "header")


def _of_json(then: Path, now: Path) -> str:
    return _of_values(_parsed(then), _parsed(now), "")


def _parsed(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _of_values(then: Any, now: Any, place: str) -> str:
    """The first value that differs in two JSON documents, by its dotted place."""
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = (
            (key, then.get(key, _ABSENT), now.get(key, _ABSENT)) for key in sorted({*then, *now})
        )
    elif isinstance(then, list) and isinstance(now, list):
        both = zip_longest(then, now, fillvalue=_ABSENT)
        pairs = ((str(index), a, b) for index, (a, b) in enumerate(both))
    else:
        return "" if then == now else f"{place or 'content'}: {then!r:.80} then, {now!r:.80} now"
    found = (_of_values(a, b, f"{place}.{key}" if place else key) for key, a, b in pairs)
    return next(filter(None, found), "")


def _of_lines(then: Path, now: Path) -> str:
    lines = (path.read_text(encoding="utf-8").split("\n") for path in (then, now))
    for number, (a, b) in enumerate(zip_longest(*lines, fillvalue=_ABSENT), start=1):
        if a != b:
            return f"line {number}: {a!r:.80} then, {b!r:.80} now"
    return ""


def _of_tables(then: Path, now: Path) -> str:
    import pyarrow.parquet as pq

    old, new = (pq.read_table(path).to_pylist() for path in (then, now))
    return _of_values(old, new, "row")
