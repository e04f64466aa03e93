"""Whoever ran a stage, DVC or Dagster, the other agrees that it is up to date."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from dvc.repo import Repo
from projects import TrainedProject, git

from assets.evaluation_metrics import evaluate
from assets.raw_videos import ingest_raw_videos
from assets.registered_model import register_model
from assets.tevad_model import train_tevad_model, training_runs
from assets.workspace import files, listing, versions
from assets.workspace.project import STAGES, Dataset, Project
from assets.workspace.tracking import CHALLENGER, DATA_TAG, Tracking, data_tags
from orchestration.agreement import latest_version, report_versions
from orchestration.build import SPECS
from orchestration.lineage import Lineage
from orchestration.running import run_chain
from orchestration.sensors import dvc_sensor
from tevad_model import video

pytestmark = pytest.mark.slow


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


def commit_all(project: Project, message: str) -> str:
    """Commit what belongs to a version, as a user would, and return git's name of it."""
    git(project.root, "add", "params.yaml", "dvc.lock", "data")
    git(project.root, "commit", "--quiet", "--message", message)
    return git(project.root, "rev-parse", "HEAD").strip()


def sync(dataset: Dataset) -> None:
    with dg.DagsterInstance.get() as instance:
        report_versions(dataset.project, SPECS, instance)


def assert_equal_everywhere(dataset: Dataset, after: str) -> None:
    """dvc.lock, Dagster and the MLflow run say the same of every stage, and it is what lies there.

    Prints a table, for `pytest -s`.
    """
    lineage = Lineage(dataset.project, Tracking.of(dataset.project))
    with dg.DagsterInstance.get() as instance:
        rows = lineage.of_dataset(dataset, instance)
    print(f"\nafter {after}")
    for row in rows:
        print(
            f"  {row.stage:<20}",
            *(f"{str(v)[:12]:<14}" for v in (row.dvc, row.dagster, row.mlflow)),
        )
    assert [row.stage for row in rows] == list(STAGES)
    assert all(row.agree for row in rows), f"after {after}"
    assert {row.stage: row.dvc for row in rows} == versions.all_current(dataset, STAGES)


def assert_registered(dataset: Dataset, version: str) -> None:
    """Dagster's registered_model is that version, whose tags are all of dvc.lock."""
    with dg.DagsterInstance.get() as instance:
        latest = latest_version(instance, dg.AssetKey("registered_model"), dataset.name)
    assert latest == version
    name, _, number = version.partition("/")
    tags = Tracking.of(dataset.project).client.get_model_version(name, number).tags
    assert {s: tags[f"{DATA_TAG}{s}"] for s in STAGES} == locked(dataset)
    print(f"  {'registered_model':<20} {version}")


def at(dataset: Dataset) -> Dataset:
    """The dataset with the parameters as they are now."""
    return Project.at(dataset.project.root).dataset(dataset.name)


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


