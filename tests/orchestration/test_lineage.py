"""`tevad lineage`: from a model to its bytes, and from bytes to the models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dvc.repo import Repo
from projects import TrainedProject

from assets.raw_videos import read_raw_videos
from assets.registered_model import register_model
from assets.tevad_model import train_tevad_model
from assets.workspace import files, versions
from assets.workspace.project import STAGES, Dataset, Project
from assets.workspace.tracking import CHALLENGER, CHAMPION, Tracking
from orchestration.cli import main
from orchestration.lineage import Lineage
from tevad_model.errors import InputError

MODEL = "models:/tevad-rendered"


def tevad(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def lineage(trained: TrainedProject) -> Lineage:
    return Lineage(trained.dataset.project, trained.tracking)


@pytest.mark.slow
def test_a_model_leads_to_its_run_code_encoders_and_bytes(
    trained: TrainedProject, lineage: Lineage
) -> None:
    found = lineage.of_model(f"{MODEL}@{CHALLENGER}")
    assert found.model == f"{MODEL}/1"
    assert set(found.aliases) == {CHALLENGER, CHAMPION}
    assert found.dagster_run == trained.outcome.run_id
    assert trained.tracking.client.get_run(found.run).info.status == "FINISHED"
    assert len(found.commit) == 40
    assert {each.stage: each.md5 for each in found.data} == {
        stage: versions.current(trained.dataset, stage) for stage in STAGES
    }
    assert [each.stage for each in found.data] == list(STAGES)
    assert {each.place for each in found.data} == {"workspace"}
    assert found.encoders.keys() == {"visual", "caption", "sentence"}
    assert found.params["tevad_model.iterations"] == "30"
    figures = files.read_json(trained.dataset.folder / "metrics.json")
    assert found.metrics["frame_auc"] == pytest.approx(figures["frame_auc"], rel=1e-4)


def test_of_a_dataset_dvc_dagster_and_mlflow_say_the_same(
    trained: TrainedProject, lineage: Lineage
) -> None:
    with dg.DagsterInstance.get() as instance:
        stages = lineage.of_dataset(trained.dataset, instance)
    assert [each.stage for each in stages] == list(STAGES)
    assert all(each.agree for each in stages)


def test_a_video_leads_to_the_models_it_went_into(
    trained: TrainedProject, lineage: Lineage
) -> None:
    for row in read_raw_videos(trained.dataset).usable:
        [(model, split)] = lineage.models_of_video(trained.dataset, row.video)
        assert (model.model, split) == (f"{MODEL}/1", row.split)
    assert list(lineage.models_of_video(trained.dataset, "no-such-video")) == []


def add_remote(project: Project, folder: Path) -> None:
    """A folder as DVC's default remote, with all that dvc.lock names pushed to it."""
    with Repo(str(project.root)) as repo, repo.config.edit() as config:
        config["remote"]["store"] = {"url": str(folder)}
        config["core"]["remote"] = "store"
    with Repo(str(project.root)) as repo:
        repo.push()


def change_training(dataset: Dataset) -> Dataset:
    """Train and register another model on the same features."""
    path = dataset.project.root / "params.yaml"
    path.write_text(path.read_text().replace("iterations: 30", "iterations: 20"))
    changed = Project.at(dataset.project.root).dataset(dataset.name)
    tracking = Tracking.of(changed.project)
    train_tevad_model(changed, tracking, {})
    versions.commit(changed, "tevad_model")
    register_model(changed, tracking)
    return changed


def test_after_the_data_moved_on_an_older_model_still_leads_to_its_bytes(
    trained_copy: Dataset,
) -> None:
    before = versions.current(trained_copy, "tevad_model")
    dataset = change_training(trained_copy)
    lineage = Lineage(dataset.project, Tracking.of(dataset.project))
    places = {each.stage: each.place for each in lineage.of_model(f"{MODEL}/1").data}
    assert (places["tevad_model"], places["captions"]) == ("cache", "workspace")
    assert lineage.of_model(f"{MODEL}@{CHALLENGER}").model == f"{MODEL}/2"

    features = versions.current(dataset, "snippet_features")
    went_into = [model.model for model in lineage.models_of_data(features)]
    assert went_into == [f"{MODEL}/2", f"{MODEL}/1"]
    assert [model.model for model in lineage.models_of_data(before)] == [f"{MODEL}/1"]

    video = read_raw_videos(dataset).usable[0].video
    cache = dataset.project.root / ".dvc" / "cache"
    remote = dataset.project.root.parent / "remote"
    add_remote(dataset.project, remote)
    shutil.rmtree(cache)
    lineage = Lineage(dataset.project, Tracking.of(dataset.project))
    found = {each.stage: each.place for each in lineage.of_model(f"{MODEL}/2").data}
    assert found["tevad_model"] == "workspace"
    shutil.rmtree(dataset.stage("tevad_model"))
    found = {each.stage: each.place for each in lineage.of_model(f"{MODEL}/2").data}
    assert found["tevad_model"] == "remote"
    assert [model.model for model, _ in lineage.models_of_video(dataset, video)] == [
        f"{MODEL}/2",
        f"{MODEL}/1",
    ]

    shutil.rmtree(cache)
    shutil.rmtree(remote)
    places = {each.stage: each.place for each in lineage.of_model(f"{MODEL}/1").data}
    assert places["tevad_model"] == "nowhere"
    with pytest.raises(InputError, match="neither DVC's cache nor its remote has"):
        list(lineage.models_of_video(dataset, "anything"))


@pytest.mark.slow
def test_the_command_prints_text_and_json(trained: TrainedProject) -> None:
    text = tevad("lineage", f"{MODEL}/1")
    assert text.startswith(f"{MODEL}/1  @")
    for stage in STAGES:
        assert versions.current(trained.dataset, stage) in text
    assert json.loads(tevad("lineage", f"{MODEL}/1", "--json"))["dataset"] == "rendered"

    table = tevad("lineage", "rendered").splitlines()
    assert [line.split()[0] for line in table[1:]] == list(STAGES)
    assert all(line.split()[2:] == ["same", "same"] for line in table[1:])
    assert all(each["agree"] for each in json.loads(tevad("lineage", "rendered", "--json")))

    features = versions.current(trained.dataset, "snippet_features")
    assert f"  {MODEL}/1  @" in tevad("lineage", features)
    video = read_raw_videos(trained.dataset).usable[0]
    assert f"{MODEL}/1" in tevad("lineage", "rendered", "--video", video.video)
    assert "no registered model" in tevad("lineage", "0" * 32 + ".dir")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("models:/tevad-rendered/99", "models:/tevad-rendered/99: "),
        ("models:/tevad-rendered@nobody", "models:/tevad-rendered@nobody: "),
        ("models:/tevad-other/1", "models:/tevad-other/1: "),
        ("no-such-dataset", "datasets.no-such-dataset is not there (known: rendered)"),
    ],
)
def test_what_is_not_there_is_an_error(trained: TrainedProject, what: str, reason: str) -> None:
    done = CliRunner().invoke(main, ["lineage", what])
    assert done.exit_code == 1
    assert reason in done.output
