"""The Dagster face of a stage's checks: outcomes become check results that a person can read.

Each stage's checks run as one step, so that its data is measured once.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import dagster as dg

from assets.checks.expectations import Check, CheckOutcome
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
        for outcome in run(access.dataset(context.partition_key)):
            yield _result(stage, outcome)

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


def _result(stage: str, outcome: CheckOutcome) -> dg.AssetCheckResult:
    check = outcome.check
    metadata: dict[str, dg.MetadataValue] = {
        "figures": dg.MetadataValue.md(outcome.figures_table),
        "data docs": dg.MetadataValue.path(str(outcome.data_docs)),
    }
    if not outcome.passed:
        metadata["offenders"] = dg.MetadataValue.md(outcome.offenders_table)
        metadata["offenders in all"] = dg.MetadataValue.int(len(outcome.offenders))
    return dg.AssetCheckResult(
        passed=outcome.passed,
        asset_key=stage,
        check_name=check.name,
        severity=dg.AssetCheckSeverity.ERROR if check.is_error else dg.AssetCheckSeverity.WARN,
        description=outcome.summary,
        metadata=metadata,
    )
