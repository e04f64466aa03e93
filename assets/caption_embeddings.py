"""caption_embeddings: each snippet's caption as a sentence embedding, (snippets, dim) float32.

Each distinct caption is embedded once in a run, however many snippets say it.
"""

from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt

from assets.captions import caption_path, load_captions, read_caption_manifest
from assets.imports import array_items, import_arrays
from assets.sentence_encoder import build_sentence_encoder
from assets.workspace import files
from assets.workspace.face import committed, dataset_of, explained, stage_asset
from assets.workspace.manifest import Manifest, StageRow, read_manifest
from assets.workspace.progress import Progress
from assets.workspace.project import Dataset
from assets.workspace.provenance import check_fit
from assets.workspace.stage import (
    ARRAY,
    Item,
    StageReport,
    Turn,
    is_current,
    read_encoder_card,
    run_per_video,
)
from tevad_model.encoders.card import EncoderCard
from tevad_model.fingerprint import sha256_file
from tevad_model.ready_made import EMBEDDINGS

STAGE = "caption_embeddings"
CODE_VERSION = "1"
"""Changes when the same inputs would be written otherwise; encoders have versions of their own."""

ARRAY_NAME = "embeddings"
_AT_ONCE = 2048
"""Captions between two looks at the clock."""


def embed_captions(dataset: Dataset) -> StageReport:
    """Embed what is new or was made otherwise, or take in embeddings that were made elsewhere.

    Raises:
        InputError: if captions or sentence_encoder has not run, or the encoder's parameters are
            wrong.
        MismatchError: if the captions are not of the videos that lie there.
    """
    if dataset.entry.embeddings:
        return import_arrays(
            dataset,
            STAGE,
            EMBEDDINGS,
            array_name=ARRAY_NAME,
            code_version=CODE_VERSION,
        )
    with dataset.held():
        check_fit(dataset, f"{STAGE} of {dataset.name}", reads=["captions"])
        return _embed(dataset)


def _embed(dataset: Dataset) -> StageReport:
    card, encoder = build_sentence_encoder(dataset)
    embedded: dict[str, npt.NDArray[np.float32]] = {}

    def prepare(items: list[Item]) -> None:
        distinct = {text for item in items for text in load_captions(dataset, item.video)}
        # Those of one length together, of which encoders make full batches.
        ordered = sorted(distinct, key=lambda text: (len(text), text))
        with Progress(f"{dataset.name}/{STAGE}", len(ordered), "caption") as progress:
            for start in range(0, len(ordered), _AT_ONCE):
                texts = ordered[start : start + _AT_ONCE]
                embedded.update(zip(texts, encoder.embed(texts), strict=True))
                progress.advance(len(texts))

    def compute(turn: Turn, _: Progress) -> None:
        rows = np.stack([embedded[text] for text in load_captions(dataset, turn.item.video)])
        files.write_array(turn.path, ARRAY_NAME, rows, turn.header)

    return run_per_video(
        dataset,
        STAGE,
        _items(dataset),
        encoder=card,
        code_version=CODE_VERSION,
        result=ARRAY,
        compute=compute,
        prepare=prepare,
        quarantined=read_caption_manifest(dataset).quarantined,
    )


def has_current_embeddings(dataset: Dataset) -> bool:
    """Whether there is nothing to embed.

    Raises:
        InputError: if sentence_encoder has not run, or the encoder's parameters are wrong.
    """
    if dataset.entry.embeddings:
        card, items = EncoderCard.ready_made(EMBEDDINGS), array_items(dataset, EMBEDDINGS)
    else:
        card, items = build_sentence_encoder(dataset)[0], _items(dataset)
    return is_current(dataset, STAGE, items, encoder=card, code_version=CODE_VERSION)


def _items(dataset: Dataset) -> list[Item]:
    return [
        Item(row.video, sha256_file(caption_path(dataset, row.video)), row.snippets)
        for row in read_caption_manifest(dataset).usable
    ]


def read_caption_embeddings(dataset: Dataset) -> Manifest[StageRow]:
    """The manifest of this stage."""
    return read_manifest(dataset.stage(STAGE), StageRow)


def load_embeddings(dataset: Dataset, video: str) -> files.Array:
    """One video's caption embeddings, (snippets, dim) float32."""
    return files.read_array(ARRAY.path(dataset.stage(STAGE), video), ARRAY_NAME)


@stage_asset(
    deps=["captions", "sentence_encoder"],
    code_version=CODE_VERSION,
    group_name="features",
    kinds={"python", "huggingface", "dvc"},
)
def caption_embeddings(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Sentence embeddings of the captions: (snippets, dim) float32, one file a video."""
    dataset = dataset_of(context)
    with explained():
        report = embed_captions(dataset)
    rows = read_caption_embeddings(dataset).usable
    card = read_encoder_card(dataset.stage(STAGE))
    return committed(
        dataset,
        report,
        {
            "snippets": sum(row.snippets for row in rows),
            "encoder": f"{card.backend} {card.fingerprint}",
        },
    )
