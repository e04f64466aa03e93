"""What the Dagster faces of all stages share: the dataset of a run, and a stage's result.

A face reads its dataset from the partition, calls the stage's plain function, commits the output to
DVC, and returns what a person wants to see of it. Anything more belongs in the plain function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import dagster as dg

from assets.partitions import DATASETS
from assets.workspace import files, versions
from assets.workspace.project import Dataset, Project
from assets.workspace.stage import StageReport
from assets.workspace.tracking import Tracking
from tevad_model.atomic import full_disks_named
from tevad_model.errors import InputError, SourceRefusedError, SourceUnreachableError

RESOURCE = "project"
"""The resource every asset and check requires; :class:`ProjectAccess` says what it must offer."""

OWNERS = ["team:video"]

RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)
"""For buckets and servers that do not answer. What a user has to repair is not tried again."""

STOPPED = "told to stop"
"""What a step says that somebody interrupted."""

_SHOWN = 20


Draw = Callable[[], bytes | None]
"""Draws a PNG; None where there is nothing to be seen."""


class ProjectAccess(Protocol):
    """What the resource ``project`` offers."""

    def project(self) -> Project:
        """The project."""
        ...

    def dataset(self, name: str) -> Dataset:
        """One dataset of the project."""
        ...

    def tracking(self) -> Tracking:
        """Where runs are logged."""
        ...


def access(context: dg.AssetExecutionContext) -> ProjectAccess:
    """The resource of a run."""
    resource: ProjectAccess = getattr(context.resources, RESOURCE)
    return resource


def dataset_of(context: dg.AssetExecutionContext) -> Dataset:
    """The dataset that is the run's partition."""
    return access(context).dataset(context.partition_key)


def stage_asset(
    *, code_version: str, group_name: str, kinds: set[str], deps: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset of the chain: one partition a dataset, and the policies that hold for all of them."""
    return dg.asset(
        partitions_def=DATASETS,
        required_resource_keys={RESOURCE},
        owners=OWNERS,
        retry_policy=RETRY,
        deps=deps,
        code_version=code_version,
        group_name=group_name,
        kinds=kinds,
    )


@contextmanager
def explained() -> Iterator[None]:
    """Fail with the message of what the user can repair, at once; anything else may be retried.

    Whoever stops a run does not want the step again either, as Dagster's retry policy would have it.
    """
    try:
        with full_disks_named():
            yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        raise dg.Failure(STOPPED, allow_retries=False) from None
    except InputError as error:
        refused = isinstance(error, SourceRefusedError)
        if isinstance(error, SourceUnreachableError) and not refused:
            raise
        raise dg.Failure(str(error), allow_retries=False) from error


def committed(
    dataset: Dataset,
    report: StageReport,
    metadata: Mapping[str, Any],
    drawn: Mapping[str, Draw] = MappingProxyType({}),
) -> dg.MaterializeResult[Any]:
    """Commit a stage's output to DVC and say what it did; the data version is DVC's md5.

    Args:
        dataset: whose stage.
        report: of the stage.
        metadata: what else to show.
        drawn: pictures to show of what the stage made, drawn only if that is new.
    """
    with explained():
        version = versions.commit(dataset, report.stage)
    shown = {
        **shown_report(report, dataset.stage(report.stage)),
        **metadata,
        **_pictures(dataset, report.stage, drawn),
    }
    return dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(version))


def shown_report(report: StageReport, folder: Path) -> dict[str, Any]:
    """What a run of a stage did, as metadata."""
    shown: dict[str, Any] = {
        "done": report.done,
        "reused": report.reused,
        "quarantined": len(report.quarantined),
        "seconds": round(report.seconds, 2),
        "folder": dg.MetadataValue.path(str(folder)),
    }
    if speed := report.frames_per_second:
        shown["frames per second"] = round(speed, 1)
    if report.quarantined:
        shown["quarantine"] = dg.MetadataValue.md(_quarantine_table(report.quarantined))
    if report.warnings:
        shown["warnings"] = dg.MetadataValue.md("\n".join(f"- {w}" for w in report.warnings))
    return shown


def _pictures(
    dataset: Dataset, stage: str, drawn: Mapping[str, Draw]
) -> dict[str, dg.MarkdownMetadataValue]:
    """The pictures by name, each kept for as long as the stage and those before it are the same."""
    made_from = versions.made_from(dataset, stage)
    folder = dataset.reports / "figures"
    shown = {}
    for name, draw in drawn.items():
        stem = f"{stage}.{name.replace(' ', '_')}"
        path = folder / f"{stem}.{made_from}.png"
        if not path.is_file():
            png = draw()
            for old in folder.glob(f"{stem}.*.png"):
                old.unlink()
            if png is None:
                continue
            files.write_bytes(path, png)
        shown[name] = picture(path.read_bytes(), name)
    return shown


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG as metadata that Dagster's UI shows."""
    import base64

    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _quarantine_table(quarantined: Mapping[str, str]) -> str:
    rows = sorted(quarantined.items())
    more = [("…", f"{len(rows) - _SHOWN} more")] if len(rows) > _SHOWN else []
    return markdown_table(("video", "reason"), [*rows[:_SHOWN], *more])


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
