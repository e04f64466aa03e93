"""The command line, ``tevad``. Parses, calls, prints; what is done is done elsewhere."""

from __future__ import annotations

import functools
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from assets.workspace.project import STAGES, Project
from tevad_model.errors import InputError


class _Failure(click.ClickException):
    """A message for the user and exit code 1."""

    def show(self, file: Any = None) -> None:
        click.secho(f"error: {self.format_message()}", fg="red", err=True, file=file)


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what the user can repair into a message instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            raise _Failure(str(error)) from None

    return wrapped


def _project() -> Project:
    from orchestration.running import use_project

    project = Project.find()
    use_project(project)
    return project


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tevad")
def main() -> None:
    """Which frames of a video are abnormal, learned from one label a video."""
    # A handler of the project's own, which comes before those that Dagster adds and that rewrite
    # the message; the root's is for others' warnings.
    own, others = logging.StreamHandler(), logging.StreamHandler()
    others.addFilter(_is_a_warning_of_others)
    logging.basicConfig(format="%(message)s", handlers=[others])
    logging.getLogger("tevad").setLevel(logging.INFO)
    logging.getLogger("tevad").addHandler(own)


def _is_a_warning_of_others(record: logging.LogRecord) -> bool:
    """Some libraries log INFO whatever level they are told."""
    return not record.name.startswith("tevad") and record.levelno >= logging.WARNING


@main.group()
def dataset() -> None:
    """Add datasets, look at their sources again, list them."""


def _address(_: click.Context, __: click.Parameter, value: Any) -> Any:
    """Addresses on this machine are taken from the working folder, not from the project's."""
    if isinstance(value, tuple):
        return tuple(_address(_, __, each) for each in value)
    if value is None or value.startswith("s3://"):
        return value
    return str(Path(value).expanduser().absolute())


@dataset.command("add")
@click.argument("name")
@click.option(
    "--from", "source", callback=_address, help="Folder or s3://bucket/prefix of the videos."
)
@click.option("--features", callback=_address, help="Folder of <video>_i3d.npy or <video>.npy.")
@click.option("--embeddings", callback=_address, help="Folder of <video>_emb.npy or <video>.npy.")
@click.option("--captions", callback=_address, help="JSON lines, one video each.")
@click.option(
    "--list", "lists", multiple=True, callback=_address,
    help="Names the videos of a split, a feature file a line; several times for several splits.",
)  # fmt: skip
@click.option("--labels", callback=_address, help="CSV video,label[,split][,class][,source].")
@click.option("--events", callback=_address, help="CSV video,start_frame,end_frame[,class].")
@click.option(
    "--fps", type=click.FloatRange(min=0, min_open=True),
    help="Frames a second of frame folders, or of videos without pixels.",
)  # fmt: skip
@click.option("--preset", help="A name from `presets` in params.yaml.")
@_reported
def dataset_add(name: str, **given: Any) -> None:
    """Add videos, or features and captions made of them elsewhere, as dataset NAME.

    The folder or bucket of --from holds videos.csv (video,path,label[,split][,class]) and, where
    there is ground truth for evaluation, events.csv (video,start_frame,end_frame[,class]); or just
    sub-folders normal/ and abnormal/. A folder of pictures counts as a video; give its --fps.

    What was made elsewhere comes in the layouts of RTFM and TEVAD (--features, --embeddings,
    --list), or as captions; its videos need no pixels.
    """
    from orchestration.datasets import add_dataset, choose, describe

    project = _project()
    click.echo(describe(add_dataset(project, name, choose(project, name, given))))
    click.echo(f"next: tevad run {name}")


@dataset.command("refresh")
@click.argument("name")
@_reported
def dataset_refresh(name: str) -> None:
    """Look at a dataset's source again and say what it holds. `tevad run` does this by itself."""
    from assets.workspace import listing
    from orchestration.datasets import describe

    found = _project().dataset(name)
    listing.refresh(found)
    click.echo(describe(found))


@dataset.command("list")
@_reported
def dataset_list() -> None:
    """The datasets of this project and their sources."""
    for name, entry in _project().params.datasets.items():
        click.echo(f"{name}\t{', '.join(entry.addresses)}")


