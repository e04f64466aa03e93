"""Scoring new videos with a registered model, as `tevad score` does."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner, Result
from projects import TrainedProject

from assets.scored_videos import TABLE, scores_folder
from assets.scoring import (
    ScoreReport,
    default_model,
    find_videos,
    output_names,
    score_videos,
)
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import CHAMPION, Tracking
from orchestration.agreement import latest_version
from orchestration.cli import main
from tevad_model import video
from tevad_model.errors import InputError
from tevad_model.fingerprint import sha256_file
from tevad_model.timeline import snippet_count

REPOSITORY = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n"


@dataclass(frozen=True)
class Site:
    """A project with a registered model, and videos to score with it."""

    project: Project
    tracking: Tracking
    videos: Path

    def score(self, *paths: Path, out: Path, **options: object) -> ScoreReport:
        return score_videos(
            paths,
            self.tracking,
            out=out,
            cache=self.project.cache,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture
def site(trained: TrainedProject) -> Site:
    videos = trained.root / trained.dataset.entry.source / "videos"
    return Site(trained.dataset.project, trained.tracking, videos)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_video_gets_its_files(site: Site, tmp_path: Path) -> None:
    clip = site.videos / "test_001.mp4"
    report = site.score(clip, out=tmp_path / "scores", as_json=True)
    assert report.failed == {}
    assert report.model == "models:/tevad-rendered/1"
    suffixes = ("frames.csv", "snippets.csv", "png", "json")
    assert report.written[clip] == tuple(tmp_path / "scores" / f"test_001.{s}" for s in suffixes)
    assert sorted((tmp_path / "scores").iterdir()) == sorted(report.written[clip])

    info = video.probe(clip)
    frames, snippets = rows(report.written[clip][0]), rows(report.written[clip][1])
    assert [int(row["frame"]) for row in frames] == list(range(info.frames))
    assert float(frames[-1]["time_s"]) == pytest.approx((info.frames - 1) / info.fps, abs=1e-3)
    assert len(snippets) == snippet_count(info.frames)
    assert list(snippets[0]) == [
        *("snippet", "start_frame", "end_frame", "start_s", "end_s"),
        *("score", "magnitude", "caption"),
    ]
    for row in snippets:
        within = frames[int(row["start_frame"]) : int(row["end_frame"])]
        assert {frame["score"] for frame in within} == {row["score"]}
        assert row["caption"].strip()
    assert report.written[clip][2].read_bytes().startswith(PNG)

    whole = json.loads(report.written[clip][3].read_text())
    assert (whole["model"], whole["frames"]) == (report.model, info.frames)
    stated = np.float32([snippet["score"] for snippet in whole["snippets"]])
    np.testing.assert_array_equal(stated, np.float32([row["score"] for row in snippets]))


def test_events_are_the_frames_that_reach_the_threshold(site: Site, tmp_path: Path) -> None:
    clip = site.videos / "test_000.mp4"
    frames = video.probe(clip).frames
    for threshold, expected in ((0.0, [(0, frames)]), (1.01, [])):
        site.score(clip, out=tmp_path, as_json=True, threshold=threshold)
        whole = json.loads((tmp_path / "test_000.json").read_text())
        assert [(e["start_frame"], e["end_frame"]) for e in whole["events"]] == expected
        assert whole["threshold"] == threshold


def test_a_bad_video_does_not_stop_the_others(site: Site, tmp_path: Path) -> None:
    sound, text = site.videos / "test_000.mp4", tmp_path / "text.mp4"
    text.write_text("no video")
    missing = tmp_path / "missing.mp4"
    report = site.score(text, missing, sound, out=tmp_path / "out")
    assert list(report.written) == [sound]
    assert report.failed[text].startswith(f"{text}: not a readable video")
    assert report.failed[missing].startswith(f"{missing}: there is no such file")
    assert not any(path.stem.startswith("text") for path in (tmp_path / "out").iterdir())


def test_videos_of_one_name_keep_files_of_their_own(site: Site, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "gate ä.mp4", tmp_path / "b" / "gate ä.mp4"
    for path, name in ((first, "test_000"), (second, "test_001")):
        path.parent.mkdir()
        shutil.copy(site.videos / f"{name}.mp4", path)
    report = site.score(tmp_path / "a", second, out=tmp_path / "out")
    assert report.written[first][0].name == "gate ä.frames.csv"
    assert report.written[second][0].name == "gate ä-2.frames.csv"
    for path in (first, second):
        assert len(rows(report.written[path][0])) == video.probe(path).frames


def test_the_champion_comes_before_the_challenger(site: Site) -> None:
    client = site.tracking.client
    assert default_model(site.tracking) == "models:/tevad-rendered@champion"
    client.delete_registered_model_alias("tevad-rendered", "champion")
    try:
        assert default_model(site.tracking) == "models:/tevad-rendered@challenger"
    finally:
        client.set_registered_model_alias("tevad-rendered", "champion", "1")


def test_with_several_models_the_user_must_choose(empty_mlflow: Path, tmp_path: Path) -> None:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path), "here")
    with pytest.raises(InputError, match=r"0 registered models \(none\); train one"):
        default_model(tracking)
    tracking.client.create_registered_model("tevad-gate")
    with pytest.raises(InputError, match="tevad-gate: no version is champion or challenger"):
        default_model(tracking)
    tracking.client.create_registered_model("tevad-yard")
    with pytest.raises(InputError, match=r"2 registered models \(tevad-gate, tevad-yard\)"):
        default_model(tracking)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("tevad-rendered", "give models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("models:/tevad-rendered@nobody", "nobody"),
        ("models:/tevad-rendered/99", "99"),
        ("models:/other@champion", "other"),
    ],
)
def test_a_model_that_is_not_there_is_named(
    site: Site, tmp_path: Path, uri: str, reason: str
) -> None:
    with pytest.raises(InputError, match=f"^{uri}: .*{reason}"):
        site.score(site.videos, out=tmp_path, model_uri=uri)


def test_a_version_can_be_named(site: Site, tmp_path: Path) -> None:
    clip = site.videos / "test_000.mp4"
    report = site.score(clip, out=tmp_path, model_uri="models:/tevad-rendered/1")
    assert report.model == "models:/tevad-rendered/1"


def test_a_folder_means_its_videos_each_once(tmp_path: Path) -> None:
    names = ["b.MP4", "a.mkv", "inner/c.mp4", "notes.txt", "._a.mkv"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = find_videos([tmp_path / "b.MP4", tmp_path, tmp_path / "inner"])
    assert found == [tmp_path / name for name in ("b.MP4", "a.mkv", "inner/c.mp4")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no video"):
        find_videos([tmp_path / "empty"])


def test_output_names_never_meet() -> None:
    videos = [Path(name) for name in ("a/x.mp4", "b/X.avi", "c/x-2.mp4", "d/x.mp4")]
    assert list(output_names(videos).values()) == ["x", "X-2", "x-2-2", "x-3"]


def test_an_output_folder_that_cannot_be_made_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot be made .*; give another --out"):
        site.score(site.videos, out=tmp_path / "file")


def test_scoring_needs_neither_dagster_nor_dvc() -> None:
    heavy = ("dagster", "dvc", "torch", "mlflow", "great_expectations", "transformers")
    code = f"import sys, assets.scoring; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_whole_dataset_is_scored_by_its_champion_and_dagster_knows(trained_copy: Dataset) -> None:
    def score(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["score", "--dataset", "rendered", *arguments])

    client = Tracking.of(trained_copy.project).client
    client.delete_registered_model_alias("tevad-rendered", CHAMPION)
    assert score("--json").exit_code == 2
    refused = score()
    assert refused.exit_code == 1
    assert "tevad promote rendered" in refused.stderr
    client.set_registered_model_alias("tevad-rendered", CHAMPION, "1")
    done = score()
    assert done.exit_code == 0, done.output
    assert f"scored by models:/tevad-rendered/1\n  {scores_folder(trained_copy)}" in done.stdout
    with dg.DagsterInstance.get() as instance:
        known = latest_version(instance, dg.AssetKey("scored_videos"), "rendered")
    assert known == sha256_file(scores_folder(trained_copy) / TABLE)
