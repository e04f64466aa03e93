"""The per-video table each stage writes, as Parquet.

A manifest says nothing of when or how fast a stage ran: it is part of the stage's data version,
which depends on content alone. Times are in the stage's report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from assets.workspace import files
from assets.workspace.project import STAGES
from tevad_model.atomic import replacing
from tevad_model.errors import InputError

FILE_NAME = "manifest.parquet"


@dataclass(frozen=True)
class StageRow:
    """What a stage made of one video.

    Attributes:
        video: the video's name.
        source: hash of what the result was made from.
        fingerprint: of what made it: the encoder's digest, a dot, the stage's code version.
        snippets: rows of the result; 0 if quarantined.
        problem: why the video cannot be used from this stage on; empty if it can.
    """

    video: str
    source: str
    fingerprint: str
    snippets: int
    problem: str = ""

    @property
    def encoder(self) -> str:
        """The digest of the encoder that made the result."""
        return self.fingerprint.partition(".")[0]


@dataclass(frozen=True)
class RawVideoRow:
    """A video as the first stage took it in.

    Attributes:
        path: where it lies below the stage's folder; empty if quarantined or without pixels.
        frames: the frames it really has; without pixels, those it is said to have.
        sha256: hash of the file's bytes, without pixels of its ready-made arrays; empty if there
            are neither.
        source: the recording it is cut from; empty if it is one by itself.
        problem: why it is in quarantine; empty if it is not.
    """

    video: str
    path: str
    label: str
    split: str
    category: str
    frames: int
    fps: float
    width: int
    height: int
    bytes: int
    sha256: str
    source: str = ""
    problem: str = ""


_Row = TypeVar("_Row", StageRow, RawVideoRow)
_TYPES = {"str": "string", "int": "int64", "float": "float64"}


@dataclass(frozen=True)
class Manifest(Generic[_Row]):
    """The rows of a stage's manifest, in order of the video's name."""

    rows: tuple[_Row, ...]

    @classmethod
    def of(cls, rows: Iterable[_Row]) -> Manifest[_Row]:
        """Put rows in order."""
        return cls(tuple(sorted(rows, key=lambda row: row.video)))

    @property
    def usable(self) -> tuple[_Row, ...]:
        """The rows that are not in quarantine."""
        return tuple(row for row in self.rows if not row.problem)

    @property
    def quarantined(self) -> dict[str, str]:
        """The reason by video."""
        return {row.video: row.problem for row in self.rows if row.problem}

    def by_video(self) -> dict[str, _Row]:
        """The usable rows by video."""
        return {row.video: row for row in self.usable}

    def write(self, folder: Path, row_type: type[_Row]) -> None:
        """Write the manifest of a stage's folder."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(f.name, _TYPES[str(f.type)]) for f in fields(row_type)])
        table = pa.Table.from_pylist([asdict(row) for row in self.rows], schema=schema)
        with replacing(folder / FILE_NAME) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def read_manifest_file(path: Path, row_type: type[_Row]) -> Manifest[_Row]:
    """Read a manifest wherever its file lies, such as in DVC's cache."""
    import pyarrow.parquet as pq

    # Of one file, which needs none of what `read_table` imports to read a dataset of many.
    with pq.ParquetFile(path) as file:
        rows: list[dict[str, Any]] = file.read().to_pylist()
    return Manifest.of(row_type(**row) for row in rows)


def read_manifest(folder: Path, row_type: type[_Row]) -> Manifest[_Row]:
    """Read the manifest of a stage's folder, once for as long as it stays the same.

    Raises:
        InputError: if the stage has not run, or its manifest is damaged.
    """
    from pyarrow.lib import ArrowInvalid

    path = folder / FILE_NAME
    remedy = f"materialize {folder.name} first (`tevad run {folder.parent.name}`)"
    try:
        # mypy asks a class for the __hash__ of its instances.
        found = _read(path, row_type, files.stamp(path))  # type: ignore[arg-type]
        return cast("Manifest[_Row]", found)
    except FileNotFoundError:
        raise InputError(f"{path}: not there; {remedy}") from None
    except (ArrowInvalid, OSError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it and {remedy}") from None


@lru_cache(maxsize=2 * len(STAGES))
def _read(path: Path, row_type: type[Any], _: files.Stamp) -> Manifest[Any]:
    return read_manifest_file(path, row_type)
