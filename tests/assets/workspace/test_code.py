"""What git says of the code, and which differences are kept."""

import subprocess
from pathlib import Path

import pytest
from projects import git

from assets.workspace import code
from assets.workspace.code import CodeState
from assets.workspace.project import Project


@pytest.fixture
def project(project_root: Path) -> Project:
    """A project with code of its own, committed."""
    (project_root / "tevad_model").mkdir()
    (project_root / "tevad_model" / "network.py").write_text("WIDTH = 1\n")
    git(project_root, "add", "--all")
    git(project_root, "commit", "--quiet", "--message", "code")
    return Project.at(project_root)


def test_a_clean_tree_is_its_commit(project: Project) -> None:
    (project.root / "params.yaml").write_text("# recorded by itself\n")
    (project.root / "data" / "site" / "source").mkdir(parents=True)
    (project.root / "data" / "site" / "source" / "videos.csv").write_text("so is this\n")
    state = CodeState.of(project)
    assert not state.is_dirty
    assert state.tags() == {
        "tevad.git.commit": git(project.root, "rev-parse", "HEAD").strip(),
        "tevad.git.dirty": "false",
    }


def test_changed_and_new_code_is_kept_so_that_git_applies_it(
    project: Project, tmp_path: Path
) -> None:
    changed, new = Path("tevad_model/network.py"), Path("assets/site.py")
    (project.root / changed).write_text("WIDTH = 2\n")
    (project.root / new.parent).mkdir()
    (project.root / new).write_text("SITE = 'yard'\n")
    assert CodeState.of(project).tags()["tevad.git.dirty"] == "true"
    assert_applied(project, tmp_path / "clone", changed, new)


def test_it_is_kept_so_whatever_the_users_settings_of_git_are(
    project: Project, tmp_path: Path
) -> None:
    settings = {
        "color.diff": "always",
        "diff.context": "0",
        "diff.external": "false",
        "diff.noprefix": "true",
        "diff.upper.textconv": "tr a-z A-Z <",
    }
    for name, value in settings.items():
        git(project.root, "config", name, value)
    (project.root / ".git" / "info" / "attributes").write_text("*.py diff=upper\n")
    changed, new = Path("tevad_model/network.py"), Path("tevad_model/site.py")
    (project.root / changed).write_text("first = 1\nwidth = 1\nlast = 1\n")
    git(project.root, "commit", "--all", "--quiet", "--message", "more lines")
    (project.root / changed).write_text("first = 1\nwidth = 2\nlast = 1\n")
    (project.root / new).write_text("site = 'yard'\n")
    assert_applied(project, tmp_path / "clone", changed, new)


def assert_applied(project: Project, clone: Path, *paths: Path) -> None:
    """The kept changes make a clone's files those of the project."""
    state = CodeState.of(project)
    git(project.root, "clone", "--quiet", str(project.root), str(clone))
    subprocess.run(["git", "apply"], cwd=clone, input=state.changes, check=True)
    for path in paths:
        assert (clone / path).read_bytes() == (project.root / path).read_bytes()


def test_no_new_file_is_taken_along_that_is_not_code(project: Project) -> None:
    keys = [f"tevad_model/{name}" for name in (".env", "account.json", "keys.toml", "keys.yaml")]
    for name in keys:
        (project.root / name).write_text("AWS_SECRET_ACCESS_KEY=hush\n")
    (project.root / "notes.py").write_text("# in no folder of code\n")
    state = CodeState.of(project)
    assert not state.is_dirty
    assert state.tags()["tevad.git.new"] == ", ".join(keys)


def test_of_many_new_files_the_first_are_named(project: Project) -> None:
    for number in range(30):
        (project.root / "tevad_model" / f"{number:02}.json").touch()
    assert CodeState.of(project).tags()["tevad.git.new"].endswith("19.json, 10 more")


def test_of_too_many_differences_it_is_told_how_many(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "MOST_CHANGES", 100)
    (project.root / "tevad_model" / "network.py").write_text("WIDTH = 2\n" * 100)
    state = CodeState.of(project)
    assert state.is_dirty
    assert state.changes == b""
    assert state.tags()["tevad.git.left_out"] == f"{state.left_out} bytes"
    assert state.left_out > 1000


def test_a_project_within_a_repository_is_told_by_its_own_code(project: Project) -> None:
    inner = project.root / "teams" / "yard"
    (inner / "tevad_model").mkdir(parents=True)
    (inner / "tevad_model" / "network.py").write_text("WIDTH = 3\n")
    (project.root / "tevad_model" / "network.py").write_text("WIDTH = 2\n")
    changes = CodeState.of(Project.at(inner)).changes.decode()
    assert "b/teams/yard/tevad_model/network.py" in changes
    assert "WIDTH = 2" not in changes


def test_outside_of_git_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert CodeState.of(Project.at(tmp_path)).tags() == {}
