"""What runs by itself: what is out of date, and never past a blocking check that failed."""

import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.partitions import DATASETS
from assets.workspace.project import Project
from orchestration.build import build_defs
from orchestration.policies import AUTOMATED, DECIDED_ON, kept_up_to_date


@dg.asset(partitions_def=DATASETS)
def features() -> None:
    """What everything is made from."""


@dg.asset(partitions_def=DATASETS, deps=[features])
def model() -> None:
    """What has a blocking check."""


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)

    @dg.asset_check(asset=model, blocking=True, partitions_def=DATASETS)
    def is_sound(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """Passes as the run's tag says."""
        return dg.AssetCheckResult(passed=context.run.tags["sound"] == "yes")


@dg.asset(
    partitions_def=DATASETS,
    deps=[features, model],
    automation_condition=kept_up_to_date(["model"]),
)
def figures() -> None:
    """Follows the model alone."""


@dg.asset(
    partitions_def=DATASETS, deps=[features, model], automation_condition=kept_up_to_date(None)
)
def scores() -> None:
    """Follows all that it is made from."""


GRAPH = [features, model, is_sound, figures, scores]


class History:
    """What was materialized, and what the automation sensor asks for after that."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._cursor: Any = None

    def make(self, *assets: str, sound: str = "yes") -> None:
        dg.materialize(
            GRAPH,
            selection=list(assets),
            partition_key="site",
            instance=self._instance,
            tags={"sound": sound},
            raise_on_error=False,
        )

    def asked_for(self) -> set[str]:
        result = dg.evaluate_automation_conditions(
            dg.Definitions(assets=GRAPH[:2] + GRAPH[3:], asset_checks=[is_sound]),
            instance=self._instance,
            cursor=self._cursor,
        )
        self._cursor = result.cursor
        names = ("features", "model", "figures", "scores")
        return {name for name in names if result.get_requested_partitions(dg.AssetKey(name))}


@pytest.fixture
def history() -> Iterator[History]:
    """All was made once."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(DATASETS.name), ["site"])
        history = History(instance)
        assert history.asked_for() == set()
        history.make("features", "model")
        assert history.asked_for() == set()  # what nobody made is not made
        history.make("features", "model", "figures", "scores")
        assert history.asked_for() == set()  # all is up to date
        yield history


def test_what_is_behind_something_new_is_made_again_once(history: History) -> None:
    history.make("model")
    assert history.asked_for() == {"figures", "scores"}
    assert history.asked_for() == set()


def test_nothing_runs_past_a_blocking_check_that_failed(history: History) -> None:
    history.make("model", sound="no")
    assert history.asked_for() == set()
    history.make("features")
    assert history.asked_for() == set()
    history.make("model", sound="yes")
    assert history.asked_for() == {"figures", "scores"}


def test_news_that_an_asset_does_not_follow_leave_it_alone(history: History) -> None:
    history.make("features")
    assert history.asked_for() == {"scores"}


def test_the_policies_of_the_projects_assets(project_root: Path) -> None:
    with (project_root / "params.yaml").open("a") as file:
        file.write("retraining: {max_champion_age_days: 10}\n")
    specs = {
        spec.key.to_user_string(): spec
        for spec in build_defs(Project.at(project_root)).resolve_all_asset_specs()
    }
    stale_after = {name: s.freshness_policy for name, s in specs.items() if s.freshness_policy}
    assert stale_after == {
        DECIDED_ON: dg.FreshnessPolicy.time_window(fail_window=timedelta(days=10))
    }
    automated = {name: s.automation_condition for name, s in specs.items()}
    assert {name: condition for name, condition in automated.items() if condition} == {
        name: kept_up_to_date(news) for name, news in AUTOMATED.items()
    }
