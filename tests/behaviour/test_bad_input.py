"""Strange videos beside unusable ones, and a kill in the middle: what every stage makes of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from odd_videos import cut, write, write_sound
from projects import TrainedProject, digests

from assets.caption_embeddings import load_embeddings, read_caption_embeddings
from assets.captions import load_captions, read_caption_manifest
from assets.evaluation_metrics import SCORES
from assets.raw_videos import read_raw_videos
from assets.snippet_features import load_features, read_snippet_features
from assets.workspace import files, listing
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import STAGES, Dataset, Project
from orchestration.running import run_stage
from tevad_model.encoders.base import Frame
from tevad_model.timeline import snippet_count

pytestmark = pytest.mark.slow

WriteVideo = Callable[..., Path]

STRANGE = {
    "one frame": 1,
    "two frames": 2,
    "47 frames": 47,
    "odd width": 20,
    "grey": 20,
    "rotated": 20,
    "varying rate": 20,
    "caméra 2 – 入口": 20,
}
"""Frames of the videos that are strange and still usable, by name."""

UNUSABLE = {
    "empty": "empty.mp4: the file is empty",
    "text": "text.mp4: not a readable video",
    "cut": "cut.mp4: cut short or damaged",
    "sound": "sound.mp4: holds no video",
}
"""What is said of the videos that are not, by name."""


def pictures(count: int, width: int = 64, seed: int = 0) -> list[Frame]:
    """A bright square that crosses a texture of its own."""
    texture = np.random.default_rng(seed).integers(0, 200, (48, width, 3), dtype=np.uint8)
    drawn = np.repeat(texture[None], count, axis=0)
    for index, picture in enumerate(drawn):
        left = 2 * index % (width - 12)
        picture[10:22, left : left + 12] = 255
    return list(drawn)


def write_strange(folder: Path) -> dict[str, Path]:
    """The strange videos, by name."""
    paths = {name: folder / f"{name}.mp4" for name in STRANGE}
    paths["odd width"] = folder / "odd width.mkv"
    paths["grey"] = folder / "grey.mkv"
    odd = [picture[:, :63] for picture in pictures(20, seed=4)]
    write(paths["one frame"], pictures(1, seed=1))
    write(paths["two frames"], pictures(2, seed=2))
    write(paths["47 frames"], pictures(47, seed=3))
    write(paths["odd width"], odd, codec="ffv1", pix_fmt="yuv444p")
    write(paths["grey"], pictures(20, seed=5), codec="ffv1", pix_fmt="gray")
    write(paths["rotated"], pictures(20, seed=6), rotation=90)
    times = [40 * i if i < 10 else 400 + 200 * (i - 10) for i in range(20)]
    write(paths["varying rate"], pictures(20, seed=7), times_ms=times)
    write(paths["caméra 2 – 入口"], pictures(20, seed=8))
    return paths


def write_unusable(folder: Path) -> dict[str, Path]:
    """The unusable videos, by name."""
    paths = {name: folder / f"{name}.mp4" for name in UNUSABLE}
    paths["empty"].touch()
    paths["text"].write_text("not a video at all\n" * 50)
    cut(write(folder / "whole.mp4", pictures(40, seed=9)), 0.5).rename(paths["cut"])
    (folder / "whole.mp4").unlink()
    write_sound(paths["sound"])
    return paths


@pytest.fixture
def dataset(project_root: Path, tmp_path: Path) -> Dataset:
    """All of them, in both splits and under both labels, and each stage's plain function has run."""
    source = tmp_path / "source"
    source.mkdir()
    paths = write_strange(source) | write_unusable(source)
    kinds = [(label, split) for split in ("train", "test") for label in ("normal", "abnormal")]
    lines = [
        f"{name},{path.name},{','.join(kinds[index % len(kinds)])}"
        for index, (name, path) in enumerate(paths.items())
    ]
    table = "\n".join(["video,path,label,split", *lines, ""])
    (source / "videos.csv").write_text(table, encoding="utf-8")
    write_dataset(project_root, "strange", DatasetParams(source=str(source)))
    found = Project.at(project_root).dataset("strange")
    listing.refresh(found)
    for stage in STAGES:
        run_stage(found, stage)
    return found


def test_every_stage_takes_the_strange_and_leaves_the_unusable(dataset: Dataset) -> None:
    raw = read_raw_videos(dataset)
    assert {row.video: row.frames for row in raw.usable} == STRANGE
    assert (raw.by_video()["rotated"].width, raw.by_video()["rotated"].height) == (48, 64)
    assert raw.quarantined.keys() == UNUSABLE.keys()
    for video, reason in UNUSABLE.items():
        assert raw.quarantined[video].startswith(reason)

    snippets = {video: snippet_count(frames) for video, frames in STRANGE.items()}
    for read, load in (
        (read_snippet_features, load_features),
        (read_caption_manifest, load_captions),
        (read_caption_embeddings, load_embeddings),
    ):
        manifest = read(dataset)
        assert {row.video: row.snippets for row in manifest.usable} == snippets
        assert manifest.quarantined == raw.quarantined
        assert {video: len(load(dataset, video)) for video in snippets} == snippets

    trained_on = files.read_json(dataset.stage("tevad_model") / "training.json")["videos"]
    assert trained_on == [row.video for row in raw.usable if row.split == "train"]
    assert (dataset.stage("evaluation_metrics") / SCORES).is_file()


def test_a_stage_that_is_killed_goes_on_where_it_was(
    trained_project: TrainedProject, trained_copy: Dataset
) -> None:
    folder = trained_copy.stage("snippet_features")
    shutil.rmtree(folder)
    kill_once(trained_copy, "snippet_features", folder, "[!.]*.safetensors")
    made = set(folder.glob("[!.]*.safetensors"))
    assert 1 <= len(made) < len(read_raw_videos(trained_copy).usable)
    assert not (folder / "manifest.parquet").exists()
    (folder / ".partial-left.safetensors").write_bytes(b"half a result")

    run_stage(trained_copy, "snippet_features")
    report = files.read_json(trained_copy.reports / "snippet_features.json")
    assert report["reused"] == len(made)
    assert digests(folder) == digests(trained_project.dataset.stage("snippet_features"))


def test_training_that_is_killed_ends_in_the_same_models(
    trained_project: TrainedProject, trained_copy: Dataset
) -> None:
    folder = trained_copy.stage("tevad_model")
    shutil.rmtree(folder)
    kill_once(trained_copy, "tevad_model", trained_copy.work, "**/*.safetensors")
    assert not (folder / "training.json").exists()

    run_stage(trained_copy, "tevad_model")
    assert digests(folder) == digests(trained_project.dataset.stage("tevad_model"))


def kill_once(dataset: Dataset, stage: str, folder: Path, pattern: str) -> None:
    """Run a stage as a process of its own and kill it when a file like that is in the folder."""
    run = "from orchestration.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", run, "stage", stage, "--dataset", dataset.name],
        cwd=dataset.project.root,
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(folder.glob(pattern)):
            assert process.poll() is None, "the stage ended before it could be killed"
            assert time.monotonic() < deadline, "no such file came"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
