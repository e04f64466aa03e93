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

_SOURCES = {".py", ".pyi", ".yaml", ".toml", ".json", ".md", ".j2"}
"""Of files git does not track only these count: a file of keys, say, is never taken along."""


@dataclass(frozen=True)
class CodeState:
    """The code of a project.

    Attributes:
        commit: git's hash; empty outside of git.
        changes: how tracked and new files differ from the commit, as `git apply` takes it.
        left_out: bytes of further differences that were too many to keep.
    """

    commit: str = ""
    changes: bytes = b""
    left_out: int = 0

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
        whole = _tracked(root, paths) + b"".join(_new(root, paths))
        kept = whole if len(whole) <= MOST_CHANGES else b""
        return cls(commit.decode().strip(), kept, len(whole) - len(kept))

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
        }


def _tracked(root: Path, paths: list[str]) -> bytes:
    return (
        _git(root, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--", *paths) or b""
    )


def _new(root: Path, paths: list[str]) -> list[bytes]:
    """Files that git neither tracks nor ignores, each as a difference from nothing."""
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *paths) or b""
    names = [name for name in listed.decode().split("\0") if Path(name).suffix in _SOURCES]
    return [
        _git(root, "diff", "--no-index", "--binary", "--no-color", "--", "/dev/null", name) or b""
        for name in names
    ]


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None if it cannot say. That files differ is no failure."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode in (0, 1) else None
