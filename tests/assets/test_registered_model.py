"""The registered model: a real one, trained on a few rendered clips, through MLflow's own ways in."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from projects import TrainedProject

from assets.captions import load_captions
from assets.raw_videos import read_raw_videos, video_path
from assets.registered_model import (
    CHALLENGER,
    REQUIREMENTS,
    Registration,
    pip_requirements,
    register_model,
)
from assets.tevad_model import train_tevad_model
from assets.workspace import versions
from assets.workspace.project import STAGES, Dataset
from assets.workspace.tracking import DATA_TAG, Tracking
from tevad_model.encoders import motion
from tevad_model.errors import InputError, MismatchError
from tevad_model.timeline import snippet_count

REPOSITORY = Path(__file__).parents[2]
COLUMNS = ["video", "snippet", "start_frame", "end_frame", "score", "caption"]


@pytest.fixture
def dataset(trained: TrainedProject) -> Dataset:
    """A dataset whose whole chain has run: the model is registered."""
    return trained.dataset


@pytest.fixture
def tracking(trained: TrainedProject) -> Tracking:
    return trained.tracking


@pytest.fixture
def registered(dataset: Dataset, tracking: Tracking) -> Registration:
    return register_model(dataset, tracking)


@pytest.fixture
def loaded(
    registered: Registration, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> mlflow.pyfunc.PyFuncModel:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the model's own code there
    return mlflow.pyfunc.load_model(f"models:/{registered.name}@{CHALLENGER}")


@pytest.fixture
def clip(dataset: Dataset) -> tuple[str, Path, int]:
    """Name, path and frames of a test video."""
    row = next(row for row in read_raw_videos(dataset).usable if row.split == "test")
    return row.video, video_path(dataset, row), row.frames


def table(*videos: object) -> pd.DataFrame:
    return pd.DataFrame({"video": [str(video) for video in videos]})


@pytest.fixture
def empty(empty_mlflow: Path, tmp_path: Path) -> Tracking:
    """A store that knows nothing."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"), "here")


@pytest.fixture
def unregistered(dataset: Dataset, empty: Tracking) -> Tracking:
    """A store that knows the training run and no registered model."""
    train_tevad_model(dataset, empty, {})
    return empty


def test_a_new_version_is_the_challenger(trained: TrainedProject) -> None:
    version = trained.tracking.client.get_model_version_by_alias("tevad-rendered", CHALLENGER)
    assert f"{version.name}/{version.version}" == trained.outcome.model == "tevad-rendered/1"


def test_a_version_leads_back_to_its_data_and_its_run(
    dataset: Dataset, registered: Registration, tracking: Tracking
) -> None:
    version = tracking.client.get_model_version(registered.name, registered.version)
    data = {
        key.removeprefix(DATA_TAG): value
        for key, value in version.tags.items()
        if key.startswith(DATA_TAG)
    }
    assert data == {stage: versions.current(dataset, stage) for stage in STAGES}
    assert version.run_id == version.tags["tevad.run_id"] == registered.run_id
    figures = json.loads((dataset.folder / "metrics.json").read_text())
    assert float(version.tags["tevad.metric.frame_auc"]) == pytest.approx(figures["frame_auc"])
    run = tracking.client.get_run(registered.run_id)
    assert run.info.status == "FINISHED"
    logged = version.tags["tevad.logged_model"]
    assert [output.model_id for output in run.outputs.model_outputs] == [logged]
    model = tracking.client.get_logged_model(logged)
    assert (model.source_run_id, model.status) == (registered.run_id, "READY")


def test_the_same_model_is_not_registered_twice(trained_copy: Dataset) -> None:
    tracking, name = Tracking.of(trained_copy.project), "tevad-rendered"
    tracking.client.delete_registered_model_alias(name, CHALLENGER)
    again = register_model(trained_copy, tracking)
    assert (again.is_new, again.uri) == (False, f"models:/{name}/1")
    assert len(tracking.client.search_model_versions(f"name = '{name}'")) == 1
    found = tracking.client.get_model_version_by_alias(name, CHALLENGER)
    assert str(found.version) == again.version


def test_another_model_becomes_another_version(trained_copy: Dataset) -> None:
    params = trained_copy.project.root / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0]", "seeds: [1]"))
    tracking = Tracking.of(trained_copy.project)
    train_tevad_model(trained_copy, tracking, {})
    second = register_model(trained_copy, tracking)
    assert (second.is_new, second.uri) == (True, "models:/tevad-rendered/2")
    assert tracking.client.get_model_version(second.name, "2").tags["tevad.seed"] == "1"
    found = tracking.client.get_model_version_by_alias(second.name, CHALLENGER)
    assert str(found.version) == "2"


def test_registering_leaves_the_process_as_it_was(dataset: Dataset, unregistered: Tracking) -> None:
    before = (list(sys.path), dict(os.environ), mlflow.active_run())
    register_model(dataset, unregistered)
    assert (sys.path, dict(os.environ), mlflow.active_run()) == before


