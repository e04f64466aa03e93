"""What the review page shows of a dataset, small enough to be part of the page.

Scores are float32, as the network computes them, captions the numbers of distinct ones; both in
base64, as the page (``page/data.js``) unpacks them.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from assets.raw_videos import read_events, read_raw_videos
from assets.review.pictures import CLIP_FRAMES, playable, thumbnail
from assets.scored_videos import read_scores, read_snippet_scores
from assets.workspace.manifest import RawVideoRow
from assets.workspace.project import Dataset
from tevad_model import timeline
from tevad_model.errors import VideoError

if TYPE_CHECKING:
    import pandas as pd

_ONE_ROUGHLY, _SIXTEEN_BITS = 255, 65535
_WITHOUT = "without_"

_NEXT_TIME = "Browsers do not play this video. Make the page again: a clip of it comes then."
_TOO_LONG = "Browsers do not play this video, and it is too long for a clip of it."


def gather(dataset: Dataset, page: Path, *, run: str, server: str) -> dict[str, Any]:
    """All that the page needs, as JSON values, videos in order of surprise.

    Args:
        dataset: whose scored videos.
        page: where the page will lie: videos are addressed from there.
        run: address of the run of the version that scored them; empty if it is not known.
        server: address of the server that serves the videos.

    Raises:
        InputError: if nothing has been scored.
    """
    scores = read_scores(dataset).sort_values(["max_score", "video"], ascending=[False, True])
    raw = read_raw_videos(dataset).by_video()
    # A video may have gone from the dataset since it was scored.
    scored = scores[scores["video"].isin(raw.keys())]
    rows = [raw[video] for video in scored["video"]]
    files = playable(dataset, [row for row in rows if row.path])
    events = read_events(dataset)
    captions = _Captions()
    videos = []
    for row in rows:
        snippets = read_snippet_scores(dataset, row.video)
        peak = int(snippets["score"].argmax())
        videos.append(
            {
                **_facts(row, events),
                **_scores(snippets, captions),
                **_pixels(dataset, row, files.get(row.video), page, peak),
            }
        )
    wide = len(captions.numbers) > _SIXTEEN_BITS
    for video in videos:
        video["said"] = _packed(video["said"], "<u4" if wide else "<u2")
    first = scores.iloc[0]
    return {
        "dataset": dataset.name,
        "model": str(first["model"]),
        "version": str(first["version"]),
        "run": run,
        "server": server,
        "threshold": float(first["threshold"]),
        "snippetFrames": timeline.SNIPPET_FRAMES,
        "captions": list(captions.numbers),
        "videos": videos,
    }


@dataclass
class _Captions:
    """Numbers captions as they come, each distinct one once."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, caption: str) -> int:
        return self.numbers.setdefault(caption, len(self.numbers))


def _facts(
    row: RawVideoRow, events: Mapping[str, Sequence[tuple[int, int]]] | None
) -> dict[str, Any]:
    """What is known of a video; its true events are null where nobody has marked them."""
    truth: list[tuple[int, int]] | None = None
    marked = (events or {}).get(row.video, [])
    if marked or row.label == "normal":
        truth = timeline.runs(timeline.frame_mask(marked, row.frames))
    return {
        "name": row.video,
        "label": row.label,
        "split": row.split,
        "class": row.category,
        "frames": row.frames,
        "fps": row.fps,
        "truth": truth,
    }


def _scores(snippets: pd.DataFrame, captions: _Captions) -> dict[str, Any]:
    return {
        "scores": _packed(snippets["score"], "<f4"),
        "said": [captions.number(caption) for caption in snippets["caption"]],
        "without": {
            column.removeprefix(_WITHOUT): _packed(
                np.round(snippets[column].to_numpy() * _ONE_ROUGHLY), "u1"
            )
            for column in snippets.columns
            if column.startswith(_WITHOUT)
        },
    }


def _packed(values: npt.ArrayLike, kind: str) -> str:
    return base64.b64encode(np.asarray(values).astype(kind).tobytes()).decode()


def relative_address(file: Path, page: Path) -> str:
    """How a page on disk addresses a file on the same disk, whatever characters its name has."""
    return quote(Path(os.path.relpath(file, page.parent)).as_posix())


def _pixels(
    dataset: Dataset, row: RawVideoRow, file: Path | None, page: Path, peak: int
) -> dict[str, Any]:
    """Where the video is for a page on disk, and a picture of it where it scores highest."""
    if not row.path:
        return {"file": "", "thumb": "", "why": "There are no pixels of this video, only features."}
    found = {
        "file": relative_address(file, page) if file else "",
        "why": _TOO_LONG if row.frames > CLIP_FRAMES else _NEXT_TIME,
    }
    try:
        picture = thumbnail(dataset, row, sum(timeline.snippet_range(peak, row.frames)) // 2)
    except VideoError:
        return {**found, "thumb": ""}
    return {**found, "thumb": base64.b64encode(picture).decode()}
