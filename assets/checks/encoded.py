"""What the checks of the encoded stages share: one row of measurements a video, read one by one.

A result that is not there or not whole counts as one without snippets, so that a check names it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from assets.checks.expectations import Check, Expectation, Table, equal
from assets.raw_videos import read_raw_videos
from assets.workspace import files
from assets.workspace.files import Array
from assets.workspace.manifest import Manifest, StageRow
from assets.workspace.project import Dataset
from assets.workspace.stage import read_encoder_card
from tevad_model import timeline

Measure = Callable[[str], Mapping[str, object]]
"""Measures one video's result: ``snippets`` and whatever else is checked."""

SNIPPETS = Check(
    "a_result_for_every_snippet",
    "Each usable video has ceil(frames / 16) snippets; another number would shift every score.",
    table="videos",
    expect=lambda _: equal("snippets", "snippets_due"),
    blocking=True,
)
FINGERPRINT = Check(
    "one_encoder_made_all",
    "All results come from one encoder, with one set of parameters; others do not compare.",
    table="videos",
    expect=lambda _: equal("fingerprint", "encoder"),
    blocking=True,
)
SHAPE = Check(
    "one_shape",
    "All arrays agree in all dimensions but the number of snippets.",
    table="videos",
    expect=lambda _: equal("shape", "commonest_shape"),
    blocking=True,
)


def measure_videos(
    dataset: Dataset, stage: str, manifest: Manifest[StageRow], measure: Measure
) -> Table:
    """One row for each video the manifest has as usable, beside what is due for it."""
    frames = {row.video: row.frames for row in read_raw_videos(dataset).usable}
    encoder = read_encoder_card(dataset.stage(stage)).fingerprint.digest
    rows = [
        {
            "video": row.video,
            "snippets_due": timeline.snippet_count(frames[row.video]) if row.video in frames else 0,
            "fingerprint": row.fingerprint,
            "encoder": encoder,
            **measure(row.video),
        }
        for row in manifest.usable
    ]
    return Table.of(rows, key=["video"])


def with_commonest_shape(table: Table) -> Table:
    """The table with the shape most of its rows have beside each row's own."""
    if table.rows.empty:
        return table
    [(commonest, _)] = Counter(table.rows["shape"]).most_common(1)
    return Table(table.rows.assign(commonest_shape=commonest), table.key)


def measure_array(array: Array) -> dict[str, object]:
    """Figures of an array of shape (snippets, …, dim); norms are over the last axis."""
    values = array.astype(np.float32)
    norms = np.linalg.norm(values, axis=-1)
    return {
        "snippets": len(array),
        "shape": " × ".join(str(size) for size in array.shape[1:]),
        "not_finite": int((~np.isfinite(values)).sum()),
        "least_norm": float(norms.min()),
        "largest_norm": float(norms.max()),
    }


def read_whole(dataset: Dataset, stage: str, video: str, name: str, suffix: str) -> Array | None:
    """A video's array, or None if its file is not there or not whole."""
    path = dataset.stage(stage) / f"{video}{suffix}"
    return None if files.read_array_header(path) is None else files.read_array(path, name)


NOTHING: Mapping[str, object] = {
    "snippets": 0,
    "shape": "no array",
    "not_finite": 0,
    "least_norm": 0.0,
    "largest_norm": 0.0,
}
"""The figures of an array that is not there."""


def norms_within(limits: tuple[float, float]) -> Sequence[Expectation]:
    """Both the least and the largest norm of a video lie in the range."""
    from assets.checks.expectations import between

    return [*between("least_norm", *limits), *between("largest_norm", *limits)]