def test_a_changed_encoder_is_refused_and_leaves_no_version(
    dataset: Dataset, unregistered: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion, "CODE_VERSION", motion.CODE_VERSION + 1)
    with pytest.raises(MismatchError, match="caption encoder, code"):
        register_model(dataset, unregistered)
    assert unregistered.client.search_registered_models() == []
    experiment = unregistered.experiment(dataset.name)
    [model] = unregistered.client.search_logged_models([experiment])
    assert model.status == "FAILED"


def test_without_its_training_run_a_model_is_not_registered(
    dataset: Dataset, empty: Tracking
) -> None:
    with pytest.raises(
        InputError, match="no run of rendered's models with the data that lie there"
    ):
        register_model(dataset, empty)


def test_a_loaded_model_takes_videos_and_gives_a_row_a_snippet(
    loaded: mlflow.pyfunc.PyFuncModel, dataset: Dataset, clip: tuple[str, Path, int]
) -> None:
    name, path, frames = clip
    result = loaded.predict(table(path))
    assert list(result.columns) == COLUMNS
    assert result["snippet"].tolist() == list(range(snippet_count(frames)))
    assert result["start_frame"].iloc[0] == 0
    assert result["end_frame"].iloc[-1] == frames
    assert set(result["video"]) == {str(path)}
    assert result["caption"].tolist() == load_captions(dataset, name)


def test_scores_are_those_of_the_evaluation(
    loaded: mlflow.pyfunc.PyFuncModel, dataset: Dataset, clip: tuple[str, Path, int]
) -> None:
    name, path, _ = clip
    evaluated = pd.read_parquet(dataset.stage("evaluation_metrics") / "scores.parquet")
    expected = evaluated[evaluated["video"] == name]["score"].to_numpy()
    # Videos evaluated in one batch meet other matrix shapes, and so other roundings of float32.
    assert loaded.predict(table(path))["score"].to_numpy() == pytest.approx(expected, abs=2e-6)


def test_several_videos_and_file_uris(
    loaded: mlflow.pyfunc.PyFuncModel, clip: tuple[str, Path, int]
) -> None:
    _, path, _ = clip
    both = loaded.predict(table(path.as_uri(), path))
    by_video = [rows.drop(columns="video") for _, rows in both.groupby("video", sort=False)]
    pd.testing.assert_frame_equal(by_video[0], by_video[1].reset_index(drop=True))


def test_the_input_example_works_wherever_the_model_is(
    loaded: mlflow.pyfunc.PyFuncModel,
) -> None:
    example = loaded.input_example
    assert len(loaded.predict(example)) == 2


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        ("missing.mp4", "missing.mp4: there is no such file"),
        ("text.mp4", "text.mp4: not a readable video"),
        ("https://example.org/a.mp4", "https://example.org/a.mp4: only paths and file:// URIs"),
        ("example:other.mp4", "other.mp4: there is no such file"),
    ],
)
def test_a_video_that_cannot_be_read_is_the_callers_error(
    loaded: mlflow.pyfunc.PyFuncModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    video: str,
    reason: str,
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MlflowException, match=reason) as caught:
        loaded.predict(table(video))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_table_without_videos_is_refused(loaded: mlflow.pyfunc.PyFuncModel) -> None:
    with pytest.raises(MlflowException, match="video"):
        loaded.predict(pd.DataFrame({"path": ["a.mp4"]}))


def test_the_requirements_name_all_that_the_pipeline_imports() -> None:
    distributions = packages_distributions()
    imported = {name for file in pipeline_files() for name in imports(file)}
    third_party = {name for name in imported if name in distributions} - {"tevad_model"}
    needed = {
        min(found.lower().replace("_", "-") for found in distributions[name])
        for name in third_party
    }
    assert needed <= set(REQUIREMENTS)
    assert all("+" not in line and "==" in line for line in pip_requirements())


def pipeline_files() -> set[Path]:
    """The package's modules that ``tevad_model.pipeline`` comes to import, and the model's code."""
    package = REPOSITORY / "tevad_model"
    due = [package / "pipeline.py", REPOSITORY / "mlflow" / "tevad_pyfunc.py"]
    seen: set[Path] = set()
    while due:
        file = due.pop()
        if file in seen:
            continue
        seen.add(file)
        for module in own_imports(file):
            path = REPOSITORY.joinpath(*module.split("."))
            due += [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return seen


def own_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tevad_model"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_the_model_can_be_served(
    registered: Registration, tracking: Tracking, clip: tuple[str, Path, int], tmp_path: Path
) -> None:
    _, path, frames = clip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"),
        *("-m", f"models:/{registered.name}@{CHALLENGER}", "-p", str(port)),
    ]
    # MLflow starts uvicorn by name.
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking.uri, "PATH": programs}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        address = f"http://127.0.0.1:{port}/invocations"
        status, answer = post(address, {"dataframe_records": [{"video": str(path)}]})
        assert status == 200
        assert len(answer["predictions"]) == snippet_count(frames)
        status, answer = post(address, {"dataframe_records": [{"video": "missing.mp4"}]})
        assert status == 400
        assert "missing.mp4: there is no such file" in answer["message"]
        status, _ = post(address, {"dataframe_records": [{"path": str(path)}]})
        assert status == 400
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address).close()  # noqa: S310 - this machine's own server
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("the server did not start")


def post(address: str, content: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(  # noqa: S310
        address, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
