"""What must hold of the trained models: training stayed finite, and the served model scores."""

import math
from typing import Any

import numpy as np

from assets.checks.expectations import Check, CheckOutcome, Table, Tables, between, validate
from assets.checks.faces import asset_checks
from assets.tevad_model import (
    STAGE,
    TRAINING,
    picked_folder,
    read_history,
    read_inputs,
    served_seed,
    trained_seeds,
)
from assets.workspace.project import Dataset
from tevad_model.errors import InputError

VALIDATION_AUC = "validation_auc"

CHECKS = (
    Check(
        "losses_are_finite",
        "Every loss in the history of every seed is a number.",
        table="seeds",
        expect=lambda _: between("not_finite", 0, 0),
        blocking=True,
    ),
    Check(
        "training_scores_in_range",
        "The served model's scores of the training videos lie in [0, 1].",
        table="videos",
        expect=lambda _: [*between("least_score", 0, 1), *between("largest_score", 0, 1)],
        blocking=True,
    ),
    Check(
        "validation_better_than_chance",
        "The validation AUC of every seed is above checks.min_auc.",
        table="validated_seeds",
        expect=lambda limits: between(VALIDATION_AUC, limits.min_auc, strictly=True),
        is_error=False,
    ),
)


def check_tevad_model(dataset: Dataset) -> list[CheckOutcome]:
    """Check the trained models.

    Raises:
        InputError: if the stage has not run, or a saved model is damaged.
    """
    return validate(dataset, STAGE, CHECKS, measure_tevad_model(dataset))


def measure_tevad_model(dataset: Dataset) -> Tables:
    """Measure the training history of every seed, and the served model on the training videos.

    Raises:
        InputError: if the stage has not run, or a saved model is damaged.
    """
    path = dataset.stage(STAGE) / TRAINING
    if not path.is_file():
        raise InputError(f"{path}: not there; materialize {STAGE} first")
    histories = {seed: read_history(dataset, seed) for seed in trained_seeds(dataset)}
    return {
        "seeds": Table.of(
            [{"seed": seed, "not_finite": _not_finite(h)} for seed, h in histories.items()],
            key=["seed"],
        ),
        "validated_seeds": Table.of(
            [
                {"seed": seed, VALIDATION_AUC: history["metrics"][VALIDATION_AUC]}
                for seed, history in histories.items()
                if VALIDATION_AUC in history["metrics"]
            ],
            key=["seed"],
        ),
        "videos": Table.of(_training_scores(dataset), key=["video"]),
    }


def _not_finite(history: dict[str, Any]) -> int:
    return sum(
        not math.isfinite(value) for row in history["rows"] for value in row["losses"].values()
    )


def _training_scores(dataset: Dataset) -> list[dict[str, object]]:
    from tevad_model import artifact
    from tevad_model.scoring import score_many

    inputs = read_inputs(dataset)
    model = artifact.load(picked_folder(dataset, served_seed(dataset)))
    videos = ((row.video, inputs.features(row.video)) for row in inputs.split("train"))
    return [
        {
            "video": video,
            "least_score": float(np.min(found.scores)),
            "largest_score": float(np.max(found.scores)),
        }
        for video, found in score_many(model, videos).items()
    ]


tevad_model_checks = asset_checks(STAGE, CHECKS, check_tevad_model)
