"""Whether a dataset's model should be trained again: a plain decision on what is known.

Gathers what changed since the champion was trained, and decides. Who asks, how often, and what a
need leads to is orchestration's. Training is repeatable to the bit, so that only labels that came or
changed can make another model: a drift makes few of them reason enough, and is no reason by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from assets.drift import read_drift
from assets.scoring import address, newest_version, served_version
from assets.training_reference import changed_labels, reference_of
from assets.workspace.params import RetrainingParams
from assets.workspace.project import Dataset
from assets.workspace.tracking import Tracking
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Evidence:
    """What is known of a dataset and its models.

    Attributes:
        model: address of the champion, or of the newest version where there is no champion; empty
            if there is no model.
        changed: videos whose label came, changed or went since that model was trained.
        tried: address of a newer model that was trained on just the labels there are now, or empty.
        drifted: kinds in which what arrived differs from the champion's training.
    """

    model: str
    changed: tuple[str, ...] = ()
    tried: str = ""
    drifted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Circumstances:
    """What else a request depends on.

    Attributes:
        now: the time.
        last_request: when a retraining was last asked for, or None.
        busy: what works on the dataset now, or empty.
    """

    now: datetime
    last_request: datetime | None = None
    busy: str = ""


@dataclass(frozen=True)
class Need:
    """The decision.

    Attributes:
        reasons: for training now; empty if it is not to be.
        hindrance: why it is not to be; empty if it is.
    """

    reasons: tuple[str, ...] = ()
    hindrance: str = ""

    def __str__(self) -> str:
        return "; ".join(self.reasons) or self.hindrance


def retraining_need(
    evidence: Evidence, params: RetrainingParams, circumstances: Circumstances
) -> Need:
    """Whether to train again, and why or why not."""
    count = len(evidence.changed)
    labels = f"{count} new or changed labels"
    drift = f"drift of {', '.join(evidence.drifted)} since {evidence.model}"
    if not evidence.model:
        return Need(hindrance="there is no model yet; the first is trained by hand")
    if not count and not evidence.drifted:
        return Need(hindrance=f"nothing new since {evidence.model}: no label, no drift")
    if not count:
        return Need(
            hindrance=f"{drift}, but no label is new, and the same labels would train the same "
            "model; label some of what arrived"
        )
    if evidence.tried:
        return Need(hindrance=f"{labels}, which {evidence.tried} was trained on already")
    reasons = []
    if count >= params.min_new_labels:
        reasons.append(f"{labels} since {evidence.model}")
    if evidence.drifted:
        reasons.append(f"{drift}, with {labels}")
    if not reasons:
        return Need(
            hindrance=f"{labels} since {evidence.model}, {params.min_new_labels} are needed; "
            "no drift"
        )
    if circumstances.busy:
        return Need(hindrance=f"busy: {circumstances.busy}")
    if wait := _cooldown(params, circumstances):
        return Need(hindrance=wait)
    return Need(tuple(reasons))


def _cooldown(params: RetrainingParams, circumstances: Circumstances) -> str:
    last = circumstances.last_request
    if last is None:
        return ""
    again = last + timedelta(hours=params.cooldown_hours)
    if circumstances.now >= again:
        return ""
    return f"asked for at {last:%Y-%m-%d %H:%M}, not again before {again:%Y-%m-%d %H:%M %Z}"


def gather_evidence(dataset: Dataset, tracking: Tracking) -> Evidence:
    """What is known of a dataset and its models now.

    Raises:
        InputError: if the registry cannot be reached, raw_videos has not run, or the model does not
            say what it was trained on.
    """
    newest = newest_version(dataset, tracking)
    if newest is None:
        return Evidence("")
    champion = _champion(dataset, tracking)
    since = champion or newest
    report = read_drift(dataset) if champion else None
    is_of_champion = report is not None and report.model == address(since)
    changed = changed_labels(dataset, reference_of(dataset, tracking, since))
    return Evidence(
        address(since),
        tuple(changed),
        tried=address(newest) if changed and _is_tried(dataset, tracking, since, newest) else "",
        drifted=report.drifted if report and is_of_champion else (),
    )


def _champion(dataset: Dataset, tracking: Tracking) -> ModelVersion | None:
    try:
        return served_version(dataset, tracking)
    except InputError:
        return None


def _is_tried(
    dataset: Dataset, tracking: Tracking, since: ModelVersion, newest: ModelVersion
) -> bool:
    if newest.version == since.version:
        return False
    return not changed_labels(dataset, reference_of(dataset, tracking, newest))
