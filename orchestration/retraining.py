"""Asking for a retraining: what schedule and sensor share.

Whether there is need is :mod:`assets.retraining`'s decision. Here is what Dagster knows for it (when
one was last asked for, what runs now), and the run that a need asks for, which carries its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from assets.raw_videos import RawVideosConfig
from assets.retraining import Circumstances, Need, gather_evidence, retraining_need
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking
from orchestration.agreement import add_partitions
from orchestration.clock import Clock
from orchestration.instance import PARTITION
from orchestration.jobs import EVERYTHING
from tevad_model.errors import InputError

REASON = "tevad.reason"
"""The tag of a run that says why it was asked for."""

REQUESTED = "tevad.retraining.requested"
"""The tag of a retraining that says when it was asked for, ISO 8601."""

_RECENT = 100
"""Runs of a dataset that are looked through for the last request."""

_UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True)
class Requests:
    """What came of asking about every dataset.

    Attributes:
        runs: that are asked for.
        said: of every dataset, the reasons for or against.
    """

    runs: tuple[dg.RunRequest, ...]
    said: str


def retraining_requests(project: Project, instance: dg.DagsterInstance, clock: Clock) -> Requests:
    """Ask of every dataset whether there is need to train again."""
    add_partitions(project, instance)
    tracking, now = Tracking.of(project), clock.now()
    needs = {
        name: _need(project.dataset(name), tracking, instance, now)
        for name in project.params.datasets
    }
    return Requests(
        tuple(_request(name, need, now) for name, need in needs.items() if need.reasons),
        "; ".join(f"{name}: {need}" for name, need in needs.items()) or "there is no dataset",
    )


def _need(
    dataset: Dataset, tracking: Tracking, instance: dg.DagsterInstance, now: datetime
) -> Need:
    """The decision; a dataset that cannot be judged holds up no other."""
    circumstances = Circumstances(
        now, last_request(instance, dataset.name), _busy(dataset, instance)
    )
    try:
        evidence = gather_evidence(dataset, tracking)
    except InputError as error:
        return Need(hindrance=str(error))
    return retraining_need(evidence, dataset.project.params.retraining, circumstances)


def last_request(instance: dg.DagsterInstance, dataset: str) -> datetime | None:
    """When a retraining of a dataset was last asked for, by the runs there are."""
    mine = dg.RunsFilter(job_name=EVERYTHING.name, tags={PARTITION: dataset})
    runs = instance.get_runs(mine, limit=_RECENT)
    asked = [run.tags[REQUESTED] for run in runs if REQUESTED in run.tags]
    return max(map(datetime.fromisoformat, asked), default=None)


def _busy(dataset: Dataset, instance: dg.DagsterInstance) -> str:
    under_way = dg.RunsFilter(statuses=list(_UNDER_WAY), tags={PARTITION: dataset.name})
    for run in instance.get_runs(under_way, limit=1):
        return f"run {run.run_id} of {run.job_name}"
    return "a stage runs" if dataset.is_held else ""


def _request(name: str, need: Need, now: datetime) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"retraining/{name}/{now.isoformat()}",
        partition_key=name,
        run_config=dg.RunConfig(ops={"raw_videos": RawVideosConfig(look_at_source=False)}),
        tags={REASON: f"retraining: {need}", REQUESTED: now.isoformat()},
    )
