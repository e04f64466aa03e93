"""Two processes at once: side by side on two datasets, one after the other on the same one.

That they are at work together is not left to chance: one stands still at a chosen moment
(``aim.paused``) until the other has come to where the test wants it.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
from aim import PHASES, Moment, paused, says, signalled, started
from projects import TrainedProject, copy_project, digests
from trials import assert_all_agree, assert_as_if_undisturbed
from waiting import when_it_waits

from assets.workspace import versions
from assets.workspace.params import DatasetParams, load_params
from assets.workspace.project import Dataset
from assets.workspace.tracking import CHALLENGER, Tracking, registered_name
from orchestration.datasets import add_dataset

RUN = ("tevad", "run", "rendered")
IN_TRAINING = Moment(PHASES["training"], nth=3)
IN_THE_RUN = Moment(r"^sql .*/dagster/.* INSERT INTO runs\b")
IN_A_STAGE = Moment(PHASES["raw_videos"])
IN_A_COMMIT = Moment(PHASES["dvc.lock"])
IN_AN_EDIT = Moment(r"^write .*/project/\.partial-\w+\.yaml$")


def forget_models(dataset: Dataset) -> None:
    """Leave training something to do, with the same outcome."""
    shutil.rmtree(dataset.stage("tevad_model"))


@pytest.mark.slow
def test_two_datasets_go_side_by_side(
    trained_copy: Dataset, trained_project: TrainedProject, tmp_path: Path
) -> None:
    project = trained_copy.project
    forget_models(trained_copy)
    other = add_dataset(project, "other", DatasetParams(source=".tevad/rendered"))
    with (
        paused(
            IN_TRAINING, "tevad", "run", "other", root=project.root, scratch=tmp_path / "a"
        ) as one,
        paused(IN_TRAINING, *RUN, root=project.root, scratch=tmp_path / "b") as two,
    ):
        one.await_moment()
        two.await_moment()  # both are in their training now
        for ended in (one.end(), two.end()):
            assert ended.code == 0, ended.said
    assert_as_if_undisturbed(trained_copy, trained_project)
    assert_all_agree(other)
    assert digests(other.folder) == digests(trained_copy.folder)


def dagster_runs() -> int:
    with dg.DagsterInstance.get() as instance:
        return instance.get_runs_count()


@pytest.mark.slow
def test_two_runs_of_a_dataset_queue(
    trained_copy: Dataset, trained_project: TrainedProject, tmp_path: Path
) -> None:
    root = trained_copy.project.root
    forget_models(trained_copy)
    before = dagster_runs()
    with paused(IN_THE_RUN, *RUN, root=root, scratch=tmp_path / "first") as first:
        first.await_moment()
        with started(*RUN, root=root) as second:
            line = says(second, "waits for")
            assert f"process {first.process.pid} (tevad run rendered) since 20" in line
            ended = first.end()
            assert ended.code == 0, ended.said
            assert "rendered/tevad_model: 1 done, 0 reused" in ended.said
            _, said = second.communicate()
            assert second.returncode == 0, said
            assert "a run is due" not in said
    assert dagster_runs() == before + 1  # the second found nothing left to do
    assert_as_if_undisturbed(trained_copy, trained_project)


@pytest.mark.parametrize(
    ("moment", "command"),
    [
        (IN_A_COMMIT, ("dvc", "commit", "--force")),
        (IN_A_STAGE, ("dvc", "repro", "--force", "--single-item", "raw_videos@rendered")),
    ],
    ids=["commit", "repro"],
)
def test_locks_of_dvc_are_waited_for(
    trained_copy: Dataset, tmp_path: Path, moment: Moment, command: tuple[str, ...]
) -> None:
    root, folder = trained_copy.project.root, trained_copy.stage("raw_videos")
    (folder / "more").write_text("there is something to commit")
    half_written = folder / "half-written"

    def go_on() -> None:
        half_written.unlink()
        dvc.release()

    with paused(moment, *command, root=root, scratch=tmp_path / "dvc") as dvc:
        dvc.await_moment()
        half_written.symlink_to("nowhere")  # who looks at the folder meanwhile, fails
        with when_it_waits(go_on) as said:
            version = versions.commit(trained_copy, "raw_videos")
        ended = dvc.end()
    assert ended.code == 0, ended.said
    assert "DVC" in said[0]
    assert version == versions.current(trained_copy, "raw_videos")
    assert version == versions.recorded(trained_copy.project)["raw_videos", "rendered"]


def test_datasets_that_are_added_at_once_are_both_there(project_root: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "videos.csv").write_text("video,path,label\na,a.mp4,normal\n")
    add = ("tevad", "dataset", "add")
    one, two = ((*add, name, "--from", str(tmp_path / name)) for name in ("one", "two"))
    with paused(IN_AN_EDIT, *one, root=project_root, scratch=tmp_path / "first") as first:
        first.await_moment()
        with started(*two, root=project_root) as second:
            assert f"params.yaml: waits for process {first.process.pid}" in says(second, "waits")
            assert first.end().code == 0
            second.communicate()
            assert second.returncode == 0
    assert set(load_params(project_root).datasets) == {"one", "two"}


@pytest.mark.slow
def test_models_that_are_registered_at_once_have_versions_of_their_own(
    trained_project: TrainedProject,
    trained_copy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two people's copies of the project train different models and share MLflow's store."""
    mine, store = trained_copy.project.root, trained_copy.project.state / "mlflow.db"
    theirs = copy_project(trained_project.root, tmp_path / "theirs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    monkeypatch.delenv("DAGSTER_HOME")
    at_artifacts = Moment(PHASES["artifacts"])
    with ExitStack() as stack:
        runs = []
        for root, iterations in ((mine, 20), (theirs, 10)):
            path = root / "params.yaml"
            path.write_text(path.read_text().replace("iterations: 30", f"iterations: {iterations}"))
            monkeypatch.setenv("TEVAD_PROJECT", str(root))
            run = paused(at_artifacts, *RUN, root=root, scratch=tmp_path / str(iterations))
            runs.append(stack.enter_context(run))
        for each in runs:
            each.await_moment()
        for each in runs:
            each.release()
        for each in runs:
            ended = each.end()
            assert ended.code == 0, ended.said

    client, name = Tracking.of(trained_copy.project).client, registered_name("rendered")
    found = {int(v.version): v for v in client.search_model_versions(f"name = '{name}'")}
    assert sorted(found) == [1, 2, 3]
    assert len({version.tags["tevad.data.tevad_model"] for version in found.values()}) == 3
    challenger = client.get_model_version_by_alias(name, CHALLENGER)
    assert int(challenger.version) in (2, 3)
    assert challenger.tags == found[int(challenger.version)].tags


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_run_that_is_told_to_stop_says_so_everywhere(trained_copy: Dataset, name: str) -> None:
    forget_models(trained_copy)
    ended = signalled(name, IN_TRAINING, *RUN, root=trained_copy.project.root)
    assert ended.code == 130
    assert "Traceback" not in ended.said
    assert "run it again" in ended.said
    tracking = Tracking.of(trained_copy.project)
    folder = [tracking.experiment("rendered")]
    statuses = {run.info.status for run in tracking.client.search_runs(folder)}
    assert statuses == {"FINISHED", "KILLED"}
    with dg.DagsterInstance.get() as instance:
        [last] = instance.get_runs(limit=1)
    assert last.status == dg.DagsterRunStatus.FAILURE
