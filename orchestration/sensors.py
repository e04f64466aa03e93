"""The sensors: what outside changes start or record, and who is told."""

import re
from collections.abc import Sequence

import dagster as dg

from assets.raw_videos import RawVideosConfig
from assets.scoring import served_version
from assets.workspace import versions
from assets.workspace.params import FILE_NAME
from assets.workspace.project import Project
from assets.workspace.tracking import Tracking
from orchestration import arrivals
from orchestration.agreement import add_partitions, report_versions
from orchestration.alerts import Position, tell_news
from orchestration.arrivals import Arrival, Seen
from orchestration.clock import Clock
from orchestration.jobs import ARRIVALS, EVERYTHING, FEATURES
from orchestration.notifications import build_notifier
from orchestration.retraining import REASON, retraining_requests
from tevad_model.errors import InputError


def dvc_sensor(project: Project, specs: Sequence[dg.AssetSpec]) -> dg.SensorDefinition:
    """A sensor that takes over from ``dvc.lock`` what DVC made without Dagster."""

    @dg.sensor(
        name="dvc_versions",
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports data versions that `dvc repro`, `checkout` or `pull` made.",
    )
    def dvc_versions(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        watched = (project.root / versions.LOCK_FILE, project.root / FILE_NAME)
        stamp = " ".join(str(path.stat().st_mtime_ns) for path in watched if path.is_file())
        if stamp == context.cursor:
            return dg.SkipReason("dvc.lock and params.yaml have not changed")
        reported = report_versions(project, specs, context.instance)
        context.update_cursor(stamp)
        return dg.SkipReason(
            f"reported {', '.join(reported)}" if reported else "Dagster knows all of dvc.lock"
        )

    return dvc_versions


def arrivals_sensor(project: Project, clock: Clock) -> dg.SensorDefinition:
    """A sensor that takes in what is new at the datasets' sources, and has it encoded."""

    @dg.sensor(
        name="arrivals",
        jobs=[FEATURES, ARRIVALS],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in new and changed videos and labels once they have settled.",
    )
    def arrive(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        add_partitions(project, context.instance)
        seen = arrivals.read_cursor(context.cursor)
        found = {
            name: _look(project, name, seen.get(name, Seen()), clock)
            for name in project.params.datasets
        }
        said = "; ".join(f"{name}: {each.said}" for name, each in found.items())
        requests = [
            dg.RunRequest(
                run_key=f"arrivals/{name}/{each.due.version}/{each.due.since.isoformat()}",
                job_name=(ARRIVALS if _is_served(project, name) else FEATURES).name,
                partition_key=name,
                run_config=dg.RunConfig(ops={"raw_videos": RawVideosConfig(look_at_source=False)}),
                tags={REASON: f"arrivals: {each.said}"},
            )
            for name, each in found.items()
            if each.due
        ]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else said or "no dataset",
            cursor=arrivals.written_cursor({name: each.seen for name, each in found.items()}),
        )

    return arrive


def _look(project: Project, name: str, seen: Seen, clock: Clock) -> Arrival:
    """A source that cannot be looked at holds up no other."""
    try:
        return arrivals.look(project.dataset(name), seen, clock.now())
    except InputError as error:
        return Arrival(seen, str(error))


def _is_served(project: Project, name: str) -> bool:
    """Whether a champion is there to score what arrived."""
    try:
        served_version(project.dataset(name), Tracking.of(project))
    except InputError:
        return False
    return True


def retraining_sensor(project: Project, clock: Clock) -> dg.SensorDefinition:
    """A sensor that asks between the schedule's times whether there is need to train again."""

    @dg.sensor(
        name="retraining_need",
        job=EVERYTHING,
        minimum_interval_seconds=900,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Trains anew where labels or the data changed enough since the champion.",
    )
    def ask(context: dg.SensorEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        found = retraining_requests(project, context.instance, clock)
        return list(found.runs) or dg.SkipReason(found.said)

    return ask


def notifier_sensor(notifier: str) -> dg.SensorDefinition:
    """A sensor that passes failed runs, failed checks and refused promotions on to one notifier.

    Each notifier has a sensor, and so a place in history, of its own: one that is down holds up no
    other, and is told later what it missed.
    """

    @dg.sensor(
        name=f"notify_{re.sub(r'[^0-9A-Za-z]+', '_', notifier)}",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Tells {notifier} of failed runs, failed checks and refused promotions.",
    )
    def notify(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        position = Position.read(context.cursor)
        if position is None:
            context.update_cursor(Position.now(context.instance).written())
            return dg.SkipReason("tells what happens from now on")
        try:
            told = tell_news(context.instance, build_notifier(notifier), position)
        except InputError as error:
            return dg.SkipReason(f"nobody is told: {error}")
        context.update_cursor(told.position.written())
        said = f"told {told.count} notices" if told.count else "no news"
        said += f", dropped {told.dropped} that were refused" if told.dropped else ""
        return dg.SkipReason(f"{said}; {told.rest}, next time" if told.rest else said)

    return notify
