"""Making a registered version again and holding it against its bytes: what `tevad reproduce` does.

The code of the version's commit is checked out into a git worktree of its own, below ``.tevad/``;
there it gets the parameters and the source listing that its run kept, and from DVC the data that
its tags address. The stages then run there as `dvc repro` would run them, with that code. Neither
the project's data, nor Dagster, nor MLflow hear of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.raw_videos import VIDEOS
from assets.tevad_model import STAGE as MODELS
from assets.workspace import record, versions
from assets.workspace.database import VARIABLE as DATABASE
from assets.workspace.locks import locked
from assets.workspace.objects import Objects, folder_files, md5_of
from assets.workspace.project import FEATURE_STAGES, Dataset, Project
from assets.workspace.record import Record
from assets.workspace.storage import VARIABLE as STORAGE
from assets.workspace.tracking import Tracking, flatten
from orchestration import differences
from orchestration.lineage import Lineage, ModelLineage
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from mlflow.entities import Run

FEATURES, RAW_VIDEOS = "features", "raw_videos"
STARTS = (FEATURES, RAW_VIDEOS)
"""What to start from: features and embeddings as DVC has them, or the videos alone."""

_EVALUATION = "evaluation_metrics"

_TEAMS = ("MLFLOW_TRACKING_URI", DATABASE, STORAGE)
"""Settings of stores that are to hear nothing of it; a store in the worktree takes their place."""


@dataclass(frozen=True)
class Remade:
    """A stage that was run again.

    Attributes:
        stage: the stage.
        then: its version when the model was made.
        now: its version made again.
    """

    stage: str
    then: str
    now: str

    @property
    def is_equal(self) -> bool:
        """Whether every byte of it is the same."""
        return self.then == self.now


@dataclass(frozen=True)
class Reproduction:
    """How making a version again ended.

    Attributes:
        model: its address.
        commit: of the code.
        dirty: whether the code differed from the commit; it was made with the differences.
        stages: what was run again, in order.
        first_difference: where it first differs; empty if it does not.
        may_explain: what else is not as it was.
    """

    model: str
    commit: str
    dirty: bool
    stages: tuple[Remade, ...]
    first_difference: str
    may_explain: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether every byte of every stage is the same."""
        return all(stage.is_equal for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        stages = [{**asdict(each), "is_equal": each.is_equal} for each in self.stages]
        return {**asdict(self), "stages": stages, "is_equal": self.is_equal}

    def __str__(self) -> str:
        code = f"{self.commit}{' with the changes its run kept' if self.dirty else ''}"
        return "\n".join(
            [
                f"{self.model} made again by code {code}",
                *(
                    f"  {each.stage:<20}{each.then:<38}"
                    + ("the same" if each.is_equal else f"now {each.now}")
                    for each in self.stages
                ),
                *self._verdict(),
            ]
        )

    def _verdict(self) -> list[str]:
        others = [f"  not as then: {line}" for line in self.may_explain]
        if self.is_equal:
            return ["bit-equal", *others]
        return [f"NOT bit-equal; the first difference: {self.first_difference}", *others]


def reproduce(
    project: Project, tracking: Tracking, uri: str, start: str = FEATURES
) -> Reproduction:
    """Make a registered version again and compare it with what was registered.

    Args:
        project: a clone of the project, of any commit; only its DVC settings are read.
        tracking: where the version is registered.
        uri: ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``.
        start: one of :data:`STARTS`.

    Raises:
        InputError: if there is no such version, its run does not keep what is needed, its commit is
            not in this clone, neither the cache nor the remote has its data, or a stage fails.
    """
    model = Lineage(project, tracking).of_model(uri)
    then = {each.stage: each.md5 for each in model.data}
    run = tracking.client.get_run(model.run)
    with tempfile.TemporaryDirectory() as folder:
        kept = _read_record(tracking, model, Path(folder))
        with _worktree(project, model, run) as root:
            if kept.changes:
                _apply(kept.changes, root)
            inside = _project_in(root, project)
            dataset = Dataset(inside, model.dataset)
            kept.restore(dataset)
            objects = Objects(project)
            stages = _stages(then, start)
            _bring_data(objects, dataset, then, stages)
            for stage in stages:
                _run_stage(project, dataset, stage, kept.threads)
            now = versions.all_current(dataset, stages)
            remade = tuple(Remade(stage, then[stage], now[stage]) for stage in stages)
            return Reproduction(
                model=model.model,
                commit=model.commit,
                dirty=model.dirty,
                stages=remade,
                first_difference=_first_difference(objects, dataset, remade),
                may_explain=tuple(_other_circumstances(kept, dataset, run)),
            )


def _stages(then: Mapping[str, str], start: str) -> list[str]:
    """What is to be run again, in order."""
    if start == FEATURES:
        return [MODELS]
    features = [stage for stage in FEATURE_STAGES if stage in then and stage != RAW_VIDEOS]
    # A model of pixels alone does not say of which captions its evaluation spoke.
    evaluation = [_EVALUATION] if _EVALUATION in then and "captions" in then else []
    return [*features, MODELS, *evaluation]


def _read_record(tracking: Tracking, model: ModelLineage, folder: Path) -> Record:
    run = tracking.log(model.run)
    if not run.paths(record.FOLDER):
        raise InputError(
            f"{model.model}: its run {model.run} does not keep what it can be repeated by; it was "
            "trained before runs did, so train anew"
        )
    kept = Record.read(run.fetch(record.FOLDER, folder), model.model)
    if model.dirty and not kept.changes:
        raise InputError(
            f"{model.model}: its code differed from commit {model.commit} by more than runs keep; "
            "it cannot be made again"
        )
    return kept


@contextmanager
def _worktree(project: Project, model: ModelLineage, run: Run) -> Iterator[Path]:
    """The code of the commit, in a folder that goes when the block ends.

    One that a killed process left is removed first; another process on the same version waits.
    """
    if not model.commit:
        raise InputError(f"{model.model}: was trained outside of git; nothing says by which code")
    if _git(project.root, "cat-file", "-e", f"{model.commit}^{{commit}}").returncode:
        raise InputError(
            f"{model.model}: its commit {model.commit} is not in this clone; `git fetch --all` "
            "(`--unshallow` in a shallow clone), and if it was never pushed, push it from "
            f"{run.data.tags.get('logged_from', 'where it was trained')}"
        )
    root = project.state / "reproduce" / model.model.partition(":/")[2].replace("/", "-")
    with locked(root.with_suffix(".lock"), f"making {model.model} again"):
        _remove(project, root)
        try:
            # The project's own hooks, such as DVC's, are for its own working tree.
            done = _git(
                project.root, "-c", "core.hooksPath=/dev/null",
                "worktree", "add", "--detach", str(root), model.commit,
            )  # fmt: skip
            if done.returncode:
                raise InputError(f"git worktree add: {done.stderr.strip()}")
            yield root
        finally:
            _remove(project, root)


def _remove(project: Project, root: Path) -> None:
    if root.exists():
        shutil.rmtree(root)
    _git(project.root, "worktree", "prune")


def _apply(changes: Path, root: Path) -> None:
    done = _git(root, "apply", "--whitespace=nowarn", str(changes.resolve()))
    if done.returncode:
        raise InputError(f"the changes that the run kept do not apply: {done.stderr.strip()}")


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise InputError("git: not installed; the code of a version is checked out by it") from None


def _project_in(root: Path, project: Project) -> Project:
    """The project in a worktree; it may lie below the top of its repository."""
    top = _git(project.root, "rev-parse", "--show-toplevel").stdout.strip()
    return Project.at(root / project.root.resolve().relative_to(top))


def _bring_data(
    objects: Objects, dataset: Dataset, then: Mapping[str, str], stages: list[str]
) -> None:
    """Write the versions of all that is read and not made again."""
    reads_pixels = stages != [MODELS]

    def is_wanted(name: str) -> bool:
        return reads_pixels or not name.startswith(f"{VIDEOS}/")

    for stage, version in then.items():
        if stage in stages or stage == _EVALUATION:
            continue
        objects.write(version, dataset.stage(stage), is_wanted)


def _run_stage(project: Project, dataset: Dataset, stage: str, threads: str | None) -> None:
    """Run a stage as `dvc repro` does, by the worktree's code, in a store of its own.

    It computes on as many threads as the version's run, whatever machine this is: how a sum is
    split decides its last bits.
    """
    root = dataset.project.root
    code = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    environment = {
        **os.environ,
        "PYTHONPATH": code,
        "TEVAD_PROJECT": str(root),
        "TEVAD_CACHE": str(project.cache),
        "DAGSTER_HOME": str(dataset.project.state / "dagster"),
        **({"OMP_NUM_THREADS": threads} if threads else {}),
    }
    for name in _TEAMS:
        environment.pop(name, None)
    command = [str(Path(sys.executable).with_name("tevad")), "stage", stage]
    done = subprocess.run(
        [*command, "--dataset", dataset.name],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,  # what it says of its progress goes to stderr, as ever
        check=False,
    )
    if done.returncode:
        raise InputError(f"{stage} of {dataset.name} could not be made again; its message is above")


def _first_difference(objects: Objects, dataset: Dataset, remade: tuple[Remade, ...]) -> str:
    stage = next((each for each in remade if not each.is_equal), None)
    if stage is None:
        return ""
    there = folder_files(dataset.stage(stage.stage))
    then = objects.files(stage.then)
    name = differences.first_file(then, {name: md5_of(path) for name, path in there.items()})
    if name is None:
        return f"{stage.stage}: the folder's listing"
    if name not in there or name not in then:
        return f"{stage.stage}, {name}: made only {'then' if name in then else 'now'}"
    objects.fetch([then[name]])
    found = differences.within(name, objects.path(then[name]), there[name])
    return f"{stage.stage}, {name}: {found}"


def _other_circumstances(kept: Record, dataset: Dataset, run: Run) -> Iterator[str]:
    """Parameters that its run states otherwise than its params.yaml, and other libraries."""
    params = flatten(dataset.params.model_dump(mode="json", exclude={"checks"}))
    for name, value in params.items():
        stated = run.data.params.get(name, str(value))
        if stated != str(value):
            yield f"parameter {name}: {stated} in the run, {value} in the params.yaml it keeps"
    if new := run.data.tags.get("tevad.git.new"):
        yield f"new files of then, which its run did not keep: {new}"
    if not kept.threads:
        yield "threads: its run kept no number, the machine's now"
    here = {**record.libraries(), record.THREADS: kept.threads}
    for name, installed in sorted(kept.libraries.items()):
        if here.get(name) != installed:
            yield f"{name}: {installed} then, {here.get(name, 'absent')} now"
