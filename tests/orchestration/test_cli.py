"""The command line: what it says, where, and with which exit code."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner, Result
from projects import TrainedProject
from ruamel.yaml import YAML
from users import run_nameless

from assets.workspace.project import STAGES, Project
from orchestration.cli import main

WriteVideo = Callable[..., Path]


def tevad(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_fails(result: Result, *reasons: str) -> None:
    """It ends with exit code 1 and says why on stderr, without a traceback."""
    assert result.exit_code == 1
    assert any(line.startswith("error: ") for line in result.stderr.splitlines())
    for reason in reasons:
        assert reason in result.stderr
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def datasets(root: Path) -> dict[str, dict[str, object]]:
    return dict(YAML(typ="safe").load(root / "params.yaml")["datasets"])


@pytest.fixture
def source(tmp_path: Path, write_video: WriteVideo) -> Path:
    """A folder of two videos with a table."""
    folder = tmp_path / "my videos"
    for seed, name in enumerate(("a", "b")):
        write_video(folder / f"{name}.mp4", seed=seed)
    table = "video,path,label,split\na,a.mp4,normal,train\nb,b.mp4,abnormal,train\n"
    (folder / "videos.csv").write_text(table)
    return folder


def test_a_folder_with_a_table_is_added(project_root: Path, source: Path) -> None:
    result = tevad("dataset", "add", "site", "--from", source)
    assert result.exit_code == 0, result.output
    assert "site: 2 of 2 rows usable" in result.stdout
    assert "train: 1 abnormal, 1 normal" in result.stdout
    assert "next: tevad run site" in result.stdout
    assert datasets(project_root) == {"site": {"source": str(source), "preset": "paper"}}
    assert (project_root / "data/site/source/videos.csv").is_file()


def test_a_folder_inside_the_project_is_kept_relative_to_it(
    project_root: Path, source: Path
) -> None:
    shutil.copytree(source, project_root / "videos here")
    assert tevad("dataset", "add", "site", "--from", "videos here").exit_code == 0
    assert datasets(project_root) == {"site": {"source": "videos here", "preset": "paper"}}


def test_labelled_folders_are_added_without_a_table(
    project_root: Path, tmp_path: Path, write_video: WriteVideo
) -> None:
    write_video(tmp_path / "in" / "normal" / "a.mp4", seed=1)
    write_video(tmp_path / "in" / "abnormal" / "b.mp4", seed=2)
    result = tevad("dataset", "add", "site", "--from", tmp_path / "in")
    assert result.exit_code == 0, result.output
    assert "2 of 2 rows usable" in result.stdout
    assert "1 abnormal, 1 normal" in result.stdout


def test_frame_folders_are_added_with_their_fps(project_root: Path, tmp_path: Path) -> None:
    for label in ("normal", "abnormal"):
        folder = tmp_path / "in" / label / "clip"
        folder.mkdir(parents=True)
        for index in range(3):
            cv2.imwrite(str(folder / f"{index:04d}.jpg"), np.full((32, 48, 3), 80 * index))
    result = tevad("dataset", "add", "site", "--from", tmp_path / "in", "--fps", "12.5")
    assert result.exit_code == 0, result.output
    assert datasets(project_root)["site"]["fps"] == 12.5
    assert tevad("stage", "raw_videos", "--dataset", "site").exit_code == 0


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "videos.csv").unlink(), "my videos"),
        (lambda folder: (folder / "videos.csv").write_text("video,path\na,a.mp4\n"), "label"),
        (lambda folder: (folder / "videos.csv").write_text("video,path,label\n"), "videos.csv"),
    ],
    ids=["no folder", "no table", "no label column", "no rows"],
)
def test_a_source_that_cannot_be_used_leaves_the_parameters_as_they_were(
    project_root: Path, source: Path, prepare: Callable[[Path], None], reason: str
) -> None:
    before = (project_root / "params.yaml").read_bytes()
    prepare(source)
    assert_fails(tevad("dataset", "add", "site", "--from", source), reason)
    assert (project_root / "params.yaml").read_bytes() == before


def test_a_name_that_cannot_be_a_folder_is_refused(project_root: Path, source: Path) -> None:
    assert_fails(tevad("dataset", "add", "../site", "--from", source), "'../site'")
    assert datasets(project_root) == {}


def test_a_source_that_is_added_again_and_is_bad_leaves_the_first(
    project_root: Path, source: Path, tmp_path: Path
) -> None:
    tevad("dataset", "add", "site", "--from", source)
    before = (project_root / "params.yaml").read_bytes()
    assert_fails(tevad("dataset", "add", "site", "--from", tmp_path / "none"), "no such folder")
    assert (project_root / "params.yaml").read_bytes() == before


def test_datasets_are_listed_with_their_sources(project_root: Path, source: Path) -> None:
    assert tevad("dataset", "list").stdout == ""
    tevad("dataset", "add", "site", "--from", source)
    assert tevad("dataset", "list").stdout == f"site\t{source}\n"


def test_refresh_tells_what_the_source_holds_now(
    project_root: Path, source: Path, write_video: WriteVideo
) -> None:
    tevad("dataset", "add", "site", "--from", source)
    write_video(source / "c.mp4", seed=3)
    with (source / "videos.csv").open("a") as file:
        file.write("c,c.mp4,normal,test\n")
    result = tevad("dataset", "refresh", "site")
    assert result.exit_code == 0, result.output
    assert "3 of 3 rows usable" in result.stdout
    assert "test: 1 normal" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("stage", "raw_videos", "--dataset", "other"),
        ("run", "other"),
        ("dataset", "refresh", "other"),
    ],
    ids=["stage", "run", "refresh"],
)
def test_an_unknown_dataset_is_named_with_the_remedy(
    project_root: Path, command: tuple[str, ...]
) -> None:
    assert_fails(tevad(*command), "datasets.other is not there", "tevad dataset add other")


def test_an_unknown_stage_is_refused_with_those_there_are(project_root: Path) -> None:
    result = tevad("stage", "other", "--dataset", "site")
    assert result.exit_code == 2
    assert all(stage in result.stderr for stage in STAGES)


def test_a_stage_whose_input_is_not_there_says_what_to_run(
    project_root: Path, source: Path
) -> None:
    tevad("dataset", "add", "site", "--from", source)
    assert_fails(tevad("stage", "captions", "--dataset", "site"), "materialize raw_videos first")


def test_wrong_parameters_are_named_by_their_key(project_root: Path) -> None:
    with (project_root / "params.yaml").open("a") as file:
        file.write("viedo: {max_side: 1}\n")
    assert_fails(tevad("dataset", "list"), "params.yaml", "viedo")


def test_outside_a_project_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEVAD_PROJECT", raising=False)
    assert_fails(tevad("dataset", "list"), "no params.yaml and dvc.yaml", "TEVAD_PROJECT")


@pytest.mark.parametrize("command", [("rollback", "site"), ("promote", "site", "--approve")])
def test_whoever_has_no_name_is_asked_for_one(project_root: Path, command: tuple[str, ...]) -> None:
    program = Path(sys.executable).with_name("tevad")
    done = run_nameless([program, *command], {**os.environ, "USER": "the image"})
    assert done.returncode == 1
    assert done.stderr.startswith("error: user 54321 has no name on this system")
    assert "--by NAME" in done.stderr


def test_sync_has_nothing_to_tell_after_a_run(trained: TrainedProject) -> None:
    result = tevad("sync")
    assert (result.exit_code, result.stdout) == (0, "Dagster knows all of dvc.lock\n")


def test_a_run_whose_check_fails_names_it_and_goes_no_further(
    project_root: Path, source: Path
) -> None:
    table = (source / "videos.csv").read_text()
    (source / "videos.csv").write_text(table.replace("abnormal", "normal"))
    tevad("dataset", "add", "site", "--from", source)
    result = tevad("run", "site")
    assert_fails(result, "raw_videos: check both_labels_in_each_split failed")
    with dg.DagsterInstance.get() as instance:
        materialized = {
            stage
            for stage in STAGES
            if instance.get_latest_materialization_event(dg.AssetKey(stage)) is not None
        }
    assert materialized == {"raw_videos"}
    assert not Project.at(project_root).dataset("site").stage("snippet_features").exists()
