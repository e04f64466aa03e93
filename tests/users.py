"""Commands of a user whom the system knows by number alone, as a container's often is."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

NUMBER = 54321
_UNSHARE = ("unshare", "--user", f"--map-user={NUMBER}")


def run_nameless(
    command: Sequence[str | Path], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command as that user, to whom the files of this one belong; skips where none can be.

    Args:
        command: the program's whole path and its arguments.
        environment: all of it.
    """
    if refusal := _refusal():
        pytest.skip(f"no user namespace can be made here: {refusal}")
    return subprocess.run(
        [*_UNSHARE, *command], env=dict(environment), capture_output=True, text=True
    )


@cache
def _refusal() -> str:
    """Why the system lets nobody be somebody else; empty if it does."""
    try:
        done = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""
