"""Facts to a sentence.

Here belongs every word a caption can have and the thresholds that choose it. Equal situations give
equal sentences: counts and speeds are told in classes, so that the embedding of a sentence moves
with what is unusual and little with what is not.
"""

from __future__ import annotations

from tevad_model.encoders.motion.tracks import STILL, Facts, Mover

SPEED_WORDS = ((0.5, "slowly"), (1.2, "at walking pace"), (2.2, "fast"))
"""Upper bounds in body heights a second; a person of 1.7 m walks at about 0.8."""

VERY_FAST = "very fast"

FASTER = 1.6
"""Times the usual pace from which an object is told as faster than the others."""

FAR_FASTER = 2.4
"""Times the usual pace from which it is told as far faster."""

WIDE = 0.78
"""Width over height from which an object is told as wide; walkers have about 0.5."""

LARGE = 2.0
"""Times the usual height from which an object is told as large."""

VIEW_CHANGES = 0.25
"""Share of a window's samples from which the camera is said to move."""


def sentence(facts: Facts) -> str:
    """What happened in a window, in one or two plain sentences."""
    if facts.view_changed > VIEW_CHANGES:
        return "The whole picture changes: the camera moves or the light changes."
    if not facts.movers:
        return "The scene is empty and nothing moves."
    outstanding = _outstanding(facts)
    parts = [_crowd(facts)]
    if outstanding is not None:
        parts.append(_outlier(outstanding, facts))
    if any(mover.fell for mover in facts.movers):
        parts.append("Someone falls down and lies still on the ground.")
    return " ".join(parts)


def speed_word(speed: float) -> str:
    """The class of a speed in body heights a second."""
    if speed < STILL:
        return "not at all"
    return next((word for bound, word in SPEED_WORDS if speed < bound), VERY_FAST)


def direction(mover: Mover) -> str:
    """The main direction of a motion in the picture."""
    if abs(mover.vx) >= abs(mover.vy):
        return "to the right" if mover.vx > 0 else "to the left"
    return "towards the camera" if mover.vy > 0 else "away from the camera"


def _crowd(facts: Facts) -> str:
    moving = [mover for mover in facts.movers if mover.speed >= STILL]
    plural = facts.count != 1
    who = _count(facts.count)
    if not moving:
        return f"{who} {'stand' if plural else 'stands'} still."
    usual = facts.pace if facts.pace is not None else moving[len(moving) // 2].speed
    return f"{who} {'move' if plural else 'moves'} {speed_word(usual)}."


def _count(count: int) -> str:
    if count <= 1:
        return "One figure"
    if count == 2:
        return "Two figures"
    return "A few figures" if count <= 5 else "Many figures"


def _outstanding(facts: Facts) -> Mover | None:
    """The object that a viewer would point at: far faster, else wide, else large."""
    fastest = facts.movers[0]
    if facts.pace is not None and fastest.speed >= FASTER * facts.pace:
        return fastest
    for mover in facts.movers:
        if mover.speed >= STILL and (mover.aspect >= WIDE or mover.size >= LARGE):
            return mover
    return None


def _outlier(mover: Mover, facts: Facts) -> str:
    kind = "A large" if mover.size >= LARGE else "A"
    kind += " wide object" if mover.aspect >= WIDE else " figure"
    motion = f"moves {speed_word(mover.speed)} {direction(mover)}"
    if facts.pace is not None and mover.speed >= FAR_FASTER * facts.pace:
        return f"{kind} {motion}, far faster than the others."
    if facts.pace is not None and mover.speed >= FASTER * facts.pace:
        return f"{kind} {motion}, faster than the others."
    return f"{kind} {motion}."
