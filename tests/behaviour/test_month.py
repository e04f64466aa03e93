"""A month of operation, played in minutes on rendered videos with a simulated clock.

The story, from Monday 2 March 2026. Each day the sensors of the definitions have their ticks, on
Mondays at three the weekly schedule has its own, and what they ask for is run:

- 2 to 9 March: the champion is version 1, and nothing is new.
- 10 March: a second camera sends videos of a darker place that nobody has labelled. They are taken in
  once they have settled (one that is still being copied after the others), scored, and found to have
  drifted. Without a label that is no reason to train.
- 12 March: labels arrive in a table in which, for training, normal and abnormal are mistaken for each
  other. Few as they are, the drift makes them reason enough; version 2 is trained on them, and refused.
- 13 March: the labels are put right. The cool-down holds the sensor back; on Monday, 16 March, the
  schedule asks for a retraining. Version 3 is better than version 1 and becomes champion.
- 17 to 23 March: nothing is new.
- 24 March: version 3 is rolled back, and version 1 serves again for the rest of the month.

Every decision is read from what Dagster and MLflow recorded of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from clock import SimulatedClock
from footage import Footage, film, read_tables, write_tables
from ruamel.yaml import YAML
from webhook_server import Received, webhook_server

from assets.checks import ALL_CHECKS
from assets.promotion.champion import champion_version, history
from assets.promotion.decision import TAG, Decision, decision_on, last_decision
from assets.raw_videos import read_raw_videos
from assets.scored_videos import read_scores
from assets.workspace import versions
from assets.workspace.face import RESOURCE
from assets.workspace.project import FEATURE_STAGES, Dataset, Project
from assets.workspace.tracking import Tracking, registered_name
from orchestration.build import ASSETS, build_defs
from orchestration.jobs import EVERYTHING
from orchestration.resources import ProjectResource
from orchestration.retraining import REASON, REQUESTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
SETTLE = timedelta(seconds=60)
COOLDOWN = timedelta(days=3.5)
MODEL = "models:/tevad-rendered"
RUN_KEY = "dagster/run_key"
NOTHING_NEW = {
    version: {f"rendered: nothing new since {MODEL}/{version}: no label, no drift"}
    for version in ("1", "3")
}
DECISION = "promotion_decision"
FOLLOWERS = ("scored_videos", "drift")
"""What is made with the champion, and follows it by itself."""
DRIFTED = ("nothing_has_drifted", (False, dg.AssetCheckSeverity.WARN))
"""The check of drift, and what it says of one."""
ENCODING = ("snippet_features", "captions", "caption_embeddings")

CHANGED_PARAMS: dict[str, dict[str, Any]] = {
    # Limits that a handful of short videos can reach.
    "arrivals": {"settle_seconds": SETTLE.total_seconds(), "unlisted": "score"},
    "retraining": {
        "min_new_labels": 50,
        "cooldown_hours": COOLDOWN / timedelta(hours=1),
        "drift": {
            "min_videos": 4,
            "significance": 0.05,
            "permutations": 199,
            "reference": "all",
        },
    },
    "notifications": {"notifiers": ["webhook"]},
    # What is trained from now on suits few and short videos of two places, and takes seconds.
    "tevad_model": {
        "selection": "last",
        "iterations": 100,
        "batch_size": 8,
        "segments": 8,
        "fusion": "add",
        "standardize": True,
    },
}

CHANGED_POLICY: dict[str, Any] = {
    # There are but ten test videos to show it on, and one or two of a class.
    "confidence": 0.8,
    "largest_drop": {"class": 1.0, "source": 1.0},
}


@dataclass(frozen=True)
class Tick:
    """One tick of a sensor or schedule: when, whose, the runs it came to, else what it said."""

    at: datetime
    of: str
    runs: tuple[dg.DagsterRun, ...]
    said: str


class Month:
    """A project at work: its sensors and schedule, what they were told, and what came of it."""

    def __init__(self, dataset: Dataset, instance: dg.DagsterInstance) -> None:
        self.dataset = dataset
        self.instance = instance
        self.clock = SimulatedClock(BEGIN)
        self.tracking = Tracking.of(dataset.project)
        self.name = registered_name(dataset.name)
        self.ticks: list[Tick] = []
        self._defs = build_defs(dataset.project, clock=self.clock)
        self._repository = self._defs.get_repository_def()
        self._cursors: dict[str, Any] = {}
        self.ask_automation()  # what was before is no news

    @property
    def source(self) -> Path:
        """Where cameras and people put what they have."""
        return self.dataset.project.root / str(self.dataset.entry.source)

    def play(self, days: int) -> list[Tick]:
        """Let days pass, each with its ticks; those of these days."""
        begun = len(self.ticks)
        for _ in range(days):
            midnight = self.clock.now()
            self.clock.move_on(hours=3)
            if midnight.weekday() == 0:
                self._ask_schedule("retraining")
            self.clock.move_on(hours=5)
            self.ask_sensor("arrivals")
            self.clock.move_on(seconds=SETTLE.total_seconds())
            for name in ("arrivals", "retraining_need", "notify_webhook"):
                self.ask_sensor(name)
            self.clock.time = midnight + timedelta(days=1)
        return self.ticks[begun:]

    def play_until(self, day: int) -> list[Tick]:
        """Let days pass until the midnight before a day of March."""
        return self.play(day - self.clock.now().day)

    def ask_sensor(self, name: str) -> Tick:
        """A tick of a sensor now, and the runs that it asks for."""
        context = dg.build_sensor_context(
            self.instance, self._cursors.get(name), repository_def=self._repository
        )
        answer = self._repository.get_sensor_def(name)(context)
        is_result = isinstance(answer, dg.SensorResult)
        self._cursors[name] = answer.cursor if is_result else context.cursor
        return self._answered(name, answer)

    def _ask_schedule(self, name: str) -> Tick:
        context = dg.build_schedule_context(
            self.instance, self.clock.now(), repository_def=self._repository
        )
        return self._answered(name, self._repository.get_schedule_def(name)(context))

    def _answered(self, name: str, answer: Any) -> Tick:
        """Run what was asked for, and what follows from that.

        As the daemon does it, what has the same key is run only once.
        """
        if isinstance(answer, dg.SensorResult):
            answer = answer.run_requests or answer.skip_reason
        if isinstance(answer, dg.SkipReason):
            return self._keep(name, said=str(answer.skip_message))
        known = {run.tags.get(RUN_KEY) for run in self.instance.get_runs()}
        tick = self._keep(name, *(self._run(each) for each in answer if each.run_key not in known))
        self.ask_automation()
        return tick

    def ask_automation(self) -> None:
        """Have made what the conditions of the champion's followers ask for, until they are content.

        Asked after each run, their own too, as nothing else makes them true.
        """
        while self._ask_conditions().runs:
            pass

    def _ask_conditions(self) -> Tick:
        found = dg.evaluate_automation_conditions(
            self._defs,
            self.instance,
            dg.AssetSelection.assets(*FOLLOWERS),
            cursor=self._cursors.get("automation"),
        )
        self._cursors["automation"] = found.cursor
        asked = [name for name in FOLLOWERS if found.get_requested_partitions(dg.AssetKey(name))]
        return self._keep("automation", *([self._materialize(asked)] if asked else []))

    def _keep(self, of: str, *runs: dg.DagsterRun, said: str = "") -> Tick:
        self.ticks.append(Tick(self.clock.now(), of, runs, said))
        return self.ticks[-1]

    def _run(self, request: dg.RunRequest) -> dg.DagsterRun:
        """Run what was asked for, with its key and tags."""
        job = self._repository.get_job(request.job_name or EVERYTHING.name)
        result = job.execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            run_config=request.run_config,
            tags={**request.tags, RUN_KEY: str(request.run_key)},
            raise_on_error=False,
        )
        return self._succeeded(result.run_id)

    def _materialize(self, assets: Iterable[str]) -> dg.DagsterRun:
        result = dg.materialize(
            [*ASSETS, *ALL_CHECKS],
            selection=dg.AssetSelection.assets(*assets),
            instance=self.instance,
            partition_key=self.dataset.name,
            resources={RESOURCE: ProjectResource(root=str(self.dataset.project.root))},
            raise_on_error=False,
        )
        return self._succeeded(result.run_id)

    def roll_back(self, reason: str) -> dg.DagsterRun:
        """Run the job that a person starts in Dagster, and what follows from that."""
        config = {"dataset": self.dataset.name, "by": "anna", "reason": reason}
        result = self._repository.get_job("rollback").execute_in_process(
            instance=self.instance,
            run_config={"ops": {"roll_champion_back": {"config": config}}},
            raise_on_error=False,
        )
        self.ask_automation()
        return self._succeeded(result.run_id)

    def _succeeded(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.SUCCESS
        return run

    def made_by(self, run: dg.DagsterRun) -> dict[str, dict[str, Any]]:
        """The metadata of what a run materialized, by asset."""
        logged = self.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        made = [entry.dagster_event.step_materialization_data for entry in logged]
        return {
            each.materialization.asset_key.to_user_string(): {
                name: value.value for name, value in each.materialization.metadata.items()
            }
            for each in made
        }

    def verdicts_of(self, run: dg.DagsterRun) -> dict[str, tuple[bool, dg.AssetCheckSeverity]]:
        """Whether each check of a run passed, and how severe it is that it did not."""
        logged = self.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
        checks = [entry.dagster_event.asset_check_evaluation_data for entry in logged]
        return {check.check_name: (check.passed, check.severity) for check in checks}

    def decided_in(self, run: dg.DagsterRun) -> Decision:
        """The decision that a run came to, which all records tell alike."""
        decision = last_decision(self.dataset, self.tracking)
        assert decision is not None
        assert decision.dagster_run == run.run_id
        shown = self.made_by(run)[DECISION]
        assert (shown["outcome"], shown["challenger"]) == (decision.outcome, decision.version)
        tags = self.tracking.client.get_model_version(self.name, decision.version).tags
        assert (tags[TAG], tags[f"{TAG}.why"]) == (decision.outcome, decision.why[:1000])
        return decision

    @property
    def champion(self) -> str:
        """The version that the alias means."""
        return champion_version(self.tracking, self.name)

    def labels_of(self, footage: Footage) -> set[str]:
        """The labels that videos were taken in with; all of them are there."""
        rows = read_raw_videos(self.dataset).by_video()
        return {rows[video].label for video in footage.videos}

    def scored_by(self, footage: Footage) -> set[str]:
        """The versions that scored videos; all of them are scored."""
        scores = read_scores(self.dataset).set_index("video")
        return set(scores.loc[sorted(footage.videos), "version"])


def runs_of(ticks: Iterable[Tick], name: str) -> list[tuple[datetime, dg.DagsterRun]]:
    """The runs that one sensor or schedule came to, and when."""
    return [(tick.at, run) for tick in ticks if tick.of == name for run in tick.runs]


def said_by(ticks: Iterable[Tick], name: str) -> set[str]:
    """What one sensor or schedule said where it asked for nothing."""
    return {tick.said for tick in ticks if tick.of == name and not tick.runs}


def march(day: int, hour: int = 8, minute: int = 1) -> datetime:
    """A moment; by default that at which a day's sensors ask for runs."""
    return BEGIN.replace(day=day, hour=hour, minute=minute)


