"""``tevad dataset …``: add datasets, look at their sources again, fetch public ones."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click

from orchestration.cli.common import address, current_project, reported
from tevad_model.errors import InputError


@click.group()
def dataset() -> None:
    """Add datasets, look at their sources again, list them."""


@dataset.command("add")
@click.argument("name")
@click.option(
    "--from", "source", callback=address, help="Folder or s3://bucket/prefix of the videos."
)
@click.option("--features", callback=address, help="Folder of <video>_i3d.npy or <video>.npy.")
@click.option("--embeddings", callback=address, help="Folder of <video>_emb.npy or <video>.npy.")
@click.option("--captions", callback=address, help="JSON lines, one video each.")
@click.option(
    "--list", "lists", multiple=True, callback=address,
    help="Names the videos of a split, a feature file a line; several times for several splits.",
)  # fmt: skip
@click.option("--labels", callback=address, help="CSV video,label[,split][,class][,source].")
@click.option("--events", callback=address, help="CSV video,start_frame,end_frame[,class].")
@click.option(
    "--fps", type=click.FloatRange(min=0, min_open=True),
    help="Frames a second of frame folders, or of videos without pixels.",
)  # fmt: skip
@click.option("--preset", help="A name from `presets` in params.yaml.")
@reported
def dataset_add(name: str, **given: Any) -> None:
    """Add videos, or features and captions made of them elsewhere, as dataset NAME.

    The folder or bucket of --from holds videos.csv (video,path,label[,split][,class]) and, where
    there is ground truth for evaluation, events.csv (video,start_frame,end_frame[,class]); or just
    sub-folders normal/ and abnormal/. A folder of pictures counts as a video; give its --fps.

    What was made elsewhere comes in the layouts of RTFM and TEVAD (--features, --embeddings,
    --list), or as captions; its videos need no pixels.
    """
    from orchestration.datasets import add_dataset, choose, describe

    project = current_project()
    click.echo(describe(add_dataset(project, name, choose(project, name, given))))
    click.echo(f"next: tevad run {name}")


@dataset.command("refresh")
@click.argument("name")
@reported
def dataset_refresh(name: str) -> None:
    """Look at a dataset's source again and say what it holds. `tevad run` does this by itself."""
    from assets.workspace import listing
    from orchestration.datasets import describe

    found = current_project().dataset(name)
    with found.run_held():
        listing.refresh(found)
    click.echo(describe(found))


@dataset.command("list")
@reported
def dataset_list() -> None:
    """The datasets of this project and their sources."""
    for name, entry in current_project().params.datasets.items():
        click.echo(f"{name}\t{', '.join(entry.addresses)}")


@dataset.command("render")
@click.option("--train", default=16, show_default=True, help="Videos of the training split.")
@click.option("--test", default=12, show_default=True, help="Videos of the test split.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another dataset.")
@reported
def dataset_render(train: int, test: int, seed: int) -> None:
    """Render a small surveillance dataset for trying things out, and add it as `rendered`."""
    from orchestration.datasets import describe, render_dataset

    click.echo(describe(render_dataset(current_project(), train=train, test=test, seed=seed)))


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
@reported
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
    acquired = acquire(current_project(), wish, functools.partial(_accepted, yes=yes))
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
