"""`make lock` in a copy, with a stand-in for uv: what becomes of the lock file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
BEFORE = "torch==2.12.0\ntqdm==4.66.0\n"


def lock(folder: Path, uv: str) -> bool:
    """Make the lock file anew, where ``uv`` is a shell command given what uv is; whether it could."""
    program = folder / "uv.sh"
    program.write_text(f"for to; do :; done  # the last argument\n{uv}\n")
    done = subprocess.run(["make", "lock", f"UV=sh {program}"], cwd=folder, check=False)
    return done.returncode == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".venv").mkdir()
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text(BEFORE)
    return tmp_path


def test_a_lock_that_fails_leaves_the_file_as_it_was(folder: Path) -> None:
    assert not lock(folder, 'echo half > "$to"; exit 2')
    assert (folder / "requirements.lock").read_text() == BEFORE


def test_a_lock_is_of_no_build_of_torch_and_prefers_what_was_locked(folder: Path) -> None:
    assert lock(folder, 'echo torch==2.13.0+cpu >> "$to"')
    locked = (folder / "requirements.lock").read_text()
    assert locked == "tqdm==4.66.0\ntorch==2.13.0\n"
