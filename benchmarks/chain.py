"""How fast the chain is on UCSD Ped2, and what orchestration and one more video cost.

``frames_per_second`` is videos to frame scores without training: intake, features, captions,
embeddings and scoring, one after the other. ``orchestration_seconds`` is `tevad run` less what its
stages took. ``one_more_video_ratio`` is the cost of one more video in a dataset of 200, manifests
and DVC commits included, over the cost of that video alone. ``python -m benchmarks.chain`` prints a
table, ``--json`` one object.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from assets.caption_embeddings import embed_captions
from assets.captions import write_captions
from assets.raw_videos import ingest_raw_videos, read_raw_videos
from assets.sentence_encoder import tune_sentence_encoder
from assets.snippet_features import extract_snippet_features
from assets.tevad_model import picked_folder, read_inputs, served_seed
from assets.workspace import files, listing, versions
from assets.workspace.params import DatasetParams
from assets.workspace.project import CHAIN, FEATURE_STAGES, Dataset, Project
from benchmarks import encoder
from benchmarks.clips import clips
from benchmarks.project import shared, temporary_project
from benchmarks.report import print_figures
from orchestration.datasets import add_dataset
from tevad_model import artifact, scoring, timeline

FEATURE_FUNCTIONS = (
    ingest_raw_videos,
    extract_snippet_features,
    write_captions,
    tune_sentence_encoder,
    embed_captions,
)
MANY = 200


def measure() -> dict[str, float]:
    """All figures; the names are those the module's docstring explains."""
    with temporary_project() as project:
        dataset = add_dataset(
            project, "ped2", DatasetParams(source=str(shared("ped2")), preset="ped2-embedded")
        )
        wall = _tevad_run(project, "ped2")
        reports = {stage: files.read_json(dataset.reports / f"{stage}.json") for stage in CHAIN}
        frames = sum(row.frames for row in read_raw_videos(dataset).usable)
        seconds = sum(reports[stage]["seconds"] for stage in FEATURE_STAGES) + _score_all(dataset)
        metrics = files.read_json(dataset.folder / "metrics.json")
        return {
            "frames_per_second": frames / seconds,
            "raw_videos_frames_per_second": reports["raw_videos"]["frames_per_second"],
            "features_frames_per_second": reports["snippet_features"]["frames_per_second"],
            "captions_frames_per_second": reports["captions"]["frames_per_second"],
            "orchestration_seconds": wall - sum(r["seconds"] for r in reports.values()),
            "run_seconds": wall,
            **{f"{stage}_seconds": report["seconds"] for stage, report in reports.items()},
            "frame_auc": metrics["frame_auc"],
            "last_frame_auc": metrics["last_frame_auc"],
            **encoder.measure(project.cache),
            **_one_more_video(project),
        }


def _tevad_run(project: Project, name: str) -> float:
    """Seconds of `tevad run` in a process of its own."""
    started = time.perf_counter()
    subprocess.run(
        [str(Path(sys.executable).with_name("tevad")), "run", name],
        cwd=project.root,
        check=True,
        stdout=sys.stderr,
    )
    return time.perf_counter() - started


def _score_all(dataset: Dataset) -> float:
    """Seconds from stored features to frame scores of every video."""
    started = time.perf_counter()
    inputs = read_inputs(dataset)
    model = artifact.load(picked_folder(dataset, served_seed(dataset)))
    videos = [(row.video, inputs.features(row.video)) for row in inputs.rows]
    scores = scoring.score_many(model, videos)
    for row in inputs.rows:
        timeline.frame_values(scores[row.video].scores, row.frames)
    return time.perf_counter() - started


def _one_more_video(project: Project) -> dict[str, float]:
    alone = clips(project, "alone", range(MANY, MANY + 1))
    many = clips(project, "many", range(MANY))
    _features_seconds(many)
    clips(project, "many", range(MANY + 1))
    one_more, by_itself = _features_seconds(many), _features_seconds(alone)
    return {
        "one_more_video_ratio": one_more / by_itself,
        "one_more_video_seconds": one_more,
        "one_video_alone_seconds": by_itself,
    }


def _features_seconds(dataset: Dataset) -> float:
    started = time.perf_counter()
    listing.refresh(dataset)
    for run in FEATURE_FUNCTIONS:
        versions.commit(dataset, run(dataset).stage)
    return time.perf_counter() - started


if __name__ == "__main__":
    print_figures(measure, __doc__)