def test_all_name_one_version_whatever_happens(trained_copy: Dataset) -> None:
    """dvc.lock = Dagster = the run's tag, for every asset, through all that changes data."""
    project = trained_copy.project
    tracking = Tracking.of(project)
    first = commit_all(project, "the first version")
    assert_equal_everywhere(trained_copy, "a Dagster run")
    assert_registered(trained_copy, "tevad-rendered/1")

    before = known(trained_copy)
    _, cursor = evaluate_sensor(trained_copy, None)
    change_params(project, "iterations: 30", "iterations: 20")

    assert repro(project) == ["tevad_model", "evaluation_metrics"]
    assert known(trained_copy) == before
    changed = {stage for stage in STAGES if locked(trained_copy)[stage] != before[stage]}
    assert changed == {"tevad_model", "evaluation_metrics"}

    message, later = evaluate_sensor(trained_copy, cursor)
    assert message == "reported tevad_model[rendered], evaluation_metrics[rendered]"
    assert_equal_everywhere(trained_copy, "a changed parameter and `dvc repro`")
    assert evaluate_sensor(trained_copy, later) == (
        "dvc.lock and params.yaml have not changed",
        later,
    )

    # An evaluation with other parameters, and an event that is corrected: neither trains anew.
    change_params(project, "bootstrap: 100", "bootstrap: 120")
    evaluate(at(trained_copy), tracking)
    versions.commit(trained_copy, "evaluation_metrics")
    sync(trained_copy)
    assert_equal_everywhere(trained_copy, "another evaluation of the same models")
    correct_an_event(trained_copy)
    assert_equal_everywhere(trained_copy, "a corrected event")
    assert len(training_runs(trained_copy, tracking)) == 1
    models = data_tags({"tevad_model": locked(trained_copy)["tevad_model"]})
    runs = tracking.find_runs("rendered", models)
    assert len(runs) == 3
    for run in runs:
        kept = {Path(path).name for path in tracking.log(run.info.run_id).paths("project")}
        assert kept == {"params.yaml", "dvc.lock", "source", "libraries.json"}

    outcome = run_chain(at(trained_copy))
    assert outcome.success, outcome.failures
    assert outcome.model == "tevad-rendered/2"
    assert files.read_json(trained_copy.reports / "tevad_model.json")["done"] == 0
    with Repo(str(project.root)) as repo:
        assert repo.status() == {}
    assert_registered(trained_copy, "tevad-rendered/2")
    commit_all(project, "the second version")

    add_a_video(trained_copy)
    outcome = run_chain(at(trained_copy))
    assert outcome.success, outcome.failures
    assert_equal_everywhere(trained_copy, "an added video")
    assert_registered(trained_copy, "tevad-rendered/3")

    git(project.root, "checkout", "--quiet", first, "--", "params.yaml", "dvc.lock", "data")
    with Repo(str(project.root)) as repo:
        repo.checkout(force=True)
        assert repo.status() == {}
    sync(trained_copy)
    assert locked(trained_copy) == before
    assert_equal_everywhere(trained_copy, "`dvc checkout` of an older version")
    register_model(at(trained_copy), tracking)
    version = tracking.client.get_model_version_by_alias("tevad-rendered", CHALLENGER)
    assert str(version.version) == "1"
    assert {s: version.tags[f"{DATA_TAG}{s}"] for s in STAGES} == locked(trained_copy)


def test_dvc_repro_logs_what_mlflow_does_not_have(
    trained_copy: Dataset, empty_mlflow: Path
) -> None:
    """Models that are not trained again, in an MLflow without them or by another tuning's version."""
    project = trained_copy.project
    shutil.copy(empty_mlflow, project.state / "mlflow.db")
    change_params(project, "bootstrap: 100", "bootstrap: 120")
    assert repro(project) == ["evaluation_metrics"]
    sync(trained_copy)
    assert_equal_everywhere(trained_copy, "`dvc repro` with a fresh MLflow")

    change_params(project, "tune: auto", "tune: never")
    change_params(project, "bootstrap: 120", "bootstrap: 100")
    assert "sentence_encoder" in repro(project)
    sync(trained_copy)
    assert_equal_everywhere(trained_copy, "a changed tuning and `dvc repro`")


def correct_an_event(dataset: Dataset) -> None:
    """End an event a frame earlier in the source, and run the stages that read it."""
    table = dataset.project.root / str(dataset.entry.source) / "events.csv"
    header, first, *others = table.read_text().splitlines()
    fields = dict(zip(header.split(","), first.split(","), strict=True))
    fields["end_frame"] = str(int(fields["end_frame"]) - 1)
    table.write_text("\n".join([header, ",".join(fields.values()), *others]) + "\n")
    changed, tracking = at(dataset), Tracking.of(dataset.project)
    listing.refresh(changed)
    ingest_raw_videos(changed)
    versions.commit(changed, "raw_videos")
    train_tevad_model(changed, tracking, {})
    evaluate(changed, tracking)
    for stage in STAGES[1:]:
        versions.commit(changed, stage)
    sync(changed)


def add_a_video(dataset: Dataset) -> None:
    """List another training video in the source: one that is there, with its last frames cut off."""
    source = dataset.project.root / str(dataset.entry.source)
    table = pd.read_csv(source / "videos.csv", dtype=str)
    row = table[(table["split"] == "train") & (table["label"] == "normal")].iloc[0]
    pictures = islice(video.frames(source / row["path"]), 80)
    video.encode(source / "added.mp4", pictures, 25.0)
    added = pd.DataFrame([{**row, "video": "added", "path": "added.mp4"}])
    pd.concat([table, added]).to_csv(source / "videos.csv", index=False)


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
