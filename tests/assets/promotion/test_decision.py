"""Decisions on real models: the chain's own, and challengers made worse on purpose."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from projects import TrainedProject

from assets.evaluation_metrics import SCORES, evaluate
from assets.promotion import champion
from assets.promotion.champion import ChampionMovedError, Move
from assets.promotion.decision import Decision, approve, decide, last_decision, record
from assets.promotion.policy import POLICY_FILE
from assets.promotion.rollback import rollback
from assets.promotion_decision import decision_metadata
from assets.raw_videos import EVENTS, read_raw_videos
from assets.registered_model import register_model
from assets.tevad_model import picked_folder, served_seed, train_tevad_model
from assets.workspace import versions
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import CHAMPION, Tracking
from tevad_model.errors import InputError

pytestmark = pytest.mark.slow

NAME = "tevad-rendered"


def test_the_first_run_ends_with_a_champion(trained: TrainedProject) -> None:
    decision = last_decision(trained.dataset, trained.tracking)
    assert decision is not None
    assert (decision.outcome, decision.version, decision.champion) == ("promoted", "1", "")
    assert all(each.passed for each in decision.conditions), decision.conditions
    assert {each.name for each in decision.conditions} == {
        "provenance",
        "signature and input example",
        "checks",
        "above the floor",
        "smoke set",
    }
    assert decision.dagster_run == trained.outcome.run_id
    assert champion.champion_version(trained.tracking, NAME) == "1"
    [move] = champion.history(trained.tracking, NAME)
    assert (move.version, move.previous, move.kind, move.by) == ("1", "", "promotion", "policy")


def test_what_is_kept_with_the_version(trained: TrainedProject, tmp_path: Path) -> None:
    client = trained.tracking.client
    version = client.get_model_version_by_alias(NAME, CHAMPION)
    assert version.tags["tevad.decision"] == "promoted"
    kept = Path(client.download_artifacts(version.run_id, "promotion/version-1", str(tmp_path)))
    page = (kept / "decision.html").read_text()
    assert "tevad-rendered version 1" in page
    assert "http" not in page.replace("http-equiv", "")
    assert len(list((kept / "smoke").glob("*.mp4"))) == 2


def test_what_is_shown_of_a_decision(trained: TrainedProject) -> None:
    decision = last_decision(trained.dataset, trained.tracking)
    assert decision is not None
    shown = decision_metadata(decision, trained.tracking)
    assert (shown["challenger"], shown["champion"]) == ("1", "1")
    assert shown["challenger's AUC"] == round(decision.figures["challenger"], 4)
    assert shown["videos"] == 4


def flip_served_model(dataset: Dataset) -> None:
    """Make the picked model call normal what it called abnormal: its last layer's sign changes."""
    from tevad_model import artifact

    folder = picked_folder(dataset, served_seed(dataset))
    model = artifact.load(folder)
    last = [p for p in model.network.parameters() if p.dim() and p.shape[0] == 1][-2:]
    with torch.no_grad():
        for parameter in last:
            parameter.neg_()
    artifact.save(model, folder)


def registered_again(dataset: Dataset, tracking: Tracking) -> str:
    """Take the models as they lie there through the rest of the chain; the version's number."""
    train_tevad_model(dataset, tracking, {})
    versions.commit(dataset, "tevad_model")
    evaluate(dataset, tracking)
    versions.commit(dataset, "evaluation_metrics")
    return register_model(dataset, tracking).version


def by_hand(dataset: Dataset, tracking: Tracking, version: str) -> None:
    """Promote a version without evidence."""
    previous = champion.champion_version(tracking, NAME)
    move = Move(version, previous, "promotion", champion.now(), "a test", "to see")
    champion.move(dataset, tracking, move)


def set_policy(dataset: Dataset, **values: str) -> None:
    """Change keys of the project's policy, at whatever depth."""
    path = dataset.project.mlflow_folder / POLICY_FILE
    text = path.read_text()
    for key, value in values.items():
        text, found = re.subn(rf"(?m)^( *{key}:) \S+", rf"\1 {value}", text)
        assert found == 1
    path.write_text(text)


def side_with_the_model(dataset: Dataset) -> bool:
    """Mark events so that the served model ranks frames nearly right, or else nearly all wrong.

    Returns:
        Whether it is right. Which it is depends on what it scores higher, normal videos or others.
    """
    scores = pd.read_parquet(dataset.stage("evaluation_metrics") / SCORES)
    test = [row for row in read_raw_videos(dataset).usable if row.split == "test"]
    abnormal = scores["video"].isin([row.video for row in test if row.label == "abnormal"])
    is_right = bool(scores[abnormal]["score"].mean() >= scores[~abnormal]["score"].mean())
    lines = ["video,start_frame,end_frame"]
    for video, of in scores[abnormal].groupby("video"):
        marked = of.nlargest(2, "score") if is_right else of.nsmallest(2, "score")
        lines += [f"{video},{row.start_frame},{row.end_frame}" for row in marked.itertuples()]
    (dataset.stage("raw_videos") / EVENTS).write_text("\n".join(lines) + "\n")
    versions.commit(dataset, "raw_videos")
    return is_right


