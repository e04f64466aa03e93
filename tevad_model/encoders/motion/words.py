"""Facts to a sentence.

Here belongs every word a caption can have and the thresholds that choose it. Equal situations give
equal sentences: counts and speeds are told in classes, and a crowd's directions not at all, so that
the embedding of a sentence moves with what is unusual and little with what is not.
"""

from __future__ import annotations

import statistics

from tevad_model.encoders.motion.tracks import STILL, Facts, Mover

SPEED_CLASSES = ((0.5, "slowly"), (1.2, "at walking pace"), (2.2, "fast"))
"""Upper bounds in body heights a second; a person of 1.7 m walks at about 0.8."""

VERY_FAST = "very fast"

RATIO_CLASSES = ((3.5, "many times faster"), (2.2, "much faster"), (1.6, "faster"))
"""Lower bounds in times the usual pace of the others."""

WIDE = 0.78
"""Width over height from which an object is wide: a walker has about 0.5, a cyclist 0.9."""

BULKY = 1.5
"""Times the usual height above which a wide blob is rather a group than a wide object."""

LARGE = 2.0
"""Times the usual height from which an object is large."""

ALONG = 0.9
"""Times the usual pace at which a wide object is on its way; people who stand together are wide."""

VIEW_CHANGES = 0.25
"""Share of a window's samples from which the whole view is said to change."""


def sentence(facts: Facts) -> str:
    """What happened in a window, in one to three plain sentences."""
    if facts.view_changed > VIEW_CHANGES:
        return "The whole picture changes: the camera moves or the light changes."
    if not facts.movers:
        return "The scene is empty and nothing moves."
    parts = [_crowd(facts)]
    outstanding = _outstanding(facts)
    if outstanding is not None:
        parts.append(_told(outstanding))
    if any(mover.fell for mover in facts.movers):
        parts.append("Someone falls down and lies still on the ground.")
    return " ".join(parts)


def speed_word(speed: float) -> str:
    """The class of a speed in body heights a second."""
    return next((word for bound, word in SPEED_CLASSES if speed < bound), VERY_FAST)


def direction(mover: Mover) -> str:
    """The main direction of a motion in the picture."""
    if abs(mover.vx) >= abs(mover.vy):
        return "to the right" if mover.vx > 0 else "to the left"
    return "downwards" if mover.vy > 0 else "upwards"


def _crowd(facts: Facts) -> str:
    """How many there are and what they do as a whole."""
    who, verb_end = _count(facts.count), "s" if facts.count == 1 else ""
    moving = [mover for mover in facts.movers if mover.speed >= STILL]
    if not moving:
        return f"{who} stand{verb_end} still."
    pace = speed_word(statistics.median(mover.speed for mover in moving))
    if facts.count == 1 and len(moving) == 1:
        return f"{_kind(moving[0])} moves {pace} {direction(moving[0])}."
    return f"{who} move{verb_end} {pace}."


def _count(count: int) -> str:
    if count == 1:
        return "One figure"
    if count == 2:
        return "Two figures"
    return "A few figures" if count <= 5 else "Many figures"


def _outstanding(facts: Facts) -> Mover | None:
    """The object that a viewer would point at: a faster one, else a wide one, else a large one."""
    others = [mover for mover in facts.movers if mover.ratio is not None]
    faster = [mover for mover in others if _comparison(mover)]
    wide = [mover for mover in others if _is_wide(mover)]
    large = [mover for mover in others if mover.size >= LARGE and mover.speed >= STILL]
    return next(iter(faster + wide + large), None)


def _is_wide(mover: Mover) -> bool:
    along = mover.ratio is None or mover.ratio >= ALONG
    return mover.aspect >= WIDE and mover.size <= BULKY and along


def _comparison(mover: Mover) -> str:
    """How it moves beside the others; empty if like them."""
    ratio = mover.ratio or 0.0
    return next((words for bound, words in RATIO_CLASSES if ratio >= bound), "")


def _kind(mover: Mover) -> str:
    if mover.size >= LARGE:
        return "A large object"
    return "A wide object" if _is_wide(mover) else "A figure"


def _told(mover: Mover) -> str:
    motion = f"{_kind(mover)} moves {speed_word(mover.speed)} {direction(mover)}"
    comparison = _comparison(mover)
    return f"{motion}, {comparison} than the others." if comparison else f"{motion}."
