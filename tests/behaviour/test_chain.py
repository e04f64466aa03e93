"""What `tevad run` leaves behind, and what running it again costs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import mlflow
import pandas as pd
import pytest
from click.testing import CliRunner
from dvc.repo import Repo
from projects import TrainedProject, digests

from assets.checks import ALL_CHECKS
from assets.evaluation_metrics import evaluate
from assets.promotion.decision import last_decision
from assets.raw_videos import read_raw_videos, video_path
from assets.registered_model import CHALLENGER
from assets.tevad_model import find_training_run
from assets.workspace import files, versions
from assets.workspace.project import CHAIN, STAGES, Dataset, Project
from assets.workspace.tracking import DATA_TAG, Tracking
from orchestration.agreement import latest_version
from orchestration.build import SPECS
from orchestration.cli import main
from orchestration.running import run_chain
from tevad_model.timeline import snippet_count

pytestmark = pytest.mark.slow

WriteVideo = Callable[..., Path]
PER_VIDEO = ("raw_videos", "snippet_features", "captions", "caption_embeddings")


def dvc_status(project: Project) -> object:
    with Repo(str(project.root)) as repo:
        return repo.status()


def done(dataset: Dataset) -> dict[str, int]:
    """What each stage's last run worked on."""
    reports = {stage: files.read_json(dataset.reports / f"{stage}.json") for stage in CHAIN}
    return {stage: report["done"] for stage, report in reports.items()}


def judged(run: str) -> list[str]:
    """When each check of a run was judged."""
    with dg.DagsterInstance.get() as instance:
        records = instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    events = [record.dagster_event for record in records if record.dagster_event]
    return [str(e.asset_check_evaluation_data.metadata["judged"].value) for e in events]


def edit_table(dataset: Dataset, change: dict[str, dict[str, str]], *added: dict[str, str]) -> Path:
    """Change rows of the source's videos.csv and add some; return the source."""
    source = dataset.project.root / dataset.entry.source
    path = source / "videos.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row | change.get(row["video"], {}) for row in csv.DictReader(file)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows, *added])
    return source


def test_every_asset_is_materialized(trained: TrainedProject) -> None:
    with dg.DagsterInstance.get() as instance:
        found = {
            spec.key.to_user_string(): latest_version(instance, spec.key, trained.dataset.name)
            for spec in SPECS
            if spec.key.to_user_string() in CHAIN
        }
    decision = last_decision(trained.dataset, trained.tracking)
    assert decision is not None
    assert found == {
        **{stage: versions.current(trained.dataset, stage) for stage in STAGES},
        "registered_model": trained.outcome.model,
        "promotion_decision": f"{decision.key}/{decision.outcome}",
    }


def test_dvc_dagster_and_mlflow_hold_one_version(trained: TrainedProject) -> None:
    locked = {
        stage: version
        for (stage, name), version in versions.recorded(trained.dataset.project).items()
        if name == trained.dataset.name
    }
    run = find_training_run(trained.dataset, trained.tracking)
    assert run is not None
    logged = trained.tracking.client.get_run(run.run_id)
    tagged = {
        key.removeprefix(DATA_TAG): value
        for key, value in logged.data.tags.items()
        if key.startswith(DATA_TAG)
    }
    assert set(locked) == set(STAGES)
    assert tagged == locked == {s: versions.current(trained.dataset, s) for s in STAGES}
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["dagster.run_id"] == trained.outcome.run_id
    assert dvc_status(trained.dataset.project) == {}


