"""`tevad run` is killed, again and again at any moment: the run after it ends as if nothing had been.

A trial is a project whose run is killed (SIGKILL, with all it started) a few times at moments that
are spread over all that a run does (``aim.PHASES``), and then left alone. What then lies there, and
what MLflow, DVC and Dagster say of it, must be what an undisturbed run leaves.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aim import PHASES, Moment, counted, ended, killed
from projects import TrainedProject
from trials import assert_as_if_undisturbed, fresh

from assets.workspace.project import Dataset
from assets.workspace.versions import LOCK_FILE
from orchestration.running import run_chain

RUN = ("tevad", "run", "rendered")
KILLS = 10
"""Of one trial, at most; the run after them is left alone."""

ONE_BY_ONE = (
    Moment(PHASES["dvc.lock"], nth=2, calls=40),
    Moment(PHASES["training"], nth=6, calls=400),
    Moment(PHASES["an alias"]),
)
"""In the order in which a run comes to them: amid a commit, a training, a registration."""


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    trained_copy: Dataset, trained_project: TrainedProject, empty_mlflow: Path
) -> None:
    """There are models to be trained and registered, and nothing that DVC has recorded."""
    project = trained_copy.project
    shutil.rmtree(trained_copy.stage("tevad_model"))
    (project.root / LOCK_FILE).unlink()
    shutil.copy(empty_mlflow, project.state / "mlflow.db")
    for moment in ONE_BY_ONE:
        assert killed(moment, *RUN, root=project.root).was_killed, f"never came to {moment}"
    last = run_chain(trained_copy)
    assert last.success, last.failures
    assert_as_if_undisturbed(trained_copy, trained_project)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_fifty_kills_lose_nothing(
    project_template: Path,
    rendered: Path,
    encoder_cache: Path,
    trained_project: TrainedProject,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = int(os.environ.get("TEVAD_KILLS", "50"))
    tally = Tally()

    def empty_project(name: str, patch: pytest.MonkeyPatch) -> Dataset:
        return fresh(project_template, rendered, encoder_cache, tmp_path / name, patch)

    with pytest.MonkeyPatch.context() as patch:
        root = empty_project("census", patch).project.root
        lines = counted(PHASES, *RUN, root=root, scratch=tmp_path)
    assert set(lines) == set(PHASES), "a run never comes to some phase"
    while tally.kills.total() < wanted:
        for phases in shuffled_phases(random.Random(tally.trials)):
            with pytest.MonkeyPatch.context() as patch:
                dataset = empty_project(f"trial-{tally.trials}", patch)
                hit = kill_in(phases, lines, dataset, random.Random(tally.trials))
                last = ended(*RUN, root=dataset.project.root)
                assert last.code == 0, last.said
                assert_as_if_undisturbed(dataset, trained_project)
            shutil.rmtree(tmp_path / f"trial-{tally.trials}")
            tally.kills.update(hit)
            tally.trials += 1
            with capsys.disabled():
                print(f"\n{tally}; the last in {', '.join(hit)}", end="")
    with capsys.disabled():
        print(f"\n{tally.by_phase()}")


@dataclass
class Tally:
    """Kills by phase."""

    kills: Counter[str] = field(default_factory=Counter)
    trials: int = 0

    def __str__(self) -> str:
        return f"{self.kills.total()} kills in {self.trials} trials: 0 lost or wrong results"

    def by_phase(self) -> str:
        return "\n".join(f"{count:4} {phase}" for phase, count in self.kills.most_common())


def shuffled_phases(chance: random.Random) -> Iterator[list[str]]:
    """All phases, dealt out to trials; in a trial they come in the order of a run."""
    order = list(PHASES)
    dealt = chance.sample(order, len(order))
    for start in range(0, len(dealt), KILLS):
        yield sorted(dealt[start : start + KILLS], key=order.index)


def kill_in(
    phases: list[str], lines: Counter[str], dataset: Dataset, chance: random.Random
) -> list[str]:
    """Kill the run in one phase after the other, each time going on from there; where it was hit.

    A moment that no longer comes, because its work was done before an earlier kill, is no kill: the
    run ends, and those after it have nothing left to do but what every run does.
    """
    root = dataset.project.root
    return [
        phase
        for phase in phases
        if killed(Moment.within(phase, lines[phase], chance), *RUN, root=root).was_killed
    ]
