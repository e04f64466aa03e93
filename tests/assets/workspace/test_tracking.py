"""What MLflow is asked, and what is said of its place: where it leads, and what is nobody's business."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assets.workspace.tracking import LOCAL_PAGES, PAGES, Tracking, registered_name


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


@pytest.fixture
def tracking(empty_mlflow: Path, tmp_path: Path) -> Tracking:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"), "here")


def test_registered_models_of_all_pages_are_found_and_no_other_projects(tracking: Tracking) -> None:
    names = {registered_name(f"site-{number}") for number in range(101)}  # a page has 100
    for name in {*names, "somebody-elses"}:
        tracking.client.create_registered_model(name)
    assert {model.name for model in tracking.registered_models()} == names
