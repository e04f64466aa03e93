"""`tevad run` is killed, again and again at any moment: the run after it ends as if nothing had been.

A trial is an empty project. Its run is killed (SIGKILL, with all it started) after a random time,
started again and killed again, until one comes to its end. What then lies there, and what MLflow,
DVC and Dagster say of it, must be what an undisturbed run leaves.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
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

TEVAD = str(Path(sys.executable).with_name("tevad"))
SOON = (5.0, 9.0)
"""Seconds after which no machine's run has ended: in its start-up, and in the stages or before."""

AT_ONCE = 6
"""Kills of one trial, at most; the run after them is left alone."""


@pytest.fixture
def dataset(
    project_template: Path,
    rendered: Path,
    encoder_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Dataset:
    return fresh(project_template, rendered, encoder_cache, tmp_path, monkeypatch)


def fresh(
    template: Path, rendered: Path, cache: Path, folder: Path, patch: pytest.MonkeyPatch
) -> Dataset:
    """A project of its own that has a dataset and nothing made of it."""
    root = copy_project(template, folder)
    shutil.copytree(rendered, root / ".tevad" / "rendered")
    enter_project(root, cache, patch)
    return add_dataset(Project.at(root), "rendered", DatasetParams(source=".tevad/rendered"))


def run(root: Path, seconds: float | None) -> bool:
    """`tevad run`, killed after some seconds; whether it came to its end before."""
    with subprocess.Popen(
        [TEVAD, "run", "rendered"],
        cwd=root,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return False
    assert process.returncode == 0, said
    return True


def kill_until_it_ends(dataset: Dataset, moments: Iterable[float]) -> int:
    """How often the run was killed, each time after so many seconds, before it came to its end."""
    kills = 0
    for seconds in moments:
        if run(dataset.project.root, seconds):
            break
        kills += 1
    assert run(dataset.project.root, None)
    return kills


def assert_as_if_undisturbed(dataset: Dataset, undisturbed: TrainedProject) -> None:
    assert digests(dataset.folder) == digests(undisturbed.dataset.folder)
    made = {stage: versions.current(dataset, stage) for stage in STAGES}
    assert made == {stage: versions.current(undisturbed.dataset, stage) for stage in STAGES}
    with Repo(str(dataset.project.root)) as repo:
        assert repo.status() == {}
    with dg.DagsterInstance.get() as instance:
        for stage, version in made.items():
            assert latest_version(instance, dg.AssetKey(stage), dataset.name) == version

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
    with dg.DagsterInstance.get() as instance:
        started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        assert not instance.get_runs(started)
    for other in client.search_model_versions(f"name = '{name}'"):
        assert other.tags[f"{DATA_TAG}tevad_model"] == made["tevad_model"], "an orphan"


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    dataset: Dataset, trained_project: TrainedProject
) -> None:
    assert kill_until_it_ends(dataset, SOON) >= 1
    assert_as_if_undisturbed(dataset, trained_project)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_kills_lose_nothing(
    project_template: Path,
    rendered: Path,
    encoder_cache: Path,
    trained_project: TrainedProject,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = int(os.environ.get("TEVAD_KILLS", "50"))
    with pytest.MonkeyPatch.context() as patch:
        whole = fresh(project_template, rendered, encoder_cache, tmp_path / "whole", patch)
        started = time.monotonic()
        assert run(whole.project.root, None)
        longest = time.monotonic() - started
    kills = trials = 0
    while kills < wanted:
        with pytest.MonkeyPatch.context() as patch:
            folder = tmp_path / f"trial-{trials}"
            dataset = fresh(project_template, rendered, encoder_cache, folder, patch)
            chance = random.Random(trials)
            moments = [chance.uniform(1.0, longest) for _ in range(AT_ONCE)]
            kills += kill_until_it_ends(dataset, moments)
            assert_as_if_undisturbed(dataset, trained_project)
        shutil.rmtree(folder)
        trials += 1
        with capsys.disabled():
            print(f"\n{kills} kills in {trials} trials: 0 lost or wrong results", end="")
