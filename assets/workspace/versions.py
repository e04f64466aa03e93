"""Data versions: what DVC and git say a stage's data and the code are.

The version of a stage's output is the md5 DVC gives its folder. It is the same whether DVC, Dagster
or a test ran the stage, and is what Dagster's DataVersion and the tags of an MLflow run hold.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from assets.workspace.project import STAGES, Dataset, Project
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK_FILE = "dvc.lock"
LOCK_REMEDY = (
    f"Take it back from git, or remove {LOCK_FILE}: the next run enters again what lies in data/"
)


def commit(dataset: Dataset, stage: str) -> str:
    """Take a stage's output into DVC as it lies there and return its version.

    Waits for DVC's locks. Afterwards ``dvc status`` finds the stage up to date.

    Raises:
        InputError: if ``dvc.yaml`` has no such stage for the dataset, ``params.yaml`` lacks a key
            that it names, or ``dvc.lock`` is damaged.
    """
    from dvc.dependency.param import MissingParamsError
    from dvc.parsing import ResolveError

    from assets.workspace.dvc_repository import in_turn, opened

    with opened(dataset.project) as repo:
        target = f"{_pipeline(repo)}:{_address(dataset, stage)}"
        try:
            in_turn(repo, lambda: repo.commit(target=target, force=True))
        except MissingParamsError as error:
            raise InputError(f"{error} Add them there.") from None
        except ResolveError as error:
            entry = f"datasets.{dataset.name} of params.yaml"
            raise InputError(f"{error} ({entry} has the items; add it there)") from None
        return _version(repo, dataset, stage)


def current(dataset: Dataset, stage: str) -> str:
    """The version of a stage's output as it lies there, whether or not DVC has it."""
    from assets.workspace.dvc_repository import opened

    with opened(dataset.project) as repo:
        return _version(repo, dataset, stage)


def recorded(project: Project) -> dict[tuple[str, str], str]:
    """The versions ``dvc.lock`` holds, by (stage, dataset)."""
    found = {}
    for address, entry in _locked_stages(project).items():
        stage, _, dataset = address.partition("@")
        if stage not in STAGES or not dataset:
            continue
        folder = Dataset(project, dataset).stage(stage).relative_to(project.root).as_posix()
        for out in entry.get("outs", ()):
            if out["path"] == folder:
                found[stage, dataset] = str(out["md5"])
    return found


def _locked_stages(project: Project) -> dict[str, Any]:
    """What ``dvc.lock`` has under ``stages``."""
    path = project.root / LOCK_FILE
    try:
        content = YAML(typ="safe").load(path) or {}
    except FileNotFoundError:
        return {}
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not YAML: {reason}. {LOCK_REMEDY}") from None
    stages: dict[str, Any] = content.get("stages") or {}
    return stages


def git_state(project: Project) -> dict[str, str]:
    """The commit the code is at, and whether tracked files differ from it.

    Empty where the project is not in git. ``params.yaml`` and ``dvc.lock`` change in daily use and
    are recorded by themselves, so they do not make the tree dirty.
    """
    commit_hash = _git(project, "rev-parse", "HEAD")
    if commit_hash is None:
        return {}
    changed = _git(
        project, "status", "--porcelain", "--untracked-files=no", "--",
        ".", ":!params.yaml", f":!{LOCK_FILE}",
    )  # fmt: skip
    return {"git.commit": commit_hash, "git.dirty": str(bool(changed)).lower()}


def _git(project: Project, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=project.root, capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _address(dataset: Dataset, stage: str) -> str:
    return f"{stage}@{dataset.name}"


def _pipeline(repo: Repo) -> str:
    """The pipeline's file by its full path: DVC takes a bare name from the working folder."""
    return str(Path(repo.root_dir) / "dvc.yaml")


def _version(repo: Repo, dataset: Dataset, stage: str) -> str:
    from dvc.stage.exceptions import StageNotFound

    from assets.workspace.dvc_repository import settled

    pipeline, address = _pipeline(repo), _address(dataset, stage)
    try:
        loaded = settled(repo, lambda: repo.stage.load_one(pipeline, address))
    except StageNotFound:
        raise InputError(f"dvc.yaml: no stage {_address(dataset, stage)}") from None
    folder = str(dataset.stage(stage))
    return str(next(out for out in loaded.outs if out.fs_path == folder).get_hash().value)
