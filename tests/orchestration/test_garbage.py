"""What `tevad gc` finds and removes, and that nothing anybody needs goes with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlflow.entities import Run
from networking import free_ports
from projects import TrainedProject, git

from assets.evaluation_metrics import STAGE
from assets.tevad_model import find_training_run
from assets.workspace import files, versions
from assets.workspace.project import STAGES, Dataset, Project
from assets.workspace.tracking import DATA_TAG, Tracking
from orchestration.garbage import leftovers, objects, runs
from orchestration.garbage.collection import Collection, collect
from orchestration.running import run_chain
from tevad_model.errors import InputError


def gc(dataset: Dataset, **options: bool) -> Collection:
    return collect(dataset.project, Tracking.of(dataset.project), **options)


def found(collection: Collection) -> dict[str, set[str]]:
    """What was found, by kind; kinds of which there is nothing are left out."""
    return {heap.kind: set(heap.names) for heap in collection.heaps if heap.names}


def cached(root: Path) -> set[str]:
    """The hashes that a DVC cache or remote holds."""
    return {f"{path.parent.name}{path.name}" for path in root.glob("files/md5/*/*")}


def cache(dataset: Dataset) -> set[str]:
    return cached(dataset.project.root / ".dvc" / "cache")


def with_files(project: Project, versions_of_data: set[str]) -> set[str]:
    """Versions of folders with all the files that their listings name."""
    with Repo(str(project.root)) as repo:
        listings = [Path(repo.cache.local.oid_to_path(each)) for each in versions_of_data]
    entries = [entry for path in listings for entry in json.loads(path.read_text())]
    return versions_of_data | {entry["md5"] for entry in entries}


def commit_another(dataset: Dataset, name: str) -> set[str]:
    """Take another version of an evaluation into DVC; what that adds to the cache."""
    before = cache(dataset)
    (dataset.stage(STAGE) / name).write_text(name)
    versions.commit(dataset, STAGE)
    return cache(dataset) - before


def take_back(dataset: Dataset, name: str) -> None:
    (dataset.stage(STAGE) / name).unlink()
    versions.commit(dataset, STAGE)


def figures(dataset: Dataset) -> set[str]:
    """The hashes of the evaluation's figures and curves, of which MLflow's tags say nothing."""
    lock = files.read_yaml(dataset.project.root / versions.LOCK_FILE)
    outs = lock["stages"][f"{STAGE}@{dataset.name}"]["outs"]
    return {out["md5"] for out in outs} - {versions.current(dataset, STAGE)}


def fail_to_log_a_model(tracking: Tracking, run: Run, path: Path) -> str:
    with suppress(OSError), tracking.start_model("rendered", "model", run) as model:
        tracking.client.log_model_artifact(model.model_id, str(path))
        raise OSError("no space left")
    return str(model.model_id)


def edit(project: Project, old: str, new: str) -> None:
    path = project.root / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_of_what_is_there_everything_is_needed(trained_copy: Dataset) -> None:
    before = cache(trained_copy)
    assert found(gc(trained_copy, delete=True)) == {}
    assert cache(trained_copy) == before


def test_exactly_what_nobody_needs_goes(trained_copy: Dataset) -> None:
    project = trained_copy.project
    root = project.root
    first_figures = figures(trained_copy)
    nobodys = commit_another(trained_copy, "nobody")
    take_back(trained_copy, "nobody")
    edit(project, "iterations: 30", "iterations: 20")  # from now only MLflow knows the first models
    outcome = run_chain(trained_copy)
    assert (outcome.success, outcome.model) == (True, "tevad-rendered/2"), outcome.failures
    commits = commit_another(trained_copy, "commit")
    git(root, "add", "dvc.lock", "params.yaml", "data")
    git(root, "commit", "--quiet", "--message", "an evaluation that only this commit has")
    take_back(trained_copy, "commit")
    before = cache(trained_copy)
    expected = nobodys | (first_figures - figures(trained_copy))

    listed = gc(trained_copy)
    assert found(listed) == {objects.CACHE: expected}
    assert cache(trained_copy) == before, "a dry run removes nothing"
    assert found(gc(trained_copy, delete=True)) == {objects.CACHE: expected}
    assert cache(trained_copy) == before - expected
    assert found(gc(trained_copy)) == {}

    registered = Tracking.of(project).client.search_model_versions()
    assert len(registered) == 2
    for version in registered:
        made_of = {value for key, value in version.tags.items() if key.startswith(DATA_TAG)}
        assert len(made_of) == len(STAGES)
        assert with_files(project, made_of) <= cache(trained_copy)
    again = run_chain(trained_copy)
    assert (again.success, again.model) == (True, "tevad-rendered/2")
    assert files.read_json(trained_copy.reports / "tevad_model.json")["done"] == 0
    git(root, "checkout", "--quiet", "HEAD", "--", "dvc.lock")
    with Repo(str(root)) as repo:
        repo.checkout(force=True)
        assert repo.status() == {}
    assert (trained_copy.stage(STAGE) / "commit").is_file()
    assert commits <= cache(trained_copy)


def test_what_killed_runs_left_goes_and_what_others_have_stays(trained_copy: Dataset) -> None:
    tracking = Tracking.of(trained_copy.project)
    client, experiment = tracking.client, tracking.experiment(trained_copy.name)
    finished = find_training_run(trained_copy, tracking)
    assert finished is not None
    source = client.get_run(finished.run_id)
    theirs = Tracking(tracking.uri, tracking.artifacts, "elsewhere:/project")
    left = {}
    for name, each in (("ours", tracking), ("theirs", theirs)):
        with each.start_run(trained_copy.name, "killed", {}) as run:
            run.artifact(trained_copy.project.root / "params.yaml")
            with each.start_run(trained_copy.name, "below", {}, parent=run) as below:
                pass
        client.set_terminated(run.run_id, "KILLED")
        model_id = fail_to_log_a_model(each, source, trained_copy.project.root / "params.yaml")
        left[name] = (run.run_id, below.run_id, model_id)
    with tracking.start_run(trained_copy.name, "deleted", {}) as deleted:
        deleted.artifact(trained_copy.project.root / "params.yaml")
    client.delete_run(deleted.run_id)

    run_id, below_id, model_id = left["ours"]
    collection = gc(trained_copy, delete=True)
    assert found(collection) == {
        runs.MODELS: {model_id},
        runs.RUNS: {run_id, below_id},
        runs.ARTIFACTS: {deleted.run_id},
    }
    size = (trained_copy.project.root / "params.yaml").stat().st_size
    assert [heap.bytes for heap in collection.heaps if heap.names] == [size] * 3
    assert found(gc(trained_copy)) == {}
    assert {run.info.run_id for run in client.search_runs([experiment])} >= set(left["theirs"][:2])
    there = {model.model_id for model in client.search_logged_models([experiment])}
    assert left["theirs"][2] in there
    assert model_id not in there
    assert client.list_artifacts(left["theirs"][0])
    assert not client.list_artifacts(run_id)


def test_leftovers_in_folders_go_and_what_training_goes_on_from_stays(
    trained_copy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEVAD_CACHE")
    project = trained_copy.project
    work = trained_copy.work
    gone = Dataset(project, "gone").work
    for path in (work / "incoming" / "a.mp4", work / "tevad_model" / "bags", gone / "intake.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    partial = trained_copy.stage(STAGE) / ".partial-abc.jsonl"
    partial.write_text("half")
    new, old = (project.cache / f"network-{name}.onnx" for name in ("new", "old"))
    for path in (new, old):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"network")
    os.utime(old, (0, 0))

    collection = gc(trained_copy, delete=True)
    assert found(collection) == {
        leftovers.WORK: {str(work / "incoming"), str(work / "tevad_model"), str(gone)},
        leftovers.HALF_WRITTEN: {str(partial)},
        leftovers.ENCODERS: {str(old)},
    }
    assert not any(path.exists() for path in (work / "tevad_model", gone, partial, old))
    assert new.is_file()
    assert (work / "intake.json").is_file()

    edit(project, "iterations: 30", "iterations: 20")  # the models are to be trained anew
    (work / "tevad_model").mkdir()
    assert found(gc(trained_copy)) == {}


def test_the_remote_is_cleaned_only_when_asked(trained_copy: Dataset, tmp_path: Path) -> None:
    root = trained_copy.project.root
    remote = tmp_path / "remote"
    with pytest.raises(InputError, match="remote"):
        gc(trained_copy, remote=True)
    nobodys = commit_another(trained_copy, "nobody")
    with (root / ".dvc" / "config").open("a") as config:
        config.write(f"[core]\n    remote = r\n['remote \"r\"']\n    url = {remote}\n")
    with Repo(str(root)) as repo:
        repo.push()
    take_back(trained_copy, "nobody")
    with Repo(str(root)) as repo:
        repo.push()
    needed = cache(trained_copy) - nobodys
    assert cached(remote) == needed | nobodys
    assert found(gc(trained_copy, delete=True)) == {objects.CACHE: nobodys}
    assert cached(remote) == needed | nobodys
    assert found(gc(trained_copy, delete=True, remote=True)) == {objects.REMOTE: nobodys}
    assert cached(remote) == needed
    commit_another(trained_copy, "nobody")
    with Repo(str(root)) as repo:
        repo.push()
    assert cached(remote) == needed | nobodys, "what was removed can be pushed again"


def test_nothing_goes_where_nobody_can_say_what_is_needed(
    trained_copy: Dataset, empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = trained_copy.project
    nobodys = commit_another(trained_copy, "nobody")
    take_back(trained_copy, "nobody")
    before = cache(trained_copy)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(InputError, match="nobody can say which data"):
        gc(trained_copy, delete=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{empty_mlflow}")
    with pytest.raises(InputError, match="no run of the models of rendered"):
        gc(trained_copy, delete=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    store = project.state / "mlflow.db"
    store.rename(store.with_suffix(".away"))
    with pytest.raises(InputError, match="there is no such store"):
        gc(trained_copy, delete=True)
    assert not store.exists()
    store.with_suffix(".away").rename(store)
    with (project.root / ".dvc" / "config").open("a") as config:
        config.write(f"[cache]\n    dir = {project.root.parent / 'shared'}\n")
    with pytest.raises(InputError, match=r"dvc gc --projects"):
        gc(trained_copy, delete=True)
    assert cache(trained_copy) == before > nobodys


def test_a_stage_that_runs_is_waited_for(trained_copy: Dataset) -> None:
    started, done = threading.Event(), threading.Event()

    def clean() -> None:
        started.set()
        gc(trained_copy)
        done.set()

    with trained_copy.held():
        thread = threading.Thread(target=clean)
        thread.start()
        started.wait()
        assert not done.wait(0.5)
    thread.join()
    assert done.is_set()


def test_the_command_lists_and_removes(trained: TrainedProject) -> None:
    program = [str(Path(sys.executable).with_name("tevad")), "gc"]
    told = subprocess.run(
        [*program, "--json"], cwd=trained.root, check=True, capture_output=True, text=True
    )
    said = json.loads(told.stdout)
    assert (said["removed"], said["missing"]) == (False, [])
    assert said["garbage"][objects.CACHE] == {"bytes": 0, "names": []}
