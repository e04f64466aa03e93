"""What MLflow is asked, in a store of its own."""

import shutil
from pathlib import Path

import pytest

from assets.workspace.tracking import Tracking, registered_name


@pytest.fixture
def tracking(empty_mlflow: Path, tmp_path: Path) -> Tracking:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"), "here")


def test_registered_models_of_all_pages_are_found_and_no_other_projects(tracking: Tracking) -> None:
    names = {registered_name(f"site-{number}") for number in range(101)}  # a page has 100
    for name in {*names, "somebody-elses"}:
        tracking.client.create_registered_model(name)
    assert {model.name for model in tracking.registered_models()} == names
