"""``tevad score``, ``lineage`` and ``reproduce``: what is done with a registered model."""

from __future__ import annotations

import json
from pathlib import Path

import click

from assets.workspace.project import Dataset
from orchestration.cli.common import Failure, current_project, reported


@click.command()
@click.argument("videos", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--dataset", "dataset_name", help="Score all of a dataset with its champion instead.")
@click.option("--model", help="models:/NAME@ALIAS or models:/NAME/VERSION.")
@click.option(
    "--out", type=click.Path(path_type=Path), show_default="scores", help="Folder for the results.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Also write all of it as JSON.")
@click.option("--threshold", type=float, help="Score from which a frame counts as abnormal.")
@reported
def score(
    videos: tuple[Path, ...],
    dataset_name: str | None,
    model: str | None,
    out: Path | None,
    as_json: bool,
    threshold: float | None,
) -> None:
    """Score VIDEOS (files or folders) with a registered model, or a dataset with its champion.

    Writes for each a CSV of frames, one of snippets with captions, and a picture of the timeline.
    Of a dataset only what is new or was scored by another version is scored, labelled or not.
    """
    others = (*videos, model, out, as_json or None, threshold)
    if dataset_name is not None and any(other is not None for other in others):
        raise click.UsageError("--dataset takes neither VIDEOS nor other options")
    if dataset_name is not None:
        _score_dataset(current_project().dataset(dataset_name))
    elif videos:
        _score_videos(videos, model, out or Path("scores"), as_json, threshold)
    else:
        raise click.UsageError("give VIDEOS or --dataset")


def _score_dataset(dataset: Dataset) -> None:
    from assets.scored_videos import read_scores, scores_folder
    from orchestration.running import run_scoring

    outcome = run_scoring(dataset)
    if not outcome.success:
        raise Failure("\n".join(outcome.failures))
    [[name, version]] = read_scores(dataset)[["model", "version"]].drop_duplicates().values
    click.echo(f"scored by models:/{name}/{version}\n  {scores_folder(dataset)}")


def _score_videos(
    videos: tuple[Path, ...], model: str | None, out: Path, as_json: bool, threshold: float | None
) -> None:
    from assets.scoring import score_videos
    from assets.workspace.tracking import Tracking

    project = current_project()
    report = score_videos(
        videos,
        Tracking.of(project),
        out=out,
        cache=project.cache,
        model_uri=model,
        as_json=as_json,
        threshold=threshold,
    )
    click.echo(f"scored by {report.model}")
    for written in report.written.values():
        click.echo("\n".join(f"  {path}" for path in written))
    if report.failed:
        raise Failure("\n".join(f"not scored: {reason}" for reason in report.failed.values()))


@click.command()
@click.argument("what")
@click.option("--video", help="Which models of dataset WHAT a video went into, and by which split.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def lineage(what: str, video: str | None, as_json: bool) -> None:
    """Lead a model back to its bytes, or bytes forward to the models.

    WHAT is models:/NAME/VERSION or models:/NAME@ALIAS (what it was made from), a dataset (what DVC,
    Dagster and MLflow say of each stage), or a stage's version, an md5 (the models it went into).
    """
    from assets.workspace.tracking import Tracking
    from orchestration.lineage import Lineage, report

    project = current_project()
    found = report(Lineage(project, Tracking.of(project)), what, video)
    click.echo(found.as_json if as_json else found.text)


@click.command()
@click.argument("model")
@click.option(
    "--from", "start", type=click.Choice(["features", "raw_videos"]), default="features",
    show_default=True, help="What to start from: raw_videos makes every stage after them again.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def reproduce(model: str, start: str, as_json: bool) -> None:
    """Make a registered version again and say whether it comes out bit-equal.

    MODEL is models:/NAME/VERSION or models:/NAME@ALIAS. In a clone of the project, with its DVC
    remote and MLflow server: checks out the version's commit beside your own, fetches the data of
    the version, trains, and compares. Exit code 0 if every byte is the same, 1 if not.
    """
    from assets.workspace.tracking import Tracking
    from orchestration.reproduction import reproduce as make_again

    project = current_project()
    found = make_again(project, Tracking.of(project), model, start)
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else str(found))
    if not found.is_equal:
        raise SystemExit(1)