@dataset.command("render")
@click.option("--train", default=16, show_default=True, help="Videos of the training split.")
@click.option("--test", default=12, show_default=True, help="Videos of the test split.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another dataset.")
@_reported
def dataset_render(train: int, test: int, seed: int) -> None:
    """Render a small surveillance dataset for trying things out, and add it as `rendered`."""
    from orchestration.datasets import describe, render_dataset

    click.echo(describe(render_dataset(_project(), train=train, test=test, seed=seed)))


@dataset.command("download")
@click.argument("name")
@click.option(
    "--archive",
    "archives",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file fetched by hand; may be given several times.",
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    help="A mirror of a file, told by its name; may be given several times.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="The dataset's folder.  [default: datasets/NAME]",
)
@click.option("--no-add", is_flag=True, help="Lay it out only; do not add it to the project.")
@click.option("--yes", is_flag=True, help="Accept the terms without being asked, for scripts.")
@_reported
def dataset_download(
    name: str,
    archives: tuple[Path, ...],
    urls: tuple[str, ...],
    into: Path | None,
    no_add: bool,
    yes: bool,
) -> None:
    """Fetch a public dataset, lay it out, and add it as dataset NAME.

    NAME is ped2, ucf-crime, shanghaitech, xd-violence or surveillance-fights; docs/datasets.md says
    what of each has to be fetched by hand. Shows size and terms and asks before it fetches.
    """
    from orchestration.datasets import describe
    from orchestration.downloads.acquisition import Wish, acquire
    from orchestration.downloads.catalogue import find

    wish = Wish(find(name), into, archives, urls, add=not no_add)
    acquired = acquire(_project(), wish, functools.partial(_accepted, yes=yes))
    for file, digest in acquired.pinned.items():
        click.echo(f"pinned in downloads.json: {file} sha256 {digest}")
    for note in acquired.notes:
        click.secho(f"warning: {note}", fg="yellow", err=True)
    click.echo(f"laid out in {acquired.folder}")
    if acquired.dataset:
        click.echo(describe(acquired.dataset))
        click.echo(f"next: tevad run {name}")


def _accepted(terms: str, *, yes: bool) -> bool:
    click.echo(terms)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError("no terminal to ask on; --yes accepts the terms above")
    return click.confirm("Fetch it on these terms?")


@main.group()
def encoders() -> None:
    """Say which encoders there are, and fetch the models they run."""


@encoders.command("list")
@_reported
def encoders_list() -> None:
    """The backends that come with the project, with their options."""
    from orchestration.encoder_models import describe

    for line in describe():
        click.echo(line)


@encoders.command("pull")
@click.argument("model", required=False)
@click.option("--revision", help="Branch, tag or commit.  [default: the newest commit]")
@_reported
def encoders_pull(model: str | None, revision: str | None) -> None:
    """Fetch MODEL from the Hugging Face hub, or all models that params.yaml names.

    Nothing else touches the network: a run reads what was fetched, at the revision that params.yaml
    pins. HF_ENDPOINT names another hub, HF_TOKEN opens gated models, HF_HOME says where to keep them.
    """
    from orchestration.encoder_models import pull, summary

    for pulled in pull(_project(), model, revision):
        click.echo(summary(pulled))


@main.command()
@click.argument("name", type=click.Choice(STAGES))
@click.option("--dataset", "dataset_name", required=True, help="A dataset of params.yaml.")
@_reported
def stage(name: str, dataset_name: str) -> None:
    """Run one stage of the chain for a dataset (what dvc.yaml calls)."""
    from orchestration.running import run_stage

    run_stage(_project().dataset(dataset_name), name)


@main.command()
@click.argument("name")
@_reported
def run(name: str) -> None:
    """Materialize the whole chain for dataset NAME through Dagster."""
    _run(_project(), name)


def _run(project: Project, name: str) -> None:
    from orchestration.reporting import summary
    from orchestration.running import run_chain

    started = time.perf_counter()
    found = project.dataset(name)
    outcome = run_chain(found)
    if not outcome.success:
        lines = "\n".join(f"  - {line}" for line in outcome.failures)
        raise _Failure(f"run {outcome.run_id} of {name} failed:\n{lines}")
    click.echo(summary(found, outcome.model, time.perf_counter() - started))
    for line in outcome.failures:
        click.secho(f"warning: {line}", fg="yellow", err=True)


