"""What must hold of evaluation_metrics before a model is registered."""

import math
from typing import Any

from assets.checks.expectations import (
    Check,
    CheckOutcome,
    Table,
    Tables,
    between,
    equal,
    validate,
)
from assets.checks.faces import asset_checks
from assets.evaluation_metrics import EVALUATION, SCORES, STAGE
from assets.tevad_model import read_inputs
from assets.workspace import files
from assets.workspace.project import Dataset
from tevad_model.errors import InputError

FRAME_AUC, VIDEO_AUC = "frame_auc", "video_auc"

CHECKS = (
    Check(
        "scores_in_range",
        "The scores of the test videos lie in [0, 1].",
        table="videos",
        expect=lambda _: [*between("least_score", 0, 1), *between("largest_score", 0, 1)],
        blocking=True,
    ),
    Check(
        "every_test_frame_is_scored",
        "Each usable test video is scored on all its frames, each once.",
        table="videos",
        expect=lambda _: equal("scored_frames", "frames"),
        blocking=True,
    ),
    Check(
        "better_than_chance",
        "The AUC of the served model on the test split is above checks.min_auc: of frames, or "
        "without events of videos. A model no better than chance is not registered.",
        table="served",
        expect=lambda limits: between("auc", limits.min_auc, strictly=True),
        blocking=True,
    ),
)


def check_evaluation_metrics(dataset: Dataset) -> list[CheckOutcome]:
    """Check the evaluation.

    Raises:
        InputError: if the stage has not run, or its files are damaged.
    """
    return validate(dataset, STAGE, CHECKS, measure_evaluation_metrics(dataset))


def measure_evaluation_metrics(dataset: Dataset) -> Tables:
    """Measure the scores of each test video, and read the AUC of the served model.

    Raises:
        InputError: if the stage has not run, or its files are damaged.
    """
    return {
        "videos": Table.of(_videos(dataset), key=["video"]),
        "served": Table.of([_served(dataset)], key=["seed", "figure"]),
    }


def _videos(dataset: Dataset) -> list[dict[str, object]]:
    """A row a video: of those that should be scored, and of those that are."""
    frames = {row.video: row.frames for row in read_inputs(dataset).split("test")}
    rows = {
        video: {"video": video, "frames": count, "scored_frames": 0}
        for video, count in frames.items()
    }
    for video, found in _by_video(_scores(dataset)).items():
        rows[video] = {"video": video, "frames": frames.get(video, 0), **found}
    return list(rows.values())


def _by_video(scores: Any) -> dict[str, dict[str, object]]:
    """Each video's range of scores, none if one is missing, and the frames that are scored once.

    Those are the frames from 0 that its snippets cover without a gap or an overlap.
    """
    rows = scores.dropna(subset="video").sort_values(["video", "start_frame"])
    follows = rows["start_frame"] == rows.groupby("video")["end_frame"].shift(fill_value=0)
    rows = rows.assign(
        end=rows["end_frame"].where(follows.groupby(rows["video"]).cummin()),
        is_missing=rows["score"].isna(),
    )
    found = rows.groupby("video").agg(
        scored_frames=("end", "last"),
        least_score=("score", "min"),
        largest_score=("score", "max"),
        is_missing=("is_missing", "any"),
    )
    found["scored_frames"] = found["scored_frames"].fillna(0).astype(int)
    found.loc[found.pop("is_missing"), ["least_score", "largest_score"]] = math.nan
    return {str(video): row for video, row in found.to_dict("index").items()}


def _scores(dataset: Dataset) -> Any:
    import pandas as pd
    from pyarrow.lib import ArrowInvalid

    path = dataset.stage(STAGE) / SCORES
    try:
        return pd.read_parquet(path)
    except (FileNotFoundError, ArrowInvalid):
        raise InputError(f"{path}: not there or damaged; materialize {STAGE} again") from None


def _served(dataset: Dataset) -> dict[str, object]:
    """The AUC of the model that would be registered; missing where no figure is defined."""
    path = dataset.stage(STAGE) / EVALUATION
    try:
        evaluation = files.read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not there; materialize {STAGE} first") from None
    seed = evaluation["served_seed"]
    figures = evaluation["seeds"][str(seed)]["picked"]["figures"]
    figure = FRAME_AUC if FRAME_AUC in figures else VIDEO_AUC
    return {"seed": seed, "figure": figure, "auc": figures.get(figure)}


evaluation_metrics_checks = asset_checks(STAGE, CHECKS, check_evaluation_metrics)
