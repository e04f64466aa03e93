"""The Dagster face of a stage's checks: verdicts become check results that a person can read.

Each stage's checks run as one step, so that its data is measured once, and not at all where just
these data were judged before.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import dagster as dg

from assets.checks.expectations import Check, CheckOutcome
from assets.checks.verdicts import Verdict, verdicts
from assets.partitions import DATASETS
from assets.workspace.face import RESOURCE, ProjectAccess
from assets.workspace.project import Dataset


def asset_checks(
    stage: str, checks: Sequence[Check], run: Callable[[Dataset], Sequence[CheckOutcome]]
) -> dg.AssetChecksDefinition:
    """The checks of a stage's asset, for each dataset.

    Args:
        stage: the asset's key.
        checks: what is checked.
        run: checks a dataset; an outcome for each of ``checks``.
    """
    specs = [_spec(stage, check) for check in checks]

    @dg.multi_asset_check(
        name=f"{stage}_checks",
        specs=specs,
        required_resource_keys={RESOURCE},
        compute_kind="greatexpectations",
    )
    def check_stage(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        access: ProjectAccess = getattr(context.resources, RESOURCE)
        dataset = access.dataset(context.partition_key)
        given, before = verdicts(dataset, stage, run)
        told = f"{given.judged}, on the same data" if before else given.judged
        for check, verdict in zip(checks, given.checks, strict=True):
            yield _result(dataset, stage, check, verdict, told)

    return check_stage


def _spec(stage: str, check: Check) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        # Partitioned checks are in preview; without them, datasets overwrite each other's results.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            check.name,
            asset=stage,
            description=check.description,
            blocking=check.blocking,
            partitions_def=DATASETS,
        )


def _result(
    dataset: Dataset, stage: str, check: Check, verdict: Verdict, judged: str
) -> dg.AssetCheckResult:
    metadata: dict[str, dg.MetadataValue] = {
        "figures": dg.MetadataValue.md(verdict.figures),
        "data docs": dg.MetadataValue.path(str(dataset.reports / verdict.page)),
        "judged": dg.MetadataValue.text(judged),
    }
    if not verdict.passed:
        metadata["offenders"] = dg.MetadataValue.md(verdict.offenders)
        metadata["offenders in all"] = dg.MetadataValue.int(verdict.offending)
    return dg.AssetCheckResult(
        passed=verdict.passed,
        asset_key=stage,
        check_name=check.name,
        severity=dg.AssetCheckSeverity.ERROR if check.is_error else dg.AssetCheckSeverity.WARN,
        description=verdict.summary,
        metadata=metadata,
    )
