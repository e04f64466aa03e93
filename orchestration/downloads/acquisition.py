"""From a name of the catalogue to a dataset of the project.

The order matters: nothing is fetched before the terms are accepted and all that has to be fetched
by hand is there; nothing is unpacked before it is what it should be; the dataset's folder appears
whole or not at all.
"""

from __future__ import annotations

import fcntl
import re
import shlex
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from assets.workspace import files
from assets.workspace.project import Dataset, Project
from orchestration.datasets import add_dataset, choose
from orchestration.downloads.catalogue import Entry
from orchestration.downloads.layouts import Tables
from orchestration.downloads.pins import Pins
from orchestration.downloads.transfer import (
    DEFAULT_PATIENCE,
    UNKNOWN,
    Content,
    Patience,
    download,
    measure,
)
from orchestration.downloads.unpacking import DEFAULT_LIMITS, Limits, unpack
from tevad_model.atomic import TEMPORARY_PREFIX
from tevad_model.dataset import format_events, format_videos
from tevad_model.errors import InputError

FOLDER = "datasets"
_LISTS = frozenset({".txt", ".list"})


@dataclass(frozen=True)
class Wish:
    """What somebody asks for.

    Attributes:
        entry: the dataset.
        into: the folder to lay it out in; ``datasets/<name>`` of the project if None.
        archives: files fetched by hand.
        urls: addresses to fetch files from instead of the official ones.
        add: whether to add it to the project.
        patience: with the servers.
        limits: of what is unpacked.
    """

    entry: Entry
    into: Path | None = None
    archives: tuple[Path, ...] = ()
    urls: tuple[str, ...] = ()
    add: bool = True
    patience: Patience = DEFAULT_PATIENCE
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Acquired:
    """What came of it.

    Attributes:
        folder: the dataset's folder.
        dataset: the project's dataset, if it was added.
        pinned: SHA-256 by name of files that were pinned.
        notes: see :class:`orchestration.downloads.layouts.Tables`.
    """

    folder: Path
    dataset: Dataset | None
    pinned: dict[str, str]
    notes: tuple[str, ...]


def acquire(project: Project, wish: Wish, accept: Callable[[str], bool]) -> Acquired:
    """Fetch a dataset, lay it out as a folder with ``videos.csv``, and add it to the project.

    A second call after one that was cut goes on where that stopped.

    Args:
        project: the project.
        wish: what is asked for.
        accept: is shown what the dataset is, its terms and what is about to happen, and says
            whether to go on.

    Raises:
        InputError: if it is not accepted, a file is missing, or anything on the way fails; the
            message names the file and the remedy.
    """
    entry = wish.entry
    folder = (wish.into or project.root / FOLDER / entry.name).expanduser().absolute()
    _require_absent(folder, entry)
    if wish.add:
        _require_unnamed(project, entry.name, folder)
    parts = _plan(wish)
    if not accept("\n".join((str(entry), *(f"  {part}" for part in parts), f"  into:  {folder}"))):
        raise InputError(f"{entry.name}: not accepted; nothing was fetched")
    with _held(project.state / "downloads" / entry.name) as downloads:
        pins = Pins(project.root, entry.name)
        pinned = {}
        for part in parts:
            content = _bring(part, downloads, pins, wish)
            if part.content.sha256 is None and pins.of(part.name) is None:
                pins.add(part.name, content)
                pinned[part.name] = str(content.sha256)
        tables = _lay_out(wish, {part.name: part.path(downloads) for part in parts}, folder)
        shutil.rmtree(downloads)
    dataset = None
    if wish.add:
        given = {"source": str(folder), "fps": tables.fps}
        dataset = add_dataset(project, entry.name, choose(project, entry.name, given))
    return Acquired(folder, dataset, pinned, tables.notes)


@dataclass(frozen=True)
class _Part:
    """A file of the dataset: where it is to come from, and what it must hold."""

    name: str
    origin: Path | str
    content: Content

    def path(self, downloads: Path) -> Path:
        """Where it lies once it is here."""
        return self.origin if isinstance(self.origin, Path) else downloads / self.name

    def __str__(self) -> str:
        return f"given: {self.origin}" if isinstance(self.origin, Path) else f"fetch: {self.origin}"


def _plan(wish: Wish) -> list[_Part]:
    """What comes from where: given files and addresses first, official addresses for the rest.

    One archive of any name stands for the official one and must hold the same; several (a dataset
    that somebody fetched in parts) take its place.
    """
    entry = wish.entry
    given = _given(wish)
    _require_by_hand(entry, given)
    official = {name: file for file in entry.files for name in file.names}
    archives = [
        name
        for name in given
        if name not in official and PurePosixPath(name).suffix.lower() not in _LISTS
    ]
    absent = [file for file in entry.files if not given.keys() & set(file.names)]
    main = [file for file in absent if file.videos]
    if len(main) == len(archives) == 1:
        given[main[0].name] = given.pop(archives[0])
    return [
        *(_Part(name, given[name], _published(entry, name)) for name in given),
        *(
            _Part(file.name, file.url, file.content)
            for file in absent
            if not (file.videos and archives)
        ),
    ]


