"""What Dagster has of promotion besides the asset: the rollback job, and news of what was done
without it.
"""

import dagster as dg

from assets.promotion import decision
from assets.promotion.champion import Move, history
from assets.promotion.rollback import rollback as roll_back
from assets.workspace.face import RESOURCE, ProjectAccess, explained
from assets.workspace.project import Dataset
from assets.workspace.tracking import Tracking, registered_name
from orchestration.agreement import CODE_VERSION, DATA_VERSION
from orchestration.instance import open_instance


class RollbackConfig(dg.Config):
    """What to roll back, and what is said of it."""

    dataset: str
    by: str = "somebody in Dagster"
    reason: str = "no reason given"
    force: bool = False


@dg.op(required_resource_keys={RESOURCE})
def roll_champion_back(context: dg.OpExecutionContext, config: RollbackConfig) -> None:
    """Make the champion before the present one champion again."""
    access: ProjectAccess = getattr(context.resources, RESOURCE)
    dataset, tracking = access.dataset(config.dataset), access.tracking()
    with explained():
        move = roll_back(dataset, tracking, by=config.by, reason=config.reason, force=config.force)
    context.log_event(moved(dataset, tracking, f"rolled back by {move.by}: {move.why}"))


@dg.job(description="The alias champion goes back to the version before. Config: the dataset.")
def rollback() -> None:
    """Roll a champion back."""
    roll_champion_back()


def moved(dataset: Dataset, tracking: Tracking, what: str) -> dg.AssetMaterialization:
    """A move of the alias, as a new state of the asset that decides it.

    So what is made with the champion (scores, review page, drift) is out of date, and follows. A
    promotion leaves the asset nothing to do: it is the state that it would come to itself. After a
    rollback it has to decide anew.
    """
    last = history(tracking, registered_name(dataset.name))[-1]
    return dg.AssetMaterialization(
        asset_key=decision.STAGE,
        partition=dataset.name,
        description=what,
        metadata={"champion": last.version, "what": what},
        tags={
            DATA_VERSION: _data_version(dataset, tracking, last),
            CODE_VERSION: decision.CODE_VERSION,
        },
    )


def _data_version(dataset: Dataset, tracking: Tracking, last: Move) -> str:
    if last.kind == "promotion":
        found = decision.decision_on(tracking, registered_name(dataset.name), last.version)
        if found is not None:
            return found.data_version
    return f"{last.kind}/{last.version}/{last.moment}"


def tell_dagster(dataset: Dataset, tracking: Tracking, what: str) -> None:
    """Let Dagster know of a move that was made on the command line."""
    with open_instance() as instance:
        instance.report_runless_asset_event(moved(dataset, tracking, what))
