"""A small, sound dataset whose stages lie there as the stages write them, for tests to corrupt."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from assets import evaluation_metrics as evaluation
from assets import tevad_model as models
from assets.checks.expectations import CheckOutcome
from assets.workspace import files, listing
from assets.workspace.manifest import Manifest, RawVideoRow, StageRow, read_manifest
from assets.workspace.project import Dataset, Project
from assets.workspace.stage import ENCODER
from tevad_model import artifact, timeline
from tevad_model.config import TrainingParams
from tevad_model.dataset import LABELS, SPLITS, VideoRow, format_videos
from tevad_model.encoders.card import EncoderCard
from tevad_model.fingerprint import Fingerprint
from tevad_model.network import TevadNetwork

VISUAL_DIM, TEXT_DIM, CROPS = 16, 8, 2
FRAMES = (40, 33, 16, 1)
CAPTIONS = ("Nobody moves.", "One person walks left.", "Two people walk right, close together.")

PARAMS = """
snippet_features: {backend: test}
captions: {backend: test}
caption_embeddings: {backend: test}
tevad_model: {seeds: [0, 1]}
presets: {paper: {}}
datasets: {small: {source: nowhere}}
"""

CARD = EncoderCard("test", {}, Fingerprint({"backend": "test"}))


def build(root: Path) -> Dataset:
    """Four training and four test videos, half of them abnormal, through all stages."""
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").touch()
    dataset = Project.at(root).dataset("small")
    rows = [
        _video(f"{split}-{label}-{number}", label, split, FRAMES[2 * number + (label == "normal")])
        for split in SPLITS
        for label in LABELS
        for number in range(2)
    ]
    _write_raw_videos(dataset, rows)
    _write_features(dataset, rows)
    _write_captions(dataset, rows)
    _write_models(dataset)
    _write_evaluation(dataset, rows)
    return dataset


def failed(outcomes: list[CheckOutcome]) -> dict[str, list[object]]:
    """By name of each failed check, what its offenders are called."""
    return {
        outcome.check.name: [next(iter(row.values())) for row in outcome.offenders]
        for outcome in outcomes
        if not outcome.passed
    }


def _video(video: str, label: str, split: str, frames: int) -> RawVideoRow:
    content = video.encode()
    path, digest = f"videos/{video}.mp4", f"sha of {video}"
    return RawVideoRow(video, path, label, split, "", frames, 10.0, 64, 48, len(content), digest)


def _write_raw_videos(dataset: Dataset, rows: list[RawVideoRow]) -> None:
    listed = [VideoRow(row.video, f"{row.video}.mp4", row.label, row.split) for row in rows]
    dataset.source.mkdir(parents=True)
    (dataset.source / listing.VIDEOS).write_text(format_videos(listed))
    (dataset.source / listing.FILES).write_text("path,bytes,version\n")
    folder = dataset.stage("raw_videos")
    for row in rows:
        (folder / row.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / row.path).write_bytes(row.video.encode())
    Manifest.of(rows).write(folder, RawVideoRow)


def _write_features(dataset: Dataset, rows: list[RawVideoRow]) -> None:
    random = np.random.default_rng(0)
    for row in rows:
        shape = (timeline.snippet_count(row.frames), CROPS, VISUAL_DIM)
        write_array(dataset, "snippet_features", row.video, random.normal(size=shape))
    _write_manifest(dataset, "snippet_features", rows)


def _write_captions(dataset: Dataset, rows: list[RawVideoRow]) -> None:
    embedded = np.random.default_rng(1).normal(size=(len(CAPTIONS), TEXT_DIM))
    for row in rows:
        chosen = [i % len(CAPTIONS) for i in range(timeline.snippet_count(row.frames))]
        write_captions(dataset, row.video, [CAPTIONS[i] for i in chosen])
        write_array(dataset, "caption_embeddings", row.video, embedded[chosen])
    _write_manifest(dataset, "captions", rows)
    _write_manifest(dataset, "caption_embeddings", rows)


def _write_manifest(dataset: Dataset, stage: str, rows: list[RawVideoRow]) -> None:
    digest = CARD.fingerprint.digest
    Manifest.of(
        StageRow(row.video, row.sha256, digest, timeline.snippet_count(row.frames)) for row in rows
    ).write(dataset.stage(stage), StageRow)
    files.write_json(dataset.stage(stage) / ENCODER, CARD.to_json())


def _write_models(dataset: Dataset) -> None:
    torch.manual_seed(0)
    params = dataset.params.tevad_model
    for seed in params.seeds:
        network = TevadNetwork(params, VISUAL_DIM, TEXT_DIM)
        for moments in (network.visual_input, network.text_input):
            moments.fit([torch.randn(8, moments.mean.numel())])
        save_model(dataset, seed, network, params)
        history = {
            "metrics": {"validation_auc": 0.8, "validation_loss": 0.5},
            "rows": [{"step": 20, "losses": {"loss": 1.0}, "validation": {"validation_auc": 0.8}}],
        }
        files.write_json(models.picked_folder(dataset, seed).parent / models.HISTORY, history)
    training = {"seeds": list(params.seeds), "served_seed": params.seeds[0]}
    files.write_json(dataset.stage(models.STAGE) / models.TRAINING, training)


def save_model(dataset: Dataset, seed: int, network: TevadNetwork, params: TrainingParams) -> None:
    """Put a network in the place of a seed's picked model."""
    model = artifact.Model(network.eval(), params, seed=seed, step=20, crops=CROPS)
    artifact.save(model, models.picked_folder(dataset, seed))


