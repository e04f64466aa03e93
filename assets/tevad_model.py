"""tevad_model: train TEVAD on a dataset's training split, one model a seed.

Reads features, embeddings and one label a video; never an event. What it writes::

    training.json                the inputs' identity, the seeds, and which seed's model is served
    encoders.json                the encoders whose features the models read
    seed_<n>/picked|last/        model.safetensors, model.json
    seed_<n>/picked/validation.json    what was said of the videos that chose it, if there were any
    seed_<n>/history.json        losses and validation figures by step
    seed_<n>/checkpoints.safetensors   test scores at each checkpoint, for the best-on-test figure

Training itself is :mod:`tevad_model.training`'s.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from assets.caption_embeddings import load_embeddings, read_caption_embeddings
from assets.raw_videos import read_raw_videos
from assets.sentence_encoder import read_tuning
from assets.snippet_features import load_features, read_snippet_features
from assets.workspace import files, record, versions
from assets.workspace.code import CodeState
from assets.workspace.face import access, committed, dataset_of, explained, picture, stage_asset
from assets.workspace.manifest import Manifest, RawVideoRow, StageRow
from assets.workspace.project import FEATURE_STAGES, Dataset
from assets.workspace.provenance import ENCODED_BY, check_fit
from assets.workspace.stage import StageReport, read_encoder_card
from assets.workspace.tracking import DATA_TAG, RunLog, Tracking, data_tags
from tevad_model.config import TrainingParams
from tevad_model.encoders.card import EncoderCard
from tevad_model.errors import InputError
from tevad_model.ready_made import CAPTIONS, EMBEDDINGS, FEATURES
from tevad_model.timeline import seconds, snippet_count

if TYPE_CHECKING:
    from mlflow.entities import Run

    from tevad_model.bags import VideoFeatures
    from tevad_model.training import StepReport, TrainingResult

STAGE = "tevad_model"
_TEXT = ("captions", "sentence_encoder", "caption_embeddings")
CODE_VERSION = "3"
"""Changes when the same inputs would train other models, or more is kept of the training."""

TRAINING = "training.json"
ENCODERS = "encoders.json"
PICKED, LAST = "picked", "last"
HISTORY = "history.json"
CHECKPOINTS = "checkpoints.safetensors"
CHECKPOINT_SCORES = "scores"


@dataclass(frozen=True)
class Inputs:
    """What the model of a dataset reads.

    Attributes:
        rows: usable videos that have all features the modality reads, in order of name.
        digests: by video, what changes when its features do.
        encoders: cards by kind (``visual``, ``caption``, ``sentence``), of those it reads.
    """

    dataset: Dataset
    params: TrainingParams
    rows: tuple[RawVideoRow, ...]
    digests: dict[str, str]
    encoders: dict[str, EncoderCard]

    def split(self, split: str) -> list[RawVideoRow]:
        """The labelled videos of a split."""
        return [row for row in self.rows if row.split == split and row.label]

    def features(self, video: str) -> "VideoFeatures":
        """A video's features, only those the modality reads."""
        from tevad_model.bags import VideoFeatures

        modality = self.params.modality
        return VideoFeatures(
            visual=load_features(self.dataset, video) if modality != "text" else None,
            text=load_embeddings(self.dataset, video) if modality != "visual" else None,
        )

    @property
    def key(self) -> str:
        """Identity of everything the trained models depend on.

        Of the recording its length too: ready-made features keep their content where it is corrected.
        """
        identity = {
            "code_version": CODE_VERSION,
            "params": self.params.model_dump(mode="json"),
            "videos": [
                (
                    row.video,
                    row.label,
                    row.split,
                    row.source,
                    row.frames,
                    row.fps,
                    self.digests[row.video],
                )
                for row in self.rows
                if row.label
            ],
            "keeps_checkpoints": self.dataset.params.evaluation_metrics.best_on_test,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def read_inputs(dataset: Dataset, params: TrainingParams | None = None) -> Inputs:
    """Gather what the dataset's model reads.

    Args:
        dataset: whose features.
        params: how to train, by default as ``params.yaml`` says.

    Raises:
        InputError: if a stage before it has not run, or has nothing of what the modality reads.
    """
    params = params or dataset.params.tevad_model
    stages: list[dict[str, StageRow]] = []
    encoders: dict[str, EncoderCard] = {}
    if params.modality != "text":
        stages.append(_made(dataset, read_snippet_features(dataset), params))
        encoders["visual"] = read_encoder_card(dataset.stage("snippet_features"))
    if params.modality != "visual":
        stages.append(_made(dataset, read_caption_embeddings(dataset), params))
        encoders["sentence"] = read_encoder_card(dataset.stage("caption_embeddings"))
        if not encoders["sentence"].is_ready_made:
            encoders["caption"] = read_encoder_card(dataset.stage("captions"))
    rows = [
        row
        for row in read_raw_videos(dataset).usable
        if all(row.video in stage for stage in stages)
    ]
    digests = {
        row.video: "/".join(
            f"{made.source}:{made.fingerprint}:{made.snippets}"
            for made in (stage[row.video] for stage in stages)
        )
        for row in rows
    }
    return Inputs(dataset, params, tuple(rows), digests, encoders)


def check_inputs(inputs: Inputs, what: str) -> None:
    """See that all that the model reads fits together.

    Raises:
        MismatchError: listing every mismatch.
    """
    check_fit(
        inputs.dataset,
        what,
        [stage for kind, stage in ENCODED_BY.items() if kind in inputs.encoders],
        _other_tuning(inputs),
    )


def _other_tuning(inputs: Inputs) -> Iterator[str]:
    """How the encoder of the embeddings departs from what sentence_encoder made of it."""
    card = inputs.encoders.get("sentence")
    if card is None or card.is_ready_made:
        return
    tuned = read_tuning(inputs.dataset)
    if card.own_weights != tuned.kept:
        made, is_there = (("tuned" if each else "given") for each in (card.own_weights, tuned.kept))
        yield f"caption_embeddings: made by the {made} encoder, the {is_there} one is there now"
    elif tuned.kept and card.fingerprint.parts["weights"] != tuned.weights:
        yield "caption_embeddings: made by an encoder that was tuned otherwise"


def _made(
    dataset: Dataset, manifest: Manifest[StageRow], params: TrainingParams
) -> dict[str, StageRow]:
    if not manifest.usable and not manifest.quarantined:
        raise InputError(
            f"{dataset.name}: tevad_model.modality is {params.modality!r}, but of its videos there "
            f"are only {', '.join(_there(dataset)) or 'names'}; choose another modality or preset "
            "in params.yaml, or add what is missing (`tevad dataset add`)"
        )
    return manifest.by_video()


def _there(dataset: Dataset) -> list[str]:
    return [kind for kind in (FEATURES, EMBEDDINGS, CAPTIONS) if getattr(dataset.entry, kind)]


def train_tevad_model(dataset: Dataset, tracking: Tracking, tags: dict[str, str]) -> StageReport:
    """Train a model for each seed, unless the ones that lie there are of just these inputs.

    Args:
        dataset: whose features to read.
        tracking: where the runs are logged: one for the whole, one below it for each seed.
        tags: further tags for the run, such as who called.

    Raises:
        InputError: if a stage before it has not run, a class is missing, training diverges, or
            MLflow is lost.
        MismatchError: if what it reads does not fit together.
    """
    with dataset.held(), tracking.answering():
        return _train(dataset, tracking, tags)


def _train(dataset: Dataset, tracking: Tracking, tags: dict[str, str]) -> StageReport:
    started = time.perf_counter()
    tracking.end_killed(dataset.name)
    inputs = read_inputs(dataset)
    check_inputs(inputs, f"training {dataset.name}")
    folder = dataset.stage(STAGE)
    files.remove_half_written(folder)
    is_there = is_current(dataset, inputs)
    if not is_there:
        (folder / TRAINING).unlink(missing_ok=True)
    reused = is_there and find_training_run(dataset, tracking) is not None
    if not reused:
        _train_and_log(inputs, tracking, tags, train=not is_there)
    seeds = len(inputs.params.seeds)
    report = StageReport.of_whole(
        STAGE, dataset, seeds, is_new=not is_there, seconds=time.perf_counter() - started
    )
    report.publish(dataset)
    return report


def training_runs(dataset: Dataset, tracking: Tracking) -> "list[Run]":
    """The MLflow runs of the models that lie there, latest first.

    Found by the versions of the models and of all they were made from: a run stands for one
    combination of them. The same models made of other data (a video without a label came in, an
    event was corrected) have a run of their own.
    """
    stages = (*_upstream(trained_encoders(dataset)), STAGE)
    found = versions.all_current(dataset, stages)
    return tracking.find_runs(dataset.name, data_tags(found))


def find_training_run(
    dataset: Dataset, tracking: Tracking, evaluation: str | None = None
) -> RunLog | None:
    """The run of :func:`training_runs` with that version of the evaluation, else the latest."""
    runs = training_runs(dataset, tracking)
    evaluated = (r for r in runs if r.data.tags.get(f"{DATA_TAG}evaluation_metrics") == evaluation)
    run = next(evaluated, runs[0]) if runs else None
    return tracking.log(run.info.run_id) if run else None


def training_run(dataset: Dataset, tracking: Tracking, evaluation: str | None = None) -> RunLog:
    """As :func:`find_training_run`, where there must be one.

    Raises:
        InputError: if there is none.
    """
    run = find_training_run(dataset, tracking, evaluation)
    if run is None:
        raise InputError(
            f"MLflow at {tracking.address} has no run of {dataset.name}'s models with the data that "
            "lie there; materialize tevad_model again"
        )
    return run


def run_to_evaluate(dataset: Dataset, tracking: Tracking, evaluation: str) -> RunLog:
    """The run that holds a version of the evaluation, or one that holds none yet.

    Where every run of the models holds another evaluation, as after a changed
    ``evaluation_metrics.bootstrap``, the models are logged once more: no evaluation writes over
    another. So they are where there is no run of them, as in a clone with an MLflow of its own.
    """
    tag = f"{DATA_TAG}evaluation_metrics"
    by_evaluation = {r.data.tags.get(tag): r for r in training_runs(dataset, tracking)}
    run = by_evaluation.get(evaluation) or by_evaluation.get(None)
    if run:
        return tracking.log(run.info.run_id)
    return _train_and_log(read_inputs(dataset), tracking, {}, train=False)


def seed_folder(dataset: Dataset, seed: int) -> Path:
    """What training with a seed made."""
    return dataset.stage(STAGE) / f"seed_{seed}"


def picked_folder(dataset: Dataset, seed: int) -> Path:
    """The validation-picked model of a seed."""
    return seed_folder(dataset, seed) / PICKED


def served_seed(dataset: Dataset) -> int:
    """The seed whose picked model is registered: the one with the lowest validation loss."""
    return int(files.read_json(dataset.stage(STAGE) / TRAINING)["served_seed"])


def trained_encoders(dataset: Dataset) -> dict[str, EncoderCard]:
    """The encoders whose features the models that lie there were trained on, by kind."""
    path = dataset.stage(STAGE) / ENCODERS
    recorded = files.read_json(path) if path.is_file() else {}
    return {kind: EncoderCard.from_json(card) for kind, card in recorded.items()}


def is_current(dataset: Dataset, inputs: Inputs) -> bool:
    """Whether the models that lie there were trained on just these inputs, and are whole.

    Those that lie as they were committed are whole; only others are loaded to be tried.
    """
    try:
        if files.read_json(dataset.stage(STAGE) / TRAINING)["key"] != inputs.key:
            return False
        return versions.is_up_to_date(dataset, STAGE) or _can_be_loaded(dataset, inputs)
    except (FileNotFoundError, ValueError, KeyError):
        return False


def _can_be_loaded(dataset: Dataset, inputs: Inputs) -> bool:
    from tevad_model import artifact

    for seed in inputs.params.seeds:
        read_history(dataset, seed)
        artifact.load(picked_folder(dataset, seed))
        artifact.load(seed_folder(dataset, seed) / LAST)
    return True


def has_current_models(dataset: Dataset) -> bool:
    """Whether there is nothing to train, as far as the stages before it say what there is."""
    try:
        return is_current(dataset, read_inputs(dataset))
    except InputError:
        return False


def _train_and_log(
    inputs: Inputs, tracking: Tracking, tags: dict[str, str], *, train: bool
) -> RunLog:
    """Train, or where the models are there but no run of theirs fits, log what was kept of one."""
    dataset = inputs.dataset
    origin = None if train else _first_run(dataset, tracking)
    code = CodeState.of(dataset.project)
    # Of what is read, before it can change.
    tags = {**tags, **lineage_tags(dataset, inputs), **code.tags(), **_who_trained(origin)}
    with tracking.start_run(dataset.name, f"train-{dataset.name}", tags) as run:
        with tempfile.TemporaryDirectory() as folder:
            kept = record.write(dataset, code, Path(folder))
            if origin:
                record.keep_code_of(tracking.log(origin.info.run_id), Path(folder))
            run.artifacts(kept, record.FOLDER)
        run.params(dataset.params.model_dump(mode="json", exclude={"checks"}))
        for seed in inputs.params.seeds:
            with tracking.start_run(dataset.name, f"seed-{seed}", tags, parent=run) as seed_run:
                seed_run.params({"seed": seed})
                if train:
                    train_seed(
                        inputs,
                        seed,
                        seed_folder(dataset, seed),
                        dataset.work / STAGE,
                        seed_run,
                        keep_checkpoints=dataset.params.evaluation_metrics.best_on_test,
                    )
                else:
                    _log_history(dataset, seed, seed_run)
        if train:
            _finish(inputs)
        run.metrics(training_summary(dataset))
        if "sentence" in inputs.encoders:
            run.metrics(read_tuning(dataset).metrics)
        run.artifact(_draw_training(dataset), "figures")
        run.tags(data_tags({STAGE: versions.current(dataset, STAGE)}))
    return run


def _first_run(dataset: Dataset, tracking: Tracking) -> "Run | None":
    """The run that trained the models that lie there, on whatever data; None if it is lost."""
    runs = tracking.find_runs(dataset.name, data_tags({STAGE: versions.current(dataset, STAGE)}))
    return runs[-1] if runs else None


def _who_trained(origin: "Run | None") -> dict[str, str]:
    """The tags of a run that say by which code its models came to be, and who called."""
    tags = origin.data.tags if origin else {}
    return {k: v for k, v in tags.items() if k.startswith("tevad.git.") or k == "dagster.run_id"}


def lineage_tags(dataset: Dataset, inputs: Inputs) -> dict[str, str]:
    """The tags that lead a run back to its bytes: data versions and fingerprints.

    The version of what the run makes is added when it is made.
    """
    return {
        "tevad.dataset": dataset.name,
        **data_tags(versions.all_current(dataset, _upstream(inputs.encoders))),
        **{f"tevad.encoder.{k}": card.fingerprint.digest for k, card in inputs.encoders.items()},
    }


def _upstream(encoders: Mapping[str, EncoderCard]) -> list[str]:
    """The stages that models are made from which read these encoders' output."""
    return [
        "raw_videos",
        *(["snippet_features"] if "visual" in encoders else []),
        *(_TEXT if "sentence" in encoders else ()),
    ]


def train_seed(
    inputs: Inputs,
    seed: int,
    folder: Path,
    work: Path,
    run: RunLog,
    *,
    keep_checkpoints: bool,
) -> None:
    """Train one model and write what the module's docstring says of a seed.

    Args:
        inputs: what it reads.
        seed: of everything random in training.
        folder: where it goes.
        work: for bags and checkpoints; training that was interrupted goes on from there.
        run: where losses and validation figures are streamed to.
        keep_checkpoints: whether to keep the test split's scores at each checkpoint.

    Raises:
        InputError: if a class is missing, or training diverges.
    """
    from tevad_model import artifact, training
    from tevad_model.bags import VideoExample

    examples = [
        VideoExample(
            video=row.video,
            label=row.label == "abnormal",
            load=partial(inputs.features, row.video),
            digest=inputs.digests[row.video],
            source=row.source,
        )
        for row in inputs.split("train")
    ]
    keeper = _CheckpointScores(inputs, work / f"seed_{seed}")
    with _streamed(run) as on_step:
        result = training.train(
            examples,
            inputs.params,
            seed=seed,
            work_dir=work,
            on_step=on_step,
            on_checkpoint=keeper.keep if keep_checkpoints else None,
        )
    fingerprints = {kind: card.fingerprint for kind, card in inputs.encoders.items()}
    for model, pick in ((result.picked, PICKED), (result.last, LAST)):
        artifact.save(model.with_card(fingerprints=fingerprints), folder / pick)
    _write_validation(inputs, result, folder / PICKED)
    files.write_json(folder / HISTORY, _history(result))
    keeper.write(folder / CHECKPOINTS)


def _write_validation(inputs: Inputs, result: "TrainingResult", folder: Path) -> None:
    """Keep the scores of the validation videos, from which thresholds are chosen later."""
    from tevad_model import alerts

    rows = {row.video: row for row in inputs.rows}
    videos = [
        alerts.ValidationVideo(
            rows[video].label == "abnormal",
            seconds(rows[video].frames, rows[video].fps),
            tuple(scores.tolist()),
        )
        for video, scores in zip(result.validation_videos, result.validation_scores, strict=True)
    ]
    alerts.write_validation(folder / alerts.VALIDATION_FILE, videos)


def _history(result: "TrainingResult") -> dict[str, Any]:
    return {
        "selection": result.selection,
        "validation_videos": list(result.validation_videos),
        "picked_step": result.picked.step,
        "last_step": result.last.step,
        "threshold": result.picked.threshold,
        "metrics": dict(result.picked.metrics),
        "rows": [asdict(row) for row in result.history],
    }


def _finish(inputs: Inputs) -> None:
    """Write what names the whole, last of all: without it nothing here counts as a result."""
    dataset = inputs.dataset
    folder = dataset.stage(STAGE)
    seeds = set(inputs.params.seeds)
    for other in folder.glob("seed_*"):
        if int(other.name.removeprefix("seed_")) not in seeds:
            shutil.rmtree(other)
    files.write_json(folder / ENCODERS, {k: c.to_json() for k, c in inputs.encoders.items()})
    losses = {seed: _validation_loss(dataset, seed) for seed in inputs.params.seeds}
    files.write_json(
        folder / TRAINING,
        {
            "key": inputs.key,
            "seeds": list(inputs.params.seeds),
            "served_seed": min(losses, key=lambda seed: (losses[seed], seed)),
            "videos": [row.video for row in inputs.split("train")],
            "params": inputs.params.model_dump(mode="json"),
        },
    )
    shutil.rmtree(dataset.work / STAGE, ignore_errors=True)  # bags and checkpoints have served


def read_history(dataset: Dataset, seed: int) -> dict[str, Any]:
    """What training of a seed recorded: losses and validation figures by step, and the pick."""
    history: dict[str, Any] = files.read_json(seed_folder(dataset, seed) / HISTORY)
    return history


def _validation_loss(dataset: Dataset, seed: int) -> float:
    metrics = read_history(dataset, seed)["metrics"]
    return float(metrics.get("validation_loss", np.inf))


def _draw_training(dataset: Dataset) -> Path:
    from tevad_model import figures

    histories = {seed: read_history(dataset, seed) for seed in trained_seeds(dataset)}
    png = figures.training_curves(
        {seed: history["rows"] for seed, history in histories.items()},
        picked={seed: history["picked_step"] for seed, history in histories.items()},
        title=dataset.name,
    )
    path = figure_path(dataset, "training")
    files.write_bytes(path, png)
    return path


def figure_path(dataset: Dataset, name: str) -> Path:
    """Where a picture of the last training or evaluation lies. Not versioned."""
    return dataset.reports / "figures" / f"{name}.png"


def training_summary(dataset: Dataset) -> dict[str, float]:
    """Mean and deviation over the seeds of what validation said of the picked models."""
    histories = [read_history(dataset, seed) for seed in trained_seeds(dataset)]
    summary: dict[str, float] = {}
    for name in sorted({name for history in histories for name in history["metrics"]}):
        values = [h["metrics"][name] for h in histories if name in h["metrics"]]
        summary[f"{name}_mean"] = float(np.mean(values))
        summary[f"{name}_std"] = float(np.std(values))
    return summary


def trained_seeds(dataset: Dataset) -> list[int]:
    """The seeds there is a model of."""
    return list(files.read_json(dataset.stage(STAGE) / TRAINING)["seeds"])


def _log_history(dataset: Dataset, seed: int, run: RunLog) -> None:
    rows = read_history(dataset, seed)["rows"]
    run.metric_rows([(row["step"], {**row["losses"], **row["validation"]}) for row in rows])


@contextmanager
def _streamed(run: RunLog) -> Iterator[Any]:
    """A step callback that streams losses and validation figures to MLflow while training goes on."""
    waiting: list[tuple[int, dict[str, float]]] = []

    def on_step(report: "StepReport") -> None:
        phase = (
            "" if report.phase == "train" else report.phase.replace(" ", "_").replace("/", "_of_")
        )
        prefix = f"{phase}/" if phase else ""
        if report.validation or report.step % 10 == 0:
            values = {**report.losses, **report.validation}
            waiting.append((report.step, {f"{prefix}{k}": v for k, v in values.items()}))
        if len(waiting) >= 50:
            run.metric_rows(waiting)
            waiting.clear()

    try:
        yield on_step
    finally:  # what led to a failure is what one wants to see
        run.metric_rows(waiting)


class _CheckpointScores:
    """Keeps the test split's snippet scores at each checkpoint.

    Scores only: what they are worth is for evaluation to say, which has the ground truth. They are
    kept in files beside the checkpoints, since training that goes on after an interruption does not
    show the earlier ones again.
    """

    def __init__(self, inputs: Inputs, work: Path) -> None:
        self._inputs = inputs
        self._work = work / hashlib.sha256(inputs.key.encode()).hexdigest()[:16]

    def keep(self, model: Any) -> None:
        """Score the test split with the model as it is now."""
        from tevad_model.scoring import score_many

        rows = self._inputs.split("test")
        if not rows:
            return
        scored = score_many(model, ((row.video, self._inputs.features(row.video)) for row in rows))
        scores = np.concatenate([scored[row.video].scores for row in rows])
        path = self._work / f"{model.step:08d}.safetensors"
        files.write_array(path, CHECKPOINT_SCORES, scores.astype(np.float32), {"step": model.step})

    def write(self, path: Path) -> None:
        """Join the kept scores: (checkpoints, snippets of all test videos in order of name)."""
        parts = sorted(self._work.glob("*.safetensors"))
        if not parts:
            path.unlink(missing_ok=True)
            return
        joined = np.stack([files.read_array(part, CHECKPOINT_SCORES) for part in parts])
        header = {
            "steps": [int(part.stem) for part in parts],
            "videos": [(r.video, snippet_count(r.frames)) for r in self._inputs.split("test")],
        }
        files.write_array(path, CHECKPOINT_SCORES, joined, header)


def run_link(tracking: Tracking, dataset: Dataset) -> dict[str, dg.UrlMetadataValue]:
    """The MLflow run of the models that lie there, as metadata."""
    run = find_training_run(dataset, tracking)
    return {"MLflow run": dg.MetadataValue.url(tracking.run_page(run.run_id))} if run else {}


def pictures_of(dataset: Dataset, names: Iterable[str]) -> dict[str, dg.MarkdownMetadataValue]:
    """The pictures there are, as metadata."""
    paths = {name: figure_path(dataset, name) for name in names}
    return {
        name.replace("_", " "): picture(path.read_bytes(), name)
        for name, path in paths.items()
        if path.is_file()
    }


@stage_asset(
    deps=FEATURE_STAGES,
    code_version=CODE_VERSION,
    group_name="model",
    kinds={"python", "pytorch", "mlflow", "dvc"},
)
def tevad_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """TEVAD trained on one label a video, a model for each seed."""
    dataset = dataset_of(context)
    tracking = access(context).tracking()
    with explained():
        report = train_tevad_model(dataset, tracking, {"dagster.run_id": context.run.run_id})
    summary = {name: round(value, 4) for name, value in training_summary(dataset).items()}
    return committed(
        dataset,
        report,
        {
            "seeds": str(trained_seeds(dataset)),
            "served seed": served_seed(dataset),
            **run_link(tracking, dataset),
            **pictures_of(dataset, ["training"]),
            **summary,
        },
    )
