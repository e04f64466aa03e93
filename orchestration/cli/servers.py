"""``tevad up``: the servers people look at."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from assets.workspace.database import Database
from assets.workspace.tracking import LOCAL_PAGES, PAGES
from orchestration.cli.common import current_project, reported
from orchestration.profiles import (
    CODE,
    MLFLOW,
    PERSONAL_MLFLOW,
    TEAM,
    Places,
    personal,
    ready,
    team,
)
from orchestration.serving import LOOPBACK, Server, become, start, stop, wait
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from assets.workspace.project import Project

_PERSONAL, _TEAM = "personal", "team"

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends the servers: Ctrl-C, the system's or a service manager's end, a terminal that closes."""


@click.command()
@click.option(
    "--profile", type=click.Choice([_PERSONAL, _TEAM]), default=_PERSONAL, show_default=True,
    help="team: separate processes, with their state in PostgreSQL (TEVAD_DATABASE_URL).",
)  # fmt: skip
@click.option(
    "--only", type=click.Choice(TEAM),
    help="Let this process be that one of a team's servers, as a container's only one is.",
)  # fmt: skip
@click.option("--host", default=LOOPBACK, show_default=True, help="Where the pages listen.")
@click.option("--port", "dagster", default=3000, show_default=True, help="Dagster's port.")
@click.option("--mlflow-port", "mlflow", default=5000, show_default=True, help="MLflow's port.")
@click.option("--pages-port", "pages", default=5050, show_default=True, help="The review pages'.")
@click.option(
    "--code-host", default=LOOPBACK, show_default=True,
    help="Where a team's code location listens, and the others find it.",
)  # fmt: skip
@click.option("--code-port", "code", default=4000, show_default=True, help="Its port.")
@click.option(
    "--ready/--no-ready", "keep_ready", default=True, show_default=True,
    help="Keep a process that has loaded the libraries (0.8 GB), for commands to start at once; "
    "not for a team.",
)  # fmt: skip
@reported
def up(profile: str, only: str | None, keep_ready: bool, **where: Any) -> None:
    """Start Dagster (UI and daemon), MLflow and the review pages, until interrupted."""
    if only and profile != _TEAM:
        raise InputError("--only is for --profile team")
    project, places = current_project(), Places(**where)
    if places.is_open:
        _warn(places.host, "read, run and delete everything", "how to let a proxy ask")
    if places.code_is_open and profile == _TEAM and only in (None, CODE):
        reached = f"{places.code_host}:{places.code}"
        _warn(reached, "have any code run as you", "how to keep it among the servers")
    groups = _prepared(project, places, profile, only)
    if keep_ready and profile == _PERSONAL:
        groups.append([ready()])
    if only:
        _become(project, groups, only)
    else:
        _serve(project, groups)


def _warn(where: str, deed: str, remedy: str) -> None:
    click.secho(
        f"warning: whoever reaches {where} can {deed}: nothing here asks who they are; "
        f"docs/deploy.md tells {remedy}",
        fg="yellow",
        err=True,
    )


def _prepared(
    project: Project, places: Places, profile: str, only: str | None
) -> list[list[Server]]:
    """The servers, with what they find in the instance when they start."""
    from orchestration.agreement import report_versions
    from orchestration.build import SPECS
    from orchestration.instance import end_killed_commands, end_lost_runs, open_instance

    groups = team(project, places, only) if profile == _TEAM else [personal(project, places)]
    if only in (None, CODE):
        with open_instance() as instance:
            report_versions(project, SPECS, instance)
            end_killed_commands(project, instance)
            if profile == _TEAM or Database.of_environment() is None:
                end_lost_runs(instance)  # of others' machines nothing is known here
    return groups


def _become(project: Project, groups: list[list[Server]], only: str) -> None:
    for server in (server for group in groups for server in group):
        if server.name == only:
            become(project, server)
    raise InputError(f"no {only} to start: MLFLOW_TRACKING_URI names one")


def _serve(project: Project, groups: list[list[Server]]) -> None:
    for number in _STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt_once)
    servers = [server for group in groups for server in group]
    running = start(project, *groups)
    try:
        for server in servers:
            if server.address.startswith("http"):
                click.echo(f"{server.name}: {server.address}")
            if server.name == MLFLOW:
                click.echo(f"for `tevad` beside it: export MLFLOW_TRACKING_URI={server.address}")
            if server.name == PERSONAL_MLFLOW and server.address != LOCAL_PAGES:
                click.echo(f"for links of `tevad` beside it: export {PAGES}={server.address}")
        click.echo("Ctrl-C stops them.")
        wait(project, servers, running)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal was closed
            click.echo("stopping")
    finally:
        stop(running)


def _interrupt_once(*_: object) -> None:
    """Interrupt as Ctrl-C does, and let nothing interrupt what follows.

    A terminal that is closed says so twice, itself and through its shell; servers that nobody has
    stopped by then would stay.
    """
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
