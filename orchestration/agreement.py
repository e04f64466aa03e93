"""Keeping Dagster's view in step with DVC's, whoever ran a stage.

``dvc repro``, ``dvc checkout`` and ``dvc pull`` change data without Dagster. ``dvc.lock`` says what
the data are now; whatever of it Dagster does not know yet is reported to it as a materialization
with that data version, the versions it was made from, and the code version.
"""

from collections.abc import Iterator

import dagster as dg

from assets.partitions import DATASETS
from assets.workspace import versions
from assets.workspace.project import Project

_DATA_VERSION = "dagster/data_version"
_IS_USER_PROVIDED = "dagster/data_version_is_user_provided"
_CODE_VERSION = "dagster/code_version"
_INPUT_VERSION = "dagster/input_data_version/"


def report_versions(
    project: Project, graph: dg.BaseAssetGraph, instance: dg.DagsterInstance
) -> list[str]:
    """Tell Dagster of every data version that DVC records and Dagster does not have as its latest.

    Returns:
        What was reported, as ``asset[dataset]``.
    """
    add_partitions(project, instance)
    reported = []
    for event in _unknown(project, graph, instance):
        instance.report_runless_asset_event(event)
        reported.append(f"{event.asset_key.to_user_string()}[{event.partition}]")
    return reported


def add_partitions(project: Project, instance: dg.DagsterInstance) -> None:
    """Make every dataset of ``params.yaml`` a partition."""
    name = DATASETS.name
    assert name is not None  # noqa: S101 - a dynamic partitions definition by name
    instance.add_dynamic_partitions(name, list(project.params.datasets))


def _unknown(
    project: Project, graph: dg.BaseAssetGraph, instance: dg.DagsterInstance
) -> Iterator[dg.AssetMaterialization]:
    recorded = versions.recorded(project)
    for (stage, dataset), version in recorded.items():
        key = dg.AssetKey(stage)
        if (
            dataset not in project.params.datasets
            or latest_version(instance, key, dataset) == version
        ):
            continue
        parents = {
            parent.to_user_string(): recorded.get((parent.to_user_string(), dataset))
            for parent in graph.get(key).parent_keys
        }
        yield dg.AssetMaterialization(
            key,
            partition=dataset,
            description="made by DVC",
            metadata={"dvc stage": f"{stage}@{dataset}"},
            tags={
                _DATA_VERSION: version,
                _IS_USER_PROVIDED: "true",
                _CODE_VERSION: str(graph.get(key).code_version),
                **{f"{_INPUT_VERSION}{name}": md5 for name, md5 in parents.items() if md5},
            },
        )


def latest_version(instance: dg.DagsterInstance, key: dg.AssetKey, dataset: str) -> str | None:
    """The data version of the latest materialization of a dataset's asset."""
    record = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[dataset]), limit=1
    ).records
    event = record[0].asset_materialization if record else None
    return (event.tags or {}).get(_DATA_VERSION) if event else None
