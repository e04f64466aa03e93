"""What the chain stands on fails: a clear error in reasonable time, nothing lost, and a re-run goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import PASSWORD, PostgresServer
from projects import digests

from assets.workspace.project import Dataset

TEVAD = str(Path(sys.executable).with_name("tevad"))
FEATURES = ("raw_videos", "snippet_features", "captions", "caption_embeddings")


def tevad(*arguments: str, largest_file: int | None = None, **environment: str) -> str:
    """What a command complains of, or nothing if it succeeds."""

    def limited() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    done = subprocess.run(
        [TEVAD, *arguments],
        env={**os.environ, **environment},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.stderr if done.returncode else ""


def retrain(dataset: Dataset) -> None:
    """Make the models out of date."""
    path = dataset.project.root / "params.yaml"
    path.write_text(path.read_text().replace("iterations: 30", "iterations: 20"))


def test_a_lost_tracking_server_is_named_and_the_next_run_goes_on(trained_copy: Dataset) -> None:
    retrain(trained_copy)
    before = {stage: digests(trained_copy.stage(stage)) for stage in FEATURES}
    address = "http://127.0.0.1:9"
    said = tevad("run", "rendered", MLFLOW_TRACKING_URI=address)
    assert f"MLflow at {address}" in said, said
    assert {stage: digests(trained_copy.stage(stage)) for stage in FEATURES} == before
    assert tevad("run", "rendered") == ""


def test_a_disk_that_takes_no_more_is_named_and_the_next_run_goes_on(trained_copy: Dataset) -> None:
    retrain(trained_copy)
    before = digests(trained_copy.stage("evaluation_metrics"))
    stage = ("stage", "tevad_model", "--dataset", "rendered")
    said = tevad(*stage, largest_file=4_000_000)
    assert "File too large" in said
    assert digests(trained_copy.stage("evaluation_metrics")) == before
    assert tevad(*stage) == ""


def test_a_lost_database_is_named_and_the_next_run_goes_on(
    trained_copy: Dataset, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrain(trained_copy)
    before = {stage: digests(trained_copy.stage(stage)) for stage in FEATURES}
    name = postgres.new_database()
    monkeypatch.setenv("TEVAD_DATABASE_URL", postgres.address(name))
    postgres.stop()
    try:
        said = tevad("run", "rendered")
    finally:
        postgres.start()
    place = f"PostgreSQL at 127.0.0.1:{postgres.port}, database {name} (TEVAD_DATABASE_URL)"
    assert place in said, said
    assert PASSWORD not in said
    assert {stage: digests(trained_copy.stage(stage)) for stage in FEATURES} == before
    assert tevad("run", "rendered") == ""
