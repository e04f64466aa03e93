"""Which data versions somebody needs: a lock file, a commit, a run or a registered model.

A hash is needed if it stands in a ``dvc.lock`` or a ``.dvc`` file of the working tree or of any
commit that a branch, a tag, a stash, an experiment of DVC or another worktree leads to, or led to for
as long as git remembers it; or in a tag ``tevad.data.<stage>`` of a run of MLflow that is not deleted,
or of a version in its registry. Who cannot be asked might need everything: then an error says so, and
nothing is garbage.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from assets.workspace.tracking import DATA_TAG
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_HASH = re.compile(r"^[\s-]*md5: *['\"]?([0-9a-f]{32}(?:\.dir)?)\b", re.MULTILINE)
_LOCK_FILES = ("dvc.lock", "*.dvc")
_EVER = (":(top)*dvc.lock", ":(top)*.dvc")
"""The same for git, wherever in the repository the project lay."""

_NOT_LOOKED_INTO = frozenset({".git", ".dvc", ".venv", ".tevad"})
_GONE = "0" * 40


def of_lock_files(root: Path) -> set[str]:
    """The hashes that lock files name, in the working tree and in every commit.

    Args:
        root: the project's folder.

    Raises:
        InputError: if git cannot read its history, or a shallow clone has not all of it.
    """
    texts = [path.read_text(encoding="utf-8") for path in _in_working_tree(root)]
    if (root / ".git").exists() or _is_below_git(root):
        texts += _in_history(root)
    return {found for text in texts for found in _HASH.findall(text)}


def of_tags(runs: Iterable[Run], registered: Iterable[ModelVersion]) -> set[str]:
    """The hashes that the tags of runs and of registered versions name."""
    tags = [*(run.data.tags for run in runs), *(version.tags for version in registered)]
    return {value for each in tags for key, value in each.items() if key.startswith(DATA_TAG)}


def _in_working_tree(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _NOT_LOOKED_INTO]
        for name in names:
            path = Path(folder) / name
            if any(path.match(pattern) for pattern in _LOCK_FILES):
                yield path


def _is_below_git(root: Path) -> bool:
    return any((parent / ".git").exists() for parent in root.parents)


def _in_history(root: Path) -> Iterator[str]:
    """Every content that a lock file ever had, from all that git keeps a name for.

    Of stashes, git has a name for the newest only; the reflog has the others.
    """
    if _git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise InputError(
            f"{root}: a shallow clone does not say which data older commits need; "
            "`git fetch --unshallow` brings them"
        )
    log = _git(
        root, "log", "--all", "--reflog", "--full-history", "-m", "--root", "--raw", "--no-abbrev",
        "--no-renames", "--format=", "--", *_EVER,
    )  # fmt: skip
    staged = _git(root, "ls-files", "--stage", "--", *_EVER)
    contents = {line.split()[3] for line in log.splitlines() if line}
    contents |= {line.split()[1] for line in staged.splitlines()}
    return (_git(root, "cat-file", "blob", content) for content in sorted(contents - {_GONE}))


def _git(root: Path, *arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        raise InputError(
            f"{root}: git is not installed, and commits need data; install it"
        ) from None
    except subprocess.CalledProcessError as error:
        raise InputError(
            f"{root}: git cannot say which data its commits need: {error.stderr.strip()}"
        ) from None
