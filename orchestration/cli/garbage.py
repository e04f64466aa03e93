"""``tevad gc``: what nobody needs any more."""

from __future__ import annotations

import json

import click

from orchestration.cli.common import current_project, reported


@click.command()
@click.option("--delete", is_flag=True, help="Remove it; without this, it is only listed.")
@click.option("--remote", is_flag=True, help="Look in DVC's default remote as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every name.")
@reported
def gc(delete: bool, remote: bool, as_json: bool) -> None:
    """List, or remove, what nobody needs any more.

    Needed is what a dvc.lock of the working tree or of any commit, a run of MLflow that is not
    deleted, or a version of a registered model names, with all its files. The rest of DVC's cache
    goes, and what killed or finished runs left behind. Waits for stages that run.

    The remote may be shared: what is only in a colleague's unpushed commits or uncommitted
    dvc.lock is not known here.
    """
    from assets.workspace.tracking import Tracking
    from orchestration.garbage.collection import collect

    project = current_project()
    found = collect(project, Tracking.of(project), delete=delete, remote=remote)
    click.echo(json.dumps(found.data, indent=2) if as_json else str(found))
