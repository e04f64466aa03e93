"""``tevad run`` and its kin: run the chain, one stage of it, or its ablation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import click

from assets.workspace.project import STAGES, Project
from orchestration.cli.common import Failure, Interrupted, current_project, reported

logger = logging.getLogger("tevad")


@click.command()
@click.argument("name", type=click.Choice(STAGES))
@click.option("--dataset", "dataset_name", required=True, help="A dataset of params.yaml.")
@reported
def stage(name: str, dataset_name: str) -> None:
    """Run one stage of the chain for a dataset (what dvc.yaml calls)."""
    from orchestration.running import run_stage

    run_stage(current_project().dataset(dataset_name), name)


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Start a run even if it would have nothing to do.")
@reported
def run(name: str, force: bool) -> None:
    """Materialize the whole chain for dataset NAME through Dagster.

    Starts no run where it would have nothing to do: the source, parameters, code, data, checks,
    registered model and decision are as the last run left them.
    """
    _run(current_project(), name, force=force)


def _run(project: Project, name: str, *, force: bool = False) -> None:
    from orchestration.reporting import standing_summary, summary
    from orchestration.running import run_chain
    from orchestration.standing import look

    started = time.perf_counter()
    found = project.dataset(name)
    if not force:
        standing = look(found)
        if not standing.reason_to_run:
            click.echo(standing_summary(found, standing, time.perf_counter() - started))
            _warn(standing.warnings)
            return
        logger.info("%s: a run is due: %s", name, standing.reason_to_run)
    outcome = run_chain(found)
    if outcome.interrupted:
        raise Interrupted(
            f"run {outcome.run_id} of {name} was told to stop; run it again: it goes on where it was"
        )
    if not outcome.success:
        lines = "\n".join(f"  - {line}" for line in outcome.failures)
        raise Failure(f"run {outcome.run_id} of {name} failed:\n{lines}")
    click.echo(summary(found, outcome.model, time.perf_counter() - started))
    _warn(outcome.failures)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        click.secho(f"warning: {line}", fg="yellow", err=True)


@click.command()
@click.argument("name")
@click.option("--seed", "seeds", type=int, multiple=True, help="Instead of those of params.yaml.")
@reported
def ablate(name: str, seeds: tuple[int, ...]) -> None:
    """Say what each part of TEVAD is worth on dataset NAME (the paper's table 5).

    Trains the model with each modality alone, and with both in every fusion with and without the
    text's temporal network. Needs the features that `tevad run NAME` makes; goes on where it was
    if interrupted.
    """
    from assets.ablation import ablate as run_ablation
    from assets.ablation import table
    from assets.workspace.tracking import Tracking

    project = current_project()
    rows = run_ablation(project.dataset(name), Tracking.of(project), seeds or None)
    click.echo(table(rows))


@click.command()
@reported
def sync() -> None:
    """Tell Dagster what DVC made without it (its sensor does, while `tevad up` runs)."""
    from orchestration.agreement import report_versions
    from orchestration.build import SPECS
    from orchestration.instance import open_instance

    project = current_project()
    with open_instance() as instance:
        reported = report_versions(project, SPECS, instance)
    click.echo("\n".join(reported) or "Dagster knows all of dvc.lock")


@click.command()
@reported
def demo() -> None:
    """Render a dataset, run the whole chain on it, and say where to look next."""
    from orchestration.datasets import RENDERED, render_dataset

    project = current_project()
    render_dataset(project, train=16, test=12, seed=0)
    _run(project, RENDERED)
