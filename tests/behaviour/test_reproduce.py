"""`tevad reproduce`: a version made again in a fresh clone, after its data have moved on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from dvc.repo import Repo
from projects import enter_project, git
from s3_server import S3Server
from safetensors.numpy import load_file, save_file

from assets.registered_model import register_model
from assets.workspace import listing, versions
from assets.workspace.project import FEATURE_STAGES, STAGES, Dataset, Project
from assets.workspace.tracking import Tracking
from orchestration.cli import main
from orchestration.running import run_stage

pytestmark = pytest.mark.slow

MODEL = "models:/tevad-rendered/1"


def tevad(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def add_remote(project: Project, remote: dict[str, str]) -> None:
    """Name DVC's remote and push all there is to it, as a user would once."""
    with Repo(str(project.root)) as repo, repo.config.edit() as config:
        config["remote"]["store"] = remote
        config["core"]["remote"] = "store"
    with Repo(str(project.root)) as repo:
        repo.push()


def move_on(dataset: Dataset) -> None:
    """Change the data twice: a video less each time, through all stages before training."""
    source = dataset.project.root / str(dataset.entry.source)
    for _ in range(2):
        table = pd.read_csv(source / "videos.csv", dtype=str)
        table.iloc[1:].to_csv(source / "videos.csv", index=False)
        listing.refresh(dataset)
        for stage in FEATURE_STAGES:
            run_stage(dataset, stage)
            versions.commit(dataset, stage)
        git(dataset.project.root, "add", "params.yaml", "dvc.lock", "data", ".dvc/config")
        git(dataset.project.root, "commit", "--quiet", "--message", "other data")


def clone(dataset: Dataset, folder: Path, cache: Path, patch: pytest.MonkeyPatch) -> Project:
    """A clone with nothing but what git has; the environment is in it, with the same MLflow."""
    root = folder / "clone"
    git(folder, "clone", "--quiet", str(dataset.project.root), str(root))
    tracking = Tracking.of(dataset.project)
    enter_project(root, cache, patch)
    patch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    return Project.at(root)


