"""Stops a real process at a chosen moment of its work, however fast the machine is.

A moment is so many function calls after the n-th time the process does something to a file or a
database. What counts is said by a pattern over lines such as ``write /a/file`` and ``sql /a/database
INSERT …``; ``hook/sitecustomize.py`` sees them from within the process and strikes.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import forks

_HOOK = Path(__file__).parent / "hook"
_PROGRAMS = Path(sys.executable).parent
_PATIENCE = 1500.0
"""Seconds until a process that never comes to its moment is given up."""

_FILES = r"^(write|rename|link) .*"


def _stage(name: str) -> str:
    return rf"{_FILES}/data/\w+/{name}/"


def _mlflow(tables: str) -> str:
    return rf"^sql .*/mlflow\.db (INSERT INTO|UPDATE) ({tables})\b"


PHASES: dict[str, str] = {
    "raw_videos": _stage("raw_videos"),
    "snippet_features": _stage("snippet_features"),
    "DVC's cache": rf"{_FILES}/\.dvc/cache/",
    "DVC's links": rf"{_FILES}/data/.*\.[\w-]{{22}}\.tmp$",
    "captions": _stage("captions"),
    "dvc.lock": rf"{_FILES}/(dvc\.lock|\.partial-\w+\.lock)$",
    "sentence_encoder": _stage("sentence_encoder"),
    "DVC's own files": rf"{_FILES}/\.dvc/tmp/",
    "caption_embeddings": _stage("caption_embeddings"),
    "any moment": "",
    "a run of MLflow": _mlflow("runs|tags|params|metrics|latest_metrics"),
    "training": rf"{_FILES}/work/\w+/tevad_model/",
    "tevad_model": _stage("tevad_model"),
    "Dagster's events": r"^sql .*/dagster/.* (INSERT|UPDATE|COMMIT)",
    "evaluation_metrics": _stage("evaluation_metrics"),
    "figures": rf"{_FILES}/data/\w+/(metrics|plots/|\.partial)",
    "a logged model": _mlflow(r"logged_model\w*"),
    "artifacts": rf"{_FILES}/mlartifacts/",
    "a version": _mlflow(r"registered_models|model_version\w*"),
    "an alias": _mlflow("registered_model_aliases"),
}
"""Where a run can be killed, by what it does there; in the order of a run."""

_CALLS = {"training": 20_000, "any moment": 5_000}
_FEW_CALLS = 300
"""Function calls over which moments are spread after each line."""


@dataclass(frozen=True)
class Moment:
    """A moment of a process.

    Attributes:
        pattern: of the lines that count.
        nth: which of them, from 1.
        calls: function calls to wait from there.
    """

    pattern: str
    nth: int = 1
    calls: int = 0


def moments_in(
    phases: Iterable[str], lines: Sequence[frozenset[str]], chance: random.Random
) -> list[tuple[str, Moment]]:
    """Some moment of each phase, in the order of a run, each counted from the one before.

    For what is killed at each of them and goes on from there: it does again only what was left, or
    less, where it got further before it was killed.

    Args:
        phases: of :data:`PHASES`.
        lines: what :func:`census` found of a whole run.
        chance: chooses.
    """
    places = sorted(
        (chance.choice([place for place, found in enumerate(lines) if phase in found]), phase)
        for phase in phases
    )
    moments, done = [], 0
    for place, phase in places:
        left = sum(phase in found for found in lines[done : place + 1])
        calls = chance.randint(0, _CALLS.get(phase, _FEW_CALLS))
        moments.append((phase, Moment(PHASES[phase], chance.randint(1, max(1, left)), calls)))
        done = place + 1
    return moments


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it said on stderr."""

    code: int
    said: str

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


def killed(moment: Moment, *command: str, root: Path) -> Ended:
    """Run a command of ``tevad`` and kill it at a moment, with all that it started."""
    return _forked(
        {**asdict(moment), "action": "kill", "spared_group": os.getpgid(0)}, command, root
    )


def signalled(name: str, moment: Moment, *command: str, root: Path) -> Ended:
    """Run a command of ``tevad`` that gets a signal, such as SIGTERM, at a moment."""
    return _forked({**asdict(moment), "action": name}, command, root)


def census(
    patterns: Mapping[str, str], *command: str, root: Path, scratch: Path
) -> list[frozenset[str]]:
    """Run a command of ``tevad``; for each of its lines, in order, the names of the patterns that find it."""
    ended = _forked({"patterns": dict(patterns), "lines": str(scratch / "lines")}, command, root)
    assert ended.code == 0, ended.said
    lines = [line for path in scratch.glob("lines.*") for line in json.loads(path.read_text())]
    return [frozenset(names) for _, names in sorted(lines)]


class Paused:
    """A process that stands still at a moment until it is released."""

    def __init__(self, process: subprocess.Popen[str], scratch: Path) -> None:
        self.process = process
        self._reached, self._released = scratch / "reached", scratch / "released"

    def await_moment(self) -> None:
        """Return when the process has come to the moment."""
        until = time.monotonic() + _PATIENCE
        while not self._reached.exists():
            assert self.process.poll() is None, f"it ended before: {self.process.communicate()[1]}"
            assert time.monotonic() < until, "it never came there"
            time.sleep(0.02)

    def release(self) -> None:
        """Let it go on."""
        self._released.touch()

    def end(self) -> Ended:
        """Let it go on to its end."""
        self.release()
        _, said = self.process.communicate(timeout=_PATIENCE)
        return Ended(self.process.returncode, said)


@contextmanager
def paused(moment: Moment, *command: str, root: Path, scratch: Path) -> Iterator[Paused]:
    """Start a command that will stand still at a moment."""
    scratch.mkdir(parents=True, exist_ok=True)
    aim = {
        **asdict(moment),
        "action": "pause",
        "reached": str(scratch / "reached"),
        "released": str(scratch / "released"),
    }
    with started(*command, root=root, aim=aim) as process:
        yield Paused(process, scratch)


def ended(*command: str, root: Path) -> Ended:
    """Run a command, of ``tevad`` or ``dvc``, to its end."""
    with started(*command, root=root) as process:
        _, said = process.communicate(timeout=_PATIENCE)
        return Ended(process.returncode, said)


def says(process: subprocess.Popen[str], pattern: str) -> str:
    """The next line on a process's stderr that a pattern finds; returns when it comes."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if re.search(pattern, line):
            return line
        said.append(line)
    raise AssertionError(f"it never said {pattern}, but: {''.join(said)}")


@contextmanager
def started(
    *command: str, root: Path, aim: Mapping[str, object] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a session of its own; nothing of it outlives the block."""
    process = subprocess.Popen(
        [_PROGRAMS / command[0], *command[1:]],
        cwd=root,
        env=_environment(aim),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _forked(aim: Mapping[str, object], command: tuple[str, ...], root: Path) -> Ended:
    """Run a command of ``tevad`` to its end, in a process that need not load the libraries first."""
    program, *arguments = command
    assert program == "tevad"
    done = forks.tevad(
        *arguments, root=root, environment=_environment(aim), scripts=[_HOOK / "sitecustomize.py"]
    )
    return Ended(done.returncode, done.stderr)


def _environment(aim: Mapping[str, object] | None) -> dict[str, str]:
    environment = {**os.environ, "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    if aim is not None:
        environment |= {"TEVAD_TEST_AIM": json.dumps(aim), "PYTHONPATH": str(_HOOK)}
    return environment
