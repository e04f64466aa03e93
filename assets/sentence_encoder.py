"""sentence_encoder: the encoder of the captions, tuned on them where that is wanted and helps.

What it writes::

    tuning.json   whether the encoder was tuned, why or why not, and what that did
    model/        the tuned encoder as sentence-transformers saves it, only if it is kept

Tuning reads the captions of the training split and no label (:mod:`tevad_model.encoders.simcse`).
Without ``model/`` the captions are embedded by the encoder that ``params.yaml`` names.
"""

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import dagster as dg

from assets.captions import load_captions, read_caption_manifest
from assets.raw_videos import read_raw_videos
from assets.workspace import files, versions
from assets.workspace.face import committed, dataset_of, explained, markdown_table, stage_asset
from assets.workspace.project import Dataset
from assets.workspace.provenance import check_fit
from assets.workspace.stage import StageReport
from tevad_model.encoders import hub
from tevad_model.encoders.base import SentenceEncoder
from tevad_model.encoders.card import EncoderCard
from tevad_model.errors import InputError

STAGE = "sentence_encoder"
CODE_VERSION = "1"
"""Changes when the same captions would be tuned on otherwise."""

TUNING = "tuning.json"
MODEL = "model"

_OF_THE_WEIGHTS = ("model", "revision", "pooling")
"""Options that say which weights and modules are meant; a tuned encoder brings its own."""


@dataclass(frozen=True)
class TuningRecord:
    """What ``tuning.json`` holds.

    Attributes:
        key: identity of all that the outcome depends on.
        kept: whether the tuned encoder is used.
        reason: why, or why not.
        captions: distinct captions of the training split.
        weights: hash of the tuned encoder; empty without one.
        figures: what tuning did (:class:`tevad_model.encoders.simcse.Tuning`); None if not tried.
    """

    key: str
    kept: bool
    reason: str
    captions: int
    weights: str = ""
    figures: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What lies in the stage's folder; None if there is nothing, or it is not whole."""
        try:
            record = cls(**files.read_json(folder / TUNING))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        whole = not record.kept or hub.weights_hash(folder / MODEL) == record.weights
        return record if whole else None

    @property
    def metrics(self) -> dict[str, float]:
        """Alignment and uniformity before and after, by name; empty if tuning was not tried."""
        return {
            f"captions_{measure}_{when}": value
            for when in ("before", "after")
            for measure, value in (self.figures or {}).get(when, {}).items()
        }


def tune_sentence_encoder(dataset: Dataset) -> StageReport:
    """Tune the encoder of the captions, unless it was tuned on just these or should not be.

    Raises:
        InputError: if captions has not run, the encoder's parameters are wrong, or tuning is asked
            for that cannot be done.
        MismatchError: if the captions are not of the videos that lie there.
    """
    with dataset.held():
        started = time.perf_counter()
        reads = [] if dataset.entry.embeddings else ["captions"]
        check_fit(dataset, f"{STAGE} of {dataset.name}", reads)
        folder = dataset.stage(STAGE)
        files.remove_half_written(folder)
        captions = training_captions(dataset)
        key, reason = _key(dataset, captions), _why_not(dataset, captions)
        record = TuningRecord.read(folder)
        is_there = record is not None and record.key == key
        if record is None or not is_there:
            _start_afresh(folder)
            record = (
                TuningRecord(key, kept=False, reason=reason, captions=len(captions))
                if reason
                else _tune(dataset, captions, key, folder)
            )
            files.write_json(folder / TUNING, asdict(record))
        report = StageReport(
            stage=STAGE,
            dataset=dataset.name,
            done=int(not (is_there or reason)),
            reused=int(is_there and not reason),
            quarantined={},
            seconds=time.perf_counter() - started,
        )
        report.publish(dataset, record.reason)
        return report


def has_current_tuning(dataset: Dataset) -> bool:
    """Whether there is nothing to tune, and no other reason not to.

    Raises:
        InputError: if captions has not run, or the encoder's parameters are wrong.
    """
    if not versions.is_up_to_date(dataset, STAGE):
        return False
    record = TuningRecord.read(dataset.stage(STAGE))
    return record is not None and record.key == _key(dataset, training_captions(dataset))


def read_tuning(dataset: Dataset) -> TuningRecord:
    """What the stage did.

    Raises:
        InputError: if it has not run, or what it wrote is not whole.
    """
    folder = dataset.stage(STAGE)
    record = TuningRecord.read(folder)
    if record is None:
        raise InputError(f"{folder}: not there or damaged; materialize {STAGE} again")
    return record


def tuned_model(dataset: Dataset) -> Path:
    """The folder of the tuned encoder, where one was kept."""
    return dataset.stage(STAGE) / MODEL


