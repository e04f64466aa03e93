"""Deciding on a challenger, and what is kept of a decision.

A decision is kept with the version it is about: whole in a tag, and as files of its training run
(a page for people, the smoke set). The same version on the same data by the same policy is not
decided again. A refusal is a result; only what keeps a decision from being made is an error.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from assets.promotion import champion
from assets.promotion.champion import ChampionMovedError, Move
from assets.promotion.evidence import Condition, Evidence, Part, gather
from assets.promotion.page import decision_page
from assets.promotion.policy import Policy, read_policy
from assets.scoring import find_version
from assets.workspace import versions
from assets.workspace.files import write_json, write_text
from assets.workspace.project import Dataset
from assets.workspace.stage import StageReport
from assets.workspace.tracking import CHALLENGER, CHAMPION, Tracking, registered_name
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

STAGE = "promotion_decision"
CODE_VERSION = "1"
"""Changes when the same evidence would be decided otherwise."""

Outcome = Literal["promoted", "refused", "awaiting approval"]

TAG = "tevad.decision"
"""The outcome, at the version; the tags ``tevad.decision.*`` tell the rest."""

RECORD_TAG = f"{TAG}.record"
LAST_TAG = "tevad.last_decision"
"""The version that was decided on last, at the registered model."""

POLICY = "policy"
"""Who decides where nobody has to be asked."""

SMOKE_FOLDER = "smoke"

_ATTEMPTS = 3
_LONGEST_TAG = 1000


@dataclass(frozen=True)
class Decision:
    """What became of a challenger, and why.

    Attributes:
        outcome: ``promoted``, ``refused`` or ``awaiting approval``.
        name: of the registered model.
        version: the challenger's.
        champion: the champion it was held against; empty if there was none.
        reasons: why, a line each.
        conditions: all that was asked for, with what was found.
        figures: by name (:class:`assets.promotion.evidence.Evidence`).
        parts: the AUC by class and source.
        moment: when, ISO 8601 in UTC.
        by: who or what decided.
        key: identity of what was decided on.
        run_id: the training run of the version.
        dagster_run: the Dagster run it was made in; empty if in none.
        policy: the policy it was made by.
    """

    outcome: Outcome
    name: str
    version: str
    champion: str
    reasons: tuple[str, ...]
    conditions: tuple[Condition, ...]
    figures: dict[str, float]
    parts: tuple[Part, ...]
    moment: str
    by: str
    key: str
    run_id: str
    dagster_run: str
    policy: dict[str, Any]

    @property
    def data_version(self) -> str:
        """What Dagster knows the decision by."""
        return f"{self.key}/{self.outcome}"

    @property
    def why(self) -> str:
        """The reasons in one line."""
        return "; ".join(self.reasons)

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From what :meth:`to_json` made."""
        data = json.loads(text)
        return cls(
            **{
                **data,
                "reasons": tuple(data["reasons"]),
                "conditions": tuple(Condition(**each) for each in data["conditions"]),
                "parts": tuple(Part(**each) for each in data["parts"]),
            }
        )


def last_decision(dataset: Dataset, tracking: Tracking) -> Decision | None:
    """The last decision on a version of a dataset's model; None if there is none yet."""
    name = registered_name(dataset.name)
    model = tracking.registered_model(name)
    version = model.tags.get(LAST_TAG) if model else None
    return decision_on(tracking, name, version) if version else None


def decision_on(tracking: Tracking, name: str, version: str) -> Decision | None:
    """The decision on a version; None if there is none yet.

    Raises:
        InputError: if there is no such version.
    """
    return _recorded(find_version(tracking.client, f"models:/{name}/{version}"))


def _recorded(version: ModelVersion) -> Decision | None:
    text = version.tags.get(RECORD_TAG)
    return Decision.from_json(text) if text else None


def decide(dataset: Dataset, tracking: Tracking, *, dagster_run: str = "") -> Decision:
    """Decide on the dataset's challenger, and promote it if that is the outcome.

    Args:
        dataset: whose challenger.
        tracking: where it is registered.
        dagster_run: the Dagster run that asks.

    Raises:
        InputError: if there is no challenger, its evidence cannot be gathered, or MLflow is lost.
        ChampionMovedError: if the champion is moved by others again and again meanwhile.
    """
    with dataset.held(), tracking.answering():
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _decide(dataset, tracking, dagster_run)
            except ChampionMovedError:
                if attempt == _ATTEMPTS:
                    raise
    raise AssertionError("unreachable")


