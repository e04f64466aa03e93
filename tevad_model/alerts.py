"""When scores that arrive one by one become an alert, and from which score.

Belongs here: hysteresis, and the choice of its levels on validation videos for a stated number of
false alarms an hour. Doesn't: where scores come from (:mod:`tevad_model.live`) and who is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tevad_model.atomic import replacing
from tevad_model.errors import InputError

VALIDATION_FILE = "validation.json"
"""Beside a trained model: what was said of the videos that it was validated on."""

_CANDIDATES = 256
"""Levels that are tried: scores of normal videos, evenly spaced by rank."""


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
    """The lowest levels that keep to a number of false alarms an hour on validation videos.

    ``low`` lies halfway between ``high`` and the median score of the normal videos. Segments are
    means over a part of a video, so that a peak much shorter than one is not seen here.

    Args:
        videos: the validation videos.
        false_alarms_per_hour: the most that is accepted; 0 for none at all.
        where: the videos are from, for the message.

    Raises:
        InputError: if there is no normal video.
    """
    normal = [video for video in videos if not video.abnormal]
    abnormal = [video for video in videos if video.abnormal]
    hours = sum(video.seconds for video in normal) / 3600
    if hours <= 0:
        raise InputError(
            f"{where}: was validated on no normal video, so no threshold can be chosen for a "
            "number of false alarms; give one by --threshold"
        )
    scores = np.sort(np.concatenate([video.scores for video in normal]))
    every = np.unique(np.concatenate([video.scores for video in videos]))
    median = float(np.median(scores))
    ranks = np.linspace(0, len(scores) - 1, min(_CANDIDATES, len(scores))).astype(int)
    for score in np.unique(scores[ranks]):
        above = every[every > score]
        high = float((score + (above[0] if len(above) else 1.0)) / 2)
        low = (high + min(median, high)) / 2
        rate = sum(alerts(video.scores, high, low) for video in normal) / hours
        if rate <= false_alarms_per_hour:
            break
    detected = [alerts(video.scores, high, low) > 0 for video in abnormal]
    return AlertLevels(high, low, rate, hours, float(np.mean(detected)) if detected else 0.0)


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
