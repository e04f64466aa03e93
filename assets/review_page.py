"""review_page: one HTML page a dataset and version, for people to look at what the champion scored.

Self-contained, in ``.tevad/pages/<dataset>/<model>-<version>.html``: opened from disk, or through
the server of ``tevad up``, which Dagster's metadata and the version's tags in MLflow point to. It
is made of versioned data and can be made again, so it is no stage of DVC; the data version that
Dagster shows is the page's hash.
"""

import time
from pathlib import Path
from typing import Any

import dagster as dg

from assets.scored_videos import STAGE as SCORED_VIDEOS
from assets.scored_videos import read_scores
from assets.workspace import files
from assets.workspace.face import access, dataset_of, explained, shown_report, stage_asset
from assets.workspace.project import Dataset, Project
from assets.workspace.stage import StageReport
from assets.workspace.tracking import Tracking
from tevad_model.errors import InputError
from tevad_model.fingerprint import sha256_file

STAGE = "review_page"
CODE_VERSION = "1"
"""Changes when the same scores would be shown otherwise."""

PAGES_SERVER = "http://127.0.0.1:5050"
"""Where `tevad up` serves the pages and the videos."""

TAG = "tevad.review_page"
_ARTIFACTS = "review"


def write_review_page(dataset: Dataset, tracking: Tracking) -> StageReport:
    """Make the page of the scores that lie there, and let the version in MLflow point to it.

    Raises:
        InputError: if no video has been scored.
    """
    from assets.review.content import gather
    from assets.review.html import page

    started = time.perf_counter()
    scores = read_scores(dataset)
    if scores.empty:
        raise InputError(
            f"{dataset.name}: no video could be scored; see {_scoring_report(dataset)}"
        )
    scored = scores.iloc[0]
    path = page_path(dataset, scored["model"], scored["version"])
    run_page = tracking.run_page(scored["run_id"]) if scored["run_id"] else ""
    content = gather(dataset, path, run=run_page, server=PAGES_SERVER)
    files.write_text(path, page(f"Review {dataset.name}", content))
    tracking.client.set_model_version_tag(
        scored["model"], scored["version"], TAG, page_address(dataset, scored["version"])
    )
    if scored["run_id"]:
        run = tracking.log(scored["run_id"])
        run.tags({TAG: page_address(dataset, scored["version"])})
        run.artifact(path, _ARTIFACTS)
    report = StageReport(
        stage=STAGE,
        dataset=dataset.name,
        done=len(content["videos"]),
        reused=0,
        quarantined={},
        seconds=time.perf_counter() - started,
    )
    report.publish(dataset, str(path))
    return report


def _scoring_report(dataset: Dataset) -> Path:
    return dataset.reports / f"{SCORED_VIDEOS}.json"


def pages_folder(project: Project) -> Path:
    """Where the pages lie, a folder a dataset."""
    return project.state / "pages"


def page_path(dataset: Dataset, model: str, version: str) -> Path:
    """Where the page of a version lies."""
    return pages_folder(dataset.project) / dataset.name / f"{model}-{version}.html"


def page_address(dataset: Dataset, version: str) -> str:
    """Where `tevad up` serves it."""
    return f"{PAGES_SERVER}/review/{dataset.name}/{version}"


@stage_asset(
    deps=["scored_videos", "raw_videos"],
    code_version=CODE_VERSION,
    group_name="serving",
    kinds={"python", "html", "mlflow"},
)
def review_page(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """A page to look at the scored videos: player, timeline, events, threshold, figures."""
    dataset = dataset_of(context)
    with explained():
        report = write_review_page(dataset, access(context).tracking())
        scored = read_scores(dataset).iloc[0]
    path = page_path(dataset, scored["model"], scored["version"])
    return dg.MaterializeResult(
        metadata={
            **shown_report(report, path.parent),
            "page": dg.MetadataValue.url(page_address(dataset, scored["version"])),
            "file": dg.MetadataValue.path(str(path)),
            "bytes": path.stat().st_size,
        },
        data_version=dg.DataVersion(sha256_file(path)),
    )
