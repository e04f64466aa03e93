"""What tuning the sentence encoder on a dataset's captions does to them, and to the frame AUC.

For each seed the packaged MiniLM is tuned on the training split's captions as the stage
``sentence_encoder`` does, and the text-only model is trained and evaluated on both encoders'
embeddings, whether or not the stage would have kept the tuned one. ``python -m benchmarks.simcse``
prints a row a seed, ``--json`` one object. The captions are those of UCF-Crime
(``$TEVAD_SHARED_DATA/ucf_crime_captions``) unless ``--captions`` names a folder with
``captions.jsonl``, ``videos.csv`` and ``events.csv``. Three seeds take half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from assets.evaluation_metrics import EVALUATION
from assets.sentence_encoder import training_captions
from assets.workspace import files
from assets.workspace.params import FILE_NAME, DatasetParams
from assets.workspace.project import STAGES, Dataset, Project
from benchmarks.project import shared, temporary_project
from orchestration.datasets import add_dataset
from orchestration.running import run_stage
from tevad_model.encoders import simcse
from tevad_model.encoders.sentence import SentenceOptions, SentenceTransformerEncoder


def measure(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """A row a seed: alignment, uniformity and frame AUC before and after, and whether it is kept."""
    with temporary_project() as project:
        plain = _add(project, folder, "plain", seeds)
        _run(plain)
        return {
            "captions": len(training_captions(plain)),
            "seeds": {
                seed: {"frame_auc_before": _frame_auc(plain, seed), **_tuned(plain, folder, seed)}
                for seed in seeds
            },
        }


def _tuned(plain: Dataset, folder: Path, seed: int) -> dict[str, Any]:
    """Tune with a seed, and train and evaluate on what the tuned encoder makes of the captions."""
    project = plain.project
    started = time.perf_counter()
    params = plain.params.sentence_encoder.model_copy(update={"seed": seed})
    model = SentenceTransformerEncoder(SentenceOptions()).model
    tuning = simcse.tune(model, training_captions(plain), params)
    seconds = time.perf_counter() - started
    weights = project.state / f"tuned-{seed}"
    model.save_pretrained(str(weights), create_model_card=False)
    tuned = _add(project, folder, f"tuned-{seed}", [seed], model=weights)
    _run(tuned)
    return {
        "frame_auc_after": _frame_auc(tuned, seed),
        "is_kept": tuning.improved,
        "tuning_seconds": seconds,
        **asdict(tuning),
    }


def _add(
    project: Project, folder: Path, name: str, seeds: Sequence[int], model: Path | None = None
) -> Dataset:
    """Add the captions as a dataset with a preset of its own: ``text``, these seeds, this encoder."""
    path = project.root / FILE_NAME
    yaml = YAML()
    data = yaml.load(path)
    preset = dict(data["presets"]["text"])
    preset["tevad_model"] = {**preset["tevad_model"], "seeds": list(seeds)}
    preset["sentence_encoder"] = {"tune": "never"}
    preset["evaluation_metrics"] = {"best_on_test": False, "bootstrap": 100}
    if model is not None:
        preset["caption_embeddings"] = {"options": {"model": str(model)}}
    data["presets"][name] = preset
    yaml.dump(data, path)
    entry = DatasetParams(
        captions=str(folder / "captions.jsonl"),
        labels=str(folder / "videos.csv"),
        events=str(folder / "events.csv"),
        preset=name,
    )
    return add_dataset(project, name, entry)


def _run(dataset: Dataset) -> None:
    for stage in STAGES:
        run_stage(dataset, stage)


def _frame_auc(dataset: Dataset, seed: int) -> float:
    evaluation = files.read_json(dataset.stage("evaluation_metrics") / EVALUATION)
    return float(evaluation["seeds"][str(seed)]["picked"]["figures"]["frame_auc"])


def main() -> None:
    """Print the figures as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=Path, help="folder of captions, labels and events")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    folder = arguments.captions or shared("ucf_crime_captions")
    figures = measure(folder, arguments.seeds)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{figures['captions']} distinct captions of the training split")
    print("seed  alignment        uniformity       frame AUC        kept  seconds")
    for seed, row in figures["seeds"].items():
        pairs = [
            (row["before"]["alignment"], row["after"]["alignment"]),
            (row["before"]["uniformity"], row["after"]["uniformity"]),
            (row["frame_auc_before"], row["frame_auc_after"]),
        ]
        shown = "  ".join(f"{before:6.3f} → {after:6.3f}" for before, after in pairs)
        kept = "yes" if row["is_kept"] else "no"
        print(f"{seed:4}  {shown}  {kept:4}  {row['tuning_seconds']:7.0f}")


if __name__ == "__main__":
    main()
