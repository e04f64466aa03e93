"""snippet_features: each video's snippets as visual features, (snippets, crops, dim) float16.

Which encoder and with what options is in ``params.yaml``; how it works is in
:mod:`tevad_model.encoders`.
"""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from assets.raw_videos import read_raw_videos, video_path
from assets.workspace import files
from assets.workspace.face import committed, dataset_of, explained, picture, stage_asset
from assets.workspace.manifest import Manifest, RawVideoRow, StageRow, read_manifest
from assets.workspace.project import Dataset
from assets.workspace.stage import ARRAY, Item, StageReport, read_encoder_card, run_per_video
from tevad_model import timeline
from tevad_model.encoders.card import EncoderCard, pixel_fingerprint
from tevad_model.errors import VideoError

STAGE = "snippet_features"
CODE_VERSION = "1"
"""Changes when the same inputs would be written otherwise; encoders have versions of their own."""

ARRAY_NAME = "features"
_SHOWN = 2000


def extract_snippet_features(dataset: Dataset) -> StageReport:
    """Encode what is new or was made otherwise.

    Raises:
        InputError: if raw_videos has not run, or the encoder's parameters are wrong.
    """
    from tevad_model import encoders, video

    params = dataset.params
    encoder = encoders.build_visual(
        params.snippet_features.backend, params.snippet_features.options, dataset.project.cache
    )
    raw = read_raw_videos(dataset)
    rows = raw.by_video()
    card = EncoderCard(
        params.snippet_features.backend,
        params.snippet_features.options,
        pixel_fingerprint(encoder.fingerprint, params.video.max_side),
    )

    def compute(item: Item, path: Path, header: dict[str, object]) -> None:
        pictures = video.frames(
            video_path(dataset, rows[item.video]), max_side=params.video.max_side
        )
        with video.prefetch(pictures) as stream:
            features = np.concatenate(list(encoder.encode(stream))).astype(np.float16)
        if len(features) != item.snippets:
            raise VideoError(
                f"{item.video}: {len(features)} snippets encoded where {item.snippets} are due"
            )
        files.write_array(path, ARRAY_NAME, features, header)

    with dataset.held():
        return run_per_video(
            dataset,
            STAGE,
            items_of(raw),
            encoder=card,
            code_version=CODE_VERSION,
            result=ARRAY,
            compute=compute,
            quarantined=raw.quarantined,
        )


def items_of(raw: Manifest[RawVideoRow]) -> list[Item]:
    """The usable videos as the items of a stage that reads pixels."""
    return [
        Item(row.video, row.sha256, timeline.snippet_count(row.frames), row.frames)
        for row in raw.usable
    ]


def read_snippet_features(dataset: Dataset) -> Manifest[StageRow]:
    """The manifest of this stage."""
    return read_manifest(dataset.stage(STAGE), StageRow)


def feature_picture(dataset: Dataset) -> bytes:
    """A PNG of the snippets' features (mean over crops) in their two principal components."""
    from tevad_model import figures

    labels = {row.video: row.label for row in read_raw_videos(dataset).usable}
    rows = read_snippet_features(dataset).usable
    step = 1 + sum(row.snippets for row in rows) // _SHOWN
    features, groups = [], []
    for row in rows:
        found = load_features(dataset, row.video)[::step].astype(np.float32).mean(axis=1)
        features.append(found)
        groups += [f"{labels[row.video] or 'unlabelled'} video"] * len(found)
    return figures.feature_pca(np.concatenate(features), groups, title=dataset.name)


def load_features(dataset: Dataset, video: str) -> files.Array:
    """One video's features, (snippets, crops, dim) float16."""
    return files.read_array(dataset.stage(STAGE) / f"{video}{ARRAY.suffix}", ARRAY_NAME)


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
            **({"features by label": picture(feature_picture(dataset), "PCA")} if rows else {}),
            "encoder": f"{card.backend} {card.fingerprint}",
        },
    )
