"""What each part of TEVAD is worth on a dataset: the ablation of the paper's table 5.

Trains and evaluates the variants of a dataset's model, each with every seed, as the chain would
(:func:`assets.tevad_model.train_seed`, :func:`assets.evaluation_metrics.evaluate_seed`). A variant
that is done is kept as a small file in the dataset's work folder and not trained again unless what
it reads changes, so that an interrupted ablation goes on where it was. No asset: it registers
nothing, and nothing is built on it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assets.evaluation_metrics import TestSplit, evaluate_seed
from assets.tevad_model import Inputs, check_inputs, read_inputs, train_seed
from assets.workspace import files
from assets.workspace.project import Dataset
from assets.workspace.tracking import RunLog, Tracking
from tevad_model.config import TrainingParams
from tevad_model.metrics import Summary, summarize

logger = logging.getLogger("tevad")

NAME = "ablation"
FIGURE = "frame_auc"
PICKS = ("picked", "last", "best_on_test")
"""How the checkpoint was picked; the last one is no result, but what papers are compared by."""

VARIANTS: dict[str, dict[str, Any]] = {
    "visual alone": {"modality": "visual"},
    "text alone": {"modality": "text"},
    **{
        f"both, {fusion}, {'with' if text_temporal else 'without'} text temporal network": {
            "modality": "both",
            "fusion": fusion,
            "text_temporal": text_temporal,
        }
        for text_temporal in (False, True)
        for fusion in ("concat", "add", "product")
    },
}
"""By name, how a variant departs from the dataset's parameters (TEVAD table 5)."""


@dataclass(frozen=True)
class AblationRow:
    """A variant's frame AUC over the seeds.

    Attributes:
        variant: its name.
        frame_auc: by how the checkpoint was picked.
        seeds: the seeds.
    """

    variant: str
    frame_auc: Mapping[str, Summary]
    seeds: tuple[int, ...]


def ablate(
    dataset: Dataset, tracking: Tracking, seeds: Sequence[int] | None = None
) -> list[AblationRow]:
    """Train and evaluate every variant, and log the table with a child run for each.

    Args:
        dataset: whose features have been made.
        tracking: where the runs are logged, in the experiment ``<dataset>-ablation``.
        seeds: by default those of ``params.yaml``.

    Raises:
        InputError: if the features of a modality are not there, or no test video.
    """
    with dataset.held(), tracking.answering():
        tracking.end_killed(_experiment(dataset))
        base = dataset.params.tevad_model
        params = {
            name: TrainingParams.model_validate(
                {**base.model_dump(), **changes, "seeds": tuple(seeds or base.seeds)}
            )
            for name, changes in VARIANTS.items()
        }
        inputs = {name: read_inputs(dataset, each) for name, each in params.items()}
        for each in inputs.values():
            check_inputs(each, f"ablating {dataset.name}")
        tests = {name: TestSplit.of(each) for name, each in inputs.items()}
        with tracking.start_run(_experiment(dataset), f"{NAME}-{dataset.name}", {}) as run:
            rows = [_variant(name, test, tracking, run) for name, test in tests.items()]
            path = dataset.reports / f"{NAME}.json"
            files.write_json(path, [asdict(row) for row in rows])
            run.artifact(path)
    return rows


def _experiment(dataset: Dataset) -> str:
    return f"{dataset.name}-{NAME}"


def _variant(name: str, test: TestSplit, tracking: Tracking, parent: RunLog) -> AblationRow:
    dataset, params = test.inputs.dataset, test.inputs.params
    with tracking.start_run(_experiment(dataset), name, {}, parent=parent) as run:
        run.params({"variant": name, **params.model_dump(mode="json")})
        found = [_seed(name, test, seed, run) for seed in params.seeds]
        summaries = {
            pick: summarize([figures[pick] for figures in found])
            for pick in PICKS
            if all(pick in figures for figures in found)
        }
        for pick, summary in summaries.items():
            run.metrics({f"{pick}_{FIGURE}": summary.mean, f"{pick}_{FIGURE}_std": summary.std})
    return AblationRow(name, summaries, params.seeds)


def _seed(name: str, test: TestSplit, seed: int, run: RunLog) -> dict[str, float]:
    """The frame AUC by pick of one variant and seed, trained now or before."""
    dataset = test.inputs.dataset
    done = dataset.work / NAME / f"{_slug(name)}-{seed}.json"
    key = _key(test, seed)
    if done.is_file() and (kept := files.read_json(done))["key"] == key:
        return dict(kept[FIGURE])
    logger.info("%s: %s, seed %d", dataset.name, name, seed)
    work = dataset.work / NAME / _slug(name)
    folder = work / "models" / str(seed)
    train_seed(test.inputs, seed, folder, work, run, keep_checkpoints=True)
    figures = {
        pick: values[FIGURE]
        for pick, values in evaluate_seed(test, folder).figures().items()
        if FIGURE in values
    }
    files.write_json(done, {"key": key, FIGURE: figures})
    shutil.rmtree(work)
    return figures


def _key(test: TestSplit, seed: int) -> str:
    """Identity of all that a seed's figures depend on, which are not the other seeds."""
    inputs = test.inputs
    alone = Inputs(
        inputs.dataset,
        inputs.params.model_copy(update={"seeds": (seed,)}),
        inputs.rows,
        inputs.digests,
        inputs.encoders,
    )
    truth = {video: asdict(found) for video, found in sorted(test.truth.items())}
    content = json.dumps([alone.key, truth], default=list)
    return hashlib.sha256(content.encode()).hexdigest()


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def table(rows: Sequence[AblationRow]) -> str:
    """The rows as text, frame AUC in per cent as the paper gives it."""
    heads = {"picked": "picked", "last": "last", "best_on_test": "best on test"}
    lines = [f"{'frame AUC (%)':<44}" + "".join(f"{heads[pick]:>16}" for pick in PICKS)]
    for row in rows:
        cells = [
            f"{100 * found.mean:.1f} ± {100 * found.std:.1f}"
            if (found := row.frame_auc.get(pick))
            else "not defined"
            for pick in PICKS
        ]
        lines.append(f"{row.variant:<44}" + "".join(f"{cell:>16}" for cell in cells))
    if rows:
        lines.append(
            f"mean ± deviation over {len(rows[0].seeds)} seeds; best on test is no result, but what "
            "published figures are comparable with"
        )
    return "\n".join(lines)
