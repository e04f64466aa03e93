"""What `tevad gc` finds and removes, and that nothing anybody needs goes with it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.entities import Run

from assets.evaluation_metrics import STAGE
from assets.tevad_model import find_training_run
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking
from orchestration.garbage import leftovers, runs
from orchestration.garbage.collection import Collection, collect

pytestmark = pytest.mark.slow


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
    partial = {trained_copy.stage(STAGE) / ".partial-abc.jsonl", project.root / ".partial-abc.lock"}
    for path in partial:
        path.write_text("half")
    new, old = (project.cache / f"network-{name}.onnx" for name in ("new", "old"))
    for path in (new, old):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"network")
    os.utime(old, (0, 0))

    collection = gc(trained_copy, delete=True)
    assert found(collection) == {
        leftovers.WORK: {str(work / "incoming"), str(work / "tevad_model"), str(gone)},
        leftovers.HALF_WRITTEN: {str(path) for path in partial},
        leftovers.ENCODERS: {str(old)},
    }
    assert not any(path.exists() for path in (work / "tevad_model", gone, *partial, old))
    assert new.is_file()
    assert (work / "intake.json").is_file()

    edit(project, "iterations: 30", "iterations: 20")  # the models are to be trained anew
    (work / "tevad_model").mkdir()
    assert found(gc(trained_copy)) == {}