def test_a_worse_challenger_is_refused_and_a_better_one_promoted_and_rolled_back(
    trained_copy: Dataset,
) -> None:
    tracking = Tracking.of(trained_copy.project)
    models, kept = trained_copy.stage("tevad_model"), trained_copy.work
    shutil.copytree(models, kept / "1")
    better, worse = ("1", "2") if side_with_the_model(trained_copy) else ("2", "1")
    assert registered_again(trained_copy, tracking) == "1"
    flip_served_model(trained_copy)
    shutil.copytree(models, kept / "2")
    assert registered_again(trained_copy, tracking) == "2"

    def propose(version: str) -> None:
        shutil.rmtree(models)
        shutil.copytree(kept / version, models)
        assert registered_again(trained_copy, tracking) == version

    def current() -> str:
        return champion.champion_version(tracking, NAME)

    if current() != better:
        by_hand(trained_copy, tracking, better)
    propose(worse)
    refused = decide(trained_copy, tracking)
    assert (refused.outcome, refused.version, refused.champion) == ("refused", worse, better)
    assert refused.figures["difference"] < 0
    assert {each.name for each in refused.conditions if each.passed is False} >= {
        "better than the champion",
        "not by chance",
    }
    assert current() == better
    assert last_decision(trained_copy, tracking) == refused
    assert decide(trained_copy, tracking) == refused  # not decided again

    by_hand(trained_copy, tracking, worse)
    propose(better)
    # There are but 4 test videos to show it on.
    set_policy(trained_copy, **{"confidence": "0.6", "class": "1", "source": "1"})
    promoted = decide(trained_copy, tracking)
    assert (promoted.outcome, promoted.champion) == ("promoted", worse), promoted.reasons
    assert promoted.figures["low"] > 0
    assert current() == better

    by_hand(trained_copy, tracking, worse)
    rolled = rollback(trained_copy, tracking, by="anna", reason="blind")
    assert (rolled.version, rolled.previous, rolled.kind) == (better, worse, "rollback")
    assert rolled.why.startswith("blind; through the served model its scores differ by")
    assert current() == better

    run = tracking.client.get_model_version(NAME, worse).run_id
    artifacts = Path(tracking.client.get_run(run).info.artifact_uri.removeprefix("file://"))
    shutil.rmtree(artifacts / "promotion" / f"version-{worse}" / "smoke", ignore_errors=True)
    with pytest.raises(InputError, match=r"not rolled back to, .*no smoke set is kept with it"):
        rollback(trained_copy, tracking, by="anna", reason="doubts")
    assert current() == better
    forced = rollback(trained_copy, tracking, by="anna", reason="doubts", force=True)
    assert forced.version == current() == worse

    waiting = decide(trained_copy, tracking)
    assert waiting.outcome == "awaiting approval", waiting.reasons
    assert "it was rolled back by anna" in waiting.why
    assert current() == worse
    approved = approve(trained_copy, tracking, better, "bert")
    assert (approved.outcome, approved.by) == ("promoted", "bert")
    assert current() == better
    assert decide(trained_copy, tracking) == approved
    kinds = [(move.kind, move.version) for move in champion.history(tracking, NAME)]
    assert kinds[-4:] == [
        ("promotion", worse),
        ("rollback", better),
        ("rollback", worse),
        ("promotion", better),
    ]


def test_where_the_policy_asks_a_person_approves(trained_copy: Dataset) -> None:
    tracking = Tracking.of(trained_copy.project)
    client = tracking.client
    client.delete_registered_model_alias(NAME, CHAMPION)
    set_policy(trained_copy, approval="person")
    waiting = decide(trained_copy, tracking)
    assert waiting.outcome == "awaiting approval"
    assert champion.champion_version(tracking, NAME) == ""
    with pytest.raises(InputError, match="models:/tevad-rendered/7"):
        approve(trained_copy, tracking, "7", "anna")
    client.set_registered_model_alias(NAME, CHAMPION, "1")  # by somebody else, meanwhile
    with pytest.raises(ChampionMovedError):
        approve(trained_copy, tracking, "1", "anna")
    assert last_decision(trained_copy, tracking) == waiting
    client.delete_registered_model_alias(NAME, CHAMPION)
    assert approve(trained_copy, tracking, "1", "anna").outcome == "promoted"
    assert client.get_model_version_by_alias(NAME, CHAMPION).tags["tevad.decision.by"] == "anna"


