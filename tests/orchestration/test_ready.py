"""Commands from the process that is ready: a real one, in a real project, and what it must not change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from networking import children, wait_until
from projects import copy_project

import orchestration
from assets.workspace.locks import locked
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project
from orchestration.ready import COMMAND, SOCKET

TEVAD = Path(sys.executable).with_name("tevad")
WAITS = ("stage", "raw_videos", "--dataset", "site")
"""A command that waits for as long as somebody else works on the dataset."""


@dataclass
class Ready:
    """The process, its project and its log."""

    process: subprocess.Popen[bytes]
    root: Path
    log: Path
    environment: dict[str, str]
    tevad: list[str]

    @property
    def dataset(self) -> Dataset:
        return Project.at(self.root).dataset("site")

    def start(
        self, *arguments: str, through: Sequence[str] = (), **variables: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*through, *self.tevad, *arguments],
            cwd=self.root / "data",
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        done = self.start(*arguments, **variables)
        out, err = done.communicate()
        return done.returncode, out, err

    @contextmanager
    def waiting(self, *through: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """A command that waits, and the process that is it."""
        with locked(self.dataset.work / "lock", "the dataset"):
            command = self.start(*WAITS, through=through)
            assert command.stderr is not None
            while "waits for process" not in (line := command.stderr.readline()):
                assert line, "it has ended"
            [child] = children(self.process.pid)
            yield command, child
        command.communicate()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def deaf_to_ctrl_c() -> None:
    """As a script's shell starts what runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def started(root: Path, tevad: list[str], **variables: str) -> Iterator[Ready]:
    foreign = ("TEVAD_", "PYTEST_", "DAGSTER_", "MLFLOW_")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(foreign)
    }
    environment |= variables
    log = root.parent / "ready.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            COMMAND,
            cwd=root,
            env=environment,
            stderr=file,
            start_new_session=True,
            preexec_fn=deaf_to_ctrl_c,
        )
    try:
        ready = Ready(process, root, log, environment, tevad)
        wait_until(lambda: log.read_text().count("ready for") == 1 or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield ready
    finally:
        process.kill()
        process.wait()


def with_a_dataset(template: Path, folder: Path) -> Path:
    root = copy_project(template, folder)
    write_dataset(root, "site", DatasetParams(source="nowhere"))
    (root / "data").mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="module")
def ready(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    deep = tmp_path_factory.mktemp("ready") / ("a-folder-whose-name-is-long" * 4)
    with started(with_a_dataset(project_template, deep), [str(TEVAD)]) as found:
        yield found


@pytest.mark.parametrize("arguments", [("dataset", "list"), ("run", "none")])
def test_a_command_says_and_returns_what_it_does_by_itself(
    ready: Ready, arguments: tuple[str, ...]
) -> None:
    before = ready.log.read_text()
    there = ready.run(*arguments, DVC_STAGE="captions@site", SHLVL="7")
    assert ready.log.read_text() == before
    assert there == ready.run(*arguments, UNKNOWN_TO_IT="1")
    assert "runs by itself: other values of UNKNOWN_TO_IT" in ready.log.read_text()
    assert there[1] or "error: " in there[2]


def test_it_listens_to_its_user_alone(ready: Ready) -> None:
    assert (ready.root / ".tevad" / SOCKET).stat().st_mode & 0o777 == 0o700


def test_a_command_of_another_project_runs_by_itself(ready: Ready, project_root: Path) -> None:
    (project_root / ".tevad" / SOCKET).symlink_to(ready.root / ".tevad" / SOCKET)
    code, out, err = ready.run("dataset", "list", TEVAD_PROJECT=str(project_root))
    assert (code, "site" in out, err) == (0, False, "")
    assert f"its project is {project_root}" in ready.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command(ready: Ready, number: signal.Signals) -> None:
    with ready.waiting() as (command, child):
        command.send_signal(number)
        assert command.wait() == 1
        assert command.stderr is not None
        assert "Aborted!" in command.stderr.read()
        wait_until(lambda: not is_running(child))


def test_what_is_to_be_ignored_is(ready: Ready) -> None:
    with ready.waiting("nohup") as (command, child):
        command.send_signal(signal.SIGHUP)
        command.send_signal(signal.SIGTERM)
        assert command.wait() == 1
        wait_until(lambda: not is_running(child))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_with_a_closed_stream_a_command_runs_by_itself(ready: Ready, closed: str) -> None:
    shell = ("sh", "-c", f'"$@" {closed}', "sh")
    command = ready.start("dataset", "list", through=shell)
    out, err = command.communicate()
    assert command.returncode == 0
    assert ("site" in out, err) == (closed != ">&-", "")
    assert not children(ready.process.pid)


def test_what_the_system_grants_is_the_commands(ready: Ready) -> None:
    command = ready.start("dataset", "list", through=("nice", "-n", "3"))
    assert "site" in command.communicate()[0]
    assert "dataset: runs by itself: other limits, processors" in ready.log.read_text()


def test_a_second_does_not_take_the_firsts_place(ready: Ready) -> None:
    code = "from orchestration.ready.server import _listener; import pathlib, sys\n"
    code += "_listener(pathlib.Path(sys.argv[1]))"
    state = ready.root / ".tevad"
    second = subprocess.run(
        [sys.executable, "-c", code, str(state)], capture_output=True, text=True, check=False
    )
    assert "another process is ready" in second.stderr
    assert (state / SOCKET).is_socket()


def test_a_command_goes_with_whoever_handed_it_over(ready: Ready) -> None:
    with ready.waiting() as (command, child):
        command.kill()
        wait_until(lambda: not is_running(child))
        assert not Project.at(ready.root).dataset("site").stage("raw_videos").exists()


def test_a_killed_command_is_told(ready: Ready) -> None:
    with ready.waiting() as (command, child):
        os.kill(child, signal.SIGKILL)
        assert command.wait() == 128 + signal.SIGKILL


def test_without_it_commands_go_on_and_others_run_by_themselves(ready: Ready) -> None:
    """The last of those that share the process."""
    with ready.waiting() as (command, child):
        os.killpg(ready.process.pid, signal.SIGTERM)
        ready.process.wait()
        assert is_running(child)
        assert command.poll() is None
        assert ready.run("dataset", "list")[0] == 0
    assert command.returncode == 1  # no source to take in
    wait_until(lambda: not is_running(child))


@pytest.mark.slow
def test_it_starts_anew_when_the_code_has_changed(project_template: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    for package in ("tevad_model", "assets", "orchestration"):
        source = Path(orchestration.__file__).parents[1] / package
        shutil.copytree(source, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    tevad = [sys.executable, "-m", "orchestration.ready.program"]
    root = with_a_dataset(project_template, tmp_path)
    with started(root, tevad, PYTHONPATH=str(code)) as ready:
        command_line = code / "orchestration" / "cli" / "datasets.py"
        command_line.write_text(command_line.read_text() + "\nprint('changed')\n")
        assert ready.run("dataset", "list")[1].startswith("changed\n")
        wait_until(lambda: ready.log.read_text().count("ready for") == 2)
        before = ready.log.read_text()
        assert "site" in ready.run("dataset", "list")[1]
        assert ready.log.read_text() == before
