"""DVC's objects by content: a version is what its hash says, and stays in its folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from dvc.repo import Repo
from projects import digests

from assets.workspace.objects import Objects
from assets.workspace.project import Project
from tevad_model.errors import InputError


@pytest.fixture
def version(project_root: Path) -> str:
    """A folder with a file and one further down, in the cache and in the remote."""
    folder = project_root / "kept"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    with Repo(str(project_root)) as repo:
        with repo.config.edit("local") as config:
            config["remote"] = {"there": {"url": str(project_root / "remote")}}
            config["core"] = {"remote": "there"}
        [stage] = repo.add(str(folder))
        repo.push()
    return str(stage.outs[0].hash_info.value)


@pytest.fixture
def objects(project_root: Path, version: str) -> Objects:
    return Objects(Project.at(project_root))


@pytest.fixture(params=["cache", "remote"])
def listing(request: pytest.FixtureRequest, objects: Objects, version: str) -> Path:
    """The listing of the version where it is read: in the cache, or where that has none, remotely."""
    path = objects.path(version)
    if request.param == "remote":
        path.unlink()
        path = Path("remote", "files", "md5", version[:2], version[2:]).resolve()
    path.chmod(0o644)
    return path


def test_a_version_is_written_as_it_was(
    objects: Objects, version: str, listing: Path, project_root: Path, tmp_path: Path
) -> None:
    objects.write(version, tmp_path / "written")
    assert digests(tmp_path / "written") == digests(project_root / "kept")


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_listing_that_was_cut_is_named(
    objects: Objects, version: str, listing: Path, part: float
) -> None:
    content = listing.read_bytes()
    listing.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError, match=rf"{listing}: damaged; remove it"):
        objects.files(version)


def test_a_listing_that_was_changed_is_not_followed(
    objects: Objects, version: str, listing: Path, tmp_path: Path
) -> None:
    listing.write_text(listing.read_text().replace("a.txt", "../escaped.txt"))
    with pytest.raises(InputError, match=rf"{listing}: damaged; remove it"):
        objects.write(version, tmp_path / "in" / "written")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("name", ["../escaped.txt", "sub/../../escaped.txt", "/escaped.txt"])
def test_a_version_that_leads_out_of_its_folder_is_refused(
    objects: Objects, version: str, tmp_path: Path, name: str
) -> None:
    entries = json.loads(objects.path(version).read_bytes())
    content = json.dumps([{**entries[0], "relpath": name}]).encode()
    forged = f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir"
    path = objects.path(forged)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"lists '{name}', which lies outside the folder"):
        objects.write(forged, tmp_path / "in" / "written")
    assert not (tmp_path / "in").exists()
