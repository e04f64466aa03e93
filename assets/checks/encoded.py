"""What the checks of the encoded stages share: one row of measurements a video, read one by one.

A result that is not there or not whole counts as one without snippets, so that a check names it.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from assets.checks.expectations import Check, Expectation, Table, between, equal
from assets.checks.measurements import Measure, Measurement, measurements
from assets.raw_videos import read_raw_videos
from assets.workspace import files
from assets.workspace.files import Array
from assets.workspace.manifest import Manifest, StageRow
from assets.workspace.params import CheckParams
from assets.workspace.project import Dataset
from assets.workspace.stage import ARRAY, read_encoder_card
from tevad_model import timeline
from tevad_model.ready_made import CAPTIONS, EMBEDDINGS, FEATURES

_READY_MADE = {
    "snippet_features": (FEATURES,),
    "captions": (CAPTIONS,),
    "caption_embeddings": (CAPTIONS, EMBEDDINGS),
}
"""What a stage's results can be made of without pixels."""

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
    dataset: Dataset,
    stage: str,
    manifest: Manifest[StageRow],
    measure: Measure,
    reads: Sequence[str] = (),
) -> tuple[Table, Sequence[Measurement]]:
    """One row for each video that should have a result, beside what is due for it.

    Args:
        dataset: whose stage.
        stage: the stage.
        manifest: of the stage; the videos it has in quarantine need no result.
        measure: measures one video's result.
        reads: other stages whose results it reads for that.

    Returns:
        The table, and for each of its rows what was measured.
    """
    made = manifest.by_video()
    frames = _frames_due(dataset, stage)
    encoder = read_encoder_card(dataset.stage(stage)).fingerprint.digest
    videos = sorted((frames.keys() | made.keys()) - manifest.quarantined.keys())
    measured = measurements(dataset, stage, videos, measure, (stage, *reads))
    rows = [
        {
            "video": video,
            "snippets_due": timeline.snippet_count(frames[video]) if video in frames else None,
            "fingerprint": made[video].encoder if video in made else "",
            "encoder": encoder,
            **found.figures,
        }
        for video, found in measured.items()
    ]
    return Table.of(rows, key=["video"]), tuple(measured.values())


def _frames_due(dataset: Dataset, stage: str) -> dict[str, int]:
    """Frames by video that must have a result: there are pixels or ready-made parts to make it of."""
    is_ready_made = any(getattr(dataset.entry, kind) for kind in _READY_MADE[stage])
    rows = read_raw_videos(dataset).usable
    return {row.video: row.frames for row in rows if is_ready_made or row.path}


def with_commonest_shape(table: Table) -> Table:
    """The table with the shape most of its rows have beside each row's own."""
    if table.rows.empty:
        return table
    [(commonest, _)] = Counter(table.rows["shape"]).most_common(1)
    return Table(table.rows.assign(commonest_shape=commonest), table.key)


def read_whole(dataset: Dataset, stage: str, video: str, name: str) -> Array | None:
    """A video's array, or None if its file is not there or not whole."""
    path = ARRAY.path(dataset.stage(stage), video)
    return None if files.read_array_header(path) is None else files.read_array(path, name)


def measure_array(array: Array | None) -> dict[str, object]:
    """Figures of an array of shape (snippets, …, dim); norms are over the last axis."""
    if array is None or array.size == 0:
        return {
            "snippets": 0,
            "shape": "nothing",
            "not_finite": 0,
            "least_norm": None,
            "largest_norm": None,
        }
    values = array.astype(np.float32)
    norms = np.linalg.norm(values, axis=-1)
    return {
        "snippets": len(array),
        "shape": " × ".join(str(size) for size in array.shape[1:]),
        "not_finite": int((~np.isfinite(values)).sum()),
        "least_norm": float(norms.min()),
        "largest_norm": float(norms.max()),
    }


def is_finite(_: CheckParams) -> list[Expectation]:
    """No value is NaN or infinite."""
    return between("not_finite", 0, 0)


def norms_within(limits: tuple[float, float]) -> list[Expectation]:
    """Both the least and the largest norm of a video lie in the range."""
    return [*between("least_norm", *limits), *between("largest_norm", *limits)]
