"""Puts the definitions together. A test or another deployment swaps resources here, not by patching."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.caption_embeddings import caption_embeddings
from assets.captions import captions
from assets.checks import ALL_CHECKS
from assets.drift import drift
from assets.evaluation_metrics import evaluation_metrics
from assets.promotion_decision import promotion_decision
from assets.raw_videos import raw_videos
from assets.registered_model import registered_model
from assets.review_page import review_page
from assets.scored_videos import scored_videos
from assets.sentence_encoder import sentence_encoder
from assets.snippet_features import snippet_features
from assets.tevad_model import tevad_model
from assets.workspace.face import RESOURCE
from assets.workspace.project import Project
from orchestration.clock import SYSTEM, Clock
from orchestration.jobs import JOBS
from orchestration.policies import automation_sensor, with_policies
from orchestration.resources import ProjectResource
from orchestration.schedules import retraining_schedule
from orchestration.sensors import (
    arrivals_sensor,
    dvc_sensor,
    notifier_sensor,
    retraining_sensor,
)

ASSETS = [
    raw_videos,
    snippet_features,
    captions,
    sentence_encoder,
    caption_embeddings,
    tevad_model,
    evaluation_metrics,
    registered_model,
    promotion_decision,
    scored_videos,
    review_page,
    drift,
]

SPECS = [asset.get_asset_spec() for asset in ASSETS]


def build_defs(
    project: Project | None = None,
    *,
    resource_overrides: Mapping[str, Any] | None = None,
    clock: Clock = SYSTEM,
) -> dg.Definitions:
    """All definitions of a project.

    Args:
        project: the project; by default the one the process runs in.
        resource_overrides: resources that take the place of those built here, by key.
        clock: what tells sensors and schedules the time.

    Raises:
        InputError: if ``params.yaml`` is wrong.
    """
    project = project or Project.find()
    params = project.params
    resources = {RESOURCE: ProjectResource(root=str(project.root)), **(resource_overrides or {})}
    return dg.Definitions(
        assets=with_policies(ASSETS, params.retraining),
        asset_checks=ALL_CHECKS,
        jobs=JOBS,
        schedules=[retraining_schedule(project, params.retraining, clock)],
        sensors=[
            dvc_sensor(project, SPECS),
            arrivals_sensor(project, clock),
            retraining_sensor(project, clock),
            automation_sensor(),
            *(notifier_sensor(name) for name in params.notifications.notifiers),
        ],
        resources=resources,
        executor=dg.in_process_executor,
    )