def _decide(dataset: Dataset, tracking: Tracking, dagster_run: str) -> Decision:
    started = time.perf_counter()
    question = _Question.of(dataset, tracking)
    decision = _standing(question)
    is_new = decision is None
    if decision is None:
        decision = _decide_anew(dataset, tracking, question, dagster_run)
    elif decision.outcome == "promoted":
        champion.complete_history(dataset, tracking, _promotion(decision))
    report = StageReport.of_whole(
        STAGE, dataset, 1, is_new=is_new, seconds=time.perf_counter() - started
    )
    report.publish(dataset, f"version {decision.version} {decision.outcome}: {decision.why}")
    return decision


def standing_decision(dataset: Dataset, tracking: Tracking) -> Decision | None:
    """The decision on the dataset's challenger as it stands; None if it is to be decided on.

    Raises:
        InputError: if there is no challenger.
    """
    return _standing(_Question.of(dataset, tracking))


@dataclass(frozen=True)
class _Question:
    """What is to be decided on.

    Attributes:
        policy: by what.
        challenger: on which version.
        incumbent: against which, the champion; None if there is none.
        key: identity of all that the decision depends on.
    """

    policy: Policy
    challenger: ModelVersion
    incumbent: ModelVersion | None
    key: str

    @classmethod
    def of(cls, dataset: Dataset, tracking: Tracking) -> Self:
        """As it is now.

        Raises:
            InputError: if there is no challenger.
        """
        name, policy = registered_name(dataset.name), read_policy(dataset.project)
        challenger = tracking.aliased(name, CHALLENGER)
        if challenger is None:
            raise InputError(
                f"{name}: no version is {CHALLENGER}; materialize registered_model first"
            )
        incumbent = tracking.aliased(name, CHAMPION)
        key = _key(dataset, policy, challenger, incumbent)
        return cls(policy, challenger, incumbent, key)


