"""Data versions: what DVC says a stage's data are.

The version of a stage's output is the md5 DVC gives its folder. It is the same whether DVC, Dagster
or a test ran the stage, and is what Dagster's DataVersion and the tags of an MLflow run hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.workspace import files
from assets.workspace.params import FILE_NAME as PARAMS
from assets.workspace.project import STAGES, Dataset, Project
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import PipelineStage
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta

PIPELINE, LOCK_FILE = "dvc.yaml", "dvc.lock"
LOCK_REMEDY = (
    f"Take it back from git, or remove {LOCK_FILE}: the next run enters again what lies in data/"
)


def commit(dataset: Dataset, stage: str) -> str:
    """Take a stage's output into DVC as it lies there and return its version.

    Waits for DVC's locks. Afterwards ``dvc status`` finds the stage up to date. Where it does so
    already nothing is written: DVC would take in and link every file anew.

    Raises:
        InputError: if ``dvc.yaml`` has no such stage for the dataset, ``params.yaml`` lacks a key
            that it names, or ``dvc.lock`` is damaged.
    """
    from assets.workspace.dvc_repository import in_turn, opened

    if is_up_to_date(dataset, stage):
        return current(dataset, stage)
    with opened(dataset.project) as repo, _explained(dataset, stage):
        return in_turn(repo, lambda: _commit(dataset, stage, repo))


def _commit(dataset: Dataset, stage: str, repo: Repo) -> str:
    """What ``dvc commit --force`` does, but that comments in ``dvc.lock`` are not kept.

    To keep them, DVC reads the file once more, in Python alone: most of what its commit takes. Nor
    does it look up again the files of folders that are known, or anything for its run cache, which
    holds no outputs that persist.
    """
    from dvc.dvcfile import load_file
    from dvc.repo import lock_repo
    from dvc.stage.decorators import rwlocked
    from dvc.stage.serialize import to_lockfile
    from dvc.utils.serialize import dump_yaml

    with lock_repo(repo):
        pipeline = load_file(repo, _pipeline(repo))
        content = pipeline.lockfile_contents or {"schema": "2.0"}
        found = pipeline.stages[_address(dataset, stage)]
        rwlocked(read=["deps"], write=["outs"])(_take_in)(found, dataset.project)
        content.setdefault("stages", {}).update(to_lockfile(found))
        dump_yaml(str(Path(repo.root_dir) / LOCK_FILE), content, fs=repo.fs)
    # Not what the file says now: another process of DVC's may be just writing it.
    folder = dataset.stage(stage)
    [version] = [str(out.hash_info.value) for out in found.outs if Path(out.fs_path) == folder]
    return version


def _take_in(stage: PipelineStage, project: Project) -> None:
    """Look at a stage's files and take in its outputs, while nobody writes them.

    DVC lets go of its one lock while it runs a stage; those of the stage's files it then holds.
    """
    for entry in (*stage.deps, *stage.outs):
        _save(project, entry)
    stage.commit()


def _save(project: Project, entry: Output) -> None:
    """What ``entry.save()`` does, but the files of a folder are not looked up again."""
    if not _is_plain_folder(entry):
        entry.save()
        return
    entry.ignore()
    folder = _folder(project, Path(entry.fs_path))
    entry.meta, entry.hash_info, entry.files = folder.meta, folder.hash_info, None


def _is_plain_folder(entry: Output) -> bool:
    """Whether an entry is a folder on this machine, hashed as DVC has done since its version 3."""
    is_plain = entry.protocol == "local" and entry.hash_name == "md5"
    return is_plain and Path(entry.fs_path).is_dir()


def is_up_to_date(dataset: Dataset, stage: str) -> bool:
    """Whether inputs, parameters and output are as they were committed, as ``dvc status`` has it.

    DVC knows no code; a stage has to ask for itself whether that is the same. Unlike DVC's own
    command this takes no locks: under ``dvc repro`` they are the caller's.

    Raises:
        InputError: as :func:`commit`, if the output is as it was committed.
    """
    version = recorded(dataset.project).get((stage, dataset.name))
    if version is None or _is_other(dataset, stage, version):
        return False  # before DVC's files are read, which takes longer
    with _explained(dataset, stage):
        found = _stages(dataset.project)[_address(dataset, stage)]
        entries = (*found.deps, *found.outs)
        return not found.cmd_changed and not any(_is_changed(dataset.project, e) for e in entries)


def _is_other(dataset: Dataset, stage: str, version: str) -> bool:
    """Whether a stage's output is not there in that version."""
    try:
        return current(dataset, stage) != version
    except FileNotFoundError:  # it is not there, or links lead to what the cache has lost
        return True


def _is_changed(project: Project, entry: Output) -> bool:
    """Whether ``entry.status()`` says anything, but the files of a folder are not looked up again."""
    if not _is_plain_folder(entry):
        return bool(entry.status())
    if entry.use_cache and entry.changed_cache():
        return True
    try:
        return _folder(project, Path(entry.fs_path)).version != str(entry.hash_info.value)
    except FileNotFoundError:  # somebody is just writing it
        return True


