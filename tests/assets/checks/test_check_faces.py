from collections.abc import Iterator
from dataclasses import asdict

import dagster as dg
import pytest
from small_dataset import change_row, write_figures

from assets.checks import ALL_CHECKS
from assets.checks.drift import drift_checks
from assets.checks.evaluation_metrics import evaluation_metrics_checks
from assets.checks.raw_videos import raw_videos_checks
from assets.drift import REPORT, DriftReport, Finding, KindOfDrift
from assets.partitions import DATASETS
from assets.workspace import files
from assets.workspace.project import STAGES, Dataset


class OneDataset:
    """The resource as far as checks need it."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def dataset(self, name: str) -> Dataset:
        assert name == self._dataset.name
        return self._dataset


@dg.asset(partitions_def=DATASETS)
def raw_videos() -> None: ...


@dg.asset(partitions_def=DATASETS, deps=[raw_videos])
def snippet_features() -> None: ...


@dg.asset(partitions_def=DATASETS)
def drift() -> None: ...


@dg.asset(partitions_def=DATASETS)
def evaluation_metrics() -> None: ...


@dg.asset(partitions_def=DATASETS, deps=[evaluation_metrics])
def registered_model() -> None: ...


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(DATASETS.name), ["small"])
        yield instance


def run(
    instance: dg.DagsterInstance,
    dataset: Dataset,
    assets: list[dg.AssetsDefinition],
    checks: dg.AssetChecksDefinition,
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [*assets, checks],
        instance=instance,
        resources={"project": OneDataset(dataset)},
        partition_key=dataset.name,
        raise_on_error=False,
    )


def materialized(result: dg.ExecuteInProcessResult) -> list[str]:
    return [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()]


def test_a_sound_stage_lets_the_next_one_run(
    instance: dg.DagsterInstance, dataset: Dataset
) -> None:
    result = run(instance, dataset, [raw_videos, snippet_features], raw_videos_checks)
    assert result.success
    assert materialized(result) == ["raw_videos", "snippet_features"]
    assert all(evaluation.passed for evaluation in result.get_asset_check_evaluations())


def test_a_failing_blocking_check_stops_the_next_stage(
    instance: dg.DagsterInstance, dataset: Dataset
) -> None:
    video = "train-normal-0"
    (dataset.stage("raw_videos") / "videos" / f"{video}.mp4").unlink()
    result = run(instance, dataset, [raw_videos, snippet_features], raw_videos_checks)
    assert not result.success
    assert materialized(result) == ["raw_videos"]
    [failed] = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed.check_name == "videos_are_accounted_for"
    assert failed.severity == dg.AssetCheckSeverity.ERROR
    assert video in failed.metadata["offenders"].value
    assert dataset.reports.as_posix() in failed.metadata["data docs"].value


def test_a_warning_does_not_stop_the_next_stage(
    instance: dg.DagsterInstance, dataset: Dataset
) -> None:
    change_row(dataset, "raw_videos", "train-normal-0", problem="cut off")
    result = run(instance, dataset, [raw_videos, snippet_features], raw_videos_checks)
    assert result.success
    assert materialized(result) == ["raw_videos", "snippet_features"]
    [failed] = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed.check_name == "no_video_is_quarantined"
    assert failed.severity == dg.AssetCheckSeverity.WARN


def test_a_model_no_better_than_chance_is_not_registered(
    instance: dg.DagsterInstance, dataset: Dataset
) -> None:
    write_figures(dataset, {"frame_auc": 0.5})
    assets = [evaluation_metrics, registered_model]
    result = run(instance, dataset, assets, evaluation_metrics_checks)
    assert not result.success
    assert materialized(result) == ["evaluation_metrics"]


def judged(result: dg.ExecuteInProcessResult) -> set[str]:
    return {str(e.metadata["judged"].value) for e in result.get_asset_check_evaluations()}


def test_the_same_data_are_judged_once(instance: dg.DagsterInstance, dataset: Dataset) -> None:
    [first] = judged(run(instance, dataset, [raw_videos], raw_videos_checks))
    page = dataset.reports / "data_docs" / "raw_videos" / "videos.html"
    written = files.stamp(page)
    again = run(instance, dataset, [raw_videos], raw_videos_checks)
    assert judged(again) == {f"{first}, on the same data"}
    assert all(evaluation.passed for evaluation in again.get_asset_check_evaluations())
    assert files.stamp(page) == written
    page.unlink()
    [anew] = judged(run(instance, dataset, [raw_videos], raw_videos_checks))
    assert "same data" not in anew
    assert page.is_file()


def write_drift(dataset: Dataset, finding: Finding) -> None:
    """Leave the report of a measurement that came to a finding."""
    found = KindOfDrift("features", finding, 0.05, 12, 12, value=0.07, p_value=0.005)
    report = DriftReport("models:/tevad-small/1", ("a", "b"), (found,))
    files.write_json(dataset.reports / REPORT, asdict(report))


def test_a_report_is_judged_once(instance: dg.DagsterInstance, dataset: Dataset) -> None:
    write_drift(dataset, "drifted")
    result = run(instance, dataset, [drift], drift_checks)
    [failed] = result.get_asset_check_evaluations()
    assert (failed.passed, failed.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.success
    [first] = judged(result)
    assert judged(run(instance, dataset, [drift], drift_checks)) == {f"{first}, on the same data"}
    write_drift(dataset, "alike")
    [passed] = run(instance, dataset, [drift], drift_checks).get_asset_check_evaluations()
    assert passed.passed


def test_a_failure_is_told_again_as_it_was(instance: dg.DagsterInstance, dataset: Dataset) -> None:
    change_row(dataset, "raw_videos", "train-normal-0", problem="cut off")
    results = [run(instance, dataset, [raw_videos], raw_videos_checks) for _ in range(2)]
    first, again = ([e for e in r.get_asset_check_evaluations() if not e.passed] for r in results)
    assert [e.check_name for e in again] == ["no_video_is_quarantined"]
    assert [e.metadata["offenders"] for e in again] == [e.metadata["offenders"] for e in first]
    assert [e.severity for e in again] == [e.severity for e in first]


def test_other_data_and_other_limits_are_judged_anew(
    instance: dg.DagsterInstance, dataset: Dataset
) -> None:
    assert run(instance, dataset, [raw_videos], raw_videos_checks).success
    change_row(dataset, "raw_videos", "train-normal-0", problem="cut off")
    assert run(instance, dataset, [raw_videos], raw_videos_checks).success
    params = dataset.project.root / "params.yaml"
    params.write_text(f"{params.read_text()}checks: {{max_quarantined_share: 0.0}}\n")
    strict = dataset.project.dataset(dataset.name)
    result = run(instance, strict, [raw_videos], raw_videos_checks)
    assert {e.check_name for e in result.get_asset_check_evaluations() if not e.passed} == {
        "few_videos_are_quarantined",
        "no_video_is_quarantined",
    }


def test_results_are_kept_by_dataset(instance: dg.DagsterInstance, dataset: Dataset) -> None:
    run(instance, dataset, [raw_videos], raw_videos_checks)
    key = dg.AssetCheckKey(dg.AssetKey("raw_videos"), "videos_are_accounted_for")
    [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert record.partition == "small"


def test_every_stage_has_checks_of_its_own() -> None:
    keys = [key for checks in ALL_CHECKS for key in checks.check_keys]
    assert {key.asset_key.to_user_string() for key in keys} == {*STAGES, "drift"}
    assert len(set(keys)) == len(keys)