def test_every_check_has_run_and_none_failed_but_as_a_warning(trained: TrainedProject) -> None:
    expected = {
        key
        for checks in ALL_CHECKS
        for key in checks.check_keys
        if key.asset_key.to_user_string() in CHAIN
    }
    with dg.DagsterInstance.get() as instance:
        records = instance.all_logs(
            trained.outcome.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
    evaluated = [
        record.dagster_event.asset_check_evaluation_data
        for record in records
        if record.dagster_event
    ]
    assert {check.asset_check_key for check in evaluated} == expected
    failed = {c.check_name for c in evaluated if not c.passed}
    blocking = {c.check_name for c in evaluated if c.severity == dg.AssetCheckSeverity.ERROR}
    assert failed & blocking == set()


def test_the_figures_are_there(trained: TrainedProject) -> None:
    figures = json.loads((trained.dataset.folder / "metrics.json").read_text())
    assert 0 <= figures["frame_auc"] <= 1
    with Repo(str(trained.root)) as repo:
        shown = repo.metrics.show()
    [metrics] = shown[""]["data"].values()
    assert metrics["data"] == figures


def test_the_challenger_scores_a_video(
    trained: TrainedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.tracking.uri)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the model's own code there
    row = read_raw_videos(trained.dataset).usable[0]
    model = mlflow.pyfunc.load_model(f"models:/tevad-rendered@{CHALLENGER}")
    table = pd.DataFrame({"video": [str(video_path(trained.dataset, row))]})
    scores = model.predict(table)["score"]
    assert len(scores) == snippet_count(row.frames)
    assert scores.between(0, 1).all()


def test_a_second_run_does_no_work_and_changes_no_byte(trained_copy: Dataset) -> None:
    project = trained_copy.project
    before = digests(project.data)
    lock = (project.root / versions.LOCK_FILE).read_bytes()
    result = CliRunner().invoke(main, ["run", "--force", trained_copy.name])
    assert result.exit_code == 0, result.output
    assert f"{'model version':<24}tevad-rendered/1" in result.stdout
    assert done(trained_copy) == dict.fromkeys(CHAIN, 0)
    with dg.DagsterInstance.get() as instance:
        [run] = instance.get_runs(limit=1)
    assert {said.endswith(", on the same data") for said in judged(run.run_id)} == {True}
    assert digests(project.data) == before
    assert (project.root / versions.LOCK_FILE).read_bytes() == lock
    assert dvc_status(project) == {}


def test_an_evaluation_that_its_run_lost_is_logged_again(trained_copy: Dataset) -> None:
    tracking, tag = Tracking.of(trained_copy.project), f"{DATA_TAG}evaluation_metrics"
    run = find_training_run(trained_copy, tracking)
    assert run is not None
    version = tracking.client.get_run(run.run_id).data.tags[tag]
    tracking.client.delete_tag(run.run_id, tag)
    evaluate(trained_copy, tracking)
    assert done(trained_copy)["evaluation_metrics"] == 0
    assert tracking.client.get_run(run.run_id).data.tags[tag] == version


def test_one_more_video_costs_one_video(trained_copy: Dataset, write_video: WriteVideo) -> None:
    features = trained_copy.stage("snippet_features")
    before = digests(features)
    row = {"video": "more ü", "path": "videos/more ü.mp4", "label": "normal", "split": "train"}
    source = edit_table(trained_copy, {}, row)
    write_video(source / row["path"], frames=50)
    outcome = run_chain(trained_copy)
    assert outcome.success, outcome.failures
    assert outcome.model == "tevad-rendered/2"
    assert {stage: done(trained_copy)[stage] for stage in PER_VIDEO} == dict.fromkeys(PER_VIDEO, 1)
    assert done(trained_copy)["tevad_model"] == 1
    after = digests(features)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"more ü.safetensors", "manifest.parquet"}
    assert dvc_status(trained_copy.project) == {}


def test_a_new_label_trains_anew_and_encodes_nothing(trained_copy: Dataset) -> None:
    encoded = {stage: digests(trained_copy.stage(stage)) for stage in PER_VIDEO[1:]}
    normal = next(
        row.video
        for row in read_raw_videos(trained_copy).usable
        if (row.split, row.label) == ("train", "normal")
    )
    edit_table(trained_copy, {normal: {"label": "abnormal"}})
    outcome = run_chain(trained_copy)
    assert outcome.success, outcome.failures
    assert {stage: done(trained_copy)[stage] for stage in PER_VIDEO} == dict.fromkeys(PER_VIDEO, 0)
    assert done(trained_copy)["tevad_model"] == 1
    assert {stage: digests(trained_copy.stage(stage)) for stage in PER_VIDEO[1:]} == encoded
    assert dvc_status(trained_copy.project) == {}
