"""Features and captions made elsewhere go through the whole chain, in the layouts of RTFM and TEVAD."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from assets.caption_embeddings import load_embeddings, read_caption_embeddings
from assets.captions import load_captions, read_caption_manifest
from assets.checks.snippet_features import check_snippet_features
from assets.evaluation_metrics import SCORES
from assets.explanations import FILE as EXPLANATIONS
from assets.raw_videos import ingest_raw_videos, read_raw_videos
from assets.snippet_features import load_features, read_snippet_features
from assets.workspace import files, listing
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import CHALLENGER, Tracking, registered_name
from orchestration.cli import main
from orchestration.running import run_stage
from tevad_model.errors import InputError

TEXT_STAGES = ("captions", "sentence_encoder", "caption_embeddings")
CROPS, VISUAL_DIM, TEXT_DIM = 2, 24, 12
VIDEOS = {
    "train": [f"{name}_x264" for n in range(4) for name in (f"Abuse{n:03d}", f"Normal_Videos{n:03d}")],
    "test": [f"{name}_x264" for n in range(4, 7) for name in (f"Arson{n:03d}", f"Normal_Videos_{n:03d}")],
}  # fmt: skip
SNIPPETS = 9
EVENT = (48, 96)


def tevad(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Elsewhere:
    """A folder with what another group made: arrays, lists, events and captions."""

    folder: Path

    def features(self, video: str) -> Path:
        split = "train" if video in VIDEOS["train"] else "test"
        return self.folder / "features" / split / f"{video}_i3d.npy"

    def embeddings(self, video: str) -> Path:
        return self.folder / "embeddings" / f"{video}_emb.npy"

    def list(self, split: str) -> Path:
        return self.folder / ("ucf-i3d-test.list" if split == "test" else "ucf-i3d.list")

    def options(self, *names: str) -> list[object]:
        found: dict[str, list[object]] = {
            "features": ["--features", self.folder / "features"],
            "embeddings": ["--embeddings", self.folder / "embeddings"],
            "lists": ["--list", self.list("train"), "--list", self.list("test")],
            "events": ["--events", self.folder / "events.csv"],
            "captions": ["--captions", self.folder / "captions.jsonl"],
        }
        return [option for name in names for option in found[name]]


def is_abnormal(video: str) -> bool:
    return not video.startswith("Normal")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    """Fourteen videos of nine snippets, abnormal ones in three of them."""
    made = Elsewhere(tmp_path / "elsewhere")
    rng = np.random.default_rng(0)
    captions = []
    for split, videos in VIDEOS.items():
        for video in videos:
            visual = rng.normal(size=(SNIPPETS, CROPS, VISUAL_DIM)).astype(np.float32)
            text = rng.normal(size=(SNIPPETS, TEXT_DIM)).astype(np.float32)
            told = ["A street without people."] * SNIPPETS
            if is_abnormal(video):
                visual[3:6, :, :4] += 3
                text[3:6, :4] += 3
                told[3:6] = [f"A man throws a burning thing, number {n}." for n in range(3)]
            for path, array in ((made.features(video), visual), (made.embeddings(video), text)):
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, array)
            captions.append(json.dumps({"video": video, "captions": told}))
        names = [f"/home/someone/{split}/{video}_i3d.npy\n" for video in videos]
        made.list(split).write_text("".join(names))
    (made.folder / "captions.jsonl").write_text("\n".join(captions) + "\n")
    events = [f"{video},{EVENT[0]},{EVENT[1]}" for video in VIDEOS["test"] if is_abnormal(video)]
    (made.folder / "events.csv").write_text("\n".join(["video,start_frame,end_frame", *events]))
    return made


@pytest.fixture(autouse=True)
def presets(project_root: Path) -> None:
    """The test project's parameters, and presets for one modality as the real ones have them."""
    path = project_root / "params.yaml"
    text = path.read_text().replace(
        "presets: {paper: {}}",
        "presets: {paper: {}, text: {tevad_model: {modality: text}}, "
        "visual: {tevad_model: {modality: visual}}}",
    )
    path.write_text(text.replace("  visual_projection: 16\n", ""))


def add(elsewhere: Elsewhere, *names: str) -> Dataset:
    result = tevad("dataset", "add", "ucf", *elsewhere.options(*names))
    assert result.exit_code == 0, result.output
    return Project.find().dataset("ucf")


def take_in(dataset: Dataset) -> dict[str, str]:
    """Look again and take in; return the quarantine."""
    listing.refresh(dataset)
    return ingest_raw_videos(dataset).quarantined


