"""Running the chain through Dagster, in the instance whose UI shows it: what ``tevad run`` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.workspace import s3
from assets.workspace.project import Dataset, Project
from orchestration.instance import (
    KILLED,
    PARTITION,
    WORKSPACE,
    configure_instance,
    open_instance,
    unfinished_commands,
)
from tevad_model.errors import InputError

if TYPE_CHECKING:
    import dagster as dg

# The events, stack traces too, are in the instance, where the UI shows them; the command line says
# itself what went wrong.
_QUIET_CONSOLE = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class RunOutcome:
    """How a run of the chain ended.

    Attributes:
        run_id: Dagster's.
        success: whether every step succeeded and no blocking check failed.
        model: the registered version, such as ``tevad-ped2/3``; empty if it came to none.
        failures: a line for each failed step or check.
        interrupted: whether somebody told it to stop.
    """

    run_id: str
    success: bool
    model: str
    failures: tuple[str, ...]
    interrupted: bool


def use_project(project: Project) -> None:
    """Point Dagster and the libraries below it at the project, for this process and its children.

    What the environment already says is kept.

    Raises:
        InputError: if ``TEVAD_DATABASE_URL`` cannot be understood.
    """
    configure_instance(project)
    os.environ["TEVAD_PROJECT"] = str(project.root)
    defaults = {
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # By default a server that is gone is asked for minutes before anyone is told.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # The same for the S3 clients of DVC and MLflow.
        "AWS_RETRY_MODE": "standard",
        "AWS_MAX_ATTEMPTS": str(s3.ATTEMPTS),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Threads that wait for others spin by default, which on a busy machine costs tenfold.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def everything_job() -> dg.JobDefinition:
    """The job of the whole chain, by a function that Dagster can call again in another process."""
    from orchestration.definitions import defs

    return defs.resolve_job_def("everything")


def score_job() -> dg.JobDefinition:
    """The job that scores in bulk, by a function as :func:`everything_job`."""
    from orchestration.definitions import defs

    return defs.resolve_job_def("score")


def run_chain(dataset: Dataset) -> RunOutcome:
    """Materialize the whole chain for a dataset; waits for a run of it that goes on.

    Raises:
        InputError: if a definition cannot be loaded, the bucket for artifacts does not answer, or a
            database is lost. What goes wrong in a stage is in the outcome.
    """
    return _run(everything_job, dataset)


def run_scoring(dataset: Dataset) -> RunOutcome:
    """Score all of a dataset's videos with its champion, and make the page to review them.

    Raises:
        InputError: as :func:`run_chain`.
    """
    return _run(score_job, dataset)


def _run(job: Callable[[], dg.JobDefinition], dataset: Dataset) -> RunOutcome:
    import dagster as dg

    from assets.workspace.tracking import Tracking
    from orchestration.agreement import add_partitions

    Tracking.of(dataset.project).reach_artifacts()
    with dataset.run_held(), open_instance() as instance:
        add_partitions(dataset.project, instance)
        _end_killed(dataset, instance)
        result = dg.execute_job(
            dg.reconstructable(job),
            instance=instance,
            run_config={**_QUIET_CONSOLE, **_in_project(dataset.project)},
            tags={PARTITION: dataset.name, WORKSPACE: dataset.project.identity},
        )
        failures = (*_failed_steps(result), *_failed_checks(result))
        return RunOutcome(
            result.run_id, result.success, _registered(result), failures, _interrupted(result)
        )


def _end_killed(dataset: Dataset, instance: dg.DagsterInstance) -> None:
    """Let no run whose process was killed seem to go on.

    For whoever keeps other runs from the dataset: none of a command's then really goes on.
    """
    for run in unfinished_commands(dataset.project, instance):
        if run.tags[PARTITION] == dataset.name:
            instance.report_run_failed(run, KILLED)


def _in_project(project: Project) -> dict[str, Any]:
    """The run's resources in that project, whichever the definitions were loaded for."""
    from assets.workspace.face import RESOURCE

    return {"resources": {RESOURCE: {"config": {"root": str(project.root)}}}}


def run_stage(dataset: Dataset, stage: str) -> None:
    """Run one stage's plain function, as the ``cmd`` of ``dvc.yaml`` does.

    Raises:
        InputError: if there is no such stage, or its inputs cannot be used.
    """
    from assets.caption_embeddings import embed_captions
    from assets.captions import write_captions
    from assets.evaluation_metrics import evaluate
    from assets.raw_videos import ingest_raw_videos
    from assets.sentence_encoder import tune_sentence_encoder
    from assets.snippet_features import extract_snippet_features
    from assets.tevad_model import train_tevad_model
    from assets.workspace.tracking import Tracking

    tracking = Tracking.of(dataset.project)
    functions = {
        "raw_videos": lambda: ingest_raw_videos(dataset),
        "snippet_features": lambda: extract_snippet_features(dataset),
        "captions": lambda: write_captions(dataset),
        "sentence_encoder": lambda: tune_sentence_encoder(dataset),
        "caption_embeddings": lambda: embed_captions(dataset),
        "tevad_model": lambda: train_tevad_model(dataset, tracking, {}),
        "evaluation_metrics": lambda: evaluate(dataset, tracking),
    }
    if stage not in functions:
        raise InputError(f"no stage {stage!r}; there are {', '.join(functions)}")
    functions[stage]()


def _registered(result: dg.JobExecutionResult) -> str:
    import dagster as dg

    for event in result.all_events:
        if event.is_step_materialization and event.asset_key == dg.AssetKey("registered_model"):
            return str((event.materialization.tags or {})["dagster/data_version"])
    return ""


def _interrupted(result: dg.JobExecutionResult) -> bool:
    from assets.workspace.face import STOPPED

    if any(why_failed(event) == STOPPED for event in result.get_step_failure_events()):
        return True
    reasons = {
        event.job_failure_data.failure_reason for event in result.all_events if event.is_job_failure
    }
    return any(reason and reason.value == "UNEXPECTED_TERMINATION" for reason in reasons)


def _failed_steps(result: dg.JobExecutionResult) -> list[str]:
    failures = result.get_step_failure_events()
    return [f"{event.step_key}: {why_failed(event)}" for event in failures]


def why_failed(event: dg.DagsterEvent) -> str:
    """Why a step failed: in the words of what the user can repair, else the innermost cause."""
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else "no reason was recorded"


def told_failure(asset: str, check: str, why: str) -> str:
    """The line that says that a check failed."""
    return f"{asset}: check {check} failed: {why}"


def _failed_checks(result: dg.JobExecutionResult) -> list[str]:
    return [
        told_failure(e.asset_key.to_user_string(), e.check_name, e.description or "")
        for e in (
            event.asset_check_evaluation_data
            for event in result.all_events
            if event.event_type_value == "ASSET_CHECK_EVALUATION"
        )
        if not e.passed
    ]
