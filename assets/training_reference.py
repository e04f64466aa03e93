"""What a model was trained on, kept with each registered version so that what comes later can be
compared with it.

A folder ``reference`` among the version's artifacts::

    reference.json         every video that was there, with its hash, label and split; the encoders
    reference.safetensors  by video a vector a kind (means over its snippets), and snippet scores

Gathering, writing and reading back only. What follows from a comparison is :mod:`assets.drift`'s
and :mod:`assets.retraining`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from assets.caption_embeddings import load_embeddings
from assets.raw_videos import read_raw_videos
from assets.scoring import address, packed_part
from assets.snippet_features import load_features
from assets.tevad_model import Inputs, picked_folder, read_inputs, served_seed
from assets.workspace import files
from assets.workspace.manifest import RawVideoRow
from assets.workspace.project import Dataset
from assets.workspace.tracking import Tracking
from tevad_model.atomic import replacing
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PART = "reference"
"""Its name among a version's artifacts."""

VectorKind = Literal["features", "captions"]
ENCODERS: Mapping[VectorKind, str] = {"features": "visual", "captions": "sentence"}
"""The kind of encoder that made the vectors."""

_FORMAT = 1
_TABLE, _ARRAYS = "reference.json", "reference.safetensors"
_SCORES = "scores"


@dataclass(frozen=True)
class KnownVideo:
    """A video as it was when a model was trained.

    Attributes:
        sha256: of its content.
        label: ``normal``, ``abnormal`` or empty.
        split: ``train``, ``test`` or empty.
    """

    sha256: str
    label: str
    split: str

    @classmethod
    def of(cls, row: RawVideoRow) -> KnownVideo:
        """As a row of raw_videos says."""
        return cls(row.sha256, row.label, row.split)


@dataclass(frozen=True)
class TrainingReference:
    """What a model was trained on and tested with.

    Attributes:
        videos: every usable video that was there, labelled or not.
        vectors: by kind and labelled video, (dim,) float32; only kinds that the model reads.
        encoders: by kind, the digest of what made the vectors.
        scores: by labelled video, the model's (snippets,) scores.
    """

    videos: Mapping[str, KnownVideo]
    vectors: Mapping[VectorKind, Mapping[str, files.Array]]
    encoders: Mapping[VectorKind, str]
    scores: Mapping[str, files.Array]


def gather_reference(dataset: Dataset) -> TrainingReference:
    """What the served model that lies there was trained on and tested with.

    Raises:
        InputError: if a stage before it has not run.
    """
    from tevad_model import artifact, scoring

    inputs = read_inputs(dataset)
    labelled = [row.video for row in inputs.rows if row.label]
    model = artifact.load(picked_folder(dataset, served_seed(dataset)))
    scored = scoring.score_many(model, ((video, inputs.features(video)) for video in labelled))
    kinds = vector_kinds(inputs)
    return TrainingReference(
        videos={row.video: KnownVideo.of(row) for row in read_raw_videos(dataset).usable},
        vectors={kind: video_vectors(dataset, kind, labelled) for kind in kinds},
        encoders=kinds,
        scores={video: found.scores for video, found in scored.items()},
    )


def vector_kinds(inputs: Inputs) -> dict[VectorKind, str]:
    """The kinds of vectors that a dataset's model reads, with the digests of what made them."""
    return {
        kind: inputs.encoders[encoder].fingerprint.digest
        for kind, encoder in ENCODERS.items()
        if encoder in inputs.encoders
    }


def video_vectors(
    dataset: Dataset, kind: VectorKind, videos: Sequence[str]
) -> dict[str, files.Array]:
    """Each video as one vector, (dim,) float32: the mean over its snippets, and crops."""
    load = load_features if kind == "features" else load_embeddings
    found = {}
    for video in videos:
        snippets = load(dataset, video).astype(np.float32)
        found[video] = snippets.reshape(-1, snippets.shape[-1]).mean(axis=0)
    return found


def write_reference(reference: TrainingReference, folder: Path) -> None:
    """Write a reference's two files, the table last."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{kind}/{video}": np.ascontiguousarray(vector)
        for kind, by_video in (*reference.vectors.items(), (_SCORES, reference.scores))
        for video, vector in by_video.items()
    }
    with replacing(folder / _ARRAYS) as temporary:
        save_file(arrays, temporary)
    table = {
        "format": _FORMAT,
        "encoders": dict(reference.encoders),
        "videos": {video: asdict(known) for video, known in reference.videos.items()},
    }
    files.write_json(folder / _TABLE, table)


def read_reference(folder: Path) -> TrainingReference:
    """Read a reference back.

    Raises:
        InputError: if it is of another format.
    """
    from safetensors.numpy import load_file

    table = files.read_json(folder / _TABLE)
    if table["format"] != _FORMAT:
        raise InputError(
            f"{folder / _TABLE}: format {table['format']!r} is unknown to this version, which "
            f"reads {_FORMAT}; register the model anew"
        )
    by_kind: dict[str, dict[str, files.Array]] = {kind: {} for kind in (*ENCODERS, _SCORES)}
    for name, array in load_file(folder / _ARRAYS).items():
        kind, _, video = name.partition("/")
        by_kind[kind][video] = array
    return TrainingReference(
        videos={video: KnownVideo(**known) for video, known in table["videos"].items()},
        vectors={kind: by_kind[kind] for kind in ENCODERS if kind in table["encoders"]},
        encoders=table["encoders"],
        scores=by_kind[_SCORES],
    )


def reference_of(dataset: Dataset, tracking: Tracking, version: ModelVersion) -> TrainingReference:
    """The reference that a registered version carries; fetched once, as it never changes.

    Raises:
        InputError: if it carries none.
    """
    kept = dataset.work / "references" / f"{version.version}-{version.run_id}"
    if not (kept / _TABLE).is_file():
        try:
            with packed_part(version, tracking, PART) as packed:
                write_reference(read_reference(packed), kept)
        except InputError as error:
            raise InputError(
                f"{address(version)}: cannot say what it was trained on ({error}); "
                f"`tevad run {dataset.name}` registers it with its reference"
            ) from None
    return read_reference(kept)


def changed_labels(dataset: Dataset, reference: TrainingReference) -> list[str]:
    """The videos whose label, split or labelled content came, changed or went since.

    Raises:
        InputError: if raw_videos has not run.
    """
    now = {row.video: KnownVideo.of(row) for row in read_raw_videos(dataset).usable if row.label}
    then = {video: known for video, known in reference.videos.items() if known.label}
    return sorted(video for video in now.keys() | then.keys() if now.get(video) != then.get(video))
