"""The servers of `tevad up`: real ones, on free ports, that answer and stop with all they started."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from networking import free_ports, wait_until

from assets.workspace.project import Project
from orchestration.serving import LOOPBACK, Server, servers, start, stop
from tevad_model.errors import InputError


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((LOOPBACK, port)) == 0


def post(address: str, content: dict[str, Any]) -> Any:
    request = urllib.request.Request(  # noqa: S310 - this machine's own server
        address, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        return json.load(response)


def in_session(leader: int) -> list[int]:
    """The processes of a session, by Linux's own list of processes."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_both_servers_answer_and_stop(project_root: Path) -> None:
    project = Project.at(project_root)
    dagster_port, mlflow_port = free_ports(2)
    wanted = servers(project, dagster_port=dagster_port, mlflow_port=mlflow_port)
    running = start(project, wanted)
    try:
        assert [server.name for server in wanted] == ["Dagster", "MLflow"]
        query = "{ assetNodes { assetKey { path } } sensorsOrError(repositorySelector: "
        query += '{repositoryName: "__repository__", repositoryLocationName: '
        query += '"orchestration.definitions"}) { ... on Sensors { results { name } } } }'
        data = post(f"{wanted[0].address}/graphql", {"query": query})["data"]
        names = {node["assetKey"]["path"][0] for node in data["assetNodes"]}
        assert {"raw_videos", "registered_model"} <= names
        assert [sensor["name"] for sensor in data["sensorsOrError"]["results"]] == ["dvc_versions"]
        api = f"{wanted[1].address}/api/2.0/mlflow/experiments/search"
        [experiment] = post(api, {"max_results": 10})["experiments"]
        assert experiment["name"] == "Default"
    finally:
        stop(running)
    assert not answers(dagster_port)
    assert not answers(mlflow_port)
    wait_until(lambda: not any(in_session(process.pid) for process in running))


def test_only_dagster_is_started_where_mlflow_is_elsewhere(
    project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    wanted = servers(Project.at(project_root), dagster_port=3000, mlflow_port=5000)
    assert [server.name for server in wanted] == ["Dagster"]


def test_all_listen_on_loopback_alone(project_root: Path) -> None:
    for server in servers(Project.at(project_root), dagster_port=3001, mlflow_port=5001):
        command = list(server.command)
        host = command[command.index("-h" if server.name == "Dagster" else "--host") + 1]
        assert host == LOOPBACK
        assert server.address.startswith(f"http://{LOOPBACK}:")


LISTENER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def listener(port: int) -> Server:
    address = f"http://{LOOPBACK}:{port}"
    return Server("Listener", [sys.executable, "-c", LISTENER, str(port)], address, address)


def test_a_server_that_ends_at_once_is_named_and_the_others_stop(project_root: Path) -> None:
    port, other = free_ports(2)
    address = f"http://{LOOPBACK}:{other}"
    bad = Server(
        "Bad", [sys.executable, "-c", "raise SystemExit('no such file')"], address, address
    )
    with pytest.raises(InputError, match=r"Bad ended at once, see .*bad\.log: no such file"):
        start(Project.at(project_root), [listener(port), bad])
    assert not answers(port)


def test_another_server_at_the_address_is_not_taken_for_ours(project_root: Path) -> None:
    [port] = free_ports(1)
    project = Project.at(project_root)
    first = start(project, [listener(port)])
    try:
        with pytest.raises(InputError, match=f"something listens on http://{LOOPBACK}:{port}"):
            start(project, [listener(port)])
    finally:
        stop(first)
    assert not answers(port)
