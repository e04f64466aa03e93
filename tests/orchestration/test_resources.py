"""What the project's resource does for a run of Dagster's."""

from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import DATASETS
from assets.workspace.face import RESOURCE, dataset_of
from assets.workspace.locks import is_locked
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project
from orchestration.resources import ProjectResource


@pytest.fixture
def dataset(project_root: Path) -> Dataset:
    write_dataset(project_root, "site", DatasetParams(source="videos"))
    return Project.at(project_root).dataset("site")


def materialized(asset: dg.AssetsDefinition, dataset: Dataset, partition: str) -> bool:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(DATASETS.name), [partition])
        return dg.materialize(
            [asset],
            partition_key=partition,
            instance=instance,
            resources={RESOURCE: ProjectResource(root=str(dataset.project.root))},
            raise_on_error=False,
        ).success


@dg.asset(partitions_def=DATASETS, required_resource_keys={RESOURCE})
def alone(context: dg.AssetExecutionContext) -> None:
    """Succeeds where no other run of the dataset can go on."""
    assert is_locked(dataset_of(context).work / "run.lock")


def test_a_run_keeps_others_from_its_dataset_until_it_ends(dataset: Dataset) -> None:
    assert materialized(alone, dataset, "site")
    assert not is_locked(dataset.work / "run.lock")
    with dataset.run_held():  # as `tevad run` does, which executes the run itself
        assert materialized(alone, dataset, "site")
        assert is_locked(dataset.work / "run.lock")
    assert not is_locked(dataset.work / "run.lock")


def test_a_partition_that_is_no_dataset_locks_nothing(dataset: Dataset) -> None:
    assert not materialized(alone, dataset, "../elsewhere")
    assert not (dataset.project.state / "work").exists()
