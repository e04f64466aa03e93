"""Finding what nobody needs and, if asked to, removing it, while nobody changes what is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.tevad_model import STAGE as TRAINING
from assets.workspace import versions
from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking
from orchestration.garbage import leftovers, needed, objects
from orchestration.garbage.heap import Heap
from orchestration.garbage.objects import Reach
from orchestration.garbage.runs import Store
from tevad_model.errors import InputError

if TYPE_CHECKING:
    from dvc.repo import Repo

_SHOWN = 3


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        heaps: by kind; empty ones too.
        missing: versions of data that runs and models need and that are not where was looked.
        removed: whether they were removed.
    """

    heaps: tuple[Heap, ...]
    missing: tuple[str, ...]
    removed: bool

    @property
    def data(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "removed": self.removed,
            "garbage": {
                heap.kind: {"bytes": heap.bytes, "names": list(heap.names)} for heap in self.heaps
            },
            "missing": list(self.missing),
        }

    def __str__(self) -> str:
        lines = [f"{'':<30}{'number':>8}{'size':>12}"]
        lines += [
            f"{heap.kind:<30}{len(heap.names):>8}{_readable(heap.bytes):>12}" for heap in self.heaps
        ]
        if self.missing:
            lines.append(
                f"{len(self.missing)} needed versions of data are not here (`dvc fetch` brings "
                f"them): {', '.join(self.missing[:_SHOWN])}"
                + (", …" if len(self.missing) > _SHOWN else "")
            )
        total = _readable(sum(heap.bytes for heap in self.heaps))
        lines.append(
            f"removed, {total}"
            if self.removed
            else f"nothing was removed; `--delete` frees {total}"
        )
        return "\n".join(lines)


def collect(
    project: Project, tracking: Tracking, *, delete: bool = False, remote: bool = False
) -> Collection:
    """Find what nobody needs.

    Waits for runs and stages that go on, and keeps others from the datasets and from DVC meanwhile.

    Args:
        project: whose.
        tracking: where its runs and models are.
        delete: whether to remove it.
        remote: whether to look in DVC's default remote as well.

    Raises:
        InputError: if what is needed cannot be known: MLflow or git cannot be asked, or MLflow has
            no run of models that ``dvc.lock`` records.
    """
    with _alone(project) as (datasets, repo):
        store = Store.read(tracking)
        _refuse_another_store(project, store)
        tagged = needed.of_tags(store.needed, store.versions)
        wanted = needed.of_lock_files(project.root) | tagged
        cache = objects.cache_of(repo, project)
        reach = Reach.of(wanted, [cache])
        heaps = [objects.unneeded(objects.CACHE, cache, reach)]
        if remote:
            there = objects.remote_of(repo)
            reach = Reach.of(wanted, [there, cache])
            heaps.append(objects.unneeded(objects.REMOTE, there, reach))
        # Lock files also name what git keeps, such as listings of sources; tags do not.
        missing = tuple(version for version in reach.missing if version in tagged)
        heaps += [*store.heaps(), *leftovers.heaps(project, datasets)]
        if delete:
            for heap in heaps:
                if heap.names:
                    heap.remove()
    return Collection(tuple(heaps), missing, delete)


def _refuse_another_store(project: Project, store: Store) -> None:
    """A store that knows nothing of the models that lie here is not the one they are in."""
    known = needed.of_tags(store.runs, store.versions)
    for (stage, dataset), version in versions.recorded(project).items():
        if stage == TRAINING and version not in known:
            raise InputError(
                f"MLflow at {store.tracking.address} has no run of the models of {dataset} that "
                f"{versions.LOCK_FILE} records, so it is not the one that says which data are "
                "needed; set MLFLOW_TRACKING_URI, or `tevad run` logs them"
            )


@contextmanager
def _alone(project: Project) -> Iterator[tuple[list[Dataset], Repo]]:
    """Every dataset held, and DVC's lock, in the order that stages take them.

    Those that left work behind are held too, though ``params.yaml`` no longer has them.
    """
    work = project.state / "work"
    left = {path.name for path in work.iterdir() if path.is_dir()} if work.is_dir() else set()
    datasets = [Dataset(project, name) for name in sorted(left | project.params.datasets.keys())]
    with ExitStack() as held:
        for dataset in datasets:
            held.enter_context(dataset.run_held())
            held.enter_context(dataset.held())
        repo = held.enter_context(versions.locked(project))
        yield datasets, repo


def _readable(size: int) -> str:
    """Bytes for people."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
