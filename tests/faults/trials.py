"""Projects in which things go wrong, and the proof that nothing came of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
from dvc.repo import Repo
from projects import TrainedProject, copy_project, digests, enter_project

from assets.workspace import versions
from assets.workspace.params import DatasetParams
from assets.workspace.project import STAGES, Dataset, Project
from assets.workspace.tracking import CHALLENGER, DATA_TAG, Tracking, registered_name
from orchestration.agreement import latest_version
from orchestration.datasets import add_dataset

_OPEN = ("NOT_STARTED", "STARTING", "STARTED", "CANCELING")


def fresh(
    template: Path, rendered: Path, cache: Path, folder: Path, patch: pytest.MonkeyPatch
) -> Dataset:
    """A project of its own that has a dataset and nothing made of it."""
    root = copy_project(template, folder)
    shutil.copytree(rendered, root / ".tevad" / "rendered")
    enter_project(root, cache, patch)
    return add_dataset(Project.at(root), "rendered", DatasetParams(source=".tevad/rendered"))


def made_of(dataset: Dataset) -> dict[str, str]:
    """The data version of each stage, as its output lies there."""
    return {stage: versions.current(dataset, stage) for stage in STAGES}


def assert_as_if_undisturbed(dataset: Dataset, undisturbed: TrainedProject) -> None:
    """The bytes are those of an undisturbed run, all agree on them, and nothing is left open."""
    assert digests(dataset.folder) == digests(undisturbed.dataset.folder)
    assert made_of(dataset) == made_of(undisturbed.dataset)
    assert_all_agree(dataset)


def assert_all_agree(dataset: Dataset) -> None:
    """DVC, Dagster and MLflow have what lies there, no orphan is a result, nothing is left open."""
    made = made_of(dataset)
    with Repo(str(dataset.project.root)) as repo:  # which would not wait for a lock that is held
        assert repo.status() == {}
    with dg.DagsterInstance.get() as instance:
        for stage, version in made.items():
            assert latest_version(instance, dg.AssetKey(stage), dataset.name) == version
        statuses = [dg.DagsterRunStatus(status) for status in _OPEN]
        assert not instance.get_runs(dg.RunsFilter(statuses=statuses))

    client, name = Tracking.of(dataset.project).client, registered_name(dataset.name)
    version = client.get_model_version_by_alias(name, CHALLENGER)
    run = client.get_run(version.run_id)
    assert (version.status, run.info.status) == ("READY", "FINISHED")
    assert {stage: version.tags[f"{DATA_TAG}{stage}"] for stage in STAGES} == made
    experiment = run.info.experiment_id
    left = client.search_runs([experiment], "attributes.status = 'RUNNING'")
    assert not left, "a killed run seems to go on"
    models = client.search_logged_models([experiment])
    assert {str(model.status) for model in models} <= {"READY", "FAILED"}
    [only] = client.search_model_versions(f"name = '{name}'")
    assert only.version == version.version, "an orphan"