def change(path: Path, changed: dict[str, Any]) -> None:
    """Lay values over those of a YAML file, section by section."""
    yaml = YAML()
    data = yaml.load(path)
    for key, value in changed.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            data[key].update(value)
        else:
            data[key] = value
    yaml.dump(data, path)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with webhook_server() as received:
        monkeypatch.setenv("TEVAD_WEBHOOK_URL", received.url)
        yield received


@pytest.fixture
def month(trained_copy: Dataset, webhook: Received) -> Iterator[Month]:
    """A project whose chain has run once, on the eve of the month."""
    root = trained_copy.project.root
    change(root / "params.yaml", CHANGED_PARAMS)
    change(root / "mlflow" / "promotion.yaml", CHANGED_POLICY)
    with dg.DagsterInstance.get() as instance:
        yield Month(Project.at(root).dataset(trained_copy.name), instance)


def test_a_month(month: Month, webhook: Received) -> None:
    the_first_champion_serves_a_quiet_week(month)
    footage = another_camera_sends_videos_that_nobody_labelled(month)
    mistaken_labels_make_a_challenger_that_is_refused(month, footage, webhook)
    right_labels_wait_for_the_cooldown_and_make_a_champion(month, footage)
    the_new_champion_serves_a_quiet_week(month)
    it_is_rolled_back_for_the_rest_of_the_month(month, footage)
    the_registry_tells_the_month(month)


