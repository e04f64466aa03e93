"""What the stages share that take in results made elsewhere instead of making them.

A stage with ready-made results writes them in its own format, brought to the video's snippets, so
that no later stage can tell who made them. Which file is whose was settled by raw_videos.
"""

import hashlib
import json
from dataclasses import asdict

from assets.frames import Write
from assets.raw_videos import STAGE as RAW_VIDEOS
from assets.raw_videos import read_raw_videos
from assets.workspace import files
from assets.workspace.manifest import RawVideoRow
from assets.workspace.progress import Progress
from assets.workspace.project import Dataset
from assets.workspace.provenance import check_fit
from assets.workspace.ready_made import ArrayFolder, read_arrays, read_captions
from assets.workspace.stage import (
    ARRAY,
    LINES,
    Compute,
    Item,
    StageReport,
    Turn,
    run_per_video,
)
from tevad_model import timeline
from tevad_model.encoders.card import EncoderCard
from tevad_model.errors import VideoError
from tevad_model.ready_made import CAPTIONS, STORED_AS, Captions, fit, read_array


def import_arrays(
    dataset: Dataset,
    stage: str,
    kind: str,
    *,
    array_name: str,
    code_version: str,
) -> StageReport:
    """Bring ready-made arrays into a stage's format; what fits already stays.

    Args:
        kind: ``features`` or ``embeddings``.
        array_name: how the stage calls its array.

    Raises:
        InputError: if raw_videos has not run, or the arrays' folder is not there though something
            has to be read from it.
        MismatchError: if the listing is not of the videos that were taken in.
    """
    with dataset.held():
        check_fit(dataset, f"{stage} of {dataset.name}")
        return run_per_video(
            dataset,
            stage,
            array_items(dataset, kind),
            encoder=EncoderCard.ready_made(kind),
            code_version=code_version,
            result=ARRAY,
            compute=_fitted_arrays(dataset, kind, array_name),
            quarantined=read_raw_videos(dataset).quarantined,
        )


def array_items(dataset: Dataset, kind: str) -> list[Item]:
    """What is due of a stage whose arrays are ready-made.

    Args:
        kind: as of :func:`import_arrays`.
    """
    arrays = read_arrays(dataset.stage(RAW_VIDEOS), kind)
    return [
        Item(row.video, arrays[row.video].sha256, timeline.snippet_count(row.frames))
        for row in read_raw_videos(dataset).usable
    ]


def _fitted_arrays(dataset: Dataset, kind: str, array_name: str) -> Compute:
    """Read a video's array, bring it to the video's snippets, and write it."""
    arrays = read_arrays(dataset.stage(RAW_VIDEOS), kind)
    folder = ArrayFolder(dataset, kind)

    def compute(turn: Turn, _: Progress) -> None:
        item = turn.item
        array = arrays[item.video]
        if folder.identity(array.path).sha256 != array.sha256:
            raise VideoError(
                f"{item.video}: {array.path} has changed since raw_videos took it in; run that again"
            )
        rows = fit(read_array(folder.file(array.path), kind, STORED_AS[kind]), item.snippets)
        files.write_array(turn.path, array_name, rows, turn.header)

    return compute


def import_captions(
    dataset: Dataset, stage: str, *, write: Write[list[str]], code_version: str
) -> StageReport:
    """Bring ready-made captions to the videos' snippets; what fits already stays.

    Args:
        write: as of :func:`assets.frames.run_on_frames`.

    Raises:
        InputError: if raw_videos has not run.
        MismatchError: if the listing is not of the videos that were taken in.
    """
    with dataset.held():
        check_fit(dataset, f"{stage} of {dataset.name}")
        return run_per_video(
            dataset,
            stage,
            caption_items(dataset),
            encoder=EncoderCard.ready_made(CAPTIONS),
            code_version=code_version,
            result=LINES,
            compute=_fitted_captions(dataset, write),
            quarantined=read_raw_videos(dataset).quarantined,
        )


def caption_items(dataset: Dataset) -> list[Item]:
    """What is due of a stage whose captions are ready-made."""
    captions = read_captions(dataset.stage(RAW_VIDEOS))
    return [
        Item(row.video, _digest(captions[row.video], row), timeline.snippet_count(row.frames))
        for row in read_raw_videos(dataset).usable
    ]


def _fitted_captions(dataset: Dataset, write: Write[list[str]]) -> Compute:
    """Bring a video's captions to its snippets, and write them."""
    rows = read_raw_videos(dataset).by_video()
    captions = read_captions(dataset.stage(RAW_VIDEOS))

    def compute(turn: Turn, _: Progress) -> None:
        row = rows[turn.item.video]
        write(turn.path, captions[row.video].by_snippet(row.frames, row.fps), turn.header, row)

    return compute


def _digest(captions: Captions, row: RawVideoRow) -> str:
    """Changes with what is said of a video, and with the snippets it is said of."""
    content = json.dumps([asdict(captions), row.frames, row.fps])
    return hashlib.sha256(content.encode()).hexdigest()