def current(dataset: Dataset, stage: str) -> str:
    """The version of a stage's output as it lies there, whether or not DVC has it."""
    return _folder(dataset.project, dataset.stage(stage)).version


def contents(dataset: Dataset, stage: str) -> Mapping[str, str]:
    """The md5 of each file of a stage's output as it lies there, by its path below the folder."""
    return _folder(dataset.project, dataset.stage(stage)).files


@dataclass(frozen=True)
class _Folder:
    """What DVC makes of a folder.

    Attributes:
        meta: its size and how many files it has.
        hash_info: its md5.
        files: the md5 of each file, by its path below the folder.
    """

    meta: Meta
    hash_info: HashInfo
    files: Mapping[str, str]

    @property
    def version(self) -> str:
        """The md5 by itself."""
        return str(self.hash_info.value)


def _folder(project: Project, path: Path) -> _Folder:
    """What DVC makes of a folder, looked at once for as long as its files are the same.

    DVC keeps the hashes of files that are the same, but looks each of them up.
    """
    from assets.workspace.dvc_repository import settings

    return _hashed(project, path, settings(project), files.folder_stamp(path))


@lru_cache(maxsize=8 * len(STAGES))
def _hashed(project: Project, path: Path, *_: object) -> _Folder:
    from dvc_data.hashfile.build import build

    from assets.workspace.dvc_repository import kept_open

    repo = kept_open(project)
    odb = repo.cache.local
    _, meta, tree = build(odb, str(path), repo.fs, odb.hash_name, ignore=repo.dvcignore)
    md5s = {"/".join(key): str(md5.value) for key, _, md5 in tree}
    return _Folder(meta, tree.hash_info, md5s)


def all_current(dataset: Dataset, stages: Iterable[str]) -> dict[str, str]:
    """The versions of several stages' outputs as they lie there."""
    return {stage: current(dataset, stage) for stage in stages}


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
        content = files.read_yaml(path) or {}
    except FileNotFoundError:
        return {}
    except InputError as error:
        raise InputError(f"{error}. {LOCK_REMEDY}") from None
    stages = (content.get("stages") or {}) if isinstance(content, dict) else content
    if not isinstance(stages, dict):
        raise InputError(f"{path}: no table of stages. {LOCK_REMEDY}")
    return stages


def made_from(dataset: Dataset, stage: str) -> str:
    """A digest of the recorded versions of a stage and of all before it."""
    found = recorded(dataset.project)
    chain = STAGES[: STAGES.index(stage) + 1]
    lines = (f"{each} {found.get((each, dataset.name))}\n" for each in chain)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


@contextmanager
def locked(project: Project) -> Iterator[Repo]:
    """DVC's repository with its lock held, so that nobody else commits; waits for who does."""
    from dvc.repo import lock_repo

    from assets.workspace.dvc_repository import in_turn, opened

    with opened(project) as repo, ExitStack() as held:
        in_turn(repo, lambda: held.enter_context(lock_repo(repo)))
        yield repo


def _stages(project: Project) -> Mapping[str, PipelineStage]:
    """DVC's stages by address.

    Its files are read once for as long as they are the same: that takes DVC longer than looking at
    a thousand files of data.
    """
    named = (project.root / name for name in (PIPELINE, LOCK_FILE, PARAMS))
    return _read_stages(project, tuple(files.stamp(path) for path in named))


@lru_cache(maxsize=1)
def _read_stages(project: Project, _: tuple[files.Stamp, ...]) -> Mapping[str, PipelineStage]:
    from dvc.dvcfile import load_file

    from assets.workspace.dvc_repository import kept_open, settled

    repo = kept_open(project)
    stages: Mapping[str, PipelineStage] = settled(
        repo, lambda: load_file(repo, _pipeline(repo)).stages
    )
    return stages


@contextmanager
def _explained(dataset: Dataset, stage: str) -> Iterator[None]:
    """Say what of ``dvc.yaml`` and ``params.yaml`` does not fit."""
    from dvc.dependency.param import MissingParamsError
    from dvc.parsing import ResolveError
    from dvc.stage.exceptions import StageNotFound

    try:
        yield
    except MissingParamsError as error:
        raise InputError(f"{error} Add them there.") from None
    except StageNotFound:
        raise InputError(f"{PIPELINE}: no stage {_address(dataset, stage)}") from None
    except ResolveError as error:
        entry = f"datasets.{dataset.name} of params.yaml"
        raise InputError(f"{error} ({entry} has the items; add it there)") from None


def _address(dataset: Dataset, stage: str) -> str:
    return f"{stage}@{dataset.name}"


def _pipeline(repo: Repo) -> str:
    """The pipeline's file by its full path: DVC takes a bare name from the working folder."""
    return str(Path(repo.root_dir) / PIPELINE)
