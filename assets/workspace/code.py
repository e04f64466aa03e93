"""What the code is: the commit it is at, and how it differs from it.

Only folders that training depends on count. ``params.yaml``, ``dvc.lock`` and what sources listed
change in daily use and are recorded by themselves (:mod:`assets.workspace.record`).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from assets.workspace.project import Project

FOLDERS = ("assets", "mlflow", "orchestration", "tevad_model")
FILES = ("dvc.yaml", "pyproject.toml", "requirements.lock")

MOST_CHANGES = 1 << 20
"""Bytes of differences that are kept. More is no change of the code but data that lies in it."""

_CODE = {".py", ".pyi"}
"""Of files git does not track only these are taken along: any other kind may be one of keys."""

_MOST_NAMES = 20

_DIFF = (
    "diff", "--binary", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/",
    "--no-color", "--no-ext-diff", "--no-textconv",
)  # fmt: skip
"""Differences as `git apply` takes them, whatever the user's settings of git are."""


@dataclass(frozen=True)
class CodeState:
    """The code of a project.

    Attributes:
        commit: git's hash; empty outside of git.
        changes: how tracked and new files differ from the commit, as `git apply` takes it.
        left_out: bytes of further differences that were too many to keep.
        new: files in the folders of code that git does not track and that are not taken along,
            since they are none of code.
    """

    commit: str = ""
    changes: bytes = b""
    left_out: int = 0
    new: tuple[str, ...] = ()

    @classmethod
    def of(cls, project: Project) -> CodeState:
        """The state now."""
        top = _git(project.root, "rev-parse", "--show-toplevel")
        commit = _git(project.root, "rev-parse", "HEAD")
        if top is None or commit is None:
            return cls()
        root = Path(top.decode().strip())
        inside = project.root.resolve().relative_to(root)
        paths = [(inside / name).as_posix() for name in (*FOLDERS, *FILES)]
        untracked = _untracked(root, paths)
        code = [name for name in untracked if Path(name).suffix in _CODE]
        whole = _differences(root, paths) + b"".join(_as_new(root, name) for name in code)
        kept = whole if len(whole) <= MOST_CHANGES else b""
        others = tuple(name for name in untracked if name not in code)
        return cls(commit.decode().strip(), kept, len(whole) - len(kept), others)

    @property
    def is_dirty(self) -> bool:
        """Whether it differs from the commit."""
        return bool(self.changes or self.left_out)

    def tags(self) -> dict[str, str]:
        """As tags of an MLflow run; none outside of git."""
        if not self.commit:
            return {}
        return {
            "tevad.git.commit": self.commit,
            "tevad.git.dirty": str(self.is_dirty).lower(),
            **({"tevad.git.left_out": f"{self.left_out} bytes"} if self.left_out else {}),
            **({"tevad.git.new": self._new} if self.new else {}),
        }

    @property
    def _new(self) -> str:
        further = len(self.new) - _MOST_NAMES
        return ", ".join([*self.new[:_MOST_NAMES], *([f"{further} more"] if further > 0 else [])])


def _differences(root: Path, paths: list[str]) -> bytes:
    """How what git tracks differs from the commit."""
    return _git(root, *_DIFF, "HEAD", "--", *paths) or b""


def _untracked(root: Path, paths: list[str]) -> list[str]:
    """The files that git neither tracks nor ignores."""
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *paths) or b""
    return [name for name in listed.decode().split("\0") if name]


def _as_new(root: Path, name: str) -> bytes:
    """A file as a difference from nothing."""
    return _git(root, *_DIFF, "--no-index", "--", "/dev/null", name) or b""


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None if it cannot say. That files differ is no failure."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode in (0, 1) else None
