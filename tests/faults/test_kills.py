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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aim import PHASES, Moment, census, ended, killed, moments_in
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
    Moment(r"^write .*/data/rendered/\.partial-\w+\.json$", calls=20),
    Moment(PHASES["an alias"]),
)
"""In the order in which a run comes to them: amid a commit, a training, the metrics, a registration."""


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
        lines = census(PHASES, *RUN, root=root, scratch=tmp_path)
    assert frozenset().union(*lines) == set(PHASES), "a run never comes to some phase"
    while tally.kills.total() < wanted:
        for phases in shuffled_phases(random.Random(tally.trials)):
            with pytest.MonkeyPatch.context() as patch:
                dataset = empty_project(f"trial-{tally.trials}", patch)
                moments = moments_in(phases, lines, random.Random(tally.trials))
                hit = kill_at(moments, dataset.project.root)
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
    """All phases, dealt out to trials."""
    dealt = chance.sample(list(PHASES), len(PHASES))
    for start in range(0, len(dealt), KILLS):
        yield dealt[start : start + KILLS]


def kill_at(moments: Iterable[tuple[str, Moment]], root: Path) -> list[str]:
    """Kill the run at one moment after the other, each time going on from there; the phases hit.

    A moment that does not come, because its work was done before an earlier kill, is no kill: the
    run has ended then, and nothing is left to kill.
    """
    hit: list[str] = []
    for phase, moment in moments:
        if not killed(moment, *RUN, root=root).was_killed:
            break
        hit.append(phase)
    return hit
