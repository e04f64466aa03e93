"""The chain through every full-size backend, by tiny models of the same classes, and through one's own."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from tiny_models import (
    WIDTH,
    tiny_bert,
    tiny_blip,
    tiny_git,
    tiny_llava,
    tiny_timesformer,
    tiny_videomae,
    tiny_vjepa2,
)

from assets.caption_embeddings import load_embeddings
from assets.captions import load_captions, read_caption_manifest
from assets.evaluation_metrics import evaluate
from assets.raw_videos import read_raw_videos, video_path
from assets.snippet_features import load_features, read_snippet_features
from assets.workspace import files
from assets.workspace.params import DatasetParams
from assets.workspace.project import STAGES, Dataset, Project
from assets.workspace.tracking import CHALLENGER, Tracking, registered_name
from orchestration.datasets import add_dataset
from orchestration.running import run_chain, run_stage
from tevad_model import encoders, video
from tevad_model.errors import InputError, MismatchError
from tevad_model.timeline import snippet_count

REPOSITORY = Path(__file__).parents[2]
Build = Callable[[Path], Path]


def configure(root: Path, section: str, backend: str, **options: object) -> Dataset:
    """Name a backend in the project's parameters."""
    yaml, path = YAML(), root / "params.yaml"
    data = yaml.load(path)
    data[section] = {"backend": backend, "options": options}
    yaml.dump(data, path)
    return Project.at(root).dataset("rendered")


@pytest.fixture
def dataset(project_root: Path, rendered: Path) -> Dataset:
    shutil.copytree(rendered, project_root / "videos")
    return add_dataset(Project.at(project_root), "rendered", DatasetParams(source="videos"))


def done(dataset: Dataset) -> dict[str, int]:
    """Run the stages one after the other; what each worked on."""
    for stage in STAGES:
        run_stage(dataset, stage)
    reports = {stage: files.read_json(dataset.reports / f"{stage}.json") for stage in STAGES}
    return {stage: report["done"] for stage, report in reports.items()}


def test_the_papers_text_branch_and_a_modern_visual_one_run_the_chain(
    dataset: Dataset, project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(project_root, "captions", "transformers", model=str(tiny_git(tmp_path / "git")))
    configure(
        project_root,
        "caption_embeddings",
        "sentence-transformers",
        model=str(tiny_bert(tmp_path / "bert")),
        pooling="cls_pooler",
    )
    videomae = str(tiny_videomae(tmp_path / "videomae"))
    dataset = configure(project_root, "snippet_features", "transformers", model=videomae, crops=5)
    outcome = run_chain(dataset)
    assert outcome.success, outcome.failures

    rows = read_raw_videos(dataset).usable
    for row in rows:
        snippets = snippet_count(row.frames)
        assert load_features(dataset, row.video).shape == (snippets, 5, WIDTH)
        assert load_embeddings(dataset, row.video).shape == (snippets, WIDTH)
    assert len({text for row in rows for text in load_captions(dataset, row.video)}) > 1

    row = next(row for row in rows if row.split == "test")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Tracking.of(dataset.project).uri)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the model's own code there
    served = mlflow.pyfunc.load_model(f"models:/{registered_name('rendered')}@{CHALLENGER}")
    scored = served.predict(pd.DataFrame({"video": [str(video_path(dataset, row))]}))
    assert list(scored["caption"]) == load_captions(dataset, row.video)
    kept = pd.read_parquet(dataset.stage("evaluation_metrics") / "scores.parquet")
    expected = kept[kept["video"] == row.video]["score"]
    np.testing.assert_allclose(scored["score"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "options", "dim"),
    [
        (tiny_timesformer, {"crops": 10}, WIDTH),
        (tiny_vjepa2, {}, 24),
        (tiny_videomae, {"runtime": "onnx"}, WIDTH),
    ],
)
def test_every_visual_backend_makes_a_row_a_snippet(
    dataset: Dataset,
    project_root: Path,
    tmp_path: Path,
    build: Build,
    options: dict[str, object],
    dim: int,
) -> None:
    model = str(build(tmp_path / "model"))
    dataset = configure(project_root, "snippet_features", "transformers", model=model, **options)
    run_stage(dataset, "raw_videos")
    run_stage(dataset, "snippet_features")
    params = dataset.params.snippet_features
    encoder = encoders.build_visual(params.backend, params.options, tmp_path)
    rows = read_raw_videos(dataset).by_video()
    made = read_snippet_features(dataset).usable
    assert len(made) == len(rows)
    for row in made:
        shape = (snippet_count(rows[row.video].frames), options.get("crops", 1), dim)
        assert load_features(dataset, row.video).shape == shape
    frames = video.frames(video_path(dataset, rows[made[0].video]), max_side=640)
    expected = np.concatenate(list(encoder.encode(frames))).astype(np.float16)
    np.testing.assert_array_equal(load_features(dataset, made[0].video), expected)


