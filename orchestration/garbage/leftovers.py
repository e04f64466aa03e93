"""Files in the project's folders that no run goes on from: for whoever holds datasets and DVC's lock."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from assets.raw_videos import INCOMING
from assets.tevad_model import STAGE as TRAINING
from assets.tevad_model import has_current_models
from assets.workspace import files
from assets.workspace.project import Dataset, Project
from assets.workspace.versions import LOCK_FILE
from orchestration.garbage.heap import Heap
from tevad_model.atomic import TEMPORARY_PREFIX

WORK, HALF_WRITTEN, ENCODERS = "work that is done or given up", "half-written files", "encoders"
UNUSED_DAYS = 30
"""An exported encoder that was not used for so long is made again when it is."""

_EXPORTED = "*.onnx"


def heaps(project: Project, datasets: Iterable[Dataset]) -> list[Heap]:
    """What nobody needs.

    Args:
        project: whose folders.
        datasets: those of ``params.yaml``, and those that it no longer has but left something.
    """
    datasets = list(datasets)
    known = project.params.datasets
    work = [
        path
        for dataset in datasets
        for path in (_done(dataset) if dataset.name in known else [dataset.work])
    ]
    partial = [
        path
        for dataset in datasets
        for folder in (dataset.folder, dataset.work, dataset.reports)
        for path in files.half_written(folder)
        if not any(path.is_relative_to(other) for other in work)
    ]
    partial += project.root.glob(f"{TEMPORARY_PREFIX}*{Path(LOCK_FILE).suffix}")
    return [_heap(WORK, work), _heap(HALF_WRITTEN, partial), _heap(ENCODERS, _unused(project))]


def _done(dataset: Dataset) -> Iterator[Path]:
    """Work folders that the next run would begin anew or has no use for."""
    folders = [dataset.work / INCOMING]
    if has_current_models(dataset):
        folders.append(dataset.work / TRAINING)  # else training goes on from there
    return (folder for folder in folders if folder.is_dir() and any(folder.iterdir()))


def _unused(project: Project) -> Iterator[Path]:
    if not project.cache.is_relative_to(project.state):
        return  # shared with other projects
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for path in project.cache.glob(_EXPORTED):
        if path.stat().st_mtime < oldest:
            yield path


def _heap(kind: str, paths: Iterable[Path]) -> Heap:
    found = sorted(path for path in paths if path.exists())

    def remove() -> None:
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    return Heap(kind, tuple(map(str, found)), sum(map(_size, found)), remove)


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in inside if each.is_file())
