"""What the chain stands on fails: a clear error in reasonable time, nothing lost, and a re-run goes on."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import forks
import pytest
from aim import PHASES, Moment, paused
from click.testing import CliRunner
from networking import free_ports, wait_until
from postgres_server import PASSWORD, PostgresServer
from projects import TrainedProject, copy_trained, digests, enter_project
from trials import assert_all_agree, assert_as_if_undisturbed

from assets.workspace.project import FEATURE_STAGES, Dataset, Project
from orchestration.cli import main

TEVAD, MLFLOW = (str(Path(sys.executable).with_name(name)) for name in ("tevad", "mlflow"))
RUN = ("run", "rendered")
TRAIN = ("stage", "tevad_model", "--dataset", "rendered")


def invoked(*arguments: str, **environment: str) -> str:
    """What a command complains of, or nothing if it succeeds; in this process, which costs less."""
    done = CliRunner().invoke(main, arguments, env=environment)
    return complaint(done.exit_code, done.stderr)


def tevad(*arguments: str, largest_file: int | None = None, **environment: str) -> str:
    """The same in a process of its own, which leaves nothing of a lost store or disk in this one."""
    done = forks.tevad(
        *arguments,
        root=Path.cwd(),
        environment={**os.environ, **environment},
        largest_file=largest_file,
    )
    return complaint(done.returncode, done.stderr)


def complaint(code: int, said: str) -> str:
    """What was said, without a stack trace, by what did not succeed."""
    assert "Traceback" not in said, said
    return said if code else ""


def retrain(dataset: Dataset) -> None:
    """Make the models out of date."""
    path = dataset.project.root / "params.yaml"
    path.write_text(path.read_text().replace("iterations: 30", "iterations: 20"))


@contextmanager
def mounted(*options: str, at: Path) -> Iterator[None]:
    """Something mounted in a folder, where whoever runs the tests may."""
    done = subprocess.run(["mount", *options, str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@contextmanager
def tracking_server(store: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real MLflow server, which is killed at the end if it was not before."""
    process = subprocess.Popen(
        [
            *(MLFLOW, "server", "--backend-store-uri", f"sqlite:///{store}", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        cwd=store.parent,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_healthy(port):
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, TimeoutError, ConnectionError):
        return False


def test_a_lost_tracking_server_is_named_and_the_next_run_goes_on(trained_copy: Dataset) -> None:
    retrain(trained_copy)
    before = {stage: digests(trained_copy.stage(stage)) for stage in FEATURE_STAGES}
    address = "http://127.0.0.1:9"
    said = invoked(*RUN, MLFLOW_TRACKING_URI=address)
    assert f"MLflow at {address}" in said, said
    assert {stage: digests(trained_copy.stage(stage)) for stage in FEATURE_STAGES} == before
    assert invoked(*RUN) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [Moment(PHASES["training"], nth=3), Moment(r"^write .*/MLmodel$")],
    ids=["training", "registration"],
)
def test_a_tracking_server_that_is_lost_amid_work_is_named_and_the_next_run_goes_on(
    trained_copy: Dataset,
    trained_project: TrainedProject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: Moment,
) -> None:
    store, [port] = trained_copy.project.state / "mlflow.db", free_ports(1)
    address = f"http://127.0.0.1:{port}"
    store.unlink()  # a model to register anew
    shutil.rmtree(trained_copy.stage("tevad_model"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    root = trained_copy.project.root
    with (
        tracking_server(store, port) as server,
        paused(moment, "tevad", *RUN, root=root, scratch=tmp_path / "aim") as run,
    ):
        run.await_moment()
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        ended = run.end()
    assert ended.code == 1
    assert f"MLflow at {address}" in ended.said
    assert "Traceback" not in ended.said
    with tracking_server(store, port):
        assert tevad(*RUN) == ""
        assert_as_if_undisturbed(trained_copy, trained_project)


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_named_and_the_next_run_goes_on(trained_copy: Dataset) -> None:
    retrain(trained_copy)
    before = digests(trained_copy.stage("evaluation_metrics"))
    said = tevad(*TRAIN, largest_file=4_000_000)
    assert "File too large" in said
    assert digests(trained_copy.stage("evaluation_metrics")) == before
    assert tevad(*TRAIN) == ""


def has_begun(postgres: PostgresServer, database: str, step: str) -> bool:
    """Whether a run has come to a step."""
    if postgres.execute("SELECT to_regclass('dagster.event_logs')", database) == [(None,)]:
        return False
    events = f"SELECT 1 FROM dagster.event_logs WHERE step_key = '{step}'"  # noqa: S608
    return bool(postgres.execute(events, database))


@pytest.mark.slow
def test_a_lost_database_is_named_and_the_next_run_goes_on(
    trained_copy: Dataset, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrain(trained_copy)
    before = {stage: digests(trained_copy.stage(stage)) for stage in FEATURE_STAGES}
    name = postgres.new_database()
    monkeypatch.setenv("TEVAD_DATABASE_URL", postgres.address(name))
    with subprocess.Popen([TEVAD, "run", "rendered"], stderr=subprocess.PIPE, text=True) as run:
        wait_until(lambda: has_begun(postgres, name, "raw_videos"))
        postgres.kill()
        try:
            _, in_between = run.communicate()
            at_the_start = tevad("run", "rendered")
        finally:
            postgres.start()
    assert run.returncode == 1
    for said in (in_between, at_the_start):
        place = f"PostgreSQL at 127.0.0.1:{postgres.port}, database {name} (TEVAD_DATABASE_URL)"
        assert place in said, said
        assert "Traceback" not in said, said
        assert PASSWORD not in said
    assert {stage: digests(trained_copy.stage(stage)) for stage in FEATURE_STAGES} == before
    assert tevad("run", "rendered") == ""


@pytest.mark.slow
@pytest.mark.parametrize("left", [100_000, 3_000_000], ids=["for nothing", "for a part"])
def test_a_full_disk_is_named_and_the_next_run_goes_on(
    trained_project: TrainedProject,
    encoder_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
) -> None:
    """All of the project is on it: data, DVC's cache, and the databases of Dagster and MLflow."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=400m", "tmpfs", at=disk):
        root = copy_trained(trained_project.root, disk)
        enter_project(root, encoder_cache, monkeypatch)
        dataset = Project.at(root).dataset("rendered")
        shutil.rmtree(dataset.stage("tevad_model"))
        filler = disk / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)
        said = tevad(*RUN)
        assert "No space left" in said or "disk is full" in said
        filler.unlink()
        assert tevad(*RUN) == ""
        assert_as_if_undisturbed(dataset, trained_project)
        monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_is_named_and_the_next_run_goes_on(
    trained_copy: Dataset,
) -> None:
    retrain(trained_copy)
    folder = trained_copy.stage("tevad_model")
    before = digests(folder)
    with mounted("--bind", str(folder), at=folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        said = tevad(*TRAIN)
    assert str(folder) in said
    assert "Read-only file system" in said
    assert digests(folder) == before
    assert tevad(*TRAIN) == ""


@pytest.mark.slow
def test_a_store_of_mlflow_that_is_locked_is_named_and_the_next_run_goes_on(
    trained_copy: Dataset,
) -> None:
    retrain(trained_copy)
    store = trained_copy.project.state / "mlflow.db"
    with closing(sqlite3.connect(store)) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = tevad(*TRAIN)
    assert f"MLflow at sqlite:///{store}" in said
    assert "database is locked" in said
    assert tevad(*TRAIN) == ""


@pytest.mark.slow
def test_a_damaged_store_of_mlflow_is_named_and_a_new_one_is_filled(
    trained_copy: Dataset, trained_project: TrainedProject
) -> None:
    store = trained_copy.project.state / "mlflow.db"
    store.write_bytes(b"not a database, however one looks at it " * 200)
    said = tevad(*TRAIN)
    assert f"MLflow at sqlite:///{store}" in said
    assert "move it away" in said
    store.unlink()
    assert tevad(*RUN) == ""
    assert_all_agree(trained_copy)
    assert digests(trained_copy.folder) == digests(trained_project.dataset.folder)


def test_a_database_of_dagster_that_is_locked_is_named(trained_copy: Dataset) -> None:
    retrain(trained_copy)  # to look whether anything is to be done, a lock does not hinder
    home = trained_copy.project.state / "dagster"
    databases = sorted(home.rglob("*.db"))
    assert databases
    with ExitStack() as held:
        for path in databases:
            other = held.enter_context(closing(sqlite3.connect(path)))
            other.execute("BEGIN EXCLUSIVE")
        said = invoked(*RUN)
    assert f"Dagster's state in {home}" in said
    assert "database is locked" in said
