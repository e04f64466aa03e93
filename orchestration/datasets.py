"""Adding datasets to a project: what ``tevad dataset …`` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assets.workspace import listing
from assets.workspace.listing import Listing
from assets.workspace.params import (
    DEFAULT_PRESET,
    DatasetParams,
    remove_dataset,
    write_dataset,
)
from assets.workspace.project import Dataset, Project
from tevad_model.errors import InputError
from tevad_model.ready_made import CAPTIONS

RENDERED = "rendered"


def add_dataset(project: Project, name: str, entry: DatasetParams) -> Dataset:
    """Look at a source and, if its tables can be read, enter it in ``params.yaml``.

    Raises:
        InputError: if the source cannot be used; ``params.yaml`` then stays as it was.
    """
    before = project.params.datasets.get(name)
    write_dataset(project.root, name, _anchored(project, entry))
    dataset = project.dataset(name)
    try:
        with dataset.run_held():
            listing.refresh(dataset)
    except BaseException:
        _restore(project, name, before)
        raise
    return dataset


def choose(project: Project, name: str, given: Mapping[str, Any]) -> DatasetParams:
    """A dataset's entry from what a user gave, with the preset that suits it if none is named.

    Raises:
        InputError: if the preset is not there, or what was given does not make a dataset.
    """
    preset = given.get("preset") or _fitting_preset(project, name, given)
    known = project.params.presets
    if preset not in known:
        raise InputError(f"--preset: {preset!r} is not one of {', '.join(sorted(known))}")
    said = {key: value for key, value in given.items() if value and key != "preset"}
    try:
        return DatasetParams(**said, preset=preset)
    except ValidationError as error:
        reasons = "; ".join(str(each["msg"]) for each in error.errors())
        raise InputError(f"dataset {name}: {reasons}") from None


def _fitting_preset(project: Project, name: str, given: Mapping[str, Any]) -> str:
    """Of one modality where nothing else is there; else the dataset's own, made for its features."""
    text = given.get("embeddings") or given.get("captions")
    if not given.get("source") and not (text and given.get("features")):
        return "text" if text else "visual"
    own = [name] if given.get("features") else [f"{name}-embedded", name]
    return next((preset for preset in own if preset in project.params.presets), DEFAULT_PRESET)


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
    lines += [f"  ready-made {line}" for line in _ready_made(listed)]
    lines.append("  events.csv: " + ("there" if listed.events is not None else "none"))
    return "\n".join(lines)


def _ready_made(listed: Listing) -> Iterator[str]:
    for kind, by_video in listed.ready_made.items():
        if kind == CAPTIONS:
            [file] = by_video[listing.ALL_VIDEOS]
            yield f"{kind}: {file.path}"
        else:
            yield f"{kind}: of {len(by_video)} of {len(listed.rows)} videos"


def _anchored(project: Project, entry: DatasetParams) -> DatasetParams:
    """The entry with addresses of this machine relative to the project where they lie inside it."""
    return entry.model_copy(
        update={
            "lists": tuple(_address(project, path) for path in entry.lists),
            **{
                name: _address(project, address)
                for name in ("source", "features", "embeddings", "captions", "labels", "events")
                if (address := getattr(entry, name))
            },
        }
    )


def _address(project: Project, address: str) -> str:
    if address.startswith("s3://"):
        return address
    path = (project.root / Path(address).expanduser()).resolve()
    inside = path.is_relative_to(project.root)
    return path.relative_to(project.root).as_posix() if inside else str(path)


def _restore(project: Project, name: str, before: DatasetParams | None) -> None:
    if before is None:
        remove_dataset(project.root, name)
    else:
        write_dataset(project.root, name, before)
