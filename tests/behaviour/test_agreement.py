"""Whoever ran a stage, DVC or Dagster, the other agrees that it is up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dvc.repo import Repo
from projects import TrainedProject

from assets.workspace import files, versions
from assets.workspace.project import STAGES, Dataset, Project
from orchestration.agreement import latest_version, report_versions
from orchestration.build import SPECS
from orchestration.running import run_chain
from orchestration.sensors import dvc_sensor


def repro(project: Project) -> list[str]:
    """Run `dvc repro` as a user would and return the stages it ran."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project.root,
        env={**os.environ, "PATH": programs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"Running stage '(\w+)@rendered'", done.stdout)


def known(dataset: Dataset) -> dict[str, str | None]:
    """The data version that Dagster shows of each stage."""
    with dg.DagsterInstance.get() as instance:
        return {
            stage: latest_version(instance, dg.AssetKey(stage), dataset.name) for stage in STAGES
        }


def locked(dataset: Dataset) -> dict[str, str]:
    recorded = versions.recorded(dataset.project)
    return {stage: version for (stage, name), version in recorded.items() if name == dataset.name}


def change_params(project: Project, old: str, new: str) -> None:
    path = project.root / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def evaluate_sensor(dataset: Dataset, cursor: str | None) -> tuple[str, str | None]:
    """What the sensor says, and where it stands afterwards."""
    sensor = dvc_sensor(dataset.project, SPECS)
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        skipped = sensor(context)
        assert isinstance(skipped, dg.SkipReason)
        return str(skipped.skip_message), context.cursor


def test_after_a_run_dvc_has_nothing_to_do(trained_copy: Dataset) -> None:
    assert repro(trained_copy.project) == []
    assert known(trained_copy) == locked(trained_copy)


def test_what_dvc_made_anew_dagster_shows(trained_copy: Dataset) -> None:
    project = trained_copy.project
    before = known(trained_copy)
    _, cursor = evaluate_sensor(trained_copy, None)
    change_params(project, "iterations: 30", "iterations: 20")

    assert repro(project) == ["tevad_model", "evaluation_metrics"]
    assert known(trained_copy) == before
    changed = {stage for stage in STAGES if locked(trained_copy)[stage] != before[stage]}
    assert changed == {"tevad_model", "evaluation_metrics"}

    message, later = evaluate_sensor(trained_copy, cursor)
    assert message == "reported tevad_model[rendered], evaluation_metrics[rendered]"
    assert known(trained_copy) == locked(trained_copy)
    assert evaluate_sensor(trained_copy, later) == (
        "dvc.lock and params.yaml have not changed",
        later,
    )

    outcome = run_chain(trained_copy)
    assert outcome.success, outcome.failures
    assert outcome.model == "tevad-rendered/2"
    assert files.read_json(trained_copy.reports / "tevad_model.json")["done"] == 0
    with Repo(str(project.root)) as repo:
        assert repo.status() == {}


@pytest.mark.slow
def test_new_captions_cost_no_new_features(trained_copy: Dataset) -> None:
    project = trained_copy.project
    before = known(trained_copy)
    change_params(
        project, "captions: {backend: motion}",
        "captions: {backend: motion, options: {samples_a_second: 4.0}}",
    )  # fmt: skip
    ran = repro(project)
    assert ran[0] == "captions"
    assert "snippet_features" not in ran
    with dg.DagsterInstance.get() as instance:
        reported = report_versions(project, SPECS, instance)
    assert "captions[rendered]" in reported
    assert known(trained_copy) == locked(trained_copy)
    assert known(trained_copy)["snippet_features"] == before["snippet_features"]


def test_what_dvc_made_is_known_with_what_it_was_made_from(trained_copy: Dataset) -> None:
    """A fresh Dagster, as after `git clone` and `dvc pull`, takes over all that DVC records."""
    with dg.DagsterInstance.ephemeral() as instance:
        reported = report_versions(trained_copy.project, SPECS, instance)
        assert sorted(reported) == sorted(f"{stage}[rendered]" for stage in STAGES)
        event = instance.get_latest_materialization_event(dg.AssetKey("captions"))
        assert event is not None
        assert event.asset_materialization is not None
        tags = event.asset_materialization.tags or {}
        assert report_versions(trained_copy.project, SPECS, instance) == []
    assert tags["dagster/data_version"] == locked(trained_copy)["captions"]
    assert tags["dagster/input_data_version/raw_videos"] == locked(trained_copy)["raw_videos"]
    assert tags["dagster/code_version"] == "1"


def test_a_dataset_that_is_no_longer_in_the_parameters_is_not_reported(
    trained_project: TrainedProject, project_root: Path
) -> None:
    """``project_root`` has no dataset; its lock file is the trained project's."""
    lock = trained_project.root / versions.LOCK_FILE
    (project_root / versions.LOCK_FILE).write_bytes(lock.read_bytes())
    with dg.DagsterInstance.ephemeral() as instance:
        assert report_versions(Project.at(project_root), SPECS, instance) == []


def test_a_project_without_a_lock_file_has_nothing_to_report(project_root: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert report_versions(Project.at(project_root), SPECS, instance) == []
