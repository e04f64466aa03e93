"""Data in DVC's cache, and in its remote, that no needed version holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assets.workspace.project import Project
from orchestration.garbage.heap import Heap
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB

CACHE, REMOTE = "data in DVC's cache", "data in the DVC remote"
_LISTING = ".dir"
"""How the hash of a folder's listing ends."""


@dataclass(frozen=True)
class Reach:
    """What needed versions lead to.

    Attributes:
        hashes: theirs, and those of all files in their folders.
        missing: versions of folders whose listing is not there: nobody can say which files they
            hold. They cannot be restored from there either; fetching one brings its files as well.
    """

    hashes: frozenset[str]
    missing: tuple[str, ...]

    @classmethod
    def of(cls, needed: Iterable[str], databases: Sequence[HashFileDB]) -> Reach:
        """Follow the listings of folders, each in the first database that has it."""
        found = set(needed)
        listings = {each: _files(each, databases) for each in found if each.endswith(_LISTING)}
        inside = (file for files in listings.values() for file in files or ())
        missing = sorted(listing for listing, files in listings.items() if files is None)
        return cls(frozenset(found.union(inside)), tuple(missing))


def _files(listing: str, databases: Sequence[HashFileDB]) -> list[str] | None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    for database in databases:
        try:
            tree = Tree.load(database, HashInfo(database.hash_name, listing))
        except FileNotFoundError:
            continue
        return [str(file.value) for _, _, file in tree]
    return None


def cache_of(repo: Repo, project: Project) -> HashFileDB:
    """The project's cache.

    Raises:
        InputError: if other projects may use it as well.
    """
    cache: HashFileDB = repo.cache.local
    if not Path(cache.path).is_relative_to(project.root):
        raise InputError(
            f"{cache.path}: DVC's cache lies outside of the project, and others may need what this "
            "one does not; `dvc gc --projects` knows of several"
        )
    return cache


def remote_of(repo: Repo) -> HashFileDB:
    """The default remote.

    Raises:
        InputError: if there is none, or it keeps versions by itself.
    """
    from dvc.config import NoRemoteError, RemoteConfigError

    try:
        remote: HashFileDB = repo.cloud.get_remote_odb(command="gc")
    except (NoRemoteError, RemoteConfigError) as error:
        raise InputError(f"the DVC remote: {error}") from None
    return remote


def unneeded(kind: str, database: HashFileDB, reach: Reach) -> Heap:
    """What a database holds and needed versions do not lead to."""
    from dvc_data.hashfile.db import get_index

    # Listings first: none may be left whose files are gone.
    hashes = sorted(
        {str(each) for each in database.all()} - reach.hashes,
        key=lambda each: (not each.endswith(_LISTING), each),
    )
    paths = [database.oid_to_path(each) for each in hashes]

    def remove() -> None:
        get_index(database).clear()  # of what DVC takes to be there
        database.fs.remove(paths)

    size = sum(int(database.fs.size(path) or 0) for path in paths)
    return Heap(kind, tuple(hashes), size, remove)
