"""Moving the alias: in a real registry, by one process and by several."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assets.promotion import champion
from assets.promotion.champion import ChampionMovedError, Move, line_of_champions, rolled_back
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import CHAMPION, Tracking

NAME = "tevad-site"


def promotion(version: str, previous: str, by: str = "test") -> Move:
    return Move(version, previous, "promotion", champion.now(), by, "better")


def rolled(version: str, previous: str) -> Move:
    return Move(version, previous, "rollback", champion.now(), "test", "worse")


@pytest.fixture
def dataset(project_root: Path) -> Dataset:
    return Dataset(Project.at(project_root), "site")


@pytest.fixture
def tracking(dataset: Dataset, tmp_path: Path) -> Tracking:
    """A registry with four versions and no champion."""
    tracking = Tracking.of(dataset.project)
    tracking.client.create_registered_model(NAME)
    for _ in range(4):
        tracking.client.create_model_version(NAME, source=str(tmp_path))
    return tracking


def test_moves_are_kept_in_order(dataset: Dataset, tracking: Tracking) -> None:
    assert champion.champion_version(tracking, NAME) == ""
    made = [promotion("1", ""), promotion("2", "1"), rolled("1", "2")]
    for move in made:
        champion.move(dataset, tracking, move)
    assert champion.champion_version(tracking, NAME) == "1"
    assert champion.history(tracking, NAME) == tuple(made)


def test_a_move_decided_against_another_champion_is_refused(
    dataset: Dataset, tracking: Tracking
) -> None:
    champion.move(dataset, tracking, promotion("1", ""))
    with pytest.raises(ChampionMovedError, match="the champion is version 1, not none"):
        champion.move(dataset, tracking, promotion("2", ""))
    assert champion.champion_version(tracking, NAME) == "1"
    assert len(champion.history(tracking, NAME)) == 1


def test_a_champion_that_was_set_by_hand_comes_into_the_history_once(
    dataset: Dataset, tracking: Tracking
) -> None:
    tracking.client.set_registered_model_alias(NAME, CHAMPION, "1")
    for _ in range(2):
        champion.complete_history(dataset, tracking, promotion("1", ""))
    assert [move.version for move in champion.history(tracking, NAME)] == ["1"]
    with pytest.raises(ChampionMovedError):
        champion.complete_history(dataset, tracking, promotion("2", "1"))
    assert [move.version for move in champion.history(tracking, NAME)] == ["1"]


MOVER = """
import os
import signal
import sys
from mlflow import MlflowClient
from assets.promotion import champion
from assets.promotion.champion import Move
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking

project, kind, version, previous, moment = Project.at(sys.argv[1]), *sys.argv[2:6]
move_alias = MlflowClient.set_registered_model_alias


def killed(*arguments):
    if moment == "after the alias":
        move_alias(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)


MlflowClient.set_registered_model_alias = killed
made = Move(version, previous, kind, champion.now(), "ops", "it missed a fire")
champion.move(Dataset(project, "site"), Tracking.of(project), made)
"""


@pytest.mark.parametrize("moment", ["before the alias", "after the alias"])
def test_what_a_kill_cuts_short_was_made_where_the_alias_moved(
    dataset: Dataset, tracking: Tracking, moment: str
) -> None:
    champion.move(dataset, tracking, promotion("1", ""))
    champion.move(dataset, tracking, promotion("2", "1"))
    died = subprocess.run(
        [sys.executable, "-c", MOVER, str(dataset.project.root), "rollback", "1", "2", moment],
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    was_made = moment == "after the alias"

    current = champion.champion_version(tracking, NAME)
    moves = champion.history(tracking, NAME)
    assert current == ("1" if was_made else "2")
    assert (rolled_back(moves, "2") is not None) == was_made  # then only a person promotes it again
    assert line_of_champions(moves, current) == (["1"] if was_made else ["1", "2"])

    champion.move(dataset, tracking, promotion("3", current))
    after = champion.history(tracking, NAME)
    assert [move.version for move in after] == (
        ["1", "2", "1", "3"] if was_made else ["1", "2", "3"]
    )
    assert after[: len(moves)] == moves
    tags = tracking.client.get_registered_model(NAME).tags
    assert not any('"pending": true' in value for value in tags.values())


PROMOTER = """
import sys
from assets.promotion import champion
from assets.promotion.champion import ChampionMovedError, Move
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking

project, me = Project.at(sys.argv[1]), sys.argv[2]
dataset, tracking = Dataset(project, "site"), Tracking.of(project)
champion.champion_version(tracking, "tevad-site")  # all is imported
print("ready", flush=True)
sys.stdin.readline()
made = 0
while made < 5:
    current = champion.champion_version(tracking, "tevad-site")
    target = "1" if current == me else me
    try:
        champion.move(dataset, tracking, Move(target, current, "promotion", champion.now(), me, ""))
        made += 1
    except ChampionMovedError:
        pass
"""


def test_two_processes_do_not_interleave(dataset: Dataset, tracking: Tracking) -> None:
    champion.move(dataset, tracking, promotion("1", ""))
    promoters = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTER, str(dataset.project.root), version],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in ("2", "3")
    ]
    for process in promoters:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in promoters:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(120) for process in promoters] == [0, 0]
    for process in promoters:
        process.communicate()
    moves = champion.history(tracking, NAME)
    assert len(moves) == 11
    # Each was decided against what the one before it left: none was lost or made on old news.
    assert [m.previous for m in moves[1:]] == [m.version for m in moves[:-1]]
    assert champion.champion_version(tracking, NAME) == moves[-1].version


@pytest.mark.parametrize(
    ("moves", "current", "line"),
    [
        ([], "", []),
        ([promotion("1", "")], "1", ["1"]),
        ([promotion("1", ""), promotion("2", "1")], "2", ["1", "2"]),
        ([promotion("1", ""), promotion("2", "1"), rolled("1", "2")], "1", ["1"]),
        (
            [promotion("1", ""), promotion("2", "1"), rolled("1", "2"), promotion("3", "1")],
            "3",
            ["1", "3"],
        ),
        ([promotion("1", "")], "4", ["1", "4"]),  # by hand, in MLflow
    ],
)
def test_the_line_of_champions(moves: list[Move], current: str, line: list[str]) -> None:
    assert line_of_champions(moves, current) == line


def test_a_version_stays_rolled_back_until_it_is_promoted_again() -> None:
    moves = [promotion("1", ""), promotion("2", "1"), rolled("1", "2")]
    assert rolled_back(moves, "2") == moves[2]
    assert rolled_back(moves, "1") is None
    assert rolled_back([*moves, promotion("2", "1")], "2") is None
