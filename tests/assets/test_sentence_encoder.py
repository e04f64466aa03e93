"""The tuned sentence encoder as a step of the chain: when it is made, kept, used and carried along."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo
from tiny_models import WORDS, tiny_bert

from assets.caption_embeddings import load_embeddings
from assets.captions import load_captions
from assets.sentence_encoder import (
    MODEL,
    STAGE,
    TUNING,
    build_sentence_encoder,
    read_tuning,
    tune_sentence_encoder,
    tuned_model,
)
from assets.tevad_model import training_run
from assets.workspace import files, listing
from assets.workspace.params import DatasetParams
from assets.workspace.project import Dataset, Project
from assets.workspace.stage import read_encoder_card
from assets.workspace.tracking import CHALLENGER, Tracking, registered_name
from orchestration.datasets import add_dataset
from orchestration.running import run_chain, run_stage
from tevad_model.encoders import hub
from tevad_model.errors import InputError

SNIPPETS = 9
TRAINING, TESTING = 8, 4
KEPT = "{tune: always, batch_size: 16, learning_rate: 0.003, epochs: 20}"
WORSE = "{tune: always, batch_size: 64, learning_rate: 0.001, epochs: 2}"
CAPTIONS = [" ".join(words) for words in itertools.combinations(WORDS, 2)]

Make = Callable[..., Dataset]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def make(project_root: Path, tmp_path: Path, bert: Path) -> Make:
    """A dataset of captions alone, a different one at nearly every snippet."""
    videos = [f"v{number:02}" for number in range(TRAINING + TESTING)]
    told = {
        video: [CAPTIONS[(SNIPPETS * number + n) % len(CAPTIONS)] for n in range(SNIPPETS)]
        for number, video in enumerate(videos)
    }
    lines = [json.dumps({"video": video, "captions": texts}) for video, texts in told.items()]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    rows = [
        f"{video},{('normal', 'abnormal')[number % 2]},{'train' if number < TRAINING else 'test'}"
        for number, video in enumerate(videos)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label,split", *rows]))
    abnormal = [video for number, video in enumerate(videos) if number % 2 and number >= TRAINING]
    events = [f"{video},0,64" for video in abnormal]
    (tmp_path / "events.csv").write_text("\n".join(["video,start_frame,end_frame", *events]))
    settings = (project_root / "params.yaml").read_text()

    def made(tuning: str, pooling: str = "cls_pooler", model: Path = bert) -> Dataset:
        text = settings.replace("sentence_encoder: {tune: auto}", f"sentence_encoder: {tuning}")
        text = text.replace(
            "{backend: sentence-transformers}",
            f"{{backend: sentence-transformers, options: {{model: {model}, pooling: {pooling}}}}}",
        ).replace("visual_projection: 16", "modality: text")
        (project_root / "params.yaml").write_text(text)
        entry = DatasetParams(
            captions=str(tmp_path / "captions.jsonl"),
            labels=str(tmp_path / "labels.csv"),
            events=str(tmp_path / "events.csv"),
        )
        return add_dataset(Project.at(project_root), "told", entry)

    return made


def up_to(dataset: Dataset, last: str) -> None:
    for stage in ("raw_videos", "captions", STAGE, "caption_embeddings"):
        run_stage(dataset, stage)
        if stage == last:
            return


def test_the_chain_embeds_trains_and_serves_with_the_tuned_encoder(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make(KEPT)
    outcome = run_chain(dataset)
    assert outcome.success, outcome.failures

    record = read_tuning(dataset)
    assert record.kept
    assert (
        record.metrics["captions_uniformity_after"] < record.metrics["captions_uniformity_before"]
    )
    card, encoder = build_sentence_encoder(dataset)
    assert card == read_encoder_card(dataset.stage("caption_embeddings"))
    np.testing.assert_array_equal(
        load_embeddings(dataset, "v00"), encoder.embed(load_captions(dataset, "v00"))
    )

    tracking = Tracking.of(dataset.project)
    run = tracking.client.get_run(training_run(dataset, tracking).run_id)
    assert run.data.metrics.items() >= record.metrics.items()
    assert "tevad.data.sentence_encoder" in run.data.tags
    with Repo(str(dataset.project.root)) as repo:
        assert repo.status() == {}

    shutil.rmtree(dataset.stage(STAGE))  # a registered model needs nothing of the project
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    model = mlflow.pyfunc.load_model(f"models:/{registered_name('told')}@{CHALLENGER}")
    told = load_captions(dataset, "v09")
    scored = model.predict(pd.DataFrame([{"video": "v09", "captions": told}]))
    kept = pd.read_parquet(dataset.stage("evaluation_metrics") / "scores.parquet")
    expected = kept[kept["video"] == "v09"]["score"]
    np.testing.assert_allclose(scored["score"], expected, atol=1e-5)


def test_it_is_tuned_once_and_again_only_for_other_captions(make: Make) -> None:
    dataset = make(KEPT)
    up_to(dataset, "captions")
    assert (tune_sentence_encoder(dataset).done, read_tuning(dataset).kept) == (1, True)
    weights = read_tuning(dataset).weights
    assert (tune_sentence_encoder(dataset).done, read_tuning(dataset).weights) == (0, weights)

    path = Path(str(dataset.entry.captions))
    path.write_text(path.read_text().replace(CAPTIONS[0], "two people fights ."))
    listing.refresh(dataset)
    up_to(dataset, "captions")
    assert (tune_sentence_encoder(dataset).done, read_tuning(dataset).weights != weights) == (
        1,
        True,
    )


def test_captions_of_the_test_split_are_not_tuned_on(make: Make) -> None:
    dataset = make(KEPT)
    up_to(dataset, STAGE)
    record = read_tuning(dataset)
    assert record.captions == len(set(CAPTIONS[: SNIPPETS * TRAINING]))
    path = Path(str(dataset.entry.captions))
    path.write_text(path.read_text().replace(CAPTIONS[SNIPPETS * TRAINING], "two people fights ."))
    listing.refresh(dataset)
    up_to(dataset, "captions")
    assert tune_sentence_encoder(dataset).done == 0
    assert read_tuning(dataset) == record


def test_tuning_that_does_not_help_is_not_kept(make: Make) -> None:
    dataset = make(WORSE, pooling="mean")
    up_to(dataset, "caption_embeddings")
    record = read_tuning(dataset)
    assert not record.kept
    assert record.reason.startswith("tuned, and not kept")
    assert record.metrics["captions_alignment_after"] > record.metrics["captions_alignment_before"]
    assert not tuned_model(dataset).exists()
    assert not read_encoder_card(dataset.stage("caption_embeddings")).own_weights


@pytest.mark.parametrize(
    ("tuning", "reason"),
    [
        ("{tune: never}", "sentence_encoder.tune is never"),
        ("{tune: auto}", "72 distinct captions, of which tuning wants 1000"),
    ],
)
def test_it_says_why_it_is_not_tuned(make: Make, tuning: str, reason: str) -> None:
    dataset = make(tuning)
    up_to(dataset, "caption_embeddings")
    assert read_tuning(dataset).reason.startswith(reason)
    assert read_tuning(dataset).figures is None


def test_auto_tunes_from_so_many_captions(make: Make) -> None:
    dataset = make(KEPT.replace("always", "auto").replace("}", ", auto_captions: 72}"))
    up_to(dataset, STAGE)
    assert read_tuning(dataset).kept


def test_no_other_encoder_comes_to_be_embedded_with_unnoticed(make: Make) -> None:
    dataset = make(KEPT)
    with pytest.raises(InputError, match="materialize sentence_encoder again"):
        build_sentence_encoder(dataset)
    up_to(dataset, "caption_embeddings")
    tuned = load_embeddings(dataset, "v00")
    dataset = make("{tune: never}")
    run_stage(dataset, STAGE)
    run_stage(dataset, "caption_embeddings")
    assert not tuned_model(dataset).exists()
    assert not np.allclose(load_embeddings(dataset, "v00"), tuned)


def test_a_damaged_encoder_is_made_again(make: Make) -> None:
    dataset = make(KEPT)
    up_to(dataset, STAGE)
    weights = read_tuning(dataset).weights
    config = tuned_model(dataset) / "config.json"
    config.write_text(config.read_text().replace("bert", "trebk"))
    with pytest.raises(InputError, match="damaged; materialize sentence_encoder again"):
        build_sentence_encoder(dataset)
    assert tune_sentence_encoder(dataset).done == 1
    assert hub.weights_hash(tuned_model(dataset)) == weights


def test_a_run_that_was_killed_before_its_record_is_done_again(make: Make) -> None:
    dataset = make(KEPT)
    up_to(dataset, STAGE)
    record = files.read_json(dataset.stage(STAGE) / TUNING)
    (dataset.stage(STAGE) / TUNING).unlink()
    (tuned_model(dataset) / "left.json").write_text("{}")
    (dataset.stage(STAGE) / "left-behind").mkdir()
    assert tune_sentence_encoder(dataset).done == 1
    assert files.read_json(dataset.stage(STAGE) / TUNING) == record
    assert {path.name for path in dataset.stage(STAGE).iterdir()} == {TUNING, MODEL}


def test_tuning_that_cannot_be_done_is_refused_where_it_must_be(make: Make, tmp_path: Path) -> None:
    dataset = make(KEPT)
    path = tmp_path / "captions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    same = [json.dumps(line | {"captions": ["a man walks"] * SNIPPETS}) for line in lines]
    path.write_text("\n".join(same))
    up_to(dataset, "captions")
    with pytest.raises(InputError, match="tune: always, but there are 1 distinct captions"):
        tune_sentence_encoder(dataset)