def _write_evaluation(dataset: Dataset, rows: list[RawVideoRow]) -> None:
    scores = [
        {"video": row.video, "start_frame": start, "end_frame": end, "score": 0.25}
        for row in rows
        if row.split == "test"
        for start, end in (
            timeline.snippet_range(snippet, row.frames)
            for snippet in range(timeline.snippet_count(row.frames))
        )
    ]
    write_scores(dataset, scores)
    write_figures(dataset, {"frame_auc": 0.8, "video_auc": 0.9})


def write_scores(dataset: Dataset, scores: list[dict[str, object]]) -> None:
    """Write the evaluation's table of scores."""
    path = dataset.stage(evaluation.STAGE) / evaluation.SCORES
    with files.replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(scores), temporary)


def read_scores(dataset: Dataset) -> list[dict[str, object]]:
    """Read it back."""
    table = pq.read_table(dataset.stage(evaluation.STAGE) / evaluation.SCORES)
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def write_figures(dataset: Dataset, figures: dict[str, float]) -> None:
    """Write the served seed's figures."""
    seeds = {"0": {"picked": {"figures": figures}}}
    path = dataset.stage(evaluation.STAGE) / evaluation.EVALUATION
    files.write_json(path, {"served_seed": 0, "seeds": seeds})


def write_array(dataset: Dataset, stage: str, video: str, array: np.ndarray) -> None:
    """Write a video's array as the stage does."""
    name, dtype = {
        "snippet_features": ("features", np.float16),
        "caption_embeddings": ("embeddings", np.float32),
    }[stage]
    path = dataset.stage(stage) / f"{video}.safetensors"
    files.write_array(path, name, array.astype(dtype), {"video": video})


def write_captions(dataset: Dataset, video: str, captions: list[str]) -> None:
    """Write a video's captions as the stage does."""
    lines = [{"snippet": i, "caption": caption} for i, caption in enumerate(captions)]
    files.write_lines(dataset.stage("captions") / f"{video}.jsonl", {"video": video}, lines)


def change_row(dataset: Dataset, stage: str, name: str, **changes: object) -> None:
    """Change a video's row in a stage's manifest."""
    row_type = RawVideoRow if stage == "raw_videos" else StageRow
    rows = read_manifest(dataset.stage(stage), row_type).rows
    changed = [replace(row, **changes) if row.video == name else row for row in rows]
    Manifest.of(changed).write(dataset.stage(stage), row_type)
