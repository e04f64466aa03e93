"""DVC's cache and remote by content: what is where, and bringing it here.

A data version addresses its bytes whatever ``dvc.lock`` says now. That is what a model of long ago
needs, whose data have moved on in the workspace. Nothing here changes the workspace's data.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from assets.workspace.project import Project
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB

_HASH = "md5"


class Objects:
    """The cache on this machine and the default remote of a project's DVC repository."""

    def __init__(self, project: Project) -> None:
        from dvc.repo import Repo

        with Repo(str(project.root)) as repo:
            self._repo = repo
            self._cache = repo.cache.local

    def in_cache(self, oid: str) -> bool:
        """Whether the cache has a file, or the listing of a folder."""
        return self.path(oid).is_file()

    def path(self, oid: str) -> Path:
        """Where the cache has a file, or would have it."""
        return Path(self._cache.oid_to_path(oid))

    def in_remote(self, oid: str) -> bool:
        """Whether the remote has a file, or the listing of a folder.

        Raises:
            InputError: if there is no remote, or it does not answer.
        """
        remote = self._remote()
        with _answering():
            return bool(remote.exists(oid))

    def files(self, version: str) -> dict[str, str]:
        """The md5 of each file of a folder's version, by path; listed by the cache or the remote.

        Raises:
            InputError: if neither has the version, its bytes are not those of the version, it lists
                a file outside the folder, or the remote does not answer.
        """
        if self.in_cache(version):
            path = str(self.path(version))
            content = self.path(version).read_bytes()
        else:
            remote = self._remote()
            path = remote.oid_to_path(version)
            with _answering():
                if not remote.exists(version):
                    raise InputError(_missing([version]))
                content = remote.fs.cat_file(path)
        if f"{_md5(content).hexdigest()}.dir" != version:
            raise InputError(_damaged(path))
        listed = {entry["relpath"]: entry[_HASH] for entry in json.loads(content)}
        if outside := [name for name in listed if not _is_within(name)]:
            raise InputError(
                f"{path}: lists {outside[0]!r}, which lies outside the folder; DVC writes none such: "
                "see who may write to the remote, and remove it"
            )
        return listed

    def fetch(self, oids: Iterable[str]) -> None:
        """Bring files into the cache that are not in it.

        Raises:
            InputError: if the remote lacks some, or does not answer.
        """
        from dvc_data.hashfile.hash_info import HashInfo

        wanted = {oid for oid in oids if not self.in_cache(oid)}
        if not wanted:
            return
        remote = self._remote()
        with _answering():
            self._repo.cloud.pull([HashInfo(_HASH, oid) for oid in sorted(wanted)], odb=remote)
        if lacking := sorted(oid for oid in wanted if not self.in_cache(oid)):
            raise InputError(_missing(lacking))

    def write(
        self, version: str, folder: Path, wanted: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Write a version of a folder, or those of its files that are wanted, fetching them first.

        Raises:
            InputError: as :meth:`files` and :meth:`fetch`, and if the cache's bytes are not those of
                the version.
        """
        chosen = {name: oid for name, oid in self.files(version).items() if wanted(name)}
        self.fetch(chosen.values())
        for name, oid in chosen.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path(oid), path)
            if md5_of(path) != oid:
                raise InputError(_damaged(str(self.path(oid))))

    def _remote(self) -> HashFileDB:
        from dvc.config import ConfigError, NoRemoteError

        try:
            return self._repo.cloud.get_remote_odb(command="fetch")
        except NoRemoteError:
            raise InputError(
                "DVC has no default remote to fetch the data from; name it by "
                "`dvc remote add -d NAME URL`"
            ) from None
        except ConfigError as error:
            raise InputError(f".dvc/config: {error}") from None


@contextmanager
def _answering() -> Iterator[None]:
    """Say that it is the remote which does not answer, and why."""
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException

    try:
        yield
    except (OSError, DvcException, BotoCoreError, ClientError) as error:
        raise InputError(
            f"DVC's remote cannot be read: {error}; check its address (`dvc remote list`), the "
            "network and the credentials"
        ) from None


def _missing(oids: list[str]) -> str:
    shown = ", ".join(oids[:3]) + (f" and {len(oids) - 3} more" if len(oids) > 3 else "")
    return (
        f"neither DVC's cache nor its remote has {shown}; `dvc push` (with --all-commits for older "
        "versions) where the data were made"
    )


def _damaged(path: str) -> str:
    return (
        f"{path}: damaged; remove it, and if that does not help restore the remote's file of that "
        "name (`dvc push` where the data were made)"
    )


def _is_within(name: str) -> bool:
    """Whether the path of a listed file stays within the folder it is written to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def folder_files(folder: Path) -> dict[str, Path]:
    """The files below a folder by path, as DVC names them in a version."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def md5_of(path: Path) -> str:
    """A file's md5, as DVC addresses it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _md5(content: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(content, usedforsecurity=False)
