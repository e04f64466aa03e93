"""The ablation: every variant trained and evaluated as the chain would, kept, and logged."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from mlflow.entities import Run
from ruamel.yaml import YAML

from assets.ablation import PICKS, VARIANTS, AblationRow, ablate, table
from assets.workspace import files
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import WORKSPACE, Tracking
from tevad_model.errors import InputError
from tevad_model.metrics import Summary

pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(trained_copy: Dataset) -> Dataset:
    """A dataset whose features lie there, to be trained on quickly."""
    path = trained_copy.project.root / "params.yaml"
    set_training(path, iterations=4, evaluate_every=2, selection="last")
    return Project.at(trained_copy.project.root).dataset(trained_copy.name)


def set_training(path: Path, **values: object) -> None:
    yaml = YAML()
    data = yaml.load(path)
    data["tevad_model"].update(values)
    yaml.dump(data, path)


def runs(tracking: Tracking, dataset: Dataset) -> list[Run]:
    return list(tracking.client.search_runs([tracking.experiment(f"{dataset.name}-ablation")]))


def results(dataset: Dataset) -> dict[str, int]:
    """When each variant's figures were written."""
    folder = dataset.work / "ablation"
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.json"))}


def test_every_variant_is_trained_logged_and_kept_until_what_it_reads_changes(
    dataset: Dataset,
) -> None:
    tracking = Tracking.of(dataset.project)
    rows = ablate(dataset, tracking, seeds=[3])
    assert [row.variant for row in rows] == list(VARIANTS)
    assert all(set(row.frame_auc) == set(PICKS) for row in rows)
    assert all(0 <= found.mean <= 1 for row in rows for found in row.frame_auc.values())
    assert {row.seeds for row in rows} == {(3,)}
    assert len({row.frame_auc["last"].mean for row in rows}) > 1, "variants differ"
    assert files.read_json(dataset.reports / "ablation.json")[0]["variant"] == "visual alone"

    logged = {run.info.run_name: run for run in runs(tracking, dataset)}
    assert logged.keys() == {"ablation-rendered", *VARIANTS}
    parent = logged["ablation-rendered"].info.run_id
    for row in rows:
        run = logged[row.variant]
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.data.metrics["picked_frame_auc"] == row.frame_auc["picked"].mean
    for fusion, temporal in product(("concat", "add", "product"), (True, False)):
        name = f"both, {fusion}, {'with' if temporal else 'without'} text temporal network"
        found = logged[name].data.params
        assert (found["fusion"], found["text_temporal"]) == (fusion, str(temporal))

    before = results(dataset)
    assert len(before) == len(VARIANTS)
    changed = dataset.work / "ablation" / "text-alone-3.json"
    files.write_json(changed, files.read_json(changed) | {"key": "of other captions"})
    touched = results(dataset)
    assert ablate(dataset, tracking, seeds=[3]) == rows, "the same seed gives the same figures"
    after = results(dataset)
    assert {name for name in before if after[name] != touched[name]} == {changed.name}


def test_what_a_killed_ablation_left_open_is_ended(project_root: Path) -> None:
    project = Project.at(project_root)
    write_dataset(project_root, "site", DatasetParams(source="videos"))
    dataset, tracking = project.dataset("site"), Tracking.of(project)
    experiment = tracking.experiment("site-ablation")
    tags = {WORKSPACE: project.identity}
    left = tracking.client.create_run(experiment, tags=tags).info.run_id
    with pytest.raises(InputError):  # there is nothing to train on
        ablate(dataset, tracking)
    assert tracking.client.get_run(left).info.status == "KILLED"


def test_the_table_has_a_line_for_each_variant_in_per_cent() -> None:
    figures = {"picked": Summary(0.5, 0.012, 2), "last": Summary(0.75, 0.0, 2)}
    lines = table([AblationRow("visual alone", figures, (0, 1))]).splitlines()
    assert lines[1].split() == [
        "visual",
        "alone",
        *["50.0", "±", "1.2", "75.0", "±", "0.0", "not", "defined"],
    ]
    assert "over 2 seeds" in lines[2]