def _key(
    dataset: Dataset, policy: Policy, challenger: ModelVersion, incumbent: ModelVersion | None
) -> str:
    """Identity of what a decision depends on."""
    data = {
        stage: version
        for (stage, name), version in versions.recorded(dataset.project).items()
        if name == dataset.name
    }
    identity = {
        "code_version": CODE_VERSION,
        "policy": policy.model_dump(mode="json", by_alias=True),
        "versions": [str(each.version) if each else "" for each in (challenger, incumbent)],
        "data": data,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _standing(question: _Question) -> Decision | None:
    """The decision that holds for the challenger already, if one does."""
    challenger, incumbent = question.challenger, question.incumbent
    known = _recorded(challenger)
    if known is None:
        return None
    if known.outcome != "promoted":
        return known if known.key == question.key else None
    return known if incumbent and incumbent.version == challenger.version else None


def _decide_anew(
    dataset: Dataset, tracking: Tracking, question: _Question, dagster_run: str
) -> Decision:
    policy, challenger, incumbent = question.policy, question.challenger, question.incumbent
    with tempfile.TemporaryDirectory() as folder:
        held_against = incumbent if incumbent and incumbent.version != challenger.version else None
        evidence = gather(
            dataset, tracking, policy, challenger, held_against, Path(folder) / SMOKE_FOLDER
        )
        outcome, reasons = _judge(dataset, tracking, policy, challenger, evidence)
        decision = Decision(
            outcome=outcome,
            name=challenger.name,
            version=str(challenger.version),
            champion=str(incumbent.version) if incumbent else "",
            reasons=reasons,
            conditions=evidence.conditions,
            figures=evidence.figures,
            parts=evidence.parts,
            moment=champion.now(),
            by=POLICY,
            key=question.key,
            run_id=str(challenger.run_id),
            dagster_run=dagster_run,
            policy=policy.model_dump(mode="json", by_alias=True),
        )
        record(tracking, decision, Path(folder))
    if outcome == "promoted":
        _promote(dataset, tracking, decision)
    return decision


def _judge(
    dataset: Dataset,
    tracking: Tracking,
    policy: Policy,
    challenger: ModelVersion,
    evidence: Evidence,
) -> tuple[Outcome, tuple[str, ...]]:
    """What the policy makes of the evidence."""
    if evidence.failed:
        return "refused", tuple(f"{each.name}: {each.says}" for each in evidence.failed)
    moves = champion.history(tracking, challenger.name)
    undone = champion.rolled_back(moves, str(challenger.version))
    if undone:
        return "awaiting approval", (
            f"it was rolled back by {undone.by} on {undone.moment} ({undone.why}); only a person "
            f"promotes it again: tevad promote {dataset.name} --approve",
        )
    passed = "it meets every condition"
    if policy.approval == "person":
        return "awaiting approval", (f"{passed}; tevad promote {dataset.name} --approve",)
    return "promoted", (passed,)


def _promote(dataset: Dataset, tracking: Tracking, decision: Decision) -> None:
    """Move the alias, unless somebody had put it there by hand when it was decided."""
    if decision.champion == decision.version:
        champion.complete_history(dataset, tracking, _promotion(decision))
    else:
        champion.move(dataset, tracking, _promotion(decision))


def _promotion(decision: Decision) -> Move:
    return Move(
        version=decision.version,
        previous="" if decision.champion == decision.version else decision.champion,
        kind="promotion",
        moment=decision.moment,
        by=decision.by,
        why=decision.why,
    )


def record(tracking: Tracking, decision: Decision, folder: Path | None = None) -> None:
    """Keep a decision with its version, in place of an earlier one.

    Args:
        tracking: where it is registered.
        decision: the decision.
        folder: further files to keep with it.
    """
    client = tracking.client
    with tempfile.TemporaryDirectory() as own:
        kept = folder or Path(own)
        write_text(kept / "decision.html", decision_page(decision))
        write_json(kept / "decision.json", asdict(decision))
        tracking.log(decision.run_id).artifacts(kept, artifact_folder(decision.version))
    tags = {
        TAG: decision.outcome,
        f"{TAG}.why": decision.why[:_LONGEST_TAG],
        f"{TAG}.by": decision.by,
        f"{TAG}.moment": decision.moment,
        f"{TAG}.champion": decision.champion,
        f"{TAG}.dagster_run": decision.dagster_run,
        RECORD_TAG: decision.to_json(),
    }
    for key, value in tags.items():
        client.set_model_version_tag(decision.name, decision.version, key, value)
    client.set_registered_model_tag(decision.name, LAST_TAG, decision.version)


def artifact_folder(version: str) -> str:
    """Where a version's files lie among the artifacts of its training run."""
    return f"promotion/version-{version}"


@contextmanager
def smoke_set(tracking: Tracking, version: ModelVersion) -> Iterator[Path]:
    """A version's smoke set, on this machine.

    Raises:
        InputError: if none was kept with the version.
    """
    kept = f"{artifact_folder(str(version.version))}/{SMOKE_FOLDER}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            local = tracking.log(str(version.run_id)).fetch(kept, Path(folder))
        except InputError as error:
            raise InputError(
                f"models:/{version.name}/{version.version}: no smoke set is kept with it ({error})"
            ) from None
        yield local


def approve(dataset: Dataset, tracking: Tracking, version: str, by: str) -> Decision:
    """Promote a version that awaits a person's approval.

    Args:
        dataset: whose model.
        tracking: where it is registered.
        version: its number.
        by: who approves.

    Raises:
        InputError: if it does not await approval, with what became of it, or MLflow is lost.
        ChampionMovedError: if the champion is another than when it was decided on.
    """
    with tracking.answering():
        return _approve(dataset, tracking, version, by)


def _approve(dataset: Dataset, tracking: Tracking, version: str, by: str) -> Decision:
    name = registered_name(dataset.name)
    decision = decision_on(tracking, name, version)
    if decision is None:
        raise InputError(
            f"models:/{name}/{version}: nothing was decided on it; materialize {STAGE} first"
        )
    if decision.outcome == "promoted" and champion.champion_version(tracking, name) == version:
        champion.complete_history(dataset, tracking, _promotion(decision))
        return decision
    if decision.outcome == "promoted" and not _has_moved(tracking, decision):
        _promote(dataset, tracking, decision)
        return decision
    if decision.outcome != "awaiting approval":
        raise InputError(
            f"models:/{name}/{version}: it was {decision.outcome} on {decision.moment} and does not "
            f"await approval: {decision.why}"
        )
    approved = replace(
        decision,
        outcome="promoted",
        reasons=(f"approved by {by}", *decision.reasons),
        moment=champion.now(),
        by=by,
    )
    record(tracking, approved)  # first: a champion is never without its decision
    try:
        _promote(dataset, tracking, approved)
    except ChampionMovedError:
        record(tracking, decision)
        raise
    return approved


def _has_moved(tracking: Tracking, decision: Decision) -> bool:
    """Whether a promotion has moved the alias; not if it was killed before it could."""
    made = ((move.version, move.moment) for move in champion.history(tracking, decision.name))
    return (decision.version, decision.moment) in made
