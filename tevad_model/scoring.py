"""A trained model and the features of videos in, snippet scores out.

One video, or many batched by length: padding is masked, so that the batch a video is in never
changes its scores. Also scores with one modality left out, for explanations. Frames, events and
ground truth are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from tevad_model.artifact import Model
from tevad_model.bags import FloatFeatures, VideoFeatures
from tevad_model.errors import MismatchError
from tevad_model.timeline import FloatArray

LeaveOut = Literal["visual", "text"]

BATCH_SNIPPETS = 2048
"""Snippets times crops that are scored at once, padding included."""

_POOL_BATCHES = 8
"""Batches' worth of videos that are in memory at once, to be grouped by length."""


@dataclass(frozen=True)
class SnippetScores:
    """The scores of one video.

    Attributes:
        scores: (snippets,) in [0, 1].
        magnitudes: (snippets,) feature magnitudes.
    """

    scores: FloatArray
    magnitudes: FloatArray


def score(
    model: Model,
    visual: FloatFeatures | None = None,
    text: FloatFeatures | None = None,
    *,
    video: str = "the video",
    leave_out: LeaveOut | None = None,
) -> SnippetScores:
    """Score one video.

    Args:
        model: the trained model.
        visual: (snippets, crops, dim); ignored by a model that reads text alone.
        text: (snippets, dim); ignored by a model that reads pixels alone.
        video: its name, for messages.
        leave_out: a modality to replace by its mean over the training bags at every snippet, so
            that it tells nothing apart. The difference to the full score is what it contributes.

    Raises:
        VideoError: if features are missing, empty, of different lengths or not finite.
        MismatchError: if dimensions are not the model's.
    """
    return score_many(model, {video: VideoFeatures(visual, text)}.items(), leave_out=leave_out)[
        video
    ]


def score_many(
    model: Model,
    videos: Iterable[tuple[str, VideoFeatures]],
    *,
    batch_snippets: int = BATCH_SNIPPETS,
    leave_out: LeaveOut | None = None,
) -> dict[str, SnippetScores]:
    """Score videos, batched by length; the result is that of :func:`score` for each.

    Args:
        model: the trained model.
        videos: pairs of name and features, in any order; read as they are needed, so that an
            iterator that loads them never has them all in memory.
        batch_snippets: largest number of snippets times crops in a batch, padding included. A
            longer video is a batch of its own. Any number gives the same scores.
        leave_out: as in :func:`score`.

    Returns:
        Scores by video, in the order given.

    Raises:
        VideoError, MismatchError: as in :func:`score`, naming the video.
    """
    prepared = ((video, _prepared(model, video, features)) for video, features in videos)
    scores: dict[str, SnippetScores] = {}
    for pool in _pools(prepared, _POOL_BATCHES * batch_snippets):
        scored: dict[str, SnippetScores] = {}
        for batch in _batches_by_length(pool, batch_snippets):
            outputs = _score_batch(model, [features for _, features in batch], leave_out)
            scored.update(zip((video for video, _ in batch), outputs, strict=True))
        scores |= {video: scored[video] for video, _ in pool}
    return scores


def _prepared(model: Model, video: str, features: VideoFeatures) -> VideoFeatures:
    """The checked features, only those the model reads."""
    features.check(video, model.params.modality)
    differences = []
    parts: dict[str, FloatFeatures] = {}
    for name, dim in (("visual", model.visual_dim), ("text", model.text_dim)):
        if dim is not None:
            parts[name] = getattr(features, name)
            if parts[name].shape[-1] != dim:
                differences.append(
                    f"{name} dim: the model reads {dim}, the features have {parts[name].shape[-1]}"
                )
    if differences:
        raise MismatchError(
            f"scoring {video}",
            differences,
            "Encode the video with the encoders the model was trained with.",
        )
    return VideoFeatures(**parts)


def _pools(
    videos: Iterable[tuple[str, VideoFeatures]], limit: int
) -> Iterator[list[tuple[str, VideoFeatures]]]:
    """Consecutive videos with about ``limit`` snippets times crops together."""
    pool: list[tuple[str, VideoFeatures]] = []
    held = 0
    for item in videos:
        pool.append(item)
        held += item[1].snippets * item[1].crops
        if held >= limit:
            yield pool
            pool, held = [], 0
    if pool:
        yield pool


def _batches_by_length(
    videos: Sequence[tuple[str, VideoFeatures]], limit: int
) -> Iterator[list[tuple[str, VideoFeatures]]]:
    """Group videos of like length and equal crops; longest first, so the first batch is largest."""
    batch: list[tuple[str, VideoFeatures]] = []
    for item in sorted(videos, key=lambda v: (v[1].crops, v[1].snippets), reverse=True):
        if batch:
            first = batch[0][1]
            padded = (len(batch) + 1) * first.snippets * first.crops
            if item[1].crops != first.crops or padded > limit:
                yield batch
                batch = []
        batch.append(item)
    if batch:
        yield batch


@torch.inference_mode()
def _score_batch(
    model: Model, batch: Sequence[VideoFeatures], leave_out: LeaveOut | None
) -> list[SnippetScores]:
    network = model.network
    network.eval()
    device = next(network.parameters()).device
    lengths = [features.snippets for features in batch]
    longest = max(lengths)
    visual = text = mask = None
    if network.visual_dim is not None:
        visual = _padded([f.visual for f in batch], longest).to(device).transpose(1, 2)
        if leave_out == "visual":
            visual = network.visual_input.mean.expand_as(visual)
    if network.text_dim is not None:
        text = _padded([f.text for f in batch], longest).to(device)
        if leave_out == "text":
            text = network.text_input.mean.expand_as(text)
    if min(lengths) < longest:
        mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
    output = network(visual, text, mask)
    scores, magnitudes = output.scores.double().cpu(), output.magnitudes.double().cpu()
    return [
        SnippetScores(scores[row, :length].numpy(), magnitudes[row, :length].numpy())
        for row, length in enumerate(lengths)
    ]


def _padded(arrays: Sequence[FloatFeatures | None], longest: int) -> torch.Tensor:
    """Stack (snippets, …) arrays to (B, longest, …) float32, zeros behind each one's end."""
    present = [array for array in arrays if array is not None]
    stacked: npt.NDArray[np.float32] = np.zeros(
        (len(present), longest, *present[0].shape[1:]), dtype=np.float32
    )
    for row, array in enumerate(present):
        stacked[row, : len(array)] = array
    return torch.from_numpy(stacked)