@main.command()
@click.argument("name")
@click.option("--seed", "seeds", type=int, multiple=True, help="Instead of those of params.yaml.")
@_reported
def ablate(name: str, seeds: tuple[int, ...]) -> None:
    """Say what each part of TEVAD is worth on dataset NAME (the paper's table 5).

    Trains the model with each modality alone, and with both in every fusion with and without the
    text's temporal network. Needs the features that `tevad run NAME` makes; goes on where it was
    if interrupted.
    """
    from assets.ablation import ablate as run_ablation
    from assets.ablation import table
    from assets.workspace.tracking import Tracking

    project = _project()
    rows = run_ablation(project.dataset(name), Tracking.of(project), seeds or None)
    click.echo(table(rows))


@main.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", help="models:/NAME@ALIAS or models:/NAME/VERSION.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("scores"), show_default=True,
    help="Folder for the results.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Also write all of it as JSON.")
@click.option("--threshold", type=float, help="Score from which a frame counts as abnormal.")
@_reported
def score(
    videos: tuple[Path, ...],
    model: str | None,
    out: Path,
    as_json: bool,
    threshold: float | None,
) -> None:
    """Score VIDEOS (files or folders) with a registered model.

    Writes for each a CSV of frames, one of snippets with captions, and a picture of the timeline.
    """
    from assets.workspace.tracking import Tracking
    from orchestration.scoring import score_videos

    project = _project()
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
        raise _Failure("\n".join(f"not scored: {reason}" for reason in report.failed.values()))


@main.command()
@click.option("--port", default=3000, show_default=True, help="Dagster's port.")
@click.option("--mlflow-port", default=5000, show_default=True, help="MLflow's port.")
@_reported
def up(port: int, mlflow_port: int) -> None:
    """Start Dagster (UI and daemon) and MLflow on loopback until interrupted."""
    import dagster as dg

    from orchestration.agreement import report_versions
    from orchestration.build import SPECS
    from orchestration.serving import servers, start, stop

    project = _project()
    wanted = servers(project, dagster_port=port, mlflow_port=mlflow_port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with dg.DagsterInstance.get() as instance:
        report_versions(project, SPECS, instance)
    running = start(project, wanted)
    for server in wanted:
        click.echo(f"{server.name}: {server.address}")
    click.echo("Ctrl-C stops them.")
    try:
        while all(process.poll() is None for process in running):
            time.sleep(0.5)
        raise InputError(f"a server ended; see {project.state / 'logs'}")
    except KeyboardInterrupt:
        click.echo("stopping")
    finally:
        stop(running)


@main.command()
@click.argument("what")
@click.option("--video", help="Which models of dataset WHAT a video went into, and by which split.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_reported
def lineage(what: str, video: str | None, as_json: bool) -> None:
    """Lead a model back to its bytes, or bytes forward to the models.

    WHAT is models:/NAME/VERSION or models:/NAME@ALIAS (what it was made from), a dataset (what DVC,
    Dagster and MLflow say of each stage), or a stage's version, an md5 (the models it went into).
    """
    from assets.workspace.tracking import Tracking
    from orchestration.lineage import Lineage, report

    project = _project()
    found = report(Lineage(project, Tracking.of(project)), what, video)
    click.echo(found.as_json if as_json else found.text)


@main.command()
@_reported
def sync() -> None:
    """Tell Dagster what DVC made without it (its sensor does, while `tevad up` runs)."""
    import dagster as dg

    from orchestration.agreement import report_versions
    from orchestration.build import SPECS

    project = _project()
    with dg.DagsterInstance.get() as instance:
        reported = report_versions(project, SPECS, instance)
    click.echo("\n".join(reported) or "Dagster knows all of dvc.lock")


@main.command()
@_reported
def demo() -> None:
    """Render a dataset, run the whole chain on it, and say where to look next."""
    from orchestration.datasets import RENDERED, render_dataset

    project = _project()
    render_dataset(project, train=16, test=12, seed=0)
    _run(project, RENDERED)
