"""Which data versions lock files name, wherever git keeps one."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import git

from orchestration.garbage import needed
from tevad_model.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project in a folder of a git repository."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def version(digit: str, ending: str = ".dir") -> str:
    return digit * 32 + ending


def write_lock(root: Path, *versions: str, name: str = "dvc.lock") -> None:
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("outs:\n" + "".join(f"- md5: {each}\n  path: data\n" for each in versions))


def commit(root: Path, *versions: str, name: str = "dvc.lock") -> None:
    write_lock(root, *versions, name=name)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "versions")


def test_what_any_commit_or_the_working_tree_names_is_needed(root: Path) -> None:
    commit(root, version("1"))
    commit(root, version("2"), version("a", ""))
    git(root, "checkout", "--quiet", "-b", "side")
    commit(root, version("3"))
    git(root, "tag", "tagged")
    git(root, "reset", "--quiet", "--hard", "main")
    write_lock(root, version("4"))
    git(root, "stash", "--quiet")
    write_lock(root, version("5"))
    git(root, "add", "--all")
    write_lock(root, version("6"))
    write_lock(root, version("7"), name="data/more.dvc")
    assert needed.of_lock_files(root) == {version(digit) for digit in "1234567"} | {
        version("a", "")
    }


def test_what_any_of_several_stashes_names_is_needed(root: Path) -> None:
    commit(root, version("1"))
    for digit in "23":
        write_lock(root, version(digit))
        git(root, "stash", "--quiet")
    assert needed.of_lock_files(root) == {version(digit) for digit in "123"}


def test_a_shallow_clone_does_not_know_what_is_needed(root: Path, tmp_path: Path) -> None:
    commit(root, version("1"))
    commit(root, version("2"))
    git(tmp_path, "clone", "--quiet", "--depth", "1", tmp_path.as_uri(), "shallow")
    shallow = tmp_path / "shallow"
    with pytest.raises(InputError, match=r"a shallow clone .* `git fetch --unshallow`"):
        needed.of_lock_files(shallow / "project")
    git(shallow, "fetch", "--quiet", "--unshallow")
    assert needed.of_lock_files(shallow / "project") == {version("1"), version("2")}


def test_a_project_that_was_moved_needs_what_it_had_before(root: Path) -> None:
    commit(root, version("1"))
    git(root.parent, "mv", "project", "moved")
    git(root.parent, "commit", "--quiet", "--message", "move")
    commit(root.parent / "moved", version("2"))
    assert needed.of_lock_files(root.parent / "moved") == {version("1"), version("2")}


def test_without_git_the_working_tree_says_all(tmp_path: Path) -> None:
    write_lock(tmp_path, version("1"))
    assert needed.of_lock_files(tmp_path) == {version("1")}


def test_a_repository_that_git_cannot_read_is_an_error(root: Path) -> None:
    commit(root, version("1"))
    (root.parent / ".git" / "HEAD").unlink()
    with pytest.raises(InputError, match="git cannot say which data"):
        needed.of_lock_files(root)
