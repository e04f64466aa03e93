"""Keeping Dagster's view in step with DVC's, whoever ran a stage.

``dvc repro``, ``dvc checkout`` and ``dvc pull`` change data without Dagster. ``dvc.lock`` says what
the data are now; whatever of it Dagster does not know yet is reported to it as a materialization
with that data version, the versions it was made from, and the code version.
"""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from assets.partitions import DATASETS
from assets.workspace import versions
from assets.workspace.project import Project

DATA_VERSION = "dagster/data_version"
"""Dagster's tag of a materialization's data version."""

CODE_VERSION = "dagster/code_version"
"""Its tag of the version of the code that made it."""

_IS_USER_PROVIDED = "dagster/data_version_is_user_provided"
_INPUT_VERSION = "dagster/input_data_version/"


def report_versions(
    project: Project, specs: Sequence[dg.AssetSpec], instance: dg.DagsterInstance
) -> list[str]:
    """Tell Dagster of every data version that DVC records and Dagster does not have as its latest.

    Args:
        project: whose ``dvc.lock`` to read.
        specs: of the assets.
        instance: which to tell.

    Returns:
        What was reported, as ``asset[dataset]``.
    """
    add_partitions(project, instance)
    reported = []
    for event in _unknown(project, specs, instance):
        instance.report_runless_asset_event(event)
        reported.append(f"{event.asset_key.to_user_string()}[{event.partition}]")
    return reported


def add_partitions(project: Project, instance: dg.DagsterInstance) -> None:
    """Make every dataset of ``params.yaml`` a partition."""
    name = DATASETS.name
    assert name is not None  # noqa: S101 - a dynamic partitions definition by name
    instance.add_dynamic_partitions(name, list(project.params.datasets))


def _unknown(
    project: Project, specs: Sequence[dg.AssetSpec], instance: dg.DagsterInstance
) -> Iterator[dg.AssetMaterialization]:
    recorded = versions.recorded(project)
    by_stage = {spec.key.to_user_string(): spec for spec in specs}
    for (stage, dataset), version in recorded.items():
        spec = by_stage[stage]
        known = latest_version(instance, spec.key, dataset)
        if dataset not in project.params.datasets or known == version:
            continue
        parents = [dep.asset_key.to_user_string() for dep in spec.deps]
        yield dg.AssetMaterialization(
            spec.key,
            partition=dataset,
            description="made by DVC",
            metadata={"dvc stage": f"{stage}@{dataset}"},
            tags={
                DATA_VERSION: version,
                _IS_USER_PROVIDED: "true",
                CODE_VERSION: str(spec.code_version),
                **{
                    f"{_INPUT_VERSION}{parent}": recorded[parent, dataset]
                    for parent in parents
                    if (parent, dataset) in recorded
                },
            },
        )


def latest_version(instance: dg.DagsterInstance, key: dg.AssetKey, dataset: str) -> str | None:
    """The data version of the latest materialization of a dataset's asset."""
    return _latest_tags(instance, key, dataset).get(DATA_VERSION)


def is_latest(instance: dg.DagsterInstance, spec: dg.AssetSpec, dataset: str, version: str) -> bool:
    """Whether the latest materialization of a dataset's asset has a data version, by this code."""
    tags = _latest_tags(instance, spec.key, dataset)
    return (tags.get(DATA_VERSION), tags.get(CODE_VERSION)) == (version, spec.code_version)


def _latest_tags(instance: dg.DagsterInstance, key: dg.AssetKey, dataset: str) -> Mapping[str, str]:
    record = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[dataset]), limit=1
    ).records
    event = record[0].asset_materialization if record else None
    return (event.tags or {}) if event else {}
