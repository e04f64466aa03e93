"""The team's bucket as a user sees it: one setting, and everything goes there and comes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from projects import TrainedProject, holding
from s3_server import SECRET_KEY, S3Server

from assets.raw_videos import read_raw_videos, video_path
from assets.registered_model import register_model
from assets.scoring import score_videos
from assets.tevad_model import train_tevad_model
from assets.workspace.params import DatasetParams
from assets.workspace.project import Project
from assets.workspace.storage import VARIABLE, Storage
from assets.workspace.tracking import Tracking
from orchestration.datasets import add_dataset

pytestmark = pytest.mark.slow

TEVAD = str(Path(sys.executable).with_name("tevad"))


def tevad(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [TEVAD, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_model_in_the_bucket_is_registered_loaded_and_scores(
    trained: TrainedProject,
    empty_mlflow: Path,
    storage: Storage,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", storage.mlflow, "here")
    train_tevad_model(trained.dataset, tracking, {})
    registered = register_model(trained.dataset, tracking)
    keys = s3_server.keys(storage.bucket, "team/mlflow/rendered/")
    assert any(key.endswith("/MLmodel") for key in keys)

    row = next(row for row in read_raw_videos(trained.dataset).usable if row.split == "test")
    clip = video_path(trained.dataset, row)
    cache = trained.dataset.project.cache
    report = score_videos([clip], tracking, out=tmp_path / "scores", cache=cache)
    assert (report.model, report.failed) == (registered.uri, {})

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the model's own code there
    rows = mlflow.pyfunc.load_model(registered.uri).predict(pd.DataFrame({"video": [str(clip)]}))
    written = pd.read_csv(tmp_path / "scores" / f"{row.video}.snippets.csv")
    assert rows["score"].tolist() == pytest.approx(written["score"].tolist(), abs=1e-6)
    assert holding(tmp_path, SECRET_KEY) == []


def test_the_commands_set_the_bucket_up_and_say_what_is_wrong(
    project_root: Path, storage: Storage
) -> None:
    assert "run `tevad storage use`" in tevad("storage", "check").stderr
    assert storage.dvc in tevad("storage", "use").stdout
    checked = tevad("storage", "check")
    assert checked.returncode == 0, checked.stderr
    assert [line.split(": ")[0] for line in checked.stdout.splitlines()] == [
        storage.dvc,
        storage.mlflow,
        storage.videos,
    ]
    wrong = tevad("storage", "check", AWS_SECRET_ACCESS_KEY="not-the-secret")
    assert wrong.returncode == 1
    assert wrong.stderr.count("check AWS_SECRET_ACCESS_KEY") == 3
    unset = tevad("storage", "check", **{VARIABLE: ""})
    assert f"{VARIABLE} is not set" in unset.stderr


def test_a_run_does_not_begin_where_its_artifacts_could_not_go(
    project_root: Path, rendered: Path, storage: Storage
) -> None:
    add_dataset(Project.at(project_root), "rendered", DatasetParams(source=str(rendered)))
    missing = tevad("run", "rendered", **{VARIABLE: "s3://no-such-bucket/x"})
    assert "s3://no-such-bucket/x/mlflow: listing: no such bucket" in missing.stderr
    assert not (project_root / "data" / "rendered" / "raw_videos").exists()
