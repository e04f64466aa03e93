"""People are told of what went wrong: everything, once each, and without secrets."""

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from networking import free_ports
from webhook_server import Received, webhook_server

from assets.partitions import DATASETS
from orchestration.alerts import PROMOTION, Position, tell_news
from orchestration.notifications import Notice, NotToldError, build_notifier
from orchestration.sensors import notifier_sensor
from tevad_model.errors import InputError

SECRET = "s3cr3t-pass"


@dg.asset(partitions_def=DATASETS)
def watched(context: dg.AssetExecutionContext) -> None:
    """An asset whose runs end as their tag says."""
    if context.run.tags.get("ends") == "badly":
        raise ConnectionError(f"postgresql://tevad:{SECRET}@db/x does not answer")


@dg.asset_check(asset=watched)
def looks_usual(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """A check that only warns."""
    return dg.AssetCheckResult(
        passed=context.run.tags.get("looks") != "odd",
        severity=dg.AssetCheckSeverity.WARN,
        description="two of nine norms are over the limit",
    )


@dg.asset_check(asset=watched, blocking=True)
def is_whole(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """A check that stops a run."""
    return dg.AssetCheckResult(passed=context.run.tags.get("is") != "cut")


@dg.asset(name=PROMOTION.path[-1], partitions_def=DATASETS)
def decided(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """A decision as promotion_decision records it."""
    outcome = context.run.tags["outcome"]
    return dg.MaterializeResult(
        metadata={"outcome": outcome, "challenger": "4", "why": "worse by 0.1"}
    )


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("datasets", ["site"])
        yield instance


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with webhook_server() as received:
        monkeypatch.setenv("TEVAD_WEBHOOK_URL", received.url)
        yield received


def run(instance: dg.DagsterInstance, **tags: str) -> str:
    result = dg.materialize(
        [watched, looks_usual, is_whole],
        instance=instance,
        partition_key="site",
        tags=tags,
        raise_on_error=False,
    )
    return result.run_id


def look(instance: dg.DagsterInstance, notifier: str, cursor: str | None) -> tuple[str, str]:
    """Evaluate the notifier's sensor; what it says, and its cursor afterwards."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    skipped = notifier_sensor(notifier)(context)
    assert isinstance(skipped, dg.SkipReason)
    return str(skipped.skip_message), str(context.cursor)


def test_failed_runs_and_checks_are_told_once_each(
    instance: dg.DagsterInstance, webhook: Received
) -> None:
    run(instance, ends="badly")  # before anyone was to be told
    said, cursor = look(instance, "webhook", None)
    assert said == "tells what happens from now on"

    run(instance)
    warned = run(instance, looks="odd")
    blocked = run(instance, **{"is": "cut"})
    failed = run(instance, ends="badly")
    said, cursor = look(instance, "webhook", cursor)
    assert said == "told 4 notices"
    assert {(b["run_id"], b["kind"], b["subject"]) for b in webhook.bodies} == {
        (blocked, "check failed", "watched: is_whole"),
        (blocked, "run failed", "__ephemeral_asset_job__"),
        (failed, "run failed", "__ephemeral_asset_job__"),
        (warned, "check failed", "watched: looks_usual"),
    }
    assert {body["dataset"] for body in webhook.bodies} == {"site"}
    by_run = {body["run_id"]: body for body in webhook.bodies}
    assert by_run[warned]["reason"] == "two of nine norms are over the limit"
    assert "does not answer" in by_run[failed]["reason"]
    assert by_run[failed]["reason"] in by_run[failed]["text"]
    assert SECRET not in json.dumps(webhook.bodies)

    assert look(instance, "webhook", cursor) == ("no news", cursor)
    assert len(webhook.bodies) == 4


def test_a_refused_promotion_is_told_and_no_other(
    instance: dg.DagsterInstance, webhook: Received
) -> None:
    _, cursor = look(instance, "webhook", None)
    for outcome in ("promoted", "refused", "awaiting approval"):
        tags = {"outcome": outcome}
        dg.materialize([decided], instance=instance, partition_key="site", tags=tags)
    assert look(instance, "webhook", cursor)[0] == "told 1 notices"
    [body] = webhook.bodies
    told = (body["kind"], body["dataset"], body["subject"], body["reason"])
    assert told == ("promotion refused", "site", "version 4", "worse by 0.1")


def test_a_webhook_that_is_down_loses_nothing_and_repeats_nothing(
    instance: dg.DagsterInstance, webhook: Received
) -> None:
    _, cursor = look(instance, "webhook", None)
    run(instance, looks="odd", ends="")
    run(instance, **{"looks": "odd", "is": "cut"})
    # The first notice arrives; the second fails twice, and so stays.
    webhook.answers = [200, 503, 503]
    said, cursor = look(instance, "webhook", cursor)
    assert said == "told 1 notices; the webhook at 127.0.0.1 answered 503, next time"
    assert webhook.requests == 3
    webhook.answers = [404, 404]
    said, cursor = look(instance, "webhook", cursor)
    assert said == "no news; the webhook at 127.0.0.1 answered 404, next time"
    said, cursor = look(instance, "webhook", cursor)
    assert said == "told 3 notices"
    told = [(body["run_id"], body["kind"], body["subject"]) for body in webhook.bodies]
    assert len(told) == len(set(told)) == 4


def test_one_attempt_that_fails_is_made_up_for(
    instance: dg.DagsterInstance, webhook: Received
) -> None:
    _, cursor = look(instance, "webhook", None)
    run(instance, looks="odd")
    webhook.answers = [502]
    said, _ = look(instance, "webhook", cursor)
    assert said == "told 1 notices"
    assert (len(webhook.bodies), webhook.requests) == (1, 2)


def test_a_notice_that_is_refused_holds_up_no_other(
    instance: dg.DagsterInstance, webhook: Received, caplog: pytest.LogCaptureFixture
) -> None:
    _, cursor = look(instance, "webhook", None)
    run(instance, **{"looks": "odd", "is": "cut"})
    webhook.answers = [413, 200, 400]
    with caplog.at_level(logging.WARNING, logger="tevad"):
        said, cursor = look(instance, "webhook", cursor)
    assert said == "told 1 notices, dropped 2 that were refused"
    assert webhook.requests == 3, "what is refused is not posted again"
    assert len(webhook.bodies) == 1
    assert "answered 413, so this was not told: check failed: watched: " in caplog.text
    assert look(instance, "webhook", cursor) == ("no news", cursor)


def test_where_time_is_up_the_next_look_goes_on(
    instance: dg.DagsterInstance, webhook: Received
) -> None:
    position = Position.now(instance)
    run(instance, looks="odd", ends="badly")
    run(instance, **{"looks": "odd", "is": "cut"})
    for told in range(1, 5):
        found = tell_news(instance, build_notifier("webhook"), position, seconds=0.0)
        assert (found.count, found.rest) == (1, "there are more" if told < 4 else "")
        position = found.position
        assert len(webhook.bodies) == told
    subjects = {(body["run_id"], body["subject"]) for body in webhook.bodies}
    assert len(subjects) == 4, "none is told twice"


def test_nobody_listening_is_said_without_the_address(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}/hooksecret42"
    monkeypatch.setenv("TEVAD_WEBHOOK_URL", address)
    _, cursor = look(instance, "webhook", None)
    _, log_cursor = look(instance, "log", None)
    run(instance, looks="odd")
    said, after = look(instance, "webhook", cursor)
    assert said == "no news; the webhook at 127.0.0.1 did not answer (ConnectionError), next time"
    assert after == cursor
    with caplog.at_level(logging.WARNING, logger="tevad"):
        assert look(instance, "log", log_cursor)[0] == "told 1 notices"  # others hear of it
    assert "looks_usual [site]: two of nine norms" in caplog.text


def test_a_redirect_is_not_followed(webhook: Received) -> None:
    webhook.answers = [302, 302]
    with pytest.raises(NotToldError, match="answered 302"):
        build_notifier("webhook").tell(Notice("run failed", "", "x", "y", "z", "now"))
    assert webhook.bodies == []


def test_a_cursor_that_cannot_be_read_starts_from_now(instance: dg.DagsterInstance) -> None:
    run(instance, ends="badly")
    for cursor in ("{", "[]", '{"version": 9}', '{"version": 1, "cursors": {}, "told": {}}'):
        said, after = look(instance, "log", cursor)
        assert said == "tells what happens from now on"
        assert after == Position.now(instance).written()


def test_no_part_of_a_notice_holds_a_secret(
    webhook: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", SECRET)
    details = {"stream": f"rtsp://me:{SECRET}@cam/1", "seen": [{"by": SECRET}], "score": 0.5}
    reason = f"it\nsaid: {'so ' * 480}password={SECRET}"
    notice = Notice(
        "stream alert", "", f"rtsp://cam/{SECRET}", reason, "", "now", details, SECRET.encode()
    )
    assert len(notice.reason) <= 1500
    assert notice.reason.startswith("it said: so so")
    assert SECRET not in repr(notice)
    build_notifier("webhook").tell(notice)
    [body] = webhook.bodies
    clip = body["details"].pop("clip_mp4_base64")
    assert base64.b64decode(clip) == SECRET.encode(), "a video is left as it is"
    assert body["details"]["score"] == 0.5
    assert SECRET[:6] not in json.dumps(body)


class Diary:
    """A notifier of one's own."""

    told: list[Notice] = []  # noqa: RUF012 - for all of them

    def tell(self, notice: Notice) -> None:
        self.told.append(notice)


def test_a_notifier_of_ones_own_is_told(instance: dg.DagsterInstance) -> None:
    name = "test_notifications:Diary"
    _, cursor = look(instance, name, None)
    run_id = run(instance, looks="odd")
    Diary.told.clear()
    said, _ = look(instance, name, cursor)
    assert said == "told 1 notices"
    assert [notice.run_id for notice in Diary.told] == [run_id]


class Forgetful(Diary):
    """One with a mistake: it knows one word for a run that failed, and none for anything else."""

    def tell(self, notice: Notice) -> None:
        super().tell(notice)
        if notice.kind == "run failed":
            raise KeyError(f"token={SECRET}")


def test_a_mistake_of_a_notifier_is_told_and_repeats_nothing(
    instance: dg.DagsterInstance,
) -> None:
    name = "test_notifications:Forgetful"
    _, cursor = look(instance, name, None)
    run(instance, **{"is": "cut"})  # a failed check, and a failed run
    Diary.told.clear()
    for before in ("told 1 notices", "no news"):
        said, cursor = look(instance, name, cursor)
        assert said == f"{before}; Forgetful failed (KeyError: 'token=[hidden]'), next time"
    assert [notice.kind for notice in Diary.told] == ["check failed", "run failed", "run failed"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pigeon", "'pigeon' is unknown; there are log, webhook"),
        ("nowhere:Class", "cannot be imported"),
        ("test_notifications:Path", "needs a method tell"),
        ("webhook", "set TEVAD_WEBHOOK_URL"),
    ],
)
def test_a_notifier_that_cannot_be_had_is_said(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.delenv("TEVAD_WEBHOOK_URL", raising=False)
    with pytest.raises(InputError, match=reason):
        build_notifier(name)
    _, cursor = look(instance, name, None)
    said, after = look(instance, name, cursor)
    assert said.startswith("nobody is told: notifications.notifiers: ")
    assert after == cursor