def the_first_champion_serves_a_quiet_week(month: Month) -> None:
    decision = decision_on(month.tracking, month.name, "1")
    assert decision is not None
    assert (decision.outcome, decision.champion, month.champion) == ("promoted", "", "1")

    ticks = month.play_until(10)
    assert not any(tick.runs for tick in ticks)
    assert [tick.at for tick in ticks if tick.of == "retraining"] == [
        march(2, 3, 0),
        march(9, 3, 0),
    ]
    assert said_by(ticks, "retraining") == said_by(ticks, "retraining_need") == NOTHING_NEW["1"]
    looks = [tick.said for tick in ticks if tick.of == "arrivals"]
    assert looks[2:] == ["rendered: nothing new"] * 14  # the first two learn what the tables are


def another_camera_sends_videos_that_nobody_labelled(month: Month) -> Footage:
    dusk = film(month.source, "dusk", 3, split="test", seed=9, light=0.35)
    night = film(month.source, "night", 4, split="train", seed=9, light=0.35)
    models = versions.current(month.dataset, "tevad_model")
    slow = month.source / "videos" / "night-7.mp4"
    whole = slow.read_bytes()
    slow.write_bytes(whole[: len(whole) // 2])
    month.ask_sensor("arrivals")
    slow.write_bytes(whole)  # so it has changed since the look, and has to settle again

    ticks = month.play_until(12)
    [(at, first), (later, second)] = runs_of(ticks, "arrivals")
    assert (at, later) == (march(10, minute=0), march(10))
    assert {first.job_name, second.job_name} == {"arrivals"}
    assert first.tags[REASON].startswith("arrivals: new or changed: videos/dusk-0.mp4")
    assert first.tags[REASON].endswith("waiting until it has settled: videos/night-7.mp4")
    assert second.tags[REASON] == "arrivals: new or changed: videos/night-7.mp4"
    # Only what arrived is worked on.
    for run, arrived, scored in ((first, 13, 23), (second, 1, 1)):  # the ten before were not scored
        made = month.made_by(run)
        assert set(made) == {*FEATURE_STAGES, *FOLLOWERS}
        assert {made[stage]["done"] for stage in ENCODING} == {arrived}
        assert made["scored_videos"]["done"] == scored

    # They are scored, and nothing is trained on them.
    assert month.labels_of(night + dusk) == {""}
    assert month.scored_by(night + dusk) == {"1"}
    assert versions.current(month.dataset, "tevad_model") == models

    # They are not like what the champion knows; without a label that cannot be helped.
    drift = month.made_by(second)["drift"]
    assert (drift["champion"], drift["newer videos"]) == (f"{MODEL}/1", 14)
    assert "features" in drift["drifted"]
    assert drift["features drift"] > month.dataset.project.params.retraining.drift.features
    assert DRIFTED in month.verdicts_of(second).items()
    [said] = said_by(ticks, "retraining_need")
    assert said.startswith(
        f"rendered: drift of {drift['drifted']} since {MODEL}/1, but no label is"
    )
    return night + dusk


def mistaken_labels_make_a_challenger_that_is_refused(
    month: Month, footage: Footage, webhook: Received
) -> None:
    listed = read_tables(month.source) + footage
    write_tables(month.source, listed.of("test") + listed.of("train").mistaken())
    ticks = month.play_until(13)
    [(_, arrived)] = runs_of(ticks, "arrivals")
    assert arrived.tags[REASON] == "arrivals: new or changed: events.csv, videos.csv"
    made = month.made_by(arrived)
    assert {made[stage]["done"] for stage in (*ENCODING, "scored_videos")} == {0}
    assert month.labels_of(footage) == {"normal", "abnormal"}

    [(at, trained)] = runs_of(ticks, "retraining_need")
    assert trained.tags[REASON].startswith("retraining: drift of features")
    assert trained.tags[REASON].endswith(f"since {MODEL}/1, with 20 new or changed labels")
    assert trained.tags[REQUESTED] == at.isoformat() == march(12).isoformat()
    refused = month.decided_in(trained)
    assert (refused.outcome, refused.version, refused.champion) == ("refused", "2", "1")
    assert "better than the champion" in {c.name for c in refused.conditions if c.passed is False}
    assert refused.figures["difference"] < 0
    assert month.champion == "1"
    write_tables(month.source, listed)

    told = [(body["kind"], body["subject"], body["run_id"]) for body in webhook.bodies]
    assert told.count(("promotion refused", "version 2", trained.run_id)) == 1
    runs = [run for tick in month.ticks for run in tick.runs]
    drifted = [run.run_id for run in runs if DRIFTED in month.verdicts_of(run).items()]
    assert len(drifted) >= 3  # each arrival
    drifts = [(kind, run) for kind, subject, run in told if subject == f"drift: {DRIFTED[0]}"]
    assert sorted(drifts) == [("check failed", run) for run in sorted(drifted)]


def right_labels_wait_for_the_cooldown_and_make_a_champion(month: Month, footage: Footage) -> None:
    ticks = month.play_until(17)
    [(at, arrived)] = runs_of(ticks, "arrivals")
    assert (at, month.made_by(arrived)["scored_videos"]["done"]) == (march(13), 0)
    held_back = "asked for at 2026-03-12 08:01, not again before 2026-03-15 20:01 UTC"
    assert said_by(ticks, "retraining_need") == {f"rendered: {held_back}"} | NOTHING_NEW["3"]
    [(at, trained)] = runs_of(ticks, "retraining")
    assert at == march(16, 3, 0) > march(12) + COOLDOWN
    assert trained.tags[REASON].endswith(f"since {MODEL}/1, with 14 new or changed labels")
    promoted = month.decided_in(trained)
    assert (promoted.outcome, promoted.version, promoted.champion) == ("promoted", "3", "1")
    assert all(condition.passed for condition in promoted.conditions)
    assert promoted.figures["low"] > 0
    assert promoted.figures["smoke_difference"] <= 1e-4
    assert month.champion == "3"

    # What is made with the champion follows, and the second camera is nothing new to this one.
    _, followed = runs_of(ticks, "automation")[-1]
    made = month.made_by(followed)
    assert set(made) == set(FOLLOWERS)
    assert (made["scored_videos"]["done"], made["drift"]["newer videos"]) == (24, 0)
    assert month.scored_by(footage) == {"3"}


def the_new_champion_serves_a_quiet_week(month: Month) -> None:
    ticks = month.play_until(24)
    assert not any(tick.runs for tick in ticks)
    assert said_by(ticks, "arrivals") == {"rendered: nothing new"}
    assert said_by(ticks, "retraining") == said_by(ticks, "retraining_need") == NOTHING_NEW["3"]


def it_is_rolled_back_for_the_rest_of_the_month(month: Month, footage: Footage) -> None:
    rolled_back = month.roll_back("false alarms at noon")
    assert month.champion == "1"
    last = history(month.tracking, month.name)[-1]
    assert (last.kind, last.previous, last.version, last.by) == ("rollback", "3", "1", "anna")
    assert last.why.startswith("false alarms at noon; through the served model its scores differ")
    assert month.made_by(rolled_back)[DECISION]["champion"] == "1"

    _, followed = runs_of(month.ticks, "automation")[-1]
    assert set(month.made_by(followed)) == set(FOLLOWERS)
    assert month.scored_by(footage) == {"1"}

    ticks = month.play(days=8)
    assert not any(tick.runs for tick in ticks)
    # To train again on the labels there are would make version 3 again.
    assert (
        said_by(ticks, "retraining")
        == said_by(ticks, "retraining_need")
        == {f"rendered: 14 new or changed labels, which {MODEL}/3 was trained on already"}
    )


def the_registry_tells_the_month(month: Month) -> None:
    moves = history(month.tracking, month.name)
    assert [(move.kind, move.previous, move.version) for move in moves] == [
        ("promotion", "", "1"),
        ("promotion", "1", "3"),
        ("rollback", "3", "1"),
    ]
    found = month.tracking.client.search_model_versions(f"name = '{month.name}'")
    outcomes = {str(version.version): version.tags[TAG] for version in found}
    assert outcomes == {"1": "promoted", "2": "refused", "3": "promoted"}

    asked = Counter(tick.of for tick in month.ticks for _ in tick.runs)
    assert asked == {"arrivals": 4, "retraining_need": 1, "retraining": 1, "automation": 3}
    print(f"{len(month.ticks)} ticks, {asked.total() + 1} runs, {len(moves) + 1} decisions")
