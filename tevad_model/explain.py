"""Why the model says what it says of a range of frames: its snippets, captions and modalities.

An explanation names the snippets of a range that score highest, with their captions and feature
magnitudes, and what each would score if one modality told nothing. Which ranges are asked about
(true events, alarms) is the caller's; nothing is drawn or written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from tevad_model import timeline
from tevad_model.artifact import Model
from tevad_model.bags import VideoFeatures
from tevad_model.scoring import LeaveOut, SnippetScores, score

TOP = 3
"""Snippets of a range that explain it."""


@dataclass(frozen=True)
class ExplainedSnippet:
    """A snippet and what speaks for its score.

    Attributes:
        snippet: its number in the video.
        start_frame: its first frame.
        end_frame: the frame after its last.
        score: in [0, 1].
        magnitude: L2 norm of its fused feature.
        caption: what is said of it; empty if nothing is.
        score_without: its score with a modality left out (:func:`tevad_model.scoring.score`), for a
            model that reads both.
    """

    snippet: int
    start_frame: int
    end_frame: int
    score: float
    magnitude: float
    caption: str
    score_without: Mapping[LeaveOut, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def score_without_each(
    model: Model, video: str, features: VideoFeatures
) -> dict[LeaveOut, SnippetScores]:
    """Score a video with each modality left out in turn.

    Args:
        model: the trained model.
        video: the video's name, for messages.
        features: what the model reads.

    Returns:
        Scores by modality left out; none for a model that reads only one.
    """
    if model.params.modality != "both":
        return {}
    return {
        modality: score(model, features.visual, features.text, video=video, leave_out=modality)
        for modality in get_args(LeaveOut)
    }


def explain(
    ranges: Iterable[tuple[int, int]],
    scores: SnippetScores,
    without: Mapping[LeaveOut, SnippetScores],
    *,
    frames: int,
    captions: Sequence[str] = (),
) -> list[tuple[ExplainedSnippet, ...]]:
    """The snippets that explain each range of a video's frames, highest score first.

    Args:
        ranges: half-open frame ranges.
        scores: of the video.
        without: its scores with a modality left out.
        frames: of the video.
        captions: one a snippet, or none at all.
    """
    snippets = [timeline.snippet_range(snippet, frames) for snippet in range(len(scores.scores))]

    def explained(snippet: int) -> ExplainedSnippet:
        return ExplainedSnippet(
            snippet,
            *snippets[snippet],
            score=float(scores.scores[snippet]),
            magnitude=float(scores.magnitudes[snippet]),
            caption=captions[snippet] if captions else "",
            score_without={name: float(found.scores[snippet]) for name, found in without.items()},
        )

    def rank(snippet: int) -> tuple[float, float]:
        return -scores.scores[snippet], -scores.magnitudes[snippet]

    return [
        tuple(
            explained(snippet)
            for snippet in sorted(
                (n for n, (first, last) in enumerate(snippets) if first < end and last > start),
                key=rank,
            )[:TOP]
        )
        for start, end in ranges
    ]
