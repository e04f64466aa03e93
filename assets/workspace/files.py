"""The formats of the stages' files, each written whole or not at all, and reading them back.

Text and JSON, and the stages' per-video results: features and embeddings as safetensors, captions as JSON
lines. Each result says in itself what it was made from, so a stage that was killed before it wrote
its manifest loses nothing.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tevad_model.atomic import TEMPORARY_PREFIX, replacing
from tevad_model.errors import InputError

_HEADER = "header"

_HALF_WRITTEN = re.compile(rf"^{re.escape(TEMPORARY_PREFIX)}|\.[\w-]{{22}}\.tmp$")
"""The names of this project's temporary files, and of DVC's (``dvc_objects.fs.utils.tmp_fname``)."""

Array = npt.NDArray[Any]


@contextmanager
def replace_text(path: Path) -> Iterator[TextIO]:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Write text whole or not at all."""
    with replace_text(path) as file:
        file.write(text)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table whole or not at all."""
    with replace_text(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, data: object) -> None:
    """Write JSON that is the same bytes for the same data."""
    with replace_text(path) as file:
        json.dump(data, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


class Stamp(NamedTuple):
    """What changes of a file when it is written anew; of one that is not there, all 0."""

    inode: int
    bytes: int
    modified: int


def stamp(path: os.PathLike[str]) -> Stamp:
    """The stamp of a file as it is now."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - also of what os.scandir() finds
    except FileNotFoundError:
        return Stamp(0, 0, 0)
    return Stamp(stat.st_ino, stat.st_size, stat.st_mtime_ns)


def folder_stamp(folder: Path) -> str:
    """A digest of all stamps below a folder: another when a file is written anew, comes or goes.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    digest = hashlib.sha256()
    for path, found in _stamped(str(folder)):
        digest.update(f"{path}\0{found}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _stamped(folder: str) -> Iterator[tuple[str, Stamp]]:
    # Not Path.rglob(), which takes ten times as long: this is asked of whole datasets, often.
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _stamped(entry.path)
        else:
            yield entry.path, stamp(entry)


def read_yaml(path: Path) -> Any:
    """Read a YAML file, once for as long as it stays the same: parsing takes long.

    What is returned is shared and must not be changed.

    Raises:
        FileNotFoundError: if it is not there.
        InputError: if it is not YAML.
    """
    try:
        return _parse_yaml(path, stamp(path))
    except YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


@lru_cache(maxsize=8)
def _parse_yaml(path: Path, _: Stamp) -> Any:
    return YAML(typ="safe").load(path)


def write_array(path: Path, name: str, array: Array, header: Mapping[str, object]) -> None:
    """Write one array as safetensors, with a header that says what it was made from.

    The header is one metadata entry of JSON: safetensors writes several in no fixed order, and the
    same content must be the same bytes.
    """
    from safetensors.numpy import save_file

    metadata = {_HEADER: json.dumps(dict(header), ensure_ascii=False, sort_keys=True)}
    with replacing(path) as temporary:
        save_file({name: np.ascontiguousarray(array)}, temporary, metadata=metadata)


def read_array(path: Path, name: str) -> Array:
    """Read one array of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        array: Array = file.get_tensor(name)
    return array


def read_array_header(path: Path) -> dict[str, Any] | None:
    """The header of a safetensors file, or None if it is not there or not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        header = json.loads(metadata.get(_HEADER, "null"))
    except (FileNotFoundError, SafetensorError, ValueError):
        return None
    return header if isinstance(header, dict) else None


def write_lines(path: Path, header: Mapping[str, object], rows: Sequence[object]) -> None:
    """Write JSON lines: a header that says what the rows were made from, then the rows."""
    with replace_text(path) as file:
        for row in (dict(header), *rows):
            file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")


def read_lines(path: Path) -> tuple[dict[str, Any], list[Any]] | None:
    """The header and rows of a JSON lines file, or None if it is not there or not whole."""
    try:
        # Not splitlines(), which also splits at characters that JSON may hold.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        header, *rows = [json.loads(line) for line in lines]
    except (FileNotFoundError, UnicodeDecodeError, ValueError):
        return None
    return (header, rows) if isinstance(header, dict) else None


def half_written(folder: Path, *, below: bool = True) -> Iterator[Path]:
    """What killed processes left half-written in a folder, and in those below it.

    DVC's too: it puts files to their place by way of others beside them, of names of its own.
    """
    found = folder.rglob("*") if below else folder.glob("*")
    return (path for path in found if _HALF_WRITTEN.search(path.name) and not path.is_dir())


def remove_half_written(folder: Path, *, below: bool = True) -> None:
    """Remove what :func:`half_written` finds."""
    for path in list(half_written(folder, below=below)):
        path.unlink()


def remove_others(folder: Path, keep: set[Path]) -> list[Path]:
    """Remove files in a folder that are not to be kept, such as results of videos that are gone."""
    gone = [path for path in sorted(folder.glob("*")) if path.is_file() and path not in keep]
    for path in gone:
        path.unlink()
    return gone
