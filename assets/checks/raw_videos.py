"""What must hold of raw_videos: everything listed is accounted for, and there is enough to learn."""

from itertools import product

from assets.checks.expectations import (
    Check,
    CheckOutcome,
    Table,
    Tables,
    between,
    one_of,
    validate,
)
from assets.checks.faces import asset_checks
from assets.raw_videos import STAGE, read_raw_videos, video_path
from assets.workspace import files, listing
from assets.workspace.manifest import Manifest, RawVideoRow
from assets.workspace.project import Dataset
from tevad_model.dataset import LABELS, SPLITS

USABLE, QUARANTINED = "usable", "quarantined"

CHECKS = (
    Check(
        "videos_are_accounted_for",
        "Every listed video decodes, or is in quarantine with a reason.",
        table="videos",
        expect=lambda _: one_of("state", (USABLE, QUARANTINED)),
        blocking=True,
    ),
    Check(
        "few_videos_are_quarantined",
        "The share of quarantined videos is within checks.max_quarantined_share.",
        table="dataset",
        expect=lambda limits: between("quarantined_share", high=limits.max_quarantined_share),
        blocking=True,
    ),
    Check(
        "no_video_is_quarantined",
        "No video is in quarantine; those that are take no part in training and evaluation.",
        table="videos",
        expect=lambda _: one_of("problem", ("",)),
        is_error=False,
    ),
    Check(
        "both_labels_in_each_split",
        "Each split has usable videos of both labels: training and evaluation compare the two.",
        table="splits",
        expect=lambda _: between("usable_videos", low=1),
        blocking=True,
    ),
    Check(
        "nothing_strange_in_the_source",
        "The source is reached, has no unlisted videos, and events.csv names only listed ones.",
        table="warnings",
        expect=lambda _: one_of("warning", ()),
        is_error=False,
    ),
)


def check_raw_videos(dataset: Dataset) -> list[CheckOutcome]:
    """Check what raw_videos took in.

    Raises:
        InputError: if it has not run.
    """
    return validate(dataset, STAGE, CHECKS, measure_raw_videos(dataset))


def measure_raw_videos(dataset: Dataset) -> Tables:
    """Measure what raw_videos took in: its videos, splits and warnings.

    Raises:
        InputError: if it has not run.
    """
    manifest = read_raw_videos(dataset)
    share = len(manifest.quarantined) / len(manifest.rows) if manifest.rows else None
    return {
        "videos": Table.of(_videos(dataset, manifest), key=["video"]),
        "splits": Table.of(_splits(manifest), key=["split", "label"]),
        "dataset": Table.of(
            [{"dataset": dataset.name, "quarantined_share": share}], key=["dataset"]
        ),
        "warnings": Table.of([{"warning": text} for text in _warnings(dataset)], key=["warning"]),
    }


def _videos(dataset: Dataset, manifest: Manifest[RawVideoRow]) -> list[dict[str, object]]:
    rows = {row.video: row for row in manifest.rows}
    listed = {row.video for row in listing.read(dataset).rows}
    return [
        {
            "video": video,
            "state": _state(dataset, rows.get(video)),
            "problem": rows[video].problem if video in rows else "",
        }
        for video in sorted(listed | rows.keys())
    ]


def _state(dataset: Dataset, row: RawVideoRow | None) -> str:
    """Whether a video is what the manifest says; decoding it once was the stage's own business."""
    if row is None:
        return "listed, but not in the manifest"
    if row.problem:
        return QUARANTINED
    if row.frames < 1:
        return "without a frame"
    if not row.path:
        return USABLE  # it has no pixels, and what is ready-made of it was matched with it
    path = video_path(dataset, row)
    if not path.is_file():
        return f"{row.path} is not there"
    if path.stat().st_size != row.bytes:
        return f"{row.path} has changed since it was taken in"
    return USABLE


def _splits(manifest: Manifest[RawVideoRow]) -> list[dict[str, object]]:
    usable = [(row.split, row.label) for row in manifest.usable]
    return [
        {"split": split, "label": label, "usable_videos": usable.count((split, label))}
        for split, label in product(SPLITS, LABELS)
    ]


def _warnings(dataset: Dataset) -> list[str]:
    """What the last run warned of; without its report, which is not versioned, nothing."""
    path = dataset.reports / f"{STAGE}.json"
    return list(files.read_json(path)["warnings"]) if path.is_file() else []


raw_videos_checks = asset_checks(STAGE, CHECKS, check_raw_videos)
