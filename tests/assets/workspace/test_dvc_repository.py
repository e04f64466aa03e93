from pathlib import Path

import pytest
from dvc.repo import Repo

from assets.workspace import versions
from assets.workspace.dvc_repository import opened
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project
from tevad_model.errors import InputError


@pytest.fixture
def dataset(project_root: Path) -> Dataset:
    write_dataset(project_root, "site", DatasetParams(source="nowhere"))
    dataset = Project.at(project_root).dataset("site")
    for folder in (dataset.source, dataset.stage("raw_videos")):
        folder.mkdir(parents=True)
        (folder / "file").write_text("content")
    return dataset


def test_a_table_of_locks_that_a_kill_tore_is_mended(dataset: Dataset) -> None:
    table = dataset.project.root / ".dvc" / "tmp" / "rwlock"
    table.write_text('{"write": {"/pro')
    version = versions.commit(dataset, "raw_videos")
    assert versions.recorded(dataset.project) == {("raw_videos", "site"): version}
    assert "/pro" not in table.read_text()


@pytest.mark.parametrize("torn", ["schema: '2.0'\nstages:\n  raw_v", "schema: '2.0'\nsta"])
def test_a_torn_lock_file_is_named_with_the_remedy(dataset: Dataset, torn: str) -> None:
    path = dataset.project.root / "dvc.lock"
    path.write_text(torn)
    with pytest.raises(InputError, match=r"dvc\.lock.*Take it back from git"):
        versions.commit(dataset, "raw_videos")
    path.unlink()
    assert versions.commit(dataset, "raw_videos")


def test_a_write_that_fails_leaves_the_file_as_it_was(dataset: Dataset) -> None:
    path = dataset.project.root / "dvc.lock"
    path.write_text("before")

    def write(repo: Repo, error: type[Exception] | None) -> None:
        with repo.fs.open(str(path), "w+") as file:
            file.write("after")
            if error:
                raise error

    with opened(dataset.project) as repo:
        with pytest.raises(ZeroDivisionError):
            write(repo, ZeroDivisionError)
        assert path.read_text() == "before"
        write(repo, None)
        assert path.read_text() == "after"
