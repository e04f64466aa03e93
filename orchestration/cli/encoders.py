"""``tevad encoders …``: say which encoders there are, fetch the models they run."""

from __future__ import annotations

import click

from orchestration.cli.common import current_project, reported


@click.group()
def encoders() -> None:
    """Say which encoders there are, and fetch the models they run."""


@encoders.command("list")
@reported
def encoders_list() -> None:
    """The backends that come with the project, with their options."""
    from orchestration.encoder_models import describe

    for line in describe():
        click.echo(line)


@encoders.command("pull")
@click.argument("model", required=False)
@click.option("--revision", help="Branch, tag or commit.  [default: the newest commit]")
@reported
def encoders_pull(model: str | None, revision: str | None) -> None:
    """Fetch MODEL from the Hugging Face hub, or all models that params.yaml names.

    Nothing else touches the network: a run reads what was fetched, at the revision that params.yaml
    pins. HF_ENDPOINT names another hub, HF_TOKEN opens gated models, HF_HOME says where to keep them.
    """
    from orchestration.encoder_models import pull, summary

    for pulled in pull(current_project(), model, revision):
        click.echo(summary(pulled))
