"""What the stages that read pixels share: each video's frames, decoded once, to a row a snippet."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from assets.raw_videos import read_raw_videos, video_path, with_pixels
from assets.workspace.files import Array
from assets.workspace.manifest import Manifest, RawVideoRow
from assets.workspace.params import EncoderParams
from assets.workspace.progress import Progress
from assets.workspace.project import Dataset
from assets.workspace.provenance import check_fit
from assets.workspace.stage import Compute, Item, ResultFile, StageReport, Turn, run_per_video
from tevad_model import timeline
from tevad_model.encoders.base import CaptionEncoder, Frame, VisualEncoder
from tevad_model.encoders.card import EncoderCard, pixel_fingerprint
from tevad_model.errors import VideoError

_Rows = TypeVar("_Rows", Array, list[str])
_Encoder = TypeVar("_Encoder", VisualEncoder, CaptionEncoder)

Write = Callable[[Path, _Rows, dict[str, object], RawVideoRow], None]
"""Write a video's rows to the path with the header given."""


def pixel_encoder(
    dataset: Dataset,
    params: EncoderParams,
    build: Callable[[str, Mapping[str, Any], Path], _Encoder],
) -> tuple[EncoderCard, _Encoder]:
    """An encoder to read the dataset's frames, and its card.

    Args:
        params: which encoder it is.
        build: builds one of its kind.

    Raises:
        InputError: if the parameters are wrong.
    """
    encoder = build(params.backend, params.options, dataset.project.cache)
    fingerprint = pixel_fingerprint(encoder.fingerprint, dataset.params.video.max_side)
    return EncoderCard(params.backend, params.options, fingerprint), encoder


def run_on_frames(
    dataset: Dataset,
    stage: str,
    *,
    encoder: EncoderCard,
    code_version: str,
    result: ResultFile,
    encode: Callable[[Iterable[Frame], RawVideoRow], _Rows],
    write: Write[_Rows],
) -> StageReport:
    """Run an encoder over the frames of every usable video that has any.

    What it is given is read once nobody changes it any more.

    Args:
        encoder: which it is (:func:`pixel_encoder`).
        encode: one row a snippet from a video's frames.
        write: keeps a video's rows.

    Raises:
        InputError: if raw_videos has not run.
        MismatchError: if the listing is not of the videos it took in.
    """
    with dataset.held():
        check_fit(dataset, f"{stage} of {dataset.name}")
        raw = read_raw_videos(dataset)
        return run_per_video(
            dataset,
            stage,
            frame_items(raw),
            encoder=encoder,
            code_version=code_version,
            result=result,
            compute=_over_frames(dataset, raw, encode, write),
            quarantined=raw.quarantined,
        )


def frame_items(raw: Manifest[RawVideoRow]) -> list[Item]:
    """What is due of a stage that reads pixels."""
    return [
        Item(row.video, row.sha256, timeline.snippet_count(row.frames), row.frames)
        for row in with_pixels(raw)
    ]


def _over_frames(
    dataset: Dataset,
    raw: Manifest[RawVideoRow],
    encode: Callable[[Iterable[Frame], RawVideoRow], _Rows],
    write: Write[_Rows],
) -> Compute:
    """Encode a video's frames as they are decoded, and write the rows."""
    from tevad_model import video

    rows, max_side = raw.by_video(), dataset.params.video.max_side

    def compute(turn: Turn, progress: Progress) -> None:
        item = turn.item
        row = rows[item.video]
        pictures = video.frames(video_path(dataset, row), max_side=max_side)
        with video.prefetch(pictures) as stream:
            encoded = encode(progress.over(stream), row)
        if len(encoded) != item.snippets:
            raise VideoError(
                f"{item.video}: {len(encoded)} snippets encoded where {item.snippets} are due"
            )
        write(turn.path, encoded, turn.header, row)

    return compute