def test_a_refused_version_cannot_be_approved(trained_copy: Dataset) -> None:
    tracking = Tracking.of(trained_copy.project)
    tracking.client.delete_registered_model_alias(NAME, CHAMPION)
    tracking.client.delete_model_version_tag(NAME, "1", "tevad.git.commit")
    set_policy(trained_copy, floor="1.0")
    refused = decide(trained_copy, tracking)
    assert [each.name for each in refused.conditions if each.passed is False] == [
        "provenance",
        "above the floor",
    ]
    assert refused.conditions[-1].passed is None  # the smoke set
    with pytest.raises(InputError, match=r"it was refused .* the first model must lie above 1"):
        approve(trained_copy, tracking, "1", "anna")


def test_other_data_than_the_version_is_of_are_no_evidence(trained_copy: Dataset) -> None:
    tracking = Tracking.of(trained_copy.project)
    tracking.client.delete_registered_model_alias(NAME, CHAMPION)
    tracking.client.set_model_version_tag(NAME, "1", "tevad.data.tevad_model", "0" * 32)
    refused = decide(trained_copy, tracking)
    assert refused.outcome == "refused"
    assert refused.why.startswith(f"provenance: tevad_model: {'0' * 32} at the version, ")


def test_earlier_videos_that_train_the_same_models_are_provenance(trained_copy: Dataset) -> None:
    tracking = Tracking.of(trained_copy.project)
    tracking.client.delete_registered_model_alias(NAME, CHAMPION)
    tracking.client.set_model_version_tag(NAME, "1", "tevad.data.raw_videos", "0" * 32)
    set_policy(trained_copy, floor="1.0")
    refused = decide(trained_copy, tracking)
    assert refused.conditions[0].passed
    assert "of raw_videos by an earlier one that trains the same" in refused.conditions[0].says


def awaiting(tracking: Tracking, version: str, champion_then: str) -> Decision:
    """Keep a decision that a version awaits a person's approval."""
    run_id = str(tracking.client.get_model_version(NAME, version).run_id)
    decision = Decision(
        outcome="awaiting approval",
        name=NAME,
        version=version,
        champion=champion_then,
        reasons=("it meets every condition",),
        conditions=(),
        figures={},
        parts=(),
        moment=champion.now(),
        by="policy",
        key="a key",
        run_id=run_id,
        dagster_run="",
        policy={"floor": 0.5},
    )
    record(tracking, decision)
    return decision


@pytest.fixture
def site(project_root: Path, tmp_path: Path) -> Dataset:
    """A dataset with two registered versions, neither of them champion."""
    dataset = Dataset(Project.at(project_root), "rendered")
    tracking = Tracking.of(dataset.project)
    with tracking.start_run("rendered", "train-rendered", {}) as run:
        pass
    tracking.client.create_registered_model(NAME)
    for _ in range(2):
        tracking.client.create_model_version(NAME, source=str(tmp_path), run_id=run.run_id)
    return dataset


def test_a_version_that_was_champion_by_hand_can_be_approved(site: Dataset) -> None:
    tracking = Tracking.of(site.project)
    tracking.client.set_registered_model_alias(NAME, CHAMPION, "1")
    awaiting(tracking, "1", "1")
    for _ in range(2):
        approved = approve(site, tracking, "1", "anna")
        assert (approved.outcome, approved.by) == ("promoted", "anna")
        moves = [(move.version, move.by) for move in champion.history(tracking, NAME)]
        assert moves == [("1", "anna")]


def test_an_approval_that_was_killed_before_the_alias_moved_is_finished(site: Dataset) -> None:
    tracking = Tracking.of(site.project)
    by_hand(site, tracking, "1")
    waiting = awaiting(tracking, "2", "1")
    record(tracking, replace(waiting, outcome="promoted", moment=champion.now(), by="anna"))
    assert champion.champion_version(tracking, NAME) == "1"
    assert approve(site, tracking, "2", "bert").by == "anna"
    assert champion.champion_version(tracking, NAME) == "2"

    rolled = Move("1", "2", "rollback", champion.now(), "ops", "blind")
    champion.move(site, tracking, rolled)
    with pytest.raises(InputError, match=r"it was promoted on .* and does not await approval"):
        approve(site, tracking, "2", "bert")  # which was made, and undone since
    assert champion.champion_version(tracking, NAME) == "1"