def build_sentence_encoder(dataset: Dataset) -> tuple[EncoderCard, SentenceEncoder]:
    """The encoder to embed the dataset's captions by, and its card.

    Raises:
        InputError: if the stage has not run, or the encoder's parameters are wrong.
    """
    from tevad_model import encoders

    params = dataset.params.caption_embeddings
    cache = dataset.project.cache
    if not read_tuning(dataset).kept:
        encoder = encoders.build_sentence(params.backend, params.options, cache)
        return EncoderCard(params.backend, params.options, encoder.fingerprint), encoder
    options = {key: each for key, each in params.options.items() if key not in _OF_THE_WEIGHTS}
    tuned = {**options, "model": str(tuned_model(dataset))}
    encoder = encoders.build_sentence(params.backend, tuned, cache)
    return EncoderCard(params.backend, options, encoder.fingerprint, own_weights=True), encoder


def training_captions(dataset: Dataset) -> list[str]:
    """The distinct captions of the training split, sorted; none where embeddings are ready-made."""
    if dataset.entry.embeddings:
        return []
    raw = read_raw_videos(dataset).by_video()
    videos = [row.video for row in read_caption_manifest(dataset).usable]
    training = [video for video in videos if raw[video].split == "train"]
    return sorted({text for video in training for text in load_captions(dataset, video)})


def _why_not(dataset: Dataset, captions: list[str]) -> str:
    """Why the encoder is not to be tuned; empty if it is.

    Raises:
        InputError: if it must be, and cannot.
    """
    from tevad_model.encoders.sentence import BACKEND
    from tevad_model.encoders.simcse import LEAST_CAPTIONS

    params, backend = dataset.params.sentence_encoder, dataset.params.caption_embeddings.backend
    impossible = ""
    if dataset.entry.embeddings:
        impossible = "the embeddings are ready-made"
    elif backend != BACKEND:
        impossible = f"the backend {backend} cannot be tuned"
    elif len(captions) < LEAST_CAPTIONS:
        impossible = f"there are {len(captions)} distinct captions to tune on"
    if params.tune == "always" and impossible:
        raise InputError(f"sentence_encoder.tune: always, but {impossible}; take auto or never")
    if params.tune == "never":
        return "sentence_encoder.tune is never"
    if params.tune == "auto" and not impossible and len(captions) < params.auto_captions:
        return (
            f"{len(captions)} distinct captions, of which tuning wants {params.auto_captions} "
            "(sentence_encoder.auto_captions)"
        )
    return impossible


def _key(dataset: Dataset, captions: list[str]) -> str:
    from tevad_model import encoders

    params = dataset.params
    backend, options = params.caption_embeddings.backend, params.caption_embeddings.options
    identity = {
        "code_version": CODE_VERSION,
        "params": params.sentence_encoder.model_dump(mode="json"),
        "encoder": ""
        if dataset.entry.embeddings
        else encoders.build_sentence(backend, options, dataset.project.cache).fingerprint.digest,
        "captions": captions,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _start_afresh(folder: Path) -> None:
    """Empty the folder, ``tuning.json`` first: a record never stands beside another one's model."""
    (folder / TUNING).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _tune(dataset: Dataset, captions: list[str], key: str, folder: Path) -> TuningRecord:
    from tevad_model.encoders import simcse
    from tevad_model.encoders.sentence import SentenceOptions, SentenceTransformerEncoder

    options = SentenceOptions.model_validate(dataset.params.caption_embeddings.options)
    model = SentenceTransformerEncoder(options.model_copy(update={"dtype": "float32"})).model
    tuning = simcse.tune(model, captions, dataset.params.sentence_encoder)
    if not tuning.improved:
        reason = "tuned, and not kept: alignment and uniformity did not both improve"
        return TuningRecord(key, False, reason, len(captions), figures=asdict(tuning))
    # To its place at once: without the record, which comes last, it is nobody's result.
    model.save_pretrained(str(folder / MODEL), create_model_card=False)
    reason = "tuned, and kept: alignment and uniformity improved"
    return TuningRecord(
        key, True, reason, len(captions), hub.weights_hash(folder / MODEL), asdict(tuning)
    )


@stage_asset(
    deps=["raw_videos", "captions"],
    code_version=CODE_VERSION,
    group_name="features",
    kinds={"python", "huggingface", "dvc"},
)
def sentence_encoder(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """The captions' sentence encoder, tuned on them by unsupervised SimCSE where that helps."""
    dataset = dataset_of(context)
    with explained():
        report = tune_sentence_encoder(dataset)
    record = read_tuning(dataset)
    shown: dict[str, Any] = {
        "tuned": record.kept,
        "why": record.reason,
        "distinct captions": record.captions,
    }
    if record.figures:
        shown["spread"] = dg.MetadataValue.md(_spread_table(record.figures))
    return committed(dataset, report, shown)


def _spread_table(figures: dict[str, Any]) -> str:
    rows = [
        (measure, *(f"{figures[when][measure]:.4f}" for when in ("before", "after")))
        for measure in ("alignment", "uniformity")
    ]
    return markdown_table(("lower is better", "before", "after"), rows)