@pytest.mark.parametrize(
    ("build", "options"),
    [(tiny_blip, {}), (tiny_llava, {"prompt": "two people"}), (tiny_git, {"batch_size": 3})],
)
def test_every_captioner_says_a_sentence_a_snippet(
    dataset: Dataset,
    project_root: Path,
    tmp_path: Path,
    build: Build,
    options: dict[str, object],
) -> None:
    model = str(build(tmp_path / "model"))
    dataset = configure(project_root, "captions", "transformers", model=model, **options)
    run_stage(dataset, "raw_videos")
    run_stage(dataset, "captions")
    params = dataset.params.captions
    captioner = encoders.build_caption(params.backend, params.options, tmp_path)
    rows = read_raw_videos(dataset).by_video()
    made = read_caption_manifest(dataset).usable
    for row in made:
        assert len(load_captions(dataset, row.video)) == snippet_count(rows[row.video].frames)
    first = rows[made[0].video]
    frames = video.frames(video_path(dataset, first), max_side=640)
    assert load_captions(dataset, first.video) == list(captioner.caption(frames, first.fps))


def test_switching_an_encoder_makes_anew_only_what_depends_on_it(
    trained_copy: Dataset, tmp_path: Path
) -> None:
    root = trained_copy.project.root
    assert set(done(trained_copy).values()) == {0}
    videos = len(read_raw_videos(trained_copy).usable)
    bert = str(tiny_bert(tmp_path / "bert"))
    dataset = configure(root, "caption_embeddings", "sentence-transformers", model=bert)
    again = done(dataset)
    assert again.pop("evaluation_metrics") > 0
    assert again == {
        "raw_videos": 0,
        "snippet_features": 0,
        "captions": 0,
        "sentence_encoder": 0,
        "caption_embeddings": videos,
        "tevad_model": 1,
    }
    videomae = str(tiny_videomae(tmp_path / "videomae"))
    dataset = configure(root, "snippet_features", "transformers", model=videomae)
    again = done(dataset)
    assert (again["snippet_features"], again["tevad_model"]) == (videos, 1)
    assert (again["captions"], again["caption_embeddings"]) == (0, 0)


def test_a_model_refuses_features_of_another_encoder_and_says_how_they_differ(
    trained_copy: Dataset, tmp_path: Path
) -> None:
    model = str(tiny_videomae(tmp_path / "videomae"))
    dataset = configure(trained_copy.project.root, "snippet_features", "transformers", model=model)
    run_stage(dataset, "snippet_features")
    differ = (
        r"(?s)encoder, backend: 'efficientnet-lite0' != 'transformers'.*weights: '\w+' != '\w+'"
    )
    with pytest.raises(MismatchError, match=differ):
        evaluate(dataset, Tracking.of(dataset.project))


def own_backend(folder: Path) -> None:
    """The example of docs/encoders.md, as somebody would copy it."""
    text = (REPOSITORY / "docs" / "encoders.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(\"\"\"thirds\.py.*?)```", text, flags=re.DOTALL)
    assert len(code.strip().splitlines()) <= 40
    (folder / "thirds.py").write_text(code, encoding="utf-8")


def test_ones_own_backend_runs_the_chain_as_documented(
    trained_copy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_backend(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # for the process that serves the model
    root = trained_copy.project.root
    dataset = configure(root, "snippet_features", "thirds:ThirdsEncoder", gain=2.0)
    outcome = run_chain(dataset)
    assert outcome.success, outcome.failures
    rows = read_raw_videos(dataset).by_video()
    for row in read_snippet_features(dataset).usable:
        features = load_features(dataset, row.video)
        assert features.shape == (snippet_count(rows[row.video].frames), 1, 3)
        assert 0 < features.min() <= features.max() < 2
    with pytest.raises(InputError, match=r"snippet_features\.options\.gian: Extra inputs"):
        encoders.build_visual("thirds:ThirdsEncoder", {"gian": 2}, tmp_path)


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("nowhere_to_be_found:Encoder", "No module named 'nowhere_to_be_found'"),
        ("thirds:Missing", "has no attribute 'Missing'"),
        ("thirds:ThirdsOptions", "is no encoder; it must be a class with a pydantic model Options"),
        ("thirds", "'thirds' is unknown; there are efficientnet-lite0, transformers"),
    ],
)
def test_a_backend_that_is_none_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, reason: str
) -> None:
    own_backend(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=re.escape(reason)) as error:
        encoders.build_visual(backend, {}, tmp_path)
    assert str(error.value).startswith("snippet_features.backend: ")


def test_a_backend_of_another_kind_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_backend(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"captions\.backend: .* lacks caption, which"):
        encoders.build_caption("thirds:ThirdsEncoder", {}, tmp_path)
