"""Why the served model says what it says of the test videos: part of evaluation_metrics.

Asks for the true events, found or missed, and for the model's alarms, and brings the answers of
:mod:`tevad_model.explain` into a file and a table.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.workspace.face import markdown_table
from assets.workspace.manifest import RawVideoRow
from tevad_model import timeline
from tevad_model.timeline import FloatArray

if TYPE_CHECKING:
    from tevad_model.artifact import Model
    from tevad_model.bags import VideoFeatures
    from tevad_model.scoring import SnippetScores

FILE = "explanations.json"

_SHOWN = 10
"""Events and alarms in the table; the file has all of them."""


@dataclass(frozen=True)
class ScoredVideo:
    """A test video and what the model and the ground truth say of it.

    Attributes:
        features: what the model reads.
        scores: of its snippets.
        frame_scores: each frame its snippet's.
        events: true events as frame ranges.
        captions: one a snippet, or none.
    """

    row: RawVideoRow
    features: "VideoFeatures"
    scores: "SnippetScores"
    frame_scores: FloatArray
    events: Sequence[tuple[int, int]]
    captions: Sequence[str]


def explanations(model: "Model", videos: Iterable[ScoredVideo]) -> list[dict[str, Any]]:
    """The snippets behind each true event and each alarm of the videos, as JSON values."""
    return [told for video in videos for told in _explained(model, video)]


def _explained(model: "Model", video: ScoredVideo) -> Iterator[dict[str, Any]]:
    from tevad_model.explain import explain, score_without_each

    row = video.row
    alarms = timeline.runs(video.frame_scores >= model.threshold)
    ranges = [*(("event", event) for event in video.events), *(("alarm", run) for run in alarms)]
    if not ranges:
        return
    snippets = explain(
        [found for _, found in ranges],
        video.scores,
        score_without_each(model, row.video, video.features),
        frames=row.frames,
        captions=video.captions,
    )
    for (origin, (start, end)), reasons in zip(ranges, snippets, strict=True):
        yield {
            "video": row.video,
            "origin": origin,
            "start_frame": start,
            "end_frame": end,
            "start_s": timeline.seconds(start, row.fps),
            "end_s": timeline.seconds(end, row.fps),
            "snippets": [snippet.to_json() for snippet in reasons],
        }


def explanation_table(told: Sequence[Mapping[str, Any]]) -> str:
    """The events and alarms that score highest, each by its first snippet, as Markdown."""
    ranked = sorted(told, key=lambda found: -found["snippets"][0]["score"])[:_SHOWN]
    left_out = sorted({name for found in ranked for name in found["snippets"][0]["score_without"]})
    header = ("video", "what", "when", "score", "magnitude")
    return markdown_table(
        (*header, *(f"without {name}" for name in left_out), "caption"),
        [_row(found, left_out) for found in ranked],
    )


def _row(found: Mapping[str, Any], left_out: Sequence[str]) -> tuple[str, ...]:
    snippet = found["snippets"][0]
    return (
        found["video"],
        found["origin"],
        f"{found['start_s']:.1f} to {found['end_s']:.1f} s",
        f"{snippet['score']:.3f}",
        f"{snippet['magnitude']:.2f}",
        *(f"{snippet['score_without'][name]:.3f}" for name in left_out),
        snippet["caption"],
    )