@pytest.fixture
def cloned(
    trained_copy: Dataset, tmp_path: Path, encoder_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A clone after the data have moved on, with a folder as DVC's remote."""
    add_remote(trained_copy.project, {"url": str(tmp_path / "remote")})
    move_on(trained_copy)
    return clone(trained_copy, tmp_path, encoder_cache, monkeypatch)


def assert_nothing_is_left(project: Project) -> None:
    assert len(git(project.root, "worktree", "list").splitlines()) == 1
    left = {path.name for path in (project.state / "reproduce").glob("*")}
    assert left <= {"tevad-rendered-1.lock"}
    assert git(project.root, "status", "--porcelain") == ""


def test_a_version_of_data_that_moved_on_comes_out_bit_equal(
    cloned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine of another number of cores, which by itself would change the last bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2" if torch.get_num_threads() == 1 else "1")
    left_by_a_kill = cloned.state / "reproduce" / "tevad-rendered-1"
    left_by_a_kill.mkdir(parents=True)
    runs = len(Tracking.of(cloned).find_runs("rendered", {"tevad.dataset": "rendered"}))

    done = tevad("reproduce", MODEL)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert re.fullmatch(rf"{MODEL} made again by code [0-9a-f]{{40}}", lines[0])
    assert re.fullmatch(r"  tevad_model +[0-9a-f]{32}\.dir +the same", lines[1])
    assert lines[2:] == ["bit-equal"]
    assert_nothing_is_left(cloned)
    assert not (cloned.data / "rendered" / "tevad_model").exists()
    assert len(Tracking.of(cloned).find_runs("rendered", {"tevad.dataset": "rendered"})) == runs


def test_what_is_not_there_is_named(cloned: Project, tmp_path: Path) -> None:
    client = Tracking.of(cloned).client
    run = client.get_model_version("tevad-rendered", "1").tags["tevad.run_id"]

    def refused(reason: str) -> None:
        done = tevad("reproduce", MODEL)
        assert done.exit_code == 1
        assert re.search(reason, done.output), done.output
        assert_nothing_is_left(cloned)

    (tmp_path / "remote").rename(tmp_path / "gone")
    refused(r"neither DVC's cache nor its remote has [0-9a-f]{32}\.dir; `dvc push`")
    with Repo(str(cloned.root)) as repo, repo.config.edit() as config:
        del config["core"]["remote"]
    git(cloned.root, "commit", "--quiet", "--all", "--message", "no remote")
    refused("DVC has no default remote .* `dvc remote add -d NAME URL`")
    client.set_model_version_tag("tevad-rendered", "1", "tevad.git.dirty", "true")
    refused("its code differed from commit [0-9a-f]{40} by more than runs keep")
    client.set_model_version_tag("tevad-rendered", "1", "tevad.git.dirty", "false")
    client.set_model_version_tag("tevad-rendered", "1", "tevad.git.commit", "0" * 40)
    refused(f"its commit {'0' * 40} is not in this clone; `git fetch --all`")
    artifacts = client.get_run(run).info.artifact_uri
    shutil.rmtree(Path(artifacts) / "project")
    refused(f"its run {run} does not keep what it can be repeated by")
    assert "models:/tevad-rendered/9: " in tevad("reproduce", "models:/tevad-rendered/9").output


@pytest.mark.slow
def test_where_it_differs_is_said(
    trained_copy: Dataset, tmp_path: Path, encoder_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was registered had a weight changed by hand, which no training makes."""
    weights = trained_copy.stage("tevad_model") / "seed_0" / "picked" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name, tensor in sorted(tensors.items()) if tensor.dtype == np.float32)
    tensors[name].flat[0] += 0.5
    save_file(tensors, weights)
    changed = versions.commit(trained_copy, "tevad_model")
    tracking = Tracking.of(trained_copy.project)
    tag = "tevad.data.tevad_model"
    tracking.client.set_model_version_tag("tevad-rendered", "1", tag, changed)
    add_remote(trained_copy.project, {"url": str(tmp_path / "remote")})
    git(trained_copy.project.root, "commit", "--quiet", "--all", "--message", "a remote")
    project = clone(trained_copy, tmp_path, encoder_cache, monkeypatch)

    done = tevad("reproduce", MODEL, "--json")
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    assert not found["is_equal"]
    assert found["may_explain"] == []
    file = "seed_0/picked/model.safetensors"
    assert found["first_difference"].startswith(f"tevad_model, {file}: tensor {name} ")
    assert found["first_difference"].endswith("by at most 0.5")
    assert_nothing_is_left(project)


@pytest.mark.slow
def test_every_stage_is_made_again_from_the_videos_in_a_bucket(
    trained_copy: Dataset,
    s3_server: S3Server,
    tmp_path: Path,
    encoder_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clone has nothing but the bucket and MLflow."""
    s3_server.enter(monkeypatch)
    bucket = s3_server.new_bucket()
    remote = {"url": f"s3://{bucket}/dvc", "endpointurl": s3_server.address}
    add_remote(trained_copy.project, remote)
    move_on(trained_copy)
    project = clone(trained_copy, tmp_path, encoder_cache, monkeypatch)
    (tmp_path / "project").rename(tmp_path / "out-of-reach")  # the copy's own cache with it
    store = tmp_path / "out-of-reach" / ".tevad"
    (tmp_path / "project").mkdir()
    store.rename(tmp_path / "project" / ".tevad")  # MLflow's store, which stays

    done = tevad("reproduce", MODEL, "--from", "raw_videos", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["is_equal"]
    assert [each["stage"] for each in found["stages"]] == list(STAGES[1:])
    assert_nothing_is_left(project)


def run_tevad(root: Path, *arguments: str, code: Path | None = None) -> subprocess.Popen[bytes]:
    """Start `tevad` as a user would; with ``code``, by the code that lies in that folder."""
    environment = {**os.environ, "TEVAD_PROJECT": str(root)}
    if code:
        environment["PYTHONPATH"] = str(code)
    command = [str(Path(sys.executable).with_name("tevad")), *arguments]
    return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_version_of_changed_code_is_made_again_by_that_code(
    trained_copy: Dataset, tmp_path: Path, encoder_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change was never committed, and is gone from the working tree by then."""
    project, repository = trained_copy.project, Path(__file__).parents[2]
    for folder in ("assets", "orchestration", "tevad_model"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / folder, project.root / folder, ignore=ignored)
    git(project.root, "add", "assets", "orchestration", "tevad_model")
    git(project.root, "commit", "--quiet", "--message", "code")
    losses = project.root / "tevad_model" / "losses.py"
    committed = losses.read_text()
    changed = committed.replace("abnormal + normal).square()", "abnormal + normal).abs()")
    assert changed != committed
    losses.write_text(changed)
    change = "iterations: 30", "iterations: 20"
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace(*change))
    for stage in ("tevad_model", "evaluation_metrics"):
        done = run_tevad(project.root, "stage", stage, "--dataset", "rendered", code=project.root)
        _, said = done.communicate()
        assert done.returncode == 0, said
        versions.commit(trained_copy, stage)
    dataset = Project.at(project.root).dataset("rendered")
    registered = register_model(dataset, Tracking.of(project))
    assert registered.uri == "models:/tevad-rendered/2"
    add_remote(project, {"url": str(tmp_path / "remote")})
    git(project.root, "checkout", "--quiet", "--", "tevad_model", "params.yaml")
    git(project.root, "commit", "--quiet", "--all", "--message", "a remote")
    cloned = clone(trained_copy, tmp_path, encoder_cache, monkeypatch)

    done = tevad("reproduce", registered.uri, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["dirty"]
    assert (cloned.root / "tevad_model" / "losses.py").read_text() == committed


@pytest.mark.slow
def test_an_interrupted_reproduction_leaves_nothing(cloned: Project) -> None:
    process = run_tevad(cloned.root, "reproduce", MODEL)
    data = cloned.state / "reproduce" / "tevad-rendered-1" / "data" / "rendered" / "captions"
    deadline = time.monotonic() + 300
    while not data.is_dir():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    process.communicate()
    assert process.returncode != 0
    assert_nothing_is_left(cloned)
