"""The schedules: what is asked at set times."""

import dagster as dg

from assets.workspace.params import RetrainingParams
from assets.workspace.project import Project
from orchestration.clock import Clock
from orchestration.jobs import EVERYTHING
from orchestration.retraining import retraining_requests
from tevad_model.errors import InputError


def retraining_schedule(
    project: Project, params: RetrainingParams, clock: Clock
) -> dg.ScheduleDefinition:
    """A schedule that asks, by default once a week, whether there is need to train again.

    Raises:
        InputError: if ``retraining.cron`` is no time.
    """

    try:

        @dg.schedule(
            name="retraining",
            job=EVERYTHING,
            cron_schedule=params.cron,
            execution_timezone=params.timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="Trains anew where labels or the data changed enough since the champion.",
        )
        def ask(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
            found = retraining_requests(project, context.instance, clock)
            return list(found.runs) or dg.SkipReason(found.said)

    except dg.DagsterInvalidDefinitionError:
        raise InputError(
            f"params.yaml: retraining.cron: {params.cron!r} is no time; write five fields, such as "
            "'0 3 * * 1' for Mondays at three"
        ) from None
    return ask