def _given(wish: Wish) -> dict[str, Path | str]:
    """The given files and addresses by file name."""
    given: dict[str, Path | str] = {}
    for path in wish.archives:
        if not path.is_file():
            raise InputError(f"--archive {path}: no such file")
        given[path.name] = path
    for url in wish.urls:
        given[_name_in(url)] = url
    if len(given) < len(wish.archives) + len(wish.urls):
        raise InputError("--archive, --url: two of the files have the same name; rename one")
    return given


def _name_in(url: str) -> str:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name or name == "..":
        raise InputError(f"--url {url}: names no file")
    return name


def _published(entry: Entry, name: str) -> Content:
    return next((file.content for file in entry.files if file.name == name), UNKNOWN)


def _require_by_hand(entry: Entry, given: Collection[str]) -> None:
    """What cannot be fetched must be given, and is asked for before anything is fetched."""
    missing = [
        wanted.what for wanted in entry.by_hand if not any(wanted.is_met_by(name) for name in given)
    ]
    if missing:
        raise InputError(
            f"{entry.name}: not to be had by plain HTTP: {'; '.join(missing)}. {_by_hand(entry)}"
        )


def _by_hand(entry: Entry) -> str:
    return (
        f"By hand: {entry.steps} Home page: {entry.home}. Then: "
        f"tevad dataset download {entry.name} --archive FILE [--archive FILE …]"
    )


def _bring(part: _Part, downloads: Path, pins: Pins, wish: Wish) -> Content:
    """Have the file here and be sure of it; one that an earlier call brought is not fetched again."""
    path = part.path(downloads)
    if isinstance(part.origin, Path):
        content = measure(path)
        part.content.check(content, str(path))
        pins.check(content, part.name)
        return content
    try:
        content = (
            measure(path)
            if path.exists()
            else download(part.origin, path, part.content, wish.patience)
        )
        pins.check(content, part.name)
    except InputError as error:
        path.unlink(missing_ok=True)
        raise InputError(f"{error}\n{_by_hand(wish.entry)}") from None
    return content


def _lay_out(wish: Wish, parts: dict[str, Path], folder: Path) -> Tables:
    """Unpack the files beside the folder, write its tables, and give it its name."""
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed call
    temporary.mkdir(parents=True)
    try:
        for name, path in parts.items():
            if PurePosixPath(name).suffix.lower() in _LISTS:
                shutil.copyfile(path, temporary / name)
            else:
                to = temporary / _stem(name)
                unpack(path, to, wanted=wish.entry.wants, limits=wish.limits)
        tables = wish.entry.layout(temporary)
        files.write_text(temporary / "videos.csv", format_videos(tables.videos))
        if tables.events is not None:
            files.write_text(temporary / "events.csv", format_events(tables.events))
        temporary.rename(folder)
    except InputError as error:
        raise InputError(str(error).replace(f"{temporary}/", "")) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tables


def _stem(name: str) -> str:
    """An archive's name without ``.zip``, ``.tar.gz`` and the like."""
    return re.sub(r"(\.tar)?\.[A-Za-z]\w*$", "", name)


def _require_absent(folder: Path, entry: Entry) -> None:
    if folder.exists():
        command = f"tevad dataset add {entry.name} --from {shlex.quote(str(folder))}"
        raise InputError(
            f"{folder}: is there already; add it by `{command}{_fps_option(entry, folder)}`, "
            "remove it, or choose another folder by --into"
        )


def _fps_option(entry: Entry, folder: Path) -> str:
    """What has to be said of frame folders, where they are in it."""
    try:
        fps = entry.layout(folder).fps
    except InputError:  # it is something else
        return ""
    return f" --fps {fps:g}" if fps else ""


def _require_unnamed(project: Project, name: str, folder: Path) -> None:
    """A dataset that somebody added is not made another one by a download."""
    known = project.params.datasets.get(name)
    if known and (project.root / (known.source or "")).resolve() != folder.resolve():
        raise InputError(
            f"params.yaml: datasets.{name} is there already, from {known.addresses[0]}; lay it out only "
            "(--no-add) and add it by another name, or remove the entry"
        )


@contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """The folder that files are fetched to, for one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process
        except BlockingIOError:
            raise InputError(f"{folder}: another download of it is running; wait for it") from None
        yield folder
