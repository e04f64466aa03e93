"""promotion_decision: whether the registered challenger becomes the champion.

Only the Dagster face; what is decided and how is :mod:`assets.promotion`'s. A refusal materializes
like a promotion does: it is a result.
"""

from typing import Any

import dagster as dg

from assets.promotion.champion import champion_version, history
from assets.promotion.decision import CODE_VERSION, Decision, artifact_folder, decide
from assets.promotion.page import interval_picture
from assets.workspace.face import (
    access,
    dataset_of,
    explained,
    markdown_table,
    picture,
    stage_asset,
)
from assets.workspace.tracking import Tracking

_FIGURES = {"challenger": "challenger's AUC", "champion": "champion's AUC"}
"""What figures are shown as whose names are those of the versions."""

_MARKS = {True: "met", False: "**not met**", None: "not looked at"}


@stage_asset(
    deps=["registered_model", "evaluation_metrics"],
    code_version=CODE_VERSION,
    group_name="model",
    kinds={"python", "mlflow"},
)
def promotion_decision(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Champion or not: the challenger beside the champion on the same test videos, by the policy."""
    dataset, tracking = dataset_of(context), access(context).tracking()
    with explained():
        decision = decide(dataset, tracking, dagster_run=context.run.run_id)
    return dg.MaterializeResult(
        metadata=decision_metadata(decision, tracking),
        data_version=dg.DataVersion(decision.data_version),
    )


def decision_metadata(decision: Decision, tracking: Tracking) -> dict[str, Any]:
    """What a person wants to see of a decision."""
    run = tracking.run_page(decision.run_id)
    shown: dict[str, Any] = {
        "outcome": decision.outcome,
        "why": decision.why,
        "challenger": decision.version,
        "champion": champion_version(tracking, decision.name) or "none",
        "decided by": decision.by,
        "decided on": decision.moment,
        "MLflow version": dg.MetadataValue.url(
            tracking.version_page(decision.name, decision.version)
        ),
        "MLflow run": dg.MetadataValue.url(run),
        "page": dg.MetadataValue.url(
            f"{run}/artifacts/{artifact_folder(decision.version)}/decision.html"
        ),
        "conditions": dg.MetadataValue.md(_conditions(decision)),
        **{_FIGURES.get(name, name): round(value, 4) for name, value in decision.figures.items()},
    }
    if png := interval_picture(decision):
        shown["interval"] = picture(png, "interval of the difference, and the limit")
    if decision.parts:
        shown["by class and source"] = dg.MetadataValue.md(_parts(decision))
    shown["champions so far"] = dg.MetadataValue.md(_champions(decision, tracking))
    return shown


def _conditions(decision: Decision) -> str:
    rows = [(each.name, _MARKS[each.passed], each.says) for each in decision.conditions]
    return markdown_table(("condition", "", "found"), rows)


def _parts(decision: Decision) -> str:
    rows = [
        (
            part.kind,
            part.name,
            "" if part.champion is None else f"{part.champion:.4f}",
            f"{part.challenger:.4f}",
        )
        for part in decision.parts
    ]
    return markdown_table(("part", "name", "champion's AUC", "challenger's AUC"), rows)


def _champions(decision: Decision, tracking: Tracking) -> str:
    rows = [
        (move.moment, move.kind, move.previous or "none", move.version, move.by, move.why)
        for move in reversed(history(tracking, decision.name))
    ]
    return markdown_table(("on", "what", "from", "to", "by", "why"), rows)
