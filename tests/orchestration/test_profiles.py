"""The profiles of `tevad up`: which servers, real ones, that answer and stop with all they started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from networking import answers, command_lines, free_ports, in_session, post, wait_until
from postgres_server import PASSWORD, PostgresServer
from ruamel.yaml import YAML

from assets.workspace.database import VARIABLE
from assets.workspace.project import Project
from assets.workspace.tracking import PAGES
from orchestration.cli import main
from orchestration.instance import configure_instance, open_instance
from orchestration.profiles import TEAM, Places, personal, team
from orchestration.serving import LOOPBACK, Server, start, stop
from tevad_model.errors import InputError

pytestmark = pytest.mark.slow


def somewhere() -> Places:
    dagster, mlflow, code, pages = free_ports(4)
    return Places(dagster=dagster, mlflow=mlflow, code=code, pages=pages)


@pytest.fixture
def team_project(
    project_root: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project whose state is in a database of its own."""
    monkeypatch.setenv(VARIABLE, postgres.address(postgres.new_database()))
    project = Project.at(project_root)
    configure_instance(project)
    return project


def by_name(groups: list[list[Server]]) -> dict[str, Server]:
    return {server.name: server for group in groups for server in group}


def test_all_servers_of_one_person_answer_and_stop(project_root: Path) -> None:
    places = somewhere()
    wanted = personal(Project.at(project_root), places)
    running = start(Project.at(project_root), wanted)
    try:
        assert [server.name for server in wanted] == ["Dagster", "MLflow", "Review"]
        query = "{ assetNodes { assetKey { path } } sensorsOrError(repositorySelector: "
        query += '{repositoryName: "__repository__", repositoryLocationName: '
        query += '"orchestration.definitions"}) { ... on Sensors { results { name } } } }'
        data = post(f"{wanted[0].address}/graphql", {"query": query})["data"]
        names = {node["assetKey"]["path"][0] for node in data["assetNodes"]}
        assert {"raw_videos", "registered_model"} <= names
        sensors = {sensor["name"] for sensor in data["sensorsOrError"]["results"]}
        assert "dvc_versions" in sensors
        api = f"{wanted[1].address}/api/2.0/mlflow/experiments/search"
        [experiment] = post(api, {"max_results": 10})["experiments"]
        assert experiment["name"] == "Default"
        assert answers(places.pages)
    finally:
        stop(running)
    assert not answers(places.dagster)
    assert not answers(places.mlflow)
    assert not answers(places.pages)
    wait_until(lambda: not any(in_session(process.pid) for process in running))


def test_a_teams_servers_answer_and_stop(team_project: Project) -> None:
    places = somewhere()
    with open_instance():
        pass  # as `tevad up` does: of several servers that make its tables at once, one may fail
    running = start(team_project, *team(team_project, places))
    try:
        assert len(running) == len(TEAM)
        assert all(answers(port) for port in (places.dagster, places.mlflow, places.code))
        said = command_lines([each for process in running for each in in_session(process.pid)])
        assert "code-server" in said
        assert PASSWORD not in said
        address = f"http://{LOOPBACK}:{places.dagster}/graphql"
        query = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"
        entries = post(address, {"query": query})["data"]["workspaceOrError"]["locationEntries"]
        assert entries == [{"name": "orchestration.definitions", "loadStatus": "LOADED"}]
    finally:
        stop(running)
    assert not any(answers(port) for port in (places.dagster, places.mlflow, places.code))
    wait_until(lambda: not any(in_session(process.pid) for process in running))
    for log in (team_project.state / "logs").iterdir():
        assert PASSWORD not in log.read_text()


def test_mlflow_is_not_started_where_it_is_elsewhere(
    team_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert [server.name for server in personal(team_project, Places())] == ["Dagster", "Review"]
    servers = by_name(team(team_project, Places()))
    assert list(servers) == ["code", "daemon", "webserver"]
    assert servers["code"].environment["MLFLOW_TRACKING_URI"] == "https://mlflow.example.org"


def test_links_of_runs_in_dagster_lead_to_the_mlflow_beside_it(
    project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> str:
        dagster, *_ = personal(Project.at(project_root), Places(mlflow=5555))
        return dagster.environment[PAGES]

    assert told() == f"http://{LOOPBACK}:5555"
    monkeypatch.setenv(PAGES, "https://mlflow.example.org")
    assert told() == "https://mlflow.example.org"


def test_all_listen_on_loopback_unless_told(team_project: Project) -> None:
    for server in (
        *personal(team_project, Places()),
        *by_name(team(team_project, Places())).values(),
    ):
        if server.address:
            assert host_of(server) == LOOPBACK
            assert f"//{LOOPBACK}:" in server.address
    told = replace(Places(), host="192.0.2.1")
    servers = by_name(team(team_project, told))
    assert {host_of(servers[name]) for name in ("mlflow", "webserver")} == {"192.0.2.1"}
    assert host_of(servers["code"]) == LOOPBACK, "it runs whatever it is sent"


def host_of(server: Server) -> str:
    command = list(server.command)
    return command[command.index("-h" if "-h" in command else "--host") + 1]


def test_runs_go_to_the_teams_own_mlflow_whose_secret_is_in_no_command(
    team_project: Project,
) -> None:
    servers = by_name(team(team_project, Places(mlflow=5123)))
    assert list(servers) == list(TEAM)
    assert servers["code"].environment["MLFLOW_TRACKING_URI"] == f"http://{LOOPBACK}:5123"
    assert "p%40ss" in servers["mlflow"].environment["MLFLOW_BACKEND_STORE_URI"]
    assert "p%40ss" not in repr(servers)


def test_a_teams_artifacts_go_to_its_bucket(
    team_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEVAD_STORAGE", "s3://bucket/prefix")
    command = list(by_name(team(team_project, Places()))["mlflow"].command)
    destination = command[command.index("--artifacts-destination") + 1]
    assert destination == "s3://bucket/prefix/mlflow"


def test_those_who_ask_the_code_location_are_told_where_it_is(team_project: Project) -> None:
    path = team_project.state / "dagster" / "workspace.yaml"
    places = Places(code=4123, code_host="code")
    for name in ("mlflow", "code"):
        team(team_project, places, name)
        assert not path.exists()
    team(team_project, places, "daemon")
    location = {"host": "code", "port": 4123, "location_name": "orchestration.definitions"}
    assert YAML(typ="safe").load(path) == {"load_from": [{"grpc_server": location}]}


def test_a_team_needs_a_database(project_root: Path) -> None:
    with pytest.raises(InputError, match=f"set {VARIABLE} to postgresql://"):
        team(Project.at(project_root), Places())


@pytest.mark.parametrize(("host", "warns"), [("0.0.0.0", True), (LOOPBACK, False)])  # noqa: S104
def test_whoever_opens_it_to_others_is_warned(project_root: Path, host: str, warns: bool) -> None:
    done = CliRunner().invoke(main, ["up", "--profile", "team", "--host", host])
    assert done.exit_code == 1
    assert VARIABLE in done.output
    assert ("nothing here asks who they are" in done.output) == warns


@pytest.mark.parametrize(("only", "warns"), [((), True), (("--only", "daemon"), False)])
def test_whoever_opens_the_code_location_is_warned(
    project_root: Path, only: tuple[str, ...], warns: bool
) -> None:
    """One that only asks it is told where it is by the same option."""
    done = CliRunner().invoke(main, ["up", "--profile", "team", "--code-host", "192.0.2.1", *only])
    assert done.exit_code == 1
    assert ("whoever reaches 192.0.2.1:4000 can have any code run" in done.output) == warns
