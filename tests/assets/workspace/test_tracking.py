"""What MLflow is asked, and what is said of its place: where it leads, and what is nobody's business."""

from __future__ import annotations

import base64
import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from networking import free_ports, http_server

from assets.workspace.project import Project
from assets.workspace.tracking import LOCAL_PAGES, PAGES, Tracking, registered_name
from tevad_model.errors import InputError

CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One that says nothing of who we are to MLflow, where a server that is gone is asked once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "")
    return monkeypatch


@pytest.mark.parametrize(
    ("uri", "told", "shown"),
    [
        ("sqlite:////project/mlflow.db", None, LOCAL_PAGES),
        ("postgresql+psycopg2://joe:secret@db/tevad", None, LOCAL_PAGES),
        ("https://joe:secret@mlflow.example.org/", None, "https://mlflow.example.org"),
        ("http://mlflow:5000", "https://mlflow.example.org/", "https://mlflow.example.org"),
        ("sqlite:////project/mlflow.db", "http://127.0.0.1:5555", "http://127.0.0.1:5555"),
    ],
)
def test_links_lead_where_people_see_mlflow(
    uri: str, told: str | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PAGES, raising=False)
    if told:
        monkeypatch.setenv(PAGES, told)
    page = Tracking(uri, None, "here").version_page("tevad-site", "3")
    assert page == f"{shown}/#/models/tevad-site/versions/3"


def test_the_password_of_an_address_is_in_no_message(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    [closed] = free_ports(1)
    where = f"127.0.0.1:{closed}"
    environment.setenv("MLFLOW_TRACKING_URI", f"http://joe:p%40ss@{where}?password=p%40ss")
    tracking = Tracking.of(Project.at(tmp_path))
    with pytest.raises(InputError, match=f"^MLflow at http://{where}: ") as refused:
        tracking.experiment("site")
    assert refused.value.__suppress_context__, "Dagster keeps what an error came of"
    with pytest.raises(Exception, match=where) as raised:
        tracking.client.get_run("0" * 32)
    for said in (str(refused.value), str(raised.value)):
        assert "p%40ss" not in said
        assert "joe" not in said


def test_the_password_of_an_address_reaches_the_server(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    with http_server(Refuses) as address:
        environment.setenv("MLFLOW_TRACKING_URI", address.replace("//", "//joe:p%40ss@"))
        with pytest.raises(InputError):
            Tracking.of(Project.at(tmp_path)).experiment("site")
    assert set(asked) == {f"Basic {base64.b64encode(b'joe:p@ss').decode()}"}


def test_an_address_that_mlflow_does_not_know_is_told_without_its_password() -> None:
    tracking = Tracking("postgres://joe:secret@db/tevad?password=secret", None, "here")
    with pytest.raises(InputError, match=r"^MLflow at postgres://db/tevad: ") as raised:
        tracking.experiment("site")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql+psycopg2:///tevad?user=u&password=secret", "postgresql+psycopg2:///tevad"),
        ("sqlite:////project/mlflow.db", "sqlite:////project/mlflow.db"),
        ("./mlruns", "./mlruns"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(uri: str, shown: str) -> None:
    assert Tracking(uri, None, "here").address == shown


@pytest.fixture
def tracking(empty_mlflow: Path, tmp_path: Path) -> Tracking:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"), "here")


def test_registered_models_of_all_pages_are_found_and_no_other_projects(tracking: Tracking) -> None:
    names = {registered_name(f"site-{number}") for number in range(101)}  # a page has 100
    for name in {*names, "somebody-elses"}:
        tracking.client.create_registered_model(name)
    assert {model.name for model in tracking.registered_models()} == names