def test_features_and_embeddings_train_a_model_that_scores_them(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = add(elsewhere, "features", "embeddings", "lists", "events")
    result = tevad("run", "ucf")
    assert result.exit_code == 0, result.output
    for video in VIDEOS["test"]:
        given = np.load(elsewhere.features(video))
        np.testing.assert_array_equal(load_features(dataset, video), given.astype(np.float16))
        given = np.load(elsewhere.embeddings(video))
        np.testing.assert_array_equal(load_embeddings(dataset, video), given)

    told = files.read_json(dataset.stage("evaluation_metrics") / EXPLANATIONS)
    events = [found for found in told if found["origin"] == "event"]
    assert [found["video"] for found in events] == [
        v for v in sorted(VIDEOS["test"]) if is_abnormal(v)
    ]
    for found in events:
        assert {snippet["snippet"] for snippet in found["snippets"]} == {3, 4, 5}
        assert all(set(s["score_without"]) == {"visual", "text"} for s in found["snippets"])

    monkeypatch.setenv("MLFLOW_TRACKING_URI", Tracking.of(dataset.project).uri)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = mlflow.pyfunc.load_model(f"models:/{registered_name('ucf')}@{CHALLENGER}")
    video = VIDEOS["test"][0]
    row = {
        "video": video,
        "features": str(elsewhere.features(video)),
        "embeddings": str(elsewhere.embeddings(video)),
    }
    scored = model.predict(pd.DataFrame([row]))
    kept = pd.read_parquet(dataset.stage("evaluation_metrics") / SCORES)
    expected = kept[kept["video"] == video]
    np.testing.assert_allclose(scored["score"], expected["score"], atol=1e-6)
    assert list(scored["end_frame"]) == list(expected["end_frame"])
    assert len(model.predict(model.input_example)) == 2
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"none\.npy: not a whole \.npy"):
        model.predict(pd.DataFrame([{**row, "features": "none.npy"}]))

    clip = elsewhere.folder / "clip.mp4"
    clip.touch()
    assert "was trained on ready-made features and embeddings" in tevad("score", clip).stderr


