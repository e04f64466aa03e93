"""Rollback: the alias goes back to the champion before, once that one is seen to score as it did."""

from __future__ import annotations

import logging

from assets.promotion import champion
from assets.promotion.champion import Move
from assets.promotion.decision import smoke_set
from assets.promotion.evidence import Condition, ModelFiles, judge_smoke
from assets.promotion.policy import read_policy
from assets.promotion.smoke import largest_difference
from assets.scoring import find_version
from assets.workspace.project import Dataset
from assets.workspace.tracking import Tracking, registered_name
from tevad_model.errors import InputError

logger = logging.getLogger("tevad")


def rollback(
    dataset: Dataset, tracking: Tracking, *, by: str, reason: str, force: bool = False
) -> Move:
    """Make the champion before the present one champion again.

    Its smoke set is scored through the served model first. The version that is rolled back is not
    promoted again but by a person. Versions that were deleted in MLflow are passed over. Neither a
    stage at work nor the dataset's data are waited for.

    Args:
        dataset: whose model.
        tracking: where it is registered.
        by: who or what rolls back.
        reason: why.
        force: go back even to a version that does not load or scores otherwise than it did.

    Raises:
        InputError: if there is no champion before, it fails its smoke set, or MLflow is lost.
        ChampionMovedError: if somebody else moves the alias at the same time.
    """
    with tracking.answering():
        return _rollback(dataset, tracking, by, reason, force)


def _rollback(dataset: Dataset, tracking: Tracking, by: str, reason: str, force: bool) -> Move:
    name = registered_name(dataset.name)
    current = champion.champion_version(tracking, name)
    if not current:
        raise InputError(f"{name}: there is no champion to roll back")
    target = _before(tracking, name, current)
    checked = _smoke(dataset, tracking, target)
    if not checked.passed:
        if not force:
            raise InputError(
                f"models:/{name}/{target}: not rolled back to, {checked.says}; "
                "--force rolls back all the same"
            )
        logger.warning("models:/%s/%s: %s", name, target, checked.says)
    forced = "" if checked.passed else " (forced)"
    move = Move(
        version=target,
        previous=current,
        kind="rollback",
        moment=champion.now(),
        by=by,
        why=f"{reason}{forced}; {checked.says}",
    )
    champion.move(dataset, tracking, move)
    logger.info("%s: version %s is champion again, after %s", name, target, current)
    return move


def _before(tracking: Tracking, name: str, current: str) -> str:
    """The champion before the present one, of those that are still registered."""
    *before, _ = champion.line_of_champions(champion.history(tracking, name), current)
    if not before:
        raise InputError(f"{name}: version {current} is the first champion; there is none before")
    found = tracking.client.search_model_versions(f"name = '{name}'")
    there = {str(version.version) for version in found}
    if not there.intersection(before):
        raise InputError(
            f"{name}: the champions before version {current} were deleted in MLflow "
            f"({', '.join(before)}); promote another version (`tevad promote`)"
        )
    return next(version for version in reversed(before) if version in there)


def _smoke(dataset: Dataset, tracking: Tracking, number: str) -> Condition:
    """Whether a version scores its smoke set as it did when it was promoted."""
    try:
        version = find_version(tracking.client, f"models:/{registered_name(dataset.name)}/{number}")
        with smoke_set(tracking, version) as folder, ModelFiles.of(version, tracking) as model:
            difference = largest_difference(model.folder, folder, dataset.project.cache)
    except InputError as error:
        return Condition("smoke set", False, str(error))
    return judge_smoke(difference, read_policy(dataset.project))
