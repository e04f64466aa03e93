"""Whether to train again: what is reason enough, what hinders, and how it is said."""

from datetime import UTC, datetime, timedelta

import pytest

from assets.retraining import Circumstances, Evidence, retraining_need
from assets.workspace.params import RetrainingParams

PARAMS = RetrainingParams(min_new_labels=3, cooldown_hours=12)
NOW = datetime(2026, 3, 2, 3, tzinfo=UTC)
FEW, ENOUGH = ("a",), ("a", "b", "c")
CHAMPION = "models:/tevad-site/2"


def need(
    changed: tuple[str, ...],
    drifted: tuple[str, ...] = (),
    *,
    tried: str = "",
    model: str = CHAMPION,
    last: datetime | None = None,
    busy: str = "",
) -> tuple[bool, str]:
    """Whether there is need, and what is said."""
    evidence = Evidence(model, changed, tried=tried, drifted=drifted)
    found = retraining_need(evidence, PARAMS, Circumstances(NOW, last, busy))
    assert bool(found.reasons) != bool(found.hindrance)
    return bool(found.reasons), str(found)


@pytest.mark.parametrize(
    ("changed", "drifted", "is_needed", "said"),
    [
        ((), (), False, f"nothing new since {CHAMPION}: no label, no drift"),
        (FEW, (), False, f"1 new or changed labels since {CHAMPION}, 3 are needed; no drift"),
        (ENOUGH, (), True, f"3 new or changed labels since {CHAMPION}"),
        (FEW, ("scores",), True, f"drift of scores since {CHAMPION}, with 1 new or changed labels"),
        ((), ("features", "captions"), False, "label some of what arrived"),
    ],
)
def test_labels_and_drift(
    changed: tuple[str, ...], drifted: tuple[str, ...], is_needed: bool, said: str
) -> None:
    found, text = need(changed, drifted)
    assert found == is_needed
    assert said in text


def test_both_reasons_are_told() -> None:
    _, text = need(ENOUGH, ("captions",))
    assert "3 new or changed labels since" in text
    assert "drift of captions" in text


def test_labels_that_were_tried_are_no_reason_again() -> None:
    found, text = need(ENOUGH, ("scores",), tried="models:/tevad-site/3")
    assert not found
    assert text == "3 new or changed labels, which models:/tevad-site/3 was trained on already"


def test_the_first_model_is_a_persons_to_train() -> None:
    assert need(ENOUGH, model="") == (
        False,
        "there is no model yet; the first is trained by hand",
    )


def test_a_busy_dataset_is_left_alone() -> None:
    assert need(ENOUGH, busy="run 12 of everything") == (False, "busy: run 12 of everything")


def test_the_cooldown() -> None:
    asked = NOW - timedelta(hours=11, minutes=59)
    assert need(ENOUGH, last=asked) == (
        False,
        "asked for at 2026-03-01 15:01, not again before 2026-03-02 03:01 UTC",
    )
    assert need(ENOUGH, last=NOW - timedelta(hours=12))[0]
