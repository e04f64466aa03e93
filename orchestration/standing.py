"""Whether a run of the chain would have anything to do, found out without starting one.

Dagster's steps, and the encoders and judges they load, take their time even where each of them finds
that nothing changed. Here every asset is asked the question that it asks itself, and Dagster what it
knows of it; nothing is made. What an asset asks is the asset's business: this is only the round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg

from assets.caption_embeddings import has_current_embeddings
from assets.captions import has_current_captions
from assets.checks import ALL_CHECKS
from assets.checks.verdicts import Verdicts, standing_verdicts
from assets.evaluation_metrics import is_evaluated
from assets.promotion.decision import standing_decision
from assets.raw_videos import has_taken_in, was_unreached
from assets.registered_model import standing_registration
from assets.sentence_encoder import has_current_tuning
from assets.snippet_features import has_current_features
from assets.tevad_model import has_current_models
from assets.workspace import listing, versions
from assets.workspace.project import CHAIN, STAGES, Dataset
from assets.workspace.tracking import Tracking
from orchestration.agreement import is_latest
from orchestration.build import SPECS
from orchestration.instance import PARTITION, open_instance
from orchestration.running import told_failure
from tevad_model.atomic import full_disks_named
from tevad_model.errors import InputError

_IS_CURRENT: Mapping[str, Callable[[Dataset], bool]] = {
    "raw_videos": has_taken_in,
    "snippet_features": has_current_features,
    "captions": has_current_captions,
    "sentence_encoder": has_current_tuning,
    "caption_embeddings": has_current_embeddings,
    "tevad_model": lambda d: versions.is_up_to_date(d, "tevad_model") and has_current_models(d),
}
"""What each stage of data asks itself. An evaluation asks MLflow as well."""


@dataclass(frozen=True)
class Standing:
    """How a dataset's chain stands.

    Attributes:
        reason_to_run: what a run would have to do, or why it cannot be told; empty if there is
            nothing.
        versions: the data version of every asset, where there is nothing to do.
        warnings: the checks that failed and stop nothing.
    """

    reason_to_run: str
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class _Due(Exception):  # noqa: N818 - no error
    """Something is to be done."""


def look(dataset: Dataset) -> Standing:
    """Look at the source, and find out whether a run of the chain would have anything to do.

    Waits for a run that goes on. What keeps that from being found out is a reason to run: the run
    fails by it, where it is seen.
    """
    try:
        with full_disks_named(), dataset.run_held(), open_instance() as instance:
            return _look(dataset, instance)
    except (_Due, InputError) as reason:
        return Standing(str(reason))


def _look(dataset: Dataset, instance: dg.DagsterInstance) -> Standing:
    _see_last_run(dataset, instance)  # first: what goes on must not have its listing changed
    _see_source(dataset)
    _see_data(dataset)
    warnings = tuple(_see_checks(dataset))
    tracking = Tracking.of(dataset.project)
    with tracking.answering():
        found = _see_models(dataset, tracking)
    _see_materializations(dataset, found, instance)
    return Standing("", found, warnings)


def _see_last_run(dataset: Dataset, instance: dg.DagsterInstance) -> None:
    of_dataset = dg.RunsFilter(tags={PARTITION: dataset.name})
    last = instance.get_runs(of_dataset, limit=1)
    if not last:
        raise _Due("Dagster has no run of it")
    if last[0].status is not dg.DagsterRunStatus.SUCCESS:
        raise _Due("the last run has not succeeded")


def _see_source(dataset: Dataset) -> None:
    """Look at the source; whether it was reached is what the last run's report must say."""
    unreached = listing.refresh_if_reachable(dataset)
    if bool(unreached) != was_unreached(dataset):
        raise _Due(unreached or "the source is reached again")


def _see_data(dataset: Dataset) -> None:
    for stage in CHAIN:
        if not (dataset.reports / f"{stage}.json").is_file():
            raise _Due(f"the report of {stage} is not there")
    for stage, is_current in _IS_CURRENT.items():
        if not is_current(dataset):
            raise _Due(f"{stage} is not as it would be made now")


def _see_checks(dataset: Dataset) -> Iterator[str]:
    """Yield the checks that failed and stop nothing."""
    for checks in ALL_CHECKS:
        [stage] = {key.asset_key.to_user_string() for key in checks.check_keys}
        if stage not in STAGES:
            continue
        given = standing_verdicts(dataset, stage)
        if given is None:
            raise _Due(f"{stage} was not judged as it is")
        yield from _see_verdicts(stage, given, checks)


def _see_verdicts(stage: str, given: Verdicts, checks: dg.AssetChecksDefinition) -> Iterator[str]:
    blocking = {spec.name for spec in checks.check_specs if spec.blocking}
    for verdict in given.checks:
        if not verdict.passed:
            line = told_failure(stage, verdict.check, verdict.summary)
            if verdict.check in blocking:
                raise _Due(line)
            yield line


def _see_models(dataset: Dataset, tracking: Tracking) -> dict[str, str]:
    """The data version of every asset, MLflow's included."""
    if not is_evaluated(dataset, tracking):
        raise _Due("evaluation_metrics is not as it would be made now")
    registration = standing_registration(dataset, tracking)
    if registration is None:
        raise _Due("registered_model is not as it would be registered now")
    decision = standing_decision(dataset, tracking)
    if decision is None:
        raise _Due("promotion_decision is to be made anew")
    recorded = versions.recorded(dataset.project)
    return {
        **{stage: recorded[stage, dataset.name] for stage in STAGES},
        "registered_model": registration.data_version,
        "promotion_decision": decision.data_version,
    }


def _see_materializations(
    dataset: Dataset, found: Mapping[str, str], instance: dg.DagsterInstance
) -> None:
    for spec in SPECS:
        asset = spec.key.to_user_string()
        if asset in CHAIN and not is_latest(instance, spec, dataset.name, found[asset]):
            raise _Due(f"Dagster does not have {asset} as it is")
