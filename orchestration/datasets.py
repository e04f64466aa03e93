"""Adding datasets to a project: what ``tevad dataset …`` does."""

from __future__ import annotations

from pathlib import Path

from assets.workspace import listing
from assets.workspace.params import DatasetParams, remove_dataset, write_dataset
from assets.workspace.project import Dataset, Project

RENDERED = "rendered"


def add_dataset(project: Project, name: str, entry: DatasetParams) -> Dataset:
    """Look at a source and, if its tables can be read, enter it in ``params.yaml``.

    A local source is kept relative to the project where it lies inside it.

    Raises:
        InputError: if the source cannot be used; ``params.yaml`` then stays as it was.
    """
    before = project.params.datasets.get(name)
    write_dataset(project.root, name, _anchored(project, entry))
    dataset = project.dataset(name)
    try:
        listing.refresh(dataset)
    except BaseException:
        _restore(project, name, before)
        raise
    return dataset


def render_dataset(project: Project, *, train: int, test: int, seed: int) -> Dataset:
    """Render the demonstration dataset and add it with the preset ``demo``."""
    from tevad_model.render import render

    folder = project.state / RENDERED
    render(folder, train=train, test=test, seed=seed)
    source = folder.relative_to(project.root).as_posix()
    return add_dataset(project, RENDERED, DatasetParams(source=source, preset="demo"))


def describe(dataset: Dataset) -> str:
    """A few lines on what a dataset's source holds."""
    listed = listing.read(dataset)
    usable = [row for row in listed.rows if not row.problem]
    lines = [f"{dataset.name}: {len(usable)} of {len(listed.rows)} rows usable"]
    for split in ("train", "test", ""):
        labels = [row.label or "unlabelled" for row in usable if row.split == split]
        counts = ", ".join(f"{labels.count(label)} {label}" for label in sorted(set(labels)))
        if counts:
            lines.append(f"  {split or 'no split'}: {counts}")
    lines += [f"  not usable: {row.problem}" for row in listed.rows if row.problem]
    lines += [f"  not listed, left out: {path}" for path in listed.unlisted]
    lines.append("  events.csv: " + ("there" if listed.events is not None else "none"))
    return "\n".join(lines)


def _anchored(project: Project, entry: DatasetParams) -> DatasetParams:
    if entry.source.startswith("s3://"):
        return entry
    folder = (project.root / Path(entry.source).expanduser()).resolve()
    inside = folder.is_relative_to(project.root)
    source = folder.relative_to(project.root).as_posix() if inside else str(folder)
    return entry.model_copy(update={"source": source})


def _restore(project: Project, name: str, before: DatasetParams | None) -> None:
    if before is None:
        remove_dataset(project.root, name)
    else:
        write_dataset(project.root, name, before)
