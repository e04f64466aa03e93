"""Which project a folder is: the same wherever it lies, and one for all who ask at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from assets.workspace.project import Project


def test_a_folder_stays_the_same_where_its_place_changes(tmp_path: Path) -> None:
    before = Project.at(tmp_path / "here").identity
    (tmp_path / "here").rename(tmp_path / "there")
    assert Project.at(tmp_path / "there").identity == before
    assert before.startswith(f"{os.uname().nodename}:{tmp_path / 'here'}:")
    assert Project.at(tmp_path / "another").identity != before


def test_all_who_ask_first_are_told_the_same(tmp_path: Path) -> None:
    at_once = Barrier(8)

    def ask(_: int) -> str:
        project = Project.at(tmp_path)
        at_once.wait()
        return project.identity

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 1
