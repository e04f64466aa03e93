"""Policies of assets, said once and mapped over all specs: what shows as stale, what runs by itself."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from assets.workspace.params import RetrainingParams

DECIDED_ON = "promotion_decision"
"""The asset whose age is the champion's."""

AUTOMATED: Mapping[str, Sequence[str] | None] = {
    # New labels make the features newer than the model; that is for retraining to settle.
    "evaluation_metrics": ("tevad_model",),
    "registered_model": None,
    "promotion_decision": None,
    "scored_videos": None,
    "review_page": None,
    "drift": None,
}
"""The assets that are kept up to date by themselves, and the assets whose news they follow (None:
all that they are made from). Features follow arrivals, and training a need to train."""


def with_policies(
    assets: Sequence[dg.AssetsDefinition], params: RetrainingParams
) -> list[dg.AssetsDefinition]:
    """The assets with the policies that hold for them."""
    age = timedelta(days=params.max_champion_age_days)
    fresh = dg.FreshnessPolicy.time_window(fail_window=age)

    def apply(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        if name == DECIDED_ON:
            spec = spec.replace_attributes(freshness_policy=fresh)
        if name in AUTOMATED:
            spec = spec.replace_attributes(automation_condition=kept_up_to_date(AUTOMATED[name]))
        return spec

    return [asset.map_asset_specs(apply) for asset in assets]


def kept_up_to_date(news_of: Sequence[str] | None) -> dg.AutomationCondition[Any]:
    """Materialize again what is there once something it is made from is newer.

    Never past a blocking check that failed, or that did not run: of what DVC made, Dagster knows the
    versions, and no check. The first time is somebody's decision.
    """
    news = dg.AutomationCondition.eager()
    if news_of is not None:
        news = news.allow(dg.AssetSelection.assets(*news_of))
    return (
        news
        & ~dg.AutomationCondition.missing()
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
    ).with_label("kept up to date, behind its blocking checks")


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """The sensor that asks for runs of what is to be kept up to date."""
    return dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.assets(*AUTOMATED),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps evaluation, decision, scores, review page and drift up to date.",
    )
