"""``tevad promote``, ``tevad rollback`` and the job: what a person sees and Dagster keeps."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from projects import TrainedProject

from assets.promotion import champion
from assets.promotion.champion import Move
from assets.promotion.decision import RECORD_TAG, STAGE
from assets.workspace.project import Dataset
from assets.workspace.tracking import CHAMPION, Tracking
from orchestration import standing
from orchestration.build import build_defs
from orchestration.cli import main

pytestmark = pytest.mark.slow

NAME = "tevad-rendered"


def tevad(*arguments: str) -> str:
    """What a command prints; it must succeed."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(instance: dg.DagsterInstance) -> str:
    """What Dagster was told last of the decision's asset."""
    [record] = instance.fetch_materializations(dg.AssetKey(STAGE), limit=1).records
    assert record.asset_materialization is not None
    assert record.asset_materialization.partition == "rendered"
    return str(record.asset_materialization.description)


def asked_for(
    asset: dg.AssetKey, dataset: Dataset, instance: dg.DagsterInstance, cursor: Any = None
) -> Any:
    """What the automation sensor asks for of an asset."""
    selection = dg.AssetSelection.assets(asset)
    defs = build_defs(dataset.project)
    return dg.evaluate_automation_conditions(defs, instance, selection, cursor=cursor)


@pytest.fixture
def second_champion(trained_copy: Dataset) -> Dataset:
    """A dataset whose champion is a second version, put there by hand, of the same files."""
    tracking = Tracking.of(trained_copy.project)
    first = tracking.client.get_model_version(NAME, "1")
    tracking.client.create_model_version(NAME, first.source, run_id=first.run_id)
    move = Move("2", "1", "promotion", champion.now(), "a test", "to see")
    champion.move(trained_copy, tracking, move)
    return trained_copy


def test_promote_shows_the_decision_and_its_grounds(trained: TrainedProject) -> None:
    said = tevad("promote", "rendered")
    assert said.startswith("tevad-rendered version 1 against no champion: promoted, by policy on ")
    assert "met      smoke set: through the served model" in said
    assert tevad("promote", "rendered", "--version", "1") == said


def test_promoting_a_champion_again_moves_nothing(trained_copy: Dataset) -> None:
    tracking = Tracking.of(trained_copy.project)
    moves = champion.history(tracking, NAME)
    assert "promoted, by policy" in tevad("promote", "rendered", "--approve", "--by", "anna")
    assert champion.history(tracking, NAME) == moves


@pytest.mark.parametrize("approval", ["none", "person"])
def test_dagster_knows_of_a_promotion_and_has_nothing_left_to_do(
    trained_copy: Dataset, approval: str
) -> None:
    path = trained_copy.project.mlflow_file("promotion.yaml")
    path.write_text(path.read_text().replace("approval: none", f"approval: {approval}"))
    client = Tracking.of(trained_copy.project).client
    client.delete_registered_model_alias(NAME, CHAMPION)
    client.delete_model_version_tag(NAME, "1", RECORD_TAG)
    assert standing.look(trained_copy).reason_to_run

    said = tevad("promote", "rendered")
    if approval == "person":
        assert "awaiting approval" in said
        said = tevad("promote", "rendered", "--approve", "--by", "anna")
    assert "promoted, by " in said
    with dg.DagsterInstance.get() as instance:
        assert "it meets every condition" in told(instance)
    assert standing.look(trained_copy).reason_to_run == ""


def test_an_unknown_version_is_named(trained: TrainedProject) -> None:
    result = CliRunner().invoke(main, ["promote", "rendered", "--version", "9"])
    assert result.exit_code == 1
    assert "models:/tevad-rendered/9" in result.output


def test_rollback_is_one_command(second_champion: Dataset) -> None:
    scored = dg.AssetKey("scored_videos")
    with dg.DagsterInstance.get() as instance:
        event = dg.AssetMaterialization(scored, partition="rendered")
        instance.report_runless_asset_event(event)
        before = asked_for(scored, second_champion, instance)
        assert not before.get_requested_partitions(scored)

        said = tevad("rollback", "rendered", "--by", "anna", "--reason", "false alarms at dusk")
        assert told(instance).startswith("rolled back by anna: false alarms at dusk")
        after = asked_for(scored, second_champion, instance, before.cursor)
        assert after.get_requested_partitions(scored) == {"rendered"}  # which has another champion
    assert said.startswith("models:/tevad-rendered@champion is version 1 again, after version 2: ")
    tracking = Tracking.of(second_champion.project)
    assert champion.champion_version(tracking, NAME) == "1"
    last = champion.history(tracking, NAME)[-1]
    assert (last.kind, last.by, last.previous) == ("rollback", "anna", "2")


def test_rollback_is_a_job_in_dagster(second_champion: Dataset) -> None:
    job = build_defs(second_champion.project).resolve_job_def("rollback")
    config = {
        "ops": {
            "roll_champion_back": {
                "config": {"dataset": "rendered", "by": "bert", "reason": "a drill", "force": True}
            }
        }
    }
    with dg.DagsterInstance.get() as instance:
        assert job.execute_in_process(run_config=config, instance=instance).success
        assert told(instance).startswith("rolled back by bert: a drill")
        again = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    [failure] = [event for event in again.all_events if event.is_step_failure]
    assert "version 1 is the first champion" in str(failure.step_failure_data.error)
