"""snippet_features: each video's snippets as visual features, (snippets, crops, dim) float16.

Which encoder and with what options is in ``params.yaml``; how it works is in
:mod:`tevad_model.encoders`.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from assets.frames import frame_items, pixel_encoder, run_on_frames
from assets.imports import array_items, import_arrays
from assets.raw_videos import read_raw_videos
from assets.workspace import files
from assets.workspace.face import committed, dataset_of, explained, stage_asset
from assets.workspace.manifest import Manifest, RawVideoRow, StageRow, read_manifest
from assets.workspace.project import Dataset
from assets.workspace.stage import ARRAY, StageReport, is_current, read_encoder_card
from tevad_model.encoders.base import Frame, VisualEncoder
from tevad_model.encoders.card import EncoderCard
from tevad_model.ready_made import FEATURES

STAGE = "snippet_features"
CODE_VERSION = "1"
"""Changes when the same inputs would be written otherwise; encoders have versions of their own."""

ARRAY_NAME = "features"
_SHOWN = 2000


def extract_snippet_features(dataset: Dataset) -> StageReport:
    """Encode what is new or was made otherwise, or take in features that were made elsewhere.

    Raises:
        InputError: if raw_videos has not run, or the encoder's parameters are wrong.
    """
    if dataset.entry.features:
        return import_arrays(
            dataset,
            STAGE,
            FEATURES,
            array_name=ARRAY_NAME,
            code_version=CODE_VERSION,
        )
    card, encoder = _build_encoder(dataset)

    def encode(frames: Iterable[Frame], _: RawVideoRow) -> files.Array:
        return np.concatenate(list(encoder.encode(frames))).astype(np.float16)

    def write(path: Path, features: files.Array, header: dict[str, object], _: RawVideoRow) -> None:
        files.write_array(path, ARRAY_NAME, features, header)

    return run_on_frames(
        dataset,
        STAGE,
        encoder=card,
        code_version=CODE_VERSION,
        result=ARRAY,
        encode=encode,
        write=write,
    )


def has_current_features(dataset: Dataset) -> bool:
    """Whether there is nothing to extract.

    Raises:
        InputError: if the encoder's parameters are wrong.
    """
    if dataset.entry.features:
        card, items = EncoderCard.ready_made(FEATURES), array_items(dataset, FEATURES)
    else:
        card, items = _build_encoder(dataset)[0], frame_items(read_raw_videos(dataset))
    return is_current(dataset, STAGE, items, encoder=card, code_version=CODE_VERSION)


def _build_encoder(dataset: Dataset) -> tuple[EncoderCard, VisualEncoder]:
    from tevad_model import encoders

    return pixel_encoder(dataset, dataset.params.snippet_features, encoders.build_visual)


def read_snippet_features(dataset: Dataset) -> Manifest[StageRow]:
    """The manifest of this stage."""
    return read_manifest(dataset.stage(STAGE), StageRow)


def feature_picture(dataset: Dataset) -> bytes | None:
    """A PNG of the snippets' features (mean over crops) in their two principal components."""
    from tevad_model import figures

    labels = {row.video: row.label for row in read_raw_videos(dataset).usable}
    rows = read_snippet_features(dataset).usable
    if not rows:
        return None
    step = 1 + sum(row.snippets for row in rows) // _SHOWN
    features, groups = [], []
    for row in rows:
        found = load_features(dataset, row.video)[::step].astype(np.float32).mean(axis=1)
        features.append(found)
        groups += [f"{labels[row.video] or 'unlabelled'} video"] * len(found)
    return figures.feature_pca(np.concatenate(features), groups, title=dataset.name)


def load_features(dataset: Dataset, video: str) -> files.Array:
    """One video's features, (snippets, crops, dim) float16."""
    return files.read_array(ARRAY.path(dataset.stage(STAGE), video), ARRAY_NAME)


@stage_asset(
    deps=["raw_videos"],
    code_version=CODE_VERSION,
    group_name="features",
    kinds={"python", "onnx", "dvc"},
)
def snippet_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Visual features of every snippet: (snippets, crops, dim) float16, one file a video."""
    dataset = dataset_of(context)
    with explained():
        report = extract_snippet_features(dataset)
    rows = read_snippet_features(dataset).usable
    card = read_encoder_card(dataset.stage(STAGE))
    shape = load_features(dataset, rows[0].video).shape if rows else ()
    return committed(
        dataset,
        report,
        {
            "snippets": sum(row.snippets for row in rows),
            "shape of a video": str(shape),
            "encoder": f"{card.backend} {card.fingerprint}",
        },
        {"features by label": partial(feature_picture, dataset)},
    )
