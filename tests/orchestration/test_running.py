"""What a run that fails says of it."""

from __future__ import annotations

import dagster as dg

from assets.workspace.face import explained
from orchestration.running import why_failed
from tevad_model.errors import InputError


@dg.op
def refused() -> None:
    """Fails by what the user can repair, which came of something else."""
    with explained():
        try:
            {}["fusion"]
        except KeyError as cause:
            raise InputError("params.yaml: no fusion; add it there") from cause


@dg.op
def broken() -> None:
    """Fails by what nobody foresaw."""
    try:
        {}["fusion"]
    except KeyError as cause:
        raise RuntimeError("the network was not made") from cause


@dg.job
def fails() -> None:
    """Both."""
    refused()
    broken()


def test_what_the_user_can_repair_is_told_in_its_words_and_all_else_by_its_cause() -> None:
    result = fails.execute_in_process(raise_on_error=False)
    told = {event.step_key: why_failed(event) for event in result.get_step_failure_events()}
    assert told == {
        "refused": "params.yaml: no fusion; add it there",
        "broken": "KeyError: 'fusion'",
    }
