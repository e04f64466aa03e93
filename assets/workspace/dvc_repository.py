"""The project's DVC repository, opened so that neither a kill nor another process does it harm.

DVC writes ``dvc.lock`` and its own table of locks in place. A process that is killed meanwhile
leaves a torn file, and who reads meanwhile finds one. Through here both are written whole or not at
all, DVC's locks are waited for, and what other processes tore is mended or named. What is done in
the repository is :mod:`assets.workspace.versions`'s.

DVC is heavy to import, so this module is imported where it is used.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from dvc.exceptions import NotDvcRepoError
from dvc.fs import LocalFileSystem
from dvc.lock import LockError, make_lock
from dvc.repo import Repo, lock_repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, RWLockFileCorruptedError
from dvc.utils.serialize import ParseError
from dvc.utils.strictyaml import YAMLValidationError

from assets.workspace import files
from assets.workspace.project import Project
from assets.workspace.versions import LOCK_REMEDY
from tevad_model.atomic import replacing
from tevad_model.errors import InputError

logger = logging.getLogger("tevad")

_ASK_AGAIN_SECONDS = 0.2

_T = TypeVar("_T")


class _WholeFiles(LocalFileSystem):  # type: ignore[misc]
    """DVC's view of this machine's files, where a file that is written anew is whole or as before."""

    def open(self, path: Any, mode: str = "r", **kwargs: Any) -> Any:
        if "w" not in mode:
            return super().open(path, mode=mode, **kwargs)
        return self._replaced(Path(path), mode, kwargs)

    @contextmanager
    def _replaced(self, path: Path, mode: str, options: dict[str, Any]) -> Iterator[Any]:
        with replacing(path) as temporary, super().open(temporary, mode=mode, **options) as file:
            yield file


@contextmanager
def opened(project: Project) -> Iterator[Repo]:
    """The repository.

    Raises:
        InputError: if the project is none.
    """
    with _open(project) as repo:
        yield repo


def kept_open(project: Project) -> Repo:
    """The repository, to look at files only; opened once for as long as its settings stay the same.

    Raises:
        InputError: if the project is none.
    """
    return _kept_open(project, settings(project))


def settings(project: Project) -> tuple[files.Stamp, ...]:
    """The stamps of the files by which the repository is to be opened anew when they change."""
    names = (".dvc/config", ".dvc/config.local", ".dvcignore")
    return tuple(files.stamp(project.root / name) for name in names)


@lru_cache(maxsize=1)
def _kept_open(project: Project, _: tuple[files.Stamp, ...]) -> Repo:
    return _open(project)


def _open(project: Project) -> Repo:
    try:
        return Repo(str(project.root), fs=_WholeFiles())
    except NotDvcRepoError:
        raise InputError(f"{project.root}: not a DVC repository; run `dvc init` there") from None


def in_turn(repo: Repo, work: Callable[[], _T]) -> _T:
    """Do what takes DVC's locks, as soon as no other process holds them; say so while waiting.

    Raises:
        InputError: if a file that DVC reads is damaged.
    """
    waits = False
    while True:
        try:
            return work()
        except LockError as error:
            if not waits:
                logger.info("waits for DVC, which another process uses: %s", _first_lines(error))
            waits = True
            time.sleep(_ASK_AGAIN_SECONDS)
        except RWLockFileCorruptedError:
            _mend_table_of_locks(repo)
        except (ParseError, YAMLValidationError) as error:
            raise _damaged(repo, error) from None


def settled(repo: Repo, read: Callable[[], _T]) -> _T:
    """Read without a lock, but again with it where another process was just writing.

    Raises:
        InputError: if a file that DVC reads is damaged.
    """
    try:
        return read()
    except (ParseError, YAMLValidationError):
        return in_turn(repo, lambda: _locked(repo, read))


def _locked(repo: Repo, read: Callable[[], _T]) -> _T:
    with lock_repo(repo):
        return read()


def _mend_table_of_locks(repo: Repo) -> None:
    """Remove the table that a killed ``dvc`` left half-written; its locks went with it."""
    folder = Path(repo.tmp_dir)
    with make_lock(str(folder / RWLOCK_LOCK), tmp_dir=repo.tmp_dir, wait=True):
        try:
            json.loads((folder / RWLOCK_FILE).read_text(encoding="utf-8"))
        except ValueError:
            (folder / RWLOCK_FILE).unlink()


def _first_lines(error: LockError) -> str:
    """Who holds what, without DVC's advice."""
    return " ".join(str(error).partition("\n\n")[0].split())


def _damaged(repo: Repo, error: Exception) -> InputError:
    return InputError(f"{repo.root_dir}: {' '.join(str(error).split())}. {LOCK_REMEDY}")
