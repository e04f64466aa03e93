"""``tevad up``: the servers people look at."""

from __future__ import annotations

import time

import click

from orchestration.cli.common import current_project, reported
from tevad_model.errors import InputError


@click.command()
@click.option("--port", default=3000, show_default=True, help="Dagster's port.")
@click.option("--mlflow-port", default=5000, show_default=True, help="MLflow's port.")
@reported
def up(port: int, mlflow_port: int) -> None:
    """Start Dagster (UI and daemon) and MLflow on loopback until interrupted."""
    from orchestration.agreement import report_versions
    from orchestration.build import SPECS
    from orchestration.instance import open_instance
    from orchestration.serving import servers, start, stop

    project = current_project()
    wanted = servers(project, dagster_port=port, mlflow_port=mlflow_port)
    with open_instance() as instance:
        report_versions(project, SPECS, instance)
    running = start(project, wanted)
    for server in wanted:
        click.echo(f"{server.name}: {server.address}")
    click.echo("Ctrl-C stops them.")
    try:
        while all(process.poll() is None for process in running):
            time.sleep(0.5)
        raise InputError(f"a server ended; see {project.state / 'logs'}")
    except KeyboardInterrupt:
        click.echo("stopping")
    finally:
        stop(running)
