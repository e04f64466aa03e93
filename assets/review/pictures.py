"""Thumbnails, and clips that a browser plays of videos that it does not.

Both are kept by the hash of the video they are of, in the project's cache: they can be made again,
and a video that is renamed keeps them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from assets.raw_videos import video_path
from assets.workspace import files
from assets.workspace.manifest import RawVideoRow
from assets.workspace.progress import over_videos
from assets.workspace.project import Dataset
from tevad_model import timeline
from tevad_model.errors import VideoError

logger = logging.getLogger("tevad")

CLIP_FRAMES = 150_000
"""Frames that one call encodes at most, about 100 minutes; the next call goes on."""

_CLIP_SIDE, _CLIP_CRF = 480, 28
_THUMBNAIL_SIDE, _THUMBNAIL_QUALITY = 152, 70


def thumbnail(dataset: Dataset, row: RawVideoRow, frame: int) -> bytes:
    """A frame of a video as a small JPEG.

    Raises:
        VideoError: if it cannot be read.
    """
    path = dataset.project.cache / "thumbnails" / f"{row.sha256}-{frame}.jpg"
    if not path.is_file():
        files.write_bytes(path, _jpeg(video_path(dataset, row), timeline.seconds(frame, row.fps)))
    return path.read_bytes()


def _jpeg(path: Path, second: float) -> bytes:
    import io

    from PIL import Image

    from tevad_model import video

    content = io.BytesIO()
    picture = video.frame_near(path, second, max_side=_THUMBNAIL_SIDE)
    Image.fromarray(picture).save(content, "JPEG", quality=_THUMBNAIL_QUALITY, optimize=True)
    return content.getvalue()


def playable(
    dataset: Dataset, rows: Iterable[RawVideoRow], limit: int = CLIP_FRAMES
) -> dict[str, Path]:
    """The file to play of each video: its own if browsers play that, else a clip made of it.

    Args:
        dataset: whose videos.
        rows: of videos with pixels, those first whose clip matters most.
        limit: frames that are encoded at most. Videos beyond have no file in the result, and are
            made by a later call.
    """
    from tevad_model import video

    found: dict[str, Path] = {}
    due: list[RawVideoRow] = []
    for row in rows:
        own, clip = video_path(dataset, row), clip_path(dataset, row)
        if video.plays_in_browsers(own):
            found[row.video] = own
        elif clip.is_file():
            found[row.video] = clip
        elif row.frames <= limit:
            limit -= row.frames
            due.append(row)
    for row in over_videos(due, f"{dataset.name}/clips") if due else ():
        pictures = video.frames(video_path(dataset, row), max_side=_CLIP_SIDE)
        clip = clip_path(dataset, row)
        clip.parent.mkdir(parents=True, exist_ok=True)
        try:
            video.encode(clip, pictures, row.fps, crf=_CLIP_CRF)
        except VideoError as error:
            logger.warning("no clip to play: %s", error)
        else:
            found[row.video] = clip
    return found


def clip_path(dataset: Dataset, row: RawVideoRow) -> Path:
    """Where the clip made of a video lies, if one was."""
    return dataset.project.cache / "clips" / f"{row.sha256}.mp4"
