"""Dagster's instance: SQLite in the project by default, a team's PostgreSQL by one setting."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from networking import free_ports
from postgres_server import PASSWORD, TEAM, PostgresServer
from ruamel.yaml import YAML

from assets.workspace.database import VARIABLE
from assets.workspace.project import Dataset, Project
from orchestration.instance import (
    WORKSPACE,
    configure_instance,
    end_killed_commands,
    end_lost_runs,
    open_instance,
)
from tevad_model.errors import InputError

PARTITION = "site"


def settings(root: Path) -> Path:
    return root / ".tevad" / "dagster" / "dagster.yaml"


def test_sqlite_is_the_default(project_root: Path) -> None:
    assert "storage" not in YAML(typ="safe").load(settings(project_root))
    with open_instance() as instance:
        instance.add_dynamic_partitions("dataset", [PARTITION])
    assert list((project_root / ".tevad" / "dagster").rglob("*.db"))


def test_one_setting_moves_it_to_postgresql_and_back_only_on_purpose(
    project_root: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, name = Project.at(project_root), postgres.new_database()
    sqlite = settings(project_root).read_text()
    monkeypatch.setenv(VARIABLE, postgres.address(name))
    configure_instance(project)
    with open_instance() as instance:
        instance.add_dynamic_partitions("dataset", [PARTITION])
    assert postgres.execute("SELECT partition FROM dagster.dynamic_partitions", name) == [
        (PARTITION,)
    ]
    assert not list((project_root / ".tevad" / "dagster").rglob("*.db"))
    monkeypatch.delenv(VARIABLE)
    postgresql = settings(project_root).read_text()
    with pytest.raises(InputError, match=rf"dagster\.yaml: .* {VARIABLE} is not set"):
        configure_instance(project)
    assert settings(project_root).read_text() == postgresql, "one shell moves nobody's state"
    settings(project_root).unlink()
    configure_instance(project)
    assert settings(project_root).read_text() == sqlite


def test_no_file_has_the_user_or_the_password(
    project_root: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgres.address(postgres.new_database()))
    configure_instance(Project.at(project_root))
    with open_instance():
        pass
    for path in (path for path in project_root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert PASSWORD.encode() not in content, path
        assert TEAM.encode() not in content, path


def test_settings_of_ones_own_are_left_alone(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, own = Project.at(project_root), "telemetry:\n  enabled: false\n"
    settings(project_root).write_text(own)
    configure_instance(project)
    assert settings(project_root).read_text() == own
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    configure_instance(project)
    assert os.environ["DAGSTER_HOME"] == str(tmp_path)
    assert not (tmp_path / "dagster.yaml").exists()


def test_two_runs_on_one_dataset_queue_and_on_two_do_not(project_root: Path) -> None:
    with open_instance() as instance:
        queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    [limit] = queue.tag_concurrency_limits
    assert limit["key"] == "dagster/partition"
    assert limit["value"] == {"applyLimitPerUniqueValue": True}
    assert limit["limit"] == 1


@dg.op
def nothing() -> None:
    pass


@dg.job
def job() -> None:
    nothing()


def test_runs_whose_code_location_went_are_ended_and_others_are_not(
    project_root: Path, tmp_path: Path
) -> None:
    status = dg.DagsterRunStatus
    [closed] = free_ports(1)
    listener = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "code"))
    unix.listen()
    with listener, unix, open_instance() as instance:

        def launched(how: dg.DagsterRunStatus, **place: object) -> str:
            tags = {".dagster/grpc_info": json.dumps(place)} if place else {}
            return instance.create_run_for_job(job, status=how, tags=tags).run_id

        gone = {"host": "127.0.0.1", "port": closed}
        up = {"host": "127.0.0.1", "port": listener.getsockname()[1]}
        ended = [
            launched(status.STARTING, **gone),
            launched(status.STARTED, **gone),
            launched(status.STARTED, host="localhost", socket=str(tmp_path / "gone")),
        ]
        others = {
            launched(status.STARTED, **up): status.STARTED,
            launched(status.STARTED, host="localhost", socket=unix.getsockname()): status.STARTED,
            launched(status.STARTED): status.STARTED,
            launched(status.NOT_STARTED): status.NOT_STARTED,
            launched(status.SUCCESS, **gone): status.SUCCESS,
        }
        end_lost_runs(instance)
        found = {run.run_id: run.status for run in instance.get_runs()}
    assert found == {**dict.fromkeys(ended, status.FAILURE), **others}


def test_runs_of_killed_commands_are_ended_and_those_that_go_on_are_not(
    project_root: Path,
) -> None:
    status, project = dg.DagsterRunStatus, Project.at(project_root)
    with Dataset(project, "busy").run_held(), open_instance() as instance:

        def begun(dataset: str, how: dg.DagsterRunStatus, workspace: str, **others: str) -> str:
            tags = {"dagster/partition": dataset, WORKSPACE: workspace, **others}
            return instance.create_run_for_job(job, status=how, tags=tags).run_id

        by_dagster = {GRPC_INFO_TAG: "{}"}  # which executes again what a command did
        killed = begun("site", status.STARTED, project.identity)
        others = {
            begun("busy", status.STARTED, project.identity): status.STARTED,
            begun("site", status.SUCCESS, project.identity): status.SUCCESS,
            begun("site", status.STARTED, "another folder"): status.STARTED,
            instance.create_run_for_job(job, status=status.STARTED).run_id: status.STARTED,
            begun("site", status.STARTED, project.identity, **by_dagster): status.STARTED,
        }
        end_killed_commands(project, instance)
        found = {run.run_id: run.status for run in instance.get_runs()}
    assert found == {killed: status.FAILURE, **others}
