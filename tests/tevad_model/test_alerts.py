"""Alerts: hysteresis, and levels that keep to a number of false alarms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tevad_model.alerts import (
    Hysteresis,
    ValidationVideo,
    alerts,
    choose_levels,
    read_validation,
    write_validation,
)
from tevad_model.errors import InputError

HOUR = 3600.0


def videos(normal: int = 40, abnormal: int = 20) -> list[ValidationVideo]:
    """Normal ones of an hour each with a peak of its own; abnormal ones reach higher on the whole."""
    random = np.random.default_rng(0)
    made = []
    for index in range(normal + abnormal):
        peak = random.uniform(0.2, 0.7) if index < normal else random.uniform(0.5, 1.0)
        scores = random.uniform(0, 0.15, 32)
        scores[random.integers(1, 31)] = peak
        made.append(ValidationVideo(index >= normal, HOUR, tuple(scores)))
    return made


def test_an_alert_lasts_until_the_score_is_below_the_lower_level() -> None:
    hysteresis = Hysteresis(0.8, 0.4)
    begins = [hysteresis.begins(score) for score in (0.5, 0.8, 0.5, 0.79, 0.39, 0.7, 0.9)]
    assert begins == [False, True, False, False, False, False, True]
    assert hysteresis.is_on


def test_a_score_that_moves_about_one_level_is_one_alert() -> None:
    scores = [0.79, 0.81] * 10
    assert alerts(scores, 0.8, 0.8) == 10
    assert alerts(scores, 0.8, 0.6) == 1


def test_levels_upside_down_are_refused() -> None:
    with pytest.raises(InputError, match="low <= high"):
        Hysteresis(0.4, 0.8)


@pytest.mark.parametrize("wanted", [0.0, 0.1, 0.25, 1.0])
def test_the_levels_keep_to_the_false_alarms_that_were_asked_for(wanted: float) -> None:
    levels = choose_levels(videos(), wanted, "the model")
    normal = [video for video in videos() if not video.abnormal]
    counted = sum(alerts(video.scores, levels.high, levels.low) for video in normal)
    assert levels.false_alarms_per_hour == counted / 40 <= wanted
    assert levels.hours == 40
    assert levels.low < levels.high


def test_more_false_alarms_detect_more() -> None:
    few, many = (choose_levels(videos(), wanted, "the model") for wanted in (0.0, 0.5))
    assert many.high < few.high
    assert 0 < few.detected < many.detected <= 1


def test_an_alert_that_never_ends_is_no_way_to_raise_few() -> None:
    """Far down each hour is one alert, fewer than the two that are allowed."""
    random = np.random.default_rng(1)
    normal = [ValidationVideo(False, HOUR, tuple(random.uniform(0.05, 0.3, 32))) for _ in range(20)]
    abnormal = [ValidationVideo(True, HOUR, (0.1, 0.9, 0.1))]
    levels = choose_levels(normal + abnormal, 2.0, "the model")
    assert 0.2 < levels.high < 0.3
    assert 0 < levels.false_alarms_per_hour <= 2


def test_normal_videos_are_in_alert_for_a_tenth_of_their_time_at_most() -> None:
    """One slow fall: at every level it is a single alert."""
    fall = 0.8 * np.linspace(1, 0, 100) ** 8
    levels = choose_levels([ValidationVideo(False, HOUR, tuple(fall))], 5.0, "the model")
    share = np.mean(fall >= levels.low)
    assert levels.false_alarms_per_hour == 1
    assert 0.05 < share <= 0.1


def test_of_many_normal_videos_nearly_as_many_alarms_as_allowed_are_used() -> None:
    """What is allowed is few of all segments."""
    levels = choose_levels(videos(normal=400, abnormal=20), 0.05, "the model")
    assert 0.04 < levels.false_alarms_per_hour <= 0.05


def test_where_no_level_keeps_to_the_number_that_is_said() -> None:
    saturated = ValidationVideo(False, 60.0, (0.1, 1.0, 0.1, 0.1) * 10)
    with pytest.raises(InputError, match=r"models:/x/1: .* 0 false alarms .* at 1 .*--threshold"):
        choose_levels([saturated], 0.0, "models:/x/1")


def test_without_a_normal_video_a_threshold_has_to_be_given() -> None:
    with pytest.raises(InputError, match=r"models:/x/1: .*--threshold"):
        choose_levels(videos(normal=0), 1.0, "models:/x/1")


def test_validation_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_validation(tmp_path / "v.json", videos(2, 1))
    assert read_validation(tmp_path / "v.json") == tuple(videos(2, 1))
    assert read_validation(tmp_path / "none.json") == ()
    (tmp_path / "v.json").write_text('[{"abnormal": 1}]')
    with pytest.raises(InputError, match=r"v\.json: not a table of validation videos"):
        read_validation(tmp_path / "v.json")
