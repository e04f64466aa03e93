"""``tevad promote`` and ``tevad rollback``: who is champion, said and changed by a person."""

from __future__ import annotations

import click

from orchestration.cli.common import acting, current_project, reported


@click.command()
@click.argument("name")
@click.option("--approve", is_flag=True, help="Promote it, where that waits for a person.")
@click.option("--version", help="Another version than the challenger.")
@click.option("--by", help="Who approves.  [default: the user of the process]")
@reported
def promote(name: str, approve: bool, version: str | None, by: str | None) -> None:
    """Say what is decided on dataset NAME's challenger, and approve it where a person has to.

    Decides first, by mlflow/promotion.yaml, if that was not done on the data that lie there.
    """
    from assets.promotion import decision as decisions
    from assets.promotion.champion import champion_version
    from assets.workspace.tracking import Tracking, registered_name
    from orchestration.promotion import tell_dagster
    from orchestration.reporting import decision_summary
    from tevad_model.errors import InputError

    who = acting(by) if approve else ""
    project = current_project()
    dataset, tracking = project.dataset(name), Tracking.of(project)
    before = champion_version(tracking, registered_name(name))
    found = (
        decisions.decision_on(tracking, registered_name(name), version)
        if version
        else decisions.decide(dataset, tracking)
    )
    if found is None:
        raise InputError(f"models:/{registered_name(name)}/{version}: nothing was decided on it")
    if approve:
        found = decisions.approve(dataset, tracking, found.version, who)
    if champion_version(tracking, registered_name(name)) != before:
        tell_dagster(dataset, tracking, found.why)
    click.echo(decision_summary(found))


@click.command()
@click.argument("name")
@click.option("--by", help="Who rolls back.  [default: the user of the process]")
@click.option("--reason", default="no reason given", help="Why, for the record.")
@click.option("--force", is_flag=True, help="Even if the version before fails its smoke set.")
@reported
def rollback(name: str, by: str | None, reason: str, force: bool) -> None:
    """Make dataset NAME's champion before the present one champion again."""
    from assets.promotion.rollback import rollback as roll_back
    from assets.workspace.tracking import Tracking, registered_name
    from orchestration.promotion import tell_dagster

    who, project = acting(by), current_project()
    dataset, tracking = project.dataset(name), Tracking.of(project)
    move = roll_back(dataset, tracking, by=who, reason=reason, force=force)
    tell_dagster(dataset, tracking, f"rolled back by {move.by}: {move.why}")
    click.echo(
        f"models:/{registered_name(name)}@champion is version {move.version} again, "
        f"after version {move.previous}: {move.why}"
    )