def test_captions_alone_train_a_model_on_text(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = add(elsewhere, "captions", "lists", "events")
    assert dataset.entry.preset == "text"
    result = tevad("run", "ucf")
    assert result.exit_code == 0, result.output
    video = next(video for video in VIDEOS["test"] if is_abnormal(video))
    assert load_captions(dataset, video)[3] == "A man throws a burning thing, number 0."
    assert len(read_snippet_features(dataset).rows) == 0
    assert files.read_json(dataset.folder / "metrics.json")["frame_auc"] > 0.8

    monkeypatch.setenv("MLFLOW_TRACKING_URI", Tracking.of(dataset.project).uri)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = mlflow.pyfunc.load_model(f"models:/{registered_name('ucf')}@{CHALLENGER}")
    table = pd.DataFrame([{"video": "new", "captions": load_captions(dataset, video)}])
    kept = pd.read_parquet(dataset.stage("evaluation_metrics") / SCORES)
    scored = model.predict(table)
    np.testing.assert_allclose(scored["score"], kept[kept["video"] == video]["score"], atol=1e-6)
    assert list(scored["caption"]) == load_captions(dataset, video)


def test_lengths_that_differ_by_one_are_reconciled_and_reported(elsewhere: Elsewhere) -> None:
    shorter, longer, two = VIDEOS["train"][:3]
    for video, length in ((shorter, SNIPPETS - 1), (longer, SNIPPETS + 1), (two, SNIPPETS - 2)):
        np.save(elsewhere.embeddings(video), np.ones((length, TEXT_DIM), np.float32))
    dataset = add(elsewhere, "features", "embeddings", "lists")
    report = ingest_raw_videos(dataset)
    assert report.quarantined == {
        two: f"{two}: 144 frames are 9 snippets, but there are 9 of features, 7 of embeddings; "
        "make all of them from the same video at the same frame rate"
    }
    [reconciled] = [warning for warning in report.warnings if "snippet longer" in warning]
    assert reconciled.startswith("2 videos: embeddings")
    assert shorter in reconciled
    for stage in TEXT_STAGES:
        run_stage(dataset, stage)
    assert {row.snippets for row in read_caption_embeddings(dataset).usable} == {SNIPPETS}


def test_what_cannot_be_used_is_put_in_quarantine_with_the_reason(elsewhere: Elsewhere) -> None:
    missing, unembedded, pickled, cut = VIDEOS["train"][:4]
    elsewhere.features(missing).unlink()
    elsewhere.embeddings(unembedded).unlink()
    np.save(elsewhere.features(pickled), np.array([{}], dtype=object), allow_pickle=True)
    whole = elsewhere.features(cut).read_bytes()
    elsewhere.features(cut).write_bytes(whole[:200])
    found = take_in(add(elsewhere, "features", "embeddings", "lists"))
    assert found.keys() == {missing, unembedded, pickled, cut}
    assert f"no features: {missing}_i3d.npy or {missing}.npy is not in" in found[missing]
    assert f"no embeddings: {unembedded}_emb.npy" in found[unembedded]
    assert "pickled objects" in found[pickled]
    assert "not a whole .npy file" in found[cut]


def test_features_with_nan_are_put_in_quarantine_before_training(elsewhere: Elsewhere) -> None:
    video = VIDEOS["train"][0]
    array = np.load(elsewhere.features(video))
    array[4] = np.nan
    np.save(elsewhere.features(video), array)
    dataset = add(elsewhere, "features", "lists")
    assert take_in(dataset) == {}
    run_stage(dataset, "snippet_features")
    reason = read_snippet_features(dataset).quarantined[video]
    assert "in 1 of 9 snippets, the first 4" in reason
    run_stage(dataset, "tevad_model")  # the others are enough


def test_another_dimension_fails_a_check_that_names_the_video(elsewhere: Elsewhere) -> None:
    video = VIDEOS["train"][0]
    np.save(elsewhere.features(video), np.ones((SNIPPETS, CROPS, 5), np.float32))
    dataset = add(elsewhere, "features", "lists")
    take_in(dataset)
    run_stage(dataset, "snippet_features")
    failed = {o.check.name: o for o in check_snippet_features(dataset) if not o.passed}
    assert [offender["video"] for offender in failed["one_shape"].offenders] == [video]
    assert failed["one_shape"].check.blocking
    with pytest.raises(InputError, match=f"visual dim: {video} has 5, .* has {VISUAL_DIM}"):
        run_stage(dataset, "tevad_model")


def test_only_one_class_is_an_error(elsewhere: Elsewhere) -> None:
    normal = [video for video in VIDEOS["train"] if not is_abnormal(video)]
    elsewhere.list("train").write_text("\n".join(normal))
    dataset = add(elsewhere, "features", "lists")
    take_in(dataset)
    run_stage(dataset, "snippet_features")
    with pytest.raises(InputError, match="all 4 videos are normal; add abnormal ones"):
        run_stage(dataset, "tevad_model")


def test_a_modality_without_features_is_an_error_that_says_what_there_is(
    elsewhere: Elsewhere, project_root: Path
) -> None:
    dataset = add(elsewhere, "features", "lists")
    assert dataset.entry.preset == "visual"
    path = project_root / "params.yaml"
    path.write_text(path.read_text().replace("preset: visual", "preset: paper"))
    dataset = Project.find().dataset("ucf")
    for stage in ("raw_videos", "snippet_features", *TEXT_STAGES):
        run_stage(dataset, stage)
    reason = r"modality is 'both', but of its videos there are only features; choose another"
    with pytest.raises(InputError, match=reason):
        run_stage(dataset, "tevad_model")


def test_labels_come_from_a_table_where_names_do_not_say_them(elsewhere: Elsewhere) -> None:
    named = {video: f"01_{number:04d}" for number, video in enumerate(VIDEOS["train"])}
    for video, name in named.items():
        elsewhere.features(video).rename(elsewhere.features(video).parent / f"{name}.npy")
    elsewhere.list("train").write_text("\n".join(f"x/{name}.npy" for name in named.values()))
    arguments = ["dataset", "add", "ucf", *elsewhere.options("features", "lists")]
    result = tevad(*arguments)
    assert result.exit_code == 1
    assert "8 of 14 listed videos have no label" in result.stderr
    assert "ucf" not in Project.find().params.datasets

    table = elsewhere.folder / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video", "label", "class"))
        for video, name in named.items():
            abnormal = is_abnormal(video)
            writer.writerow(
                (name, "abnormal" if abnormal else "normal", "Fight" if abnormal else "")
            )
    assert tevad(*arguments, "--labels", table).exit_code == 0
    dataset = Project.find().dataset("ucf")
    assert take_in(dataset) == {}
    rows = read_raw_videos(dataset).by_video()
    assert (rows["01_0000"].label, rows["01_0000"].category) == ("abnormal", "Fight")


def test_only_what_changed_is_taken_in_again(elsewhere: Elsewhere) -> None:
    dataset = add(elsewhere, "features", "embeddings", "lists")
    stages = ("raw_videos", "snippet_features", "caption_embeddings")

    def done() -> dict[str, int]:
        listing.refresh(dataset)
        for stage in ("raw_videos", "snippet_features", *TEXT_STAGES):
            run_stage(dataset, stage)
        reports = {stage: files.read_json(dataset.reports / f"{stage}.json") for stage in stages}
        return {stage: report["done"] for stage, report in reports.items()}

    assert done() == dict.fromkeys(stages, 14)
    assert done() == dict.fromkeys(stages, 0)
    video = VIDEOS["test"][0]
    np.save(elsewhere.features(video), np.load(elsewhere.features(video)) + 1)
    assert done() == {"raw_videos": 1, "snippet_features": 1, "caption_embeddings": 0}


def test_captions_of_some_videos_leave_the_others_in_quarantine(elsewhere: Elsewhere) -> None:
    path = elsewhere.folder / "captions.jsonl"
    lines = path.read_text().splitlines()
    gone, broken = VIDEOS["train"][:2]
    kept = [line for line in lines if gone not in line and broken not in line]
    path.write_text("\n".join([*kept, json.dumps({"video": broken, "captions": [""]})]))
    dataset = add(elsewhere, "captions", "lists")
    found = take_in(dataset)
    assert found.keys() == {gone, broken}
    assert "has no line for it; add one" in found[gone]
    assert "none empty" in found[broken]
    run_stage(dataset, "captions")
    assert read_caption_manifest(dataset).quarantined.keys() == found.keys()
