"""A team's set-up as a user starts it: `tevad up --profile team` on PostgreSQL and a bucket.

Runs are launched as Dagster's pages launch them, queue by dataset, and end with a model in the MLflow
that was started with the rest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from networking import answers, children, command_lines, free_ports, in_session, post, wait_until
from postgres_server import PASSWORD, PostgresServer
from s3_server import SECRET_KEY, S3Server

from assets.workspace.project import Dataset
from orchestration.profiles import Places

TEVAD = str(Path(sys.executable).with_name("tevad"))
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
LAUNCH = """
mutation ($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
RUN = """
query ($id: ID!) { runOrError(runId: $id) { ... on Run { status startTime endTime } } }
"""


class Team:
    """The servers, and what people ask of them."""

    def __init__(self, root: Path) -> None:
        self.places = Places(**dict(zip(("dagster", "mlflow", "code"), free_ports(3), strict=True)))
        options = {"--port": self.places.dagster, "--mlflow-port": self.places.mlflow}
        options["--code-port"] = self.places.code
        command = [TEVAD, "up", "--profile", "team"]
        command += [str(word) for option in options.items() for word in option]
        self.process = subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.leaders: list[int] = []

    def wait_until_up(self) -> str:
        """What it says once all answer."""
        assert self.process.stdout is not None
        said = ""
        while "Ctrl-C stops them." not in said:
            line = self.process.stdout.readline()
            assert line, said
            said += line
        self.leaders = children(self.process.pid)
        return said

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate(timeout=120)

    def launch(self, dataset: str) -> str:
        """Press *Materialize* for a dataset; the id of the run."""
        selector = {
            "repositoryLocationName": "orchestration.definitions",
            "repositoryName": "__repository__",
            "jobName": "everything",
        }
        tags = [{"key": "dagster/partition", "value": dataset}]
        parameters = {
            "selector": selector,
            "runConfigData": {},
            "executionMetadata": {"tags": tags},
        }
        launched = self._ask(LAUNCH, parameters=parameters)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(RUN, id=run_id)["runOrError"]
        return found

    def model_versions(self, name: str) -> list[dict[str, Any]]:
        address = f"http://127.0.0.1:{self.places.mlflow}/api/2.0/mlflow/registered-models/get-latest-versions"
        found: list[dict[str, Any]] = post(address, {"name": name})["model_versions"]
        return found

    def _ask(self, query: str, **variables: Any) -> Any:
        address = f"http://127.0.0.1:{self.places.dagster}/graphql"
        answer = post(address, {"query": query, "variables": variables})
        assert "errors" not in answer, answer
        return answer["data"]


@pytest.fixture
def team(
    trained_copy: Dataset,
    postgres: PostgresServer,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Team]:
    settings = {
        "TEVAD_DATABASE_URL": postgres.address(postgres.new_database()),
        "TEVAD_STORAGE": f"s3://{s3_server.new_bucket()}/team",
        **s3_server.environment,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    started = Team(trained_copy.project.root)
    try:
        yield started
    finally:
        started.stop()


@pytest.mark.slow
def test_a_team_runs_the_chain_from_dagsters_pages(
    team: Team, trained_copy: Dataset, s3_server: S3Server
) -> None:
    said = team.wait_until_up()
    assert f"webserver: http://127.0.0.1:{team.places.dagster}" in said
    first, second = team.launch("rendered"), team.launch("rendered")
    wait_until(lambda: team.run(first)["status"] in ENDED, 560)
    processes = [each for leader in team.leaders for each in in_session(leader)]
    wait_until(lambda: team.run(second)["status"] in ENDED, 560)
    ended = [team.run(each) for each in (first, second)]
    assert [run["status"] for run in ended] == ["SUCCESS", "SUCCESS"]
    assert ended[1]["startTime"] >= ended[0]["endTime"], "two runs on one dataset queue"

    [version] = team.model_versions("tevad-rendered")
    bucket = os.environ["TEVAD_STORAGE"].split("/")[2]
    assert any(
        key.startswith("team/mlflow/") and key.endswith("MLmodel") for key in s3_server.keys(bucket)
    )
    assert version["status"] == "READY"

    commands = command_lines(processes)
    assert "dagster-webserver" in commands
    written = [path for path in trained_copy.project.state.rglob("*") if path.is_file()]
    for secret in (PASSWORD, SECRET_KEY):
        assert secret not in commands
        assert not [path for path in written if secret.encode() in path.read_bytes()]

    team.stop()
    ports = (team.places.dagster, team.places.mlflow, team.places.code)
    assert not any(answers(port) for port in ports)
    wait_until(lambda: not any(in_session(leader) for leader in team.leaders))
