"""The sensors: what outside changes start or record."""

from collections.abc import Sequence

import dagster as dg

from assets.workspace import versions
from assets.workspace.params import FILE_NAME
from assets.workspace.project import Project
from orchestration.agreement import report_versions


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
