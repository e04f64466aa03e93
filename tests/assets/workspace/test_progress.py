import io
import logging
import sys

import pytest

from assets.workspace import progress
from assets.workspace.progress import Progress, over_videos


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_line_says_how_fast_and_how_long(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tevad")
    with Progress("site/captions", 10_000, "frame") as counted:
        clock.now += 20
        counted.advance(1000)
        assert caplog.messages == []
        clock.now += 20
        counted.advance(1000)
    assert caplog.messages == ["site/captions: 2,000 of 10,000 frames, 50.0 frames/s, 160 s left"]


def test_lines_are_half_a_minute_apart(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tevad")
    with Progress("work", 100, "video") as counted:
        for _ in counted.over(range(100)):
            clock.now += 1
    assert len(caplog.messages) == 3


def test_what_was_not_counted_one_by_one_is_made_up_for(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tevad")
    with Progress("work", 80, "frame") as counted:
        counted.advance(30)
        counted.reach(20)
        clock.now += 40
        counted.reach(40)
    assert caplog.messages == ["work: 40 of 80 frames, 1.0 frames/s, 40 s left"]


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(over_videos(["a", "b", "c"], "site/raw_videos")) == ["a", "b", "c"]
    assert "site/raw_videos: 100%" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
