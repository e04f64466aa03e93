"""When scores that arrive one by one become an alert, and from which score.

Belongs here: hysteresis, and the choice of its levels on validation videos for a stated number of
false alarms an hour. Doesn't: where scores come from (:mod:`tevad_model.live`) and who is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tevad_model.atomic import replacing
from tevad_model.errors import InputError

VALIDATION_FILE = "validation.json"
"""Beside a trained model: what was said of the videos that it was validated on."""

_CANDIDATES = 256
"""Levels that are tried, at most: scores of normal videos, their ranks from the highest on spaced
evenly in logarithm, as false alarms are few and so decided among the highest."""

_IN_ALERT = 0.1
"""Share of normal videos' time that may be spent in alert. Far down a whole video is one alert, and
their number says nothing any more."""


@dataclass(frozen=True)
class ValidationVideo:
    """The scores of a video by a model that was not trained on it.

    Attributes:
        abnormal: its label.
        seconds: its length.
        scores: of its segments, evenly spaced over its length.
    """

    abnormal: bool
    seconds: float
    scores: tuple[float, ...]


@dataclass(frozen=True)
class AlertLevels:
    """From which score an alert begins, and below which it ends.

    Attributes:
        high: an alert begins with a score of at least this.
        low: it ends with a score below this.
        false_alarms_per_hour: alerts an hour in normal validation videos.
        hours: length of those videos; a rate below ``1 / hours`` cannot be told from none.
        detected: share of the abnormal validation videos with at least one alert.
    """

    high: float
    low: float
    false_alarms_per_hour: float
    hours: float
    detected: float

    def __str__(self) -> str:
        return (
            f"alert from {self.high:.3f}, over below {self.low:.3f}: on {self.hours:.2f} h of "
            f"normal validation video {self.false_alarms_per_hour:.2g} false alarms an hour "
            f"(fewer than {1 / self.hours:.2g} cannot be told), in {self.detected:.0%} of the "
            "abnormal ones an alert"
        )


class Hysteresis:
    """Turns scores into alerts: one begins at ``high`` and lasts until a score is below ``low``.

    A score that moves about one level would otherwise begin an alert again and again.
    """

    def __init__(self, high: float, low: float) -> None:
        if not low <= high:
            raise InputError(f"an alert ends below {low}, but begins from {high}; give low <= high")
        self._high = high
        self._low = low
        self.is_on = False

    def begins(self, score: float) -> bool:
        """Take the next score; whether an alert begins with it."""
        was_on = self.is_on
        self.is_on = score >= (self._low if was_on else self._high)
        return self.is_on and not was_on


def alerts(scores: Iterable[float], high: float, low: float) -> int:
    """How many alerts a sequence of scores gives."""
    hysteresis = Hysteresis(high, low)
    return sum(hysteresis.begins(score) for score in scores)


def choose_levels(
    videos: Sequence[ValidationVideo], false_alarms_per_hour: float, where: str
) -> AlertLevels:
    """The levels for a number of false alarms an hour on validation videos.

    From the highest on they are lowered as long as the normal videos raise no more alerts than that,
    and are in alert for a tenth of their time at most. ``low`` lies halfway between ``high`` and
    the median score of the normal videos. Segments are means over a part of a video, so that a peak
    much shorter than one is not seen here.

    Args:
        videos: the validation videos.
        false_alarms_per_hour: the most that is accepted; 0 for none at all.
        where: the videos are from, for the message.

    Raises:
        InputError: if there is no normal video, or even at the highest level there are more false
            alarms, as where normal videos reach a score of 1.
    """
    normal = [video for video in videos if not video.abnormal]
    hours = sum(video.seconds for video in normal) / 3600
    if hours <= 0:
        raise InputError(
            f"{where}: was validated on no normal video, so no threshold can be chosen for a "
            "number of false alarms; give one by --threshold"
        )
    chosen: AlertLevels | None = None
    for high, low in _from_the_highest(normal, videos):
        rate = sum(alerts(video.scores, high, low) for video in normal) / hours
        share = sum(_seconds_in_alert(video, high, low) for video in normal) / (3600 * hours)
        if rate > false_alarms_per_hour or share > _IN_ALERT:
            break
        chosen = AlertLevels(high, low, rate, hours, _detected(videos, high, low))
    if chosen is None:
        raise InputError(
            f"{where}: no level keeps to {false_alarms_per_hour:g} false alarms an hour: at {high:g} "
            f"normal validation videos still raise {rate:.2g}, and are in alert for {share:.0%} of "
            "their time; allow more by --false-alarms, or choose by yourself by --threshold"
        )
    return chosen


def _from_the_highest(
    normal: Sequence[ValidationVideo], videos: Sequence[ValidationVideo]
) -> Iterator[tuple[float, float]]:
    """Levels, high and low: above a score of a normal video, halfway to the next score of any."""
    scores = np.sort(np.concatenate([video.scores for video in normal]))[::-1]
    every = np.unique(np.concatenate([video.scores for video in videos]))
    median = float(np.median(scores))
    ranks = np.geomspace(1, len(scores), _CANDIDATES).astype(int) - 1
    for score in np.unique(scores[ranks])[::-1]:
        above = every[every > score]
        high = float((score + (above[0] if len(above) else 1.0)) / 2)
        yield high, (high + min(median, high)) / 2


def _seconds_in_alert(video: ValidationVideo, high: float, low: float) -> float:
    hysteresis, segments = Hysteresis(high, low), 0
    for score in video.scores:
        hysteresis.begins(score)
        segments += hysteresis.is_on
    return video.seconds * segments / len(video.scores)


def _detected(videos: Sequence[ValidationVideo], high: float, low: float) -> float:
    """Share of the abnormal videos with an alert; 0 if there is no such video."""
    found = [alerts(video.scores, high, low) > 0 for video in videos if video.abnormal]
    return float(np.mean(found)) if found else 0.0


def write_validation(path: Path, videos: Sequence[ValidationVideo]) -> None:
    """Write validation videos as JSON, whole or not at all."""
    with replacing(path) as temporary:
        text = json.dumps([asdict(video) for video in videos], separators=(",", ":"))
        temporary.write_text(text + "\n", encoding="utf-8")


def read_validation(path: Path) -> tuple[ValidationVideo, ...]:
    """What :func:`write_validation` wrote; nothing if there is no such file.

    Raises:
        InputError: if the file is not what it should be.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            ValidationVideo(
                bool(e["abnormal"]), float(e["seconds"]), tuple(map(float, e["scores"]))
            )
            for e in entries
        )
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a table of validation videos ({error!r}); register anew"
        ) from None
