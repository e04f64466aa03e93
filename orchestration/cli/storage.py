"""``tevad storage …``: the team's bucket, TEVAD_STORAGE."""

from __future__ import annotations

import click

from orchestration.cli.common import Failure, current_project, reported
from tevad_model.errors import InputError


@click.group()
def storage() -> None:
    """Use the bucket that TEVAD_STORAGE names, and prove that it works.

    TEVAD_STORAGE=s3://bucket/prefix holds DVC's data, MLflow's artifacts and, if you like, the raw
    videos. Endpoint, region and credentials are those of the AWS_* variables or the AWS chain.
    """


@storage.command("use")
@reported
def storage_use() -> None:
    """Make the bucket DVC's default remote, in .dvc/config. No credentials are written."""
    from assets.workspace.storage import REMOTE, Storage

    project, found = current_project(), Storage.required()
    found.use_for_dvc(project)
    click.echo(f"DVC's remote {REMOTE!r}: {found.dvc}")
    click.echo("next: commit .dvc/config; tevad storage check; dvc push")


@storage.command("check")
@reported
def storage_check() -> None:
    """Write, read and delete a small object for each use of the bucket, and say what is wrong."""
    from assets.workspace.storage import Storage

    project, found = current_project(), Storage.required()
    problems = []
    for address in (found.dvc, found.mlflow, found.videos):
        try:
            found.check(address)
            click.echo(f"{address}: written, read, deleted")
        except InputError as error:
            problems.append(str(error))
    if not found.is_used_for_dvc(project):
        problems.append(".dvc/config: DVC's default remote is another; run `tevad storage use`")
    if problems:
        raise Failure("\n".join(problems))
