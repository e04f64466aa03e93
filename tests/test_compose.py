"""docker-compose.yml: the same servers as `tevad up --profile team`, and nothing left open.

No containers are started here. What the services run is what `tests/behaviour/test_team.py` runs as
plain processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer
from ruamel.yaml import YAML
from users import run_nameless

from assets.workspace.database import VARIABLE
from assets.workspace.project import Project
from assets.workspace.tracking import PAGES
from orchestration.cli.servers import up
from orchestration.instance import PASSWORD, USER, configure_instance
from orchestration.profiles import TEAM, Places, team
from orchestration.serving import Server

REPOSITORY = Path(__file__).parents[1]
PINNED = re.compile(r"[\w./-]+:\d+(\.\d+)+[\w.-]*(@sha256:[0-9a-f]{64})?")
SECRET = re.compile(r"PASSWORD|SECRET|KEY|TOKEN")
SETTINGS = {
    "POSTGRES_PASSWORD": "secret",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "TEVAD_UID": "1000",
    "TEVAD_GID": "1000",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(REPOSITORY / "docker-compose.yml")
    return found


def image_settings() -> dict[str, str]:
    """The variables that the image sets."""
    [said] = re.findall(r"^ENV (.+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    return dict(setting.split("=") for setting in said.split())


@pytest.fixture
def as_processes(
    project_root: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Server]:
    """What `tevad up --profile team` starts."""
    monkeypatch.setenv(VARIABLE, postgres.address(postgres.new_database()))
    project = Project.at(project_root)
    configure_instance(project)
    return {server.name: server for group in team(project, Places()) for server in group}


def test_the_services_are_a_teams_servers_with_what_they_stand_on(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*TEAM, "postgres", "s3"}


@pytest.mark.parametrize("name", TEAM)
def test_a_service_is_started_by_the_command_that_starts_the_process(
    name: str, compose: dict[str, Any]
) -> None:
    program, command, *options = compose["services"][name]["command"]
    assert (program, command) == ("tevad", "up")
    given = up.make_context("up", list(options)).params
    assert (given["profile"], given["only"]) == ("team", name)
    defaults = Places()
    ports = (given["dagster"], given["mlflow"], given["code"])
    assert ports == (defaults.dagster, defaults.mlflow, defaults.code)


def test_a_service_is_asked_for_its_health_as_the_process_is(
    compose: dict[str, Any], as_processes: dict[str, Server]
) -> None:
    for name, server in as_processes.items():
        how, program, *rest = compose["services"][name]["healthcheck"]["test"]
        assert how == "CMD"
        if isinstance(server.health, str):
            assert server.health in " ".join(rest)
        else:
            asked = [Path(server.health[0]).name, *server.health[1:]]
            assert [program, *rest] == asked


def test_the_daemons_check_finds_the_instance(compose: dict[str, Any]) -> None:
    """It runs beside the daemon, without what `tevad up` sets."""
    environment = compose["services"]["daemon"]["environment"]
    assert environment["DAGSTER_HOME"] == f"{environment['TEVAD_PROJECT']}/.tevad/dagster"
    assert {USER, PASSWORD, "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE"} <= set(environment)


def test_every_service_has_a_health_check_and_a_pinned_image(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"], name
        assert PINNED.fullmatch(service["image"]), name
        assert service["restart"] == "unless-stopped", name
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert compose["services"]["code"]["image"] == f"tevad:{version}"
    [base] = re.findall(r"^FROM (.+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert PINNED.fullmatch(base)


def test_what_the_image_says_is_enough_for_a_user_without_a_name(project_root: Path) -> None:
    """Containers run as the owner of the project's folder, whom the image does not know."""
    dvc = Path(sys.executable).with_name("dvc")
    done = run_nameless(
        [dvc, "--cd", project_root, "status"], {"PATH": os.environ["PATH"], **image_settings()}
    )
    assert done.returncode == 0, done.stderr


def test_commands_run_the_projects_code_as_dagster_does(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    for name in TEAM:
        service = compose["services"][name]
        [place] = {volume.rpartition(":")[2] for volume in service["volumes"]}
        assert image_settings()["PYTHONPATH"] == service["environment"]["TEVAD_PROJECT"] == place
    program = tmp_path / "orchestration" / "ready" / "program.py"
    program.parent.mkdir(parents=True)
    for folder in (program.parent, program.parents[1]):
        (folder / "__init__.py").touch()
    program.write_text("def main():\n    print('the code of the project')\n")
    tevad = Path(sys.executable).with_name("tevad")
    done = subprocess.run([tevad], env={"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert done.stdout == b"the code of the project\n", done.stderr.decode()


def test_nothing_has_a_default_password(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
            for password in re.findall(r"://[^:/]+:(.+)@", str(value)):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", password), name


def test_the_file_of_secrets_stays_out_of_git_and_of_the_image() -> None:
    assert "/.env" in (REPOSITORY / ".gitignore").read_text().splitlines()
    assert ".env" in (REPOSITORY / ".dockerignore").read_text().splitlines()


def test_ports_are_open_to_this_machine_alone(compose: dict[str, Any]) -> None:
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert {name for name, ports in published.items() if ports} == {"mlflow", "webserver", "s3"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_links_lead_to_where_mlflow_is_published(compose: dict[str, Any]) -> None:
    [published] = compose["services"]["mlflow"]["ports"]
    place = published.rpartition(":")[0]
    said = compose["services"]["code"]["environment"][PAGES]
    assert said == f"${{{PAGES}:-http://{place}}}"


def test_what_must_last_is_in_named_volumes(compose: dict[str, Any]) -> None:
    for name in ("postgres", "s3"):
        [volume] = compose["services"][name]["volumes"]
        assert volume.partition(":")[0] in compose["volumes"]


def test_services_wait_for_those_they_ask(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services["mlflow"]["depends_on"]) == {"postgres", "s3"}
    assert set(services["code"]["depends_on"]) == {"mlflow"}
    for name in ("daemon", "webserver"):
        assert set(services[name]["depends_on"]) == {"code"}
    for service in services.values():
        for condition in service.get("depends_on", {}).values():
            assert condition == {"condition": "service_healthy"}


def test_compose_itself_understands_it() -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "config", "--format", "json"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **SETTINGS}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert set(json.loads(done.stdout)["services"]) == {*TEAM, "postgres", "s3"}
    without = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    refused = subprocess.run(command, cwd=REPOSITORY, env=without, capture_output=True)
    assert refused.returncode != 0
