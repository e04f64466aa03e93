"""captions: one sentence a snippet, of the 64-frame window that starts with it, as JSON lines.

Which captioner and with what options is in ``params.yaml``; how it works is in
:mod:`tevad_model.encoders`.
"""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from assets.frames import frame_items, pixel_encoder, run_on_frames
from assets.imports import caption_items, import_captions
from assets.raw_videos import frame_of, read_raw_videos
from assets.workspace import files
from assets.workspace.face import (
    committed,
    dataset_of,
    explained,
    markdown_table,
    stage_asset,
)
from assets.workspace.manifest import FILE_NAME as MANIFEST
from assets.workspace.manifest import Manifest, RawVideoRow, StageRow, read_manifest
from assets.workspace.project import Dataset
from assets.workspace.stage import LINES, StageReport, is_current, read_encoder_card
from tevad_model import timeline
from tevad_model.encoders.base import CaptionEncoder, Frame
from tevad_model.encoders.card import EncoderCard
from tevad_model.errors import InputError
from tevad_model.ready_made import CAPTIONS

STAGE = "captions"
_SHOWN = 10
_PICTURES = 8
CODE_VERSION = "1"
"""Changes when the same inputs would be written otherwise; encoders have versions of their own."""


def write_captions(dataset: Dataset) -> StageReport:
    """Caption what is new or was made otherwise, or take in captions that were made elsewhere.

    Raises:
        InputError: if raw_videos has not run, or the captioner's parameters are wrong.
    """
    if dataset.entry.captions:
        return import_captions(dataset, STAGE, write=_write, code_version=CODE_VERSION)
    card, captioner = _build_captioner(dataset)

    def encode(frames: Iterable[Frame], row: RawVideoRow) -> list[str]:
        return list(captioner.caption(frames, row.fps))

    return run_on_frames(
        dataset,
        STAGE,
        encoder=card,
        code_version=CODE_VERSION,
        result=LINES,
        encode=encode,
        write=_write,
    )


def has_current_captions(dataset: Dataset) -> bool:
    """Whether there is nothing to caption.

    Raises:
        InputError: if the captioner's parameters are wrong.
    """
    if dataset.entry.captions:
        card, items = EncoderCard.ready_made(CAPTIONS), caption_items(dataset)
    else:
        card, items = _build_captioner(dataset)[0], frame_items(read_raw_videos(dataset))
    return is_current(dataset, STAGE, items, encoder=card, code_version=CODE_VERSION)


def _build_captioner(dataset: Dataset) -> tuple[EncoderCard, CaptionEncoder]:
    from tevad_model import encoders

    return pixel_encoder(dataset, dataset.params.captions, encoders.build_caption)


def read_caption_manifest(dataset: Dataset) -> Manifest[StageRow]:
    """The manifest of this stage."""
    return read_manifest(dataset.stage(STAGE), StageRow)


def has_captions(dataset: Dataset) -> bool:
    """Whether there are any: the stage has run, and had pixels or ready-made captions to go by."""
    there = (dataset.stage(STAGE) / MANIFEST).is_file()
    return there and bool(read_caption_manifest(dataset).usable)


def caption_path(dataset: Dataset, video: str) -> Path:
    """Where one video's captions lie."""
    return LINES.path(dataset.stage(STAGE), video)


def load_captions(dataset: Dataset, video: str) -> list[str]:
    """One video's captions, one a snippet.

    Raises:
        InputError: if the file is not there or not whole.
    """
    path = caption_path(dataset, video)
    content = files.read_lines(path)
    if content is None:
        raise InputError(f"{path}: not there or damaged; materialize captions again")
    return [str(line["caption"]) for line in content[1]]


def _write(path: Path, captions: list[str], header: dict[str, object], row: RawVideoRow) -> None:
    files.write_lines(path, header, [_line(i, c, row.frames) for i, c in enumerate(captions)])


def _line(snippet: int, caption: str, frames: int) -> dict[str, object]:
    start, end = timeline.snippet_range(snippet, frames)
    return {"snippet": snippet, "start_frame": start, "end_frame": end, "caption": caption}


@stage_asset(
    deps=["raw_videos"],
    code_version=CODE_VERSION,
    group_name="features",
    kinds={"python", "opencv", "dvc"},
)
def captions(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """What a sentence says of every snippet's 64-frame window, one file a video."""
    dataset = dataset_of(context)
    with explained():
        report = write_captions(dataset)
    rows = read_caption_manifest(dataset).usable
    card = read_encoder_card(dataset.stage(STAGE))
    texts = Counter(text for row in rows for text in load_captions(dataset, row.video))
    return committed(
        dataset,
        report,
        {
            "snippets": texts.total(),
            "distinct captions": len(texts),
            "captioner": f"{card.backend} {card.fingerprint}",
            "commonest captions": dg.MetadataValue.md(_caption_table(texts)),
        },
        {"contact sheet": partial(contact_sheet, dataset)},
    )


def _caption_table(texts: Counter[str]) -> str:
    rows = [(count, text) for text, count in texts.most_common(_SHOWN)]
    return markdown_table(("snippets", "caption"), rows)


def contact_sheet(dataset: Dataset) -> bytes | None:
    """A PNG of some snippets, evenly chosen, each with what is said of it; None without pixels."""
    from tevad_model import figures

    raw = read_raw_videos(dataset).by_video()
    snippets = [
        (row.video, snippet)
        for row in read_caption_manifest(dataset).usable
        if raw[row.video].path
        for snippet in range(row.snippets)
    ]
    if not snippets:
        return None
    shown = snippets[:: -(-len(snippets) // _PICTURES)]
    thumbnails = []
    for video, snippet in shown:
        start, end = timeline.snippet_range(snippet, raw[video].frames)
        thumbnails.append(
            figures.Thumbnail(
                frame_of(dataset, raw[video], (start + end) // 2),
                title=f"{video}, {timeline.seconds(start, raw[video].fps):.1f} s",
                caption=load_captions(dataset, video)[snippet],
            )
        )
    return figures.contact_sheet(thumbnails, title=dataset.name)
