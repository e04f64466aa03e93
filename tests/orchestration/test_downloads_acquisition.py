"""From a name to a dataset: terms, files by hand, pins, mirrors, and what a failure leaves."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import public_datasets
import pytest
from click.testing import CliRunner, Result
from file_server import Fault, FileServer, running_server
from projects import git

from assets.raw_videos import ingest_raw_videos, read_events, read_raw_videos
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Project
from orchestration.cli import main
from orchestration.downloads import catalogue
from orchestration.downloads.acquisition import Acquired, Wish, acquire
from orchestration.downloads.catalogue import Entry, RemoteFile
from orchestration.downloads.transfer import Patience, measure
from tevad_model.errors import InputError

WriteVideo = Callable[..., Path]

HASTY = Patience(connect_seconds=20, read_seconds=20, attempts=2, backoff_seconds=0.01)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def project(project_root: Path) -> Project:
    return Project.at(project_root)


@pytest.fixture
def ped2_archive(tmp_path: Path) -> Path:
    folder = public_datasets.ped2(tmp_path / "ped2")
    return public_datasets.packed(folder, tmp_path / "UCSD_Anomaly_Dataset.tar.gz")


@pytest.fixture
def fights_archive(tmp_path: Path, write_video: WriteVideo) -> Path:
    folder = public_datasets.surveillance_fights(tmp_path / "fights", write_video)
    return public_datasets.packed(folder, tmp_path / "master.zip")


def served(server: FileServer, entry: Entry, *archives: Path, checked: bool = True) -> Entry:
    """The entry with its files on the test's server, and their checksums."""
    files = []
    for file, archive in zip(entry.files, archives, strict=True):
        url = server.serve(file.name, archive.read_bytes())
        content = measure(archive) if checked else file.content
        files.append(RemoteFile(url, content, file.videos, file.also))
    return dataclasses.replace(entry, files=tuple(files))


def get(project: Project, entry: Entry, **wish: object) -> Acquired:
    return acquire(project, Wish(entry, patience=HASTY, **wish), lambda _: True)  # type: ignore[arg-type]


def tevad(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dataset", "download", *map(str, arguments)])


def assert_fails(result: Result, *reasons: str) -> None:
    assert result.exit_code == 1
    for reason in reasons:
        assert reason in result.stderr
    assert "Traceback" not in result.output


def nothing_remains(project: Project) -> bool:
    folder = project.root / "datasets"
    return not (folder.exists() and list(folder.iterdir())) and not project.params.datasets


def test_ped2_is_fetched_laid_out_added_and_taken_in(
    project: Project, server: FileServer, ped2_archive: Path
) -> None:
    shown: list[str] = []
    entry = served(server, catalogue.PED2, ped2_archive)
    acquired = acquire(project, Wish(entry, patience=HASTY), lambda text: not shown.append(text))
    for told in (entry.title, entry.home, entry.citation, entry.terms, entry.size, server.address):
        assert told in shown[0]
    assert acquired.folder == project.root / "datasets" / "ped2"
    assert acquired.pinned == {}  # its checksum is published
    assert not list(acquired.folder.rglob("UCSDped1"))
    assert not list(acquired.folder.rglob("._*"))
    assert not (project.state / "downloads" / "ped2").exists()
    assert acquired.dataset is not None
    assert acquired.dataset.entry.source == "datasets/ped2"
    assert acquired.dataset.entry.fps == 10
    report = ingest_raw_videos(acquired.dataset)
    assert (report.done, report.quarantined) == (28, {})
    assert {row.frames for row in read_raw_videos(acquired.dataset).usable} == {6}
    events = read_events(acquired.dataset)
    assert events is not None
    assert (len(events), events["Test003"]) == (12, [(0, 6)])


def test_the_command_takes_a_mirror_and_adds_what_can_be_run(
    project: Project, server: FileServer, fights_archive: Path
) -> None:
    url = server.serve("mirror/fights.zip", fights_archive.read_bytes())
    result = tevad("surveillance-fights", "--url", url, "--yes")
    assert result.exit_code == 0, result.output
    digest = hashlib.sha256(fights_archive.read_bytes()).hexdigest()
    assert "terms: The repository carries the MIT licence" in result.stdout
    assert f"pinned in downloads.json: master.zip sha256 {digest}" in result.stdout
    assert "8 of 8 rows usable" in result.stdout
    assert "next: tevad run surveillance-fights" in result.stdout
    report = ingest_raw_videos(project.dataset("surveillance-fights"))
    assert (report.done, report.quarantined) == (8, {})
    untracked = git(project.root, "status", "--porcelain", "--untracked-files=all").split("\n")
    assert "?? downloads.json" in untracked
    assert not [line for line in untracked if "datasets/surveillance-fights" in line]


def test_a_preset_of_its_name_is_taken(
    project: Project, server: FileServer, ped2_archive: Path
) -> None:
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("{paper: {}}", "{paper: {}, ped2: {}}"))
    acquired = get(project, served(server, catalogue.PED2, ped2_archive))
    assert acquired.dataset is not None
    assert acquired.dataset.entry.preset == "ped2"


def test_it_is_laid_out_elsewhere_and_not_added_if_asked(
    project: Project, tmp_path: Path, fights_archive: Path
) -> None:
    folder = tmp_path / "big disk" / "fights"
    result = tevad(
        "surveillance-fights", "--archive", fights_archive, "--into", folder, "--no-add", "--yes"
    )
    assert result.exit_code == 0, result.output
    assert (folder / "videos.csv").is_file()
    assert not (folder / "events.csv").exists()
    assert project.params.datasets == {}
    assert fights_archive.is_file()  # it is the user's


def test_refused_terms_fetch_nothing(
    project: Project, server: FileServer, ped2_archive: Path
) -> None:
    entry = served(server, catalogue.PED2, ped2_archive)
    with pytest.raises(InputError, match="not accepted; nothing was fetched"):
        acquire(project, Wish(entry), lambda _: False)
    assert server.requests == []
    assert nothing_remains(project)


def test_without_a_terminal_the_terms_need_yes(
    project: Project, server: FileServer, fights_archive: Path
) -> None:
    url = server.serve("master.zip", fights_archive.read_bytes())
    assert_fails(tevad("surveillance-fights", "--url", url), "--yes accepts the terms above")
    assert server.requests == []
    assert nothing_remains(project)


def test_on_a_terminal_it_asks_and_no_means_no(
    project: Project, server: FileServer, fights_archive: Path
) -> None:
    url = server.serve("master.zip", fights_archive.read_bytes())
    program = "from orchestration.cli import main; main()"
    command = [sys.executable, "-c", program, "dataset", "download", "surveillance-fights"]
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"n\n")
    done = subprocess.run(
        [*command, "--url", url], stdin=terminal, capture_output=True, text=True, check=False
    )
    os.close(keyboard)
    os.close(terminal)
    assert done.returncode == 1
    assert "Fetch it on these terms? [y/N]" in done.stdout
    assert "not accepted; nothing was fetched" in done.stderr
    assert server.requests == []
    assert nothing_remains(project)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://127.0.0.1/a/%2e%2e"])
def test_an_address_that_names_no_file_is_told(project: Project, url: str) -> None:
    assert_fails(tevad("ped2", "--url", url, "--yes"), url, "names no file")


@pytest.mark.parametrize("text", ["[]", "{", '{"ped2": {"x": {"bytes": "many"}}}'])
def test_pins_that_cannot_be_read_are_told(
    project: Project, fights_archive: Path, text: str
) -> None:
    (project.root / "downloads.json").write_text(text)
    result = tevad("surveillance-fights", "--archive", fights_archive, "--yes")
    assert_fails(result, "downloads.json", "restore it from git")


def test_an_unknown_name_is_told_those_there_are(project: Project) -> None:
    assert_fails(tevad("avenue", "--yes"), "'avenue'", "ped2, ucf-crime, shanghaitech")


def test_a_mirrors_file_must_be_the_published_one(
    project: Project, server: FileServer, ped2_archive: Path
) -> None:
    url = server.serve("any-name.tgz", ped2_archive.read_bytes())
    assert_fails(tevad("ped2", "--url", url, "--yes"), "expected 740306953", "By hand: Fetch UCSD")
    assert nothing_remains(project)


def test_a_tampered_archive_fetched_by_hand_is_refused_and_kept(
    project: Project, server: FileServer, ped2_archive: Path
) -> None:
    entry = served(server, catalogue.PED2, ped2_archive)
    tampered = bytearray(ped2_archive.read_bytes())
    tampered[1000] ^= 1
    renamed = ped2_archive.with_name("from a friend.tar.gz")
    renamed.write_bytes(tampered)
    with pytest.raises(InputError, match=r"from a friend\.tar\.gz: not what was expected: sha256"):
        get(project, entry, archives=(renamed,))
    assert renamed.is_file()
    assert server.requests == []
    assert nothing_remains(project)


def test_the_first_download_is_pinned_and_another_one_refused(
    project: Project, server: FileServer, fights_archive: Path, tmp_path: Path
) -> None:
    entry = served(server, catalogue.SURVEILLANCE_FIGHTS, fights_archive, checked=False)
    first = get(project, entry, into=tmp_path / "first", add=False)
    digest = hashlib.sha256(fights_archive.read_bytes()).hexdigest()
    assert first.pinned == {"master.zip": digest}
    pins = json.loads((project.root / "downloads.json").read_text())
    assert pins["surveillance-fights"]["master.zip"]["sha256"] == digest
    assert get(project, entry, into=tmp_path / "second", add=False).pinned == {}

    other = fights_archive.read_bytes() + b"\0"
    server.serve("master.zip", other)
    with pytest.raises(InputError) as caught:
        get(project, entry, into=tmp_path / "third", add=False)
    for told in ("master.zip", digest, hashlib.sha256(other).hexdigest(), "downloads.json"):
        assert told in str(caught.value)
    assert not (tmp_path / "third").exists()


def test_what_must_be_fetched_by_hand_is_asked_for_first(
    project: Project, server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "videos.zip").write_bytes(b"")
    entry = dataclasses.replace(
        catalogue.XD_VIOLENCE, files=(RemoteFile(server.url("annotations.txt"), videos=False),)
    )
    with pytest.raises(InputError) as caught:
        acquire(project, Wish(entry, archives=(tmp_path / "videos.zip",)), pytest.fail)
    assert "the archive of the test videos" in str(caught.value)
    assert "the archives of the training videos" not in str(caught.value)
    assert catalogue.XD_VIOLENCE.home in str(caught.value)
    assert server.requests == []
    with pytest.raises(InputError, match=r"the list of the training split.*the list of the test"):
        acquire(project, Wish(catalogue.SHANGHAITECH), pytest.fail)


def test_xd_violence_is_put_together_of_files_by_hand_and_fetched_ones(
    project: Project, server: FileServer, tmp_path: Path, write_video: WriteVideo
) -> None:
    folder = public_datasets.xd_violence(tmp_path / "xd", write_video)
    archives = tuple(
        public_datasets.packed(folder / name, tmp_path / f"{name}.zip")
        for name in ("1-1004", "3320-3954", "test_videos")
    )
    entry = served(server, catalogue.XD_VIOLENCE, folder / "annotations.txt", checked=False)
    acquired = get(project, entry, archives=archives)
    assert acquired.pinned.keys() == {
        "1-1004.zip",
        "3320-3954.zip",
        "test_videos.zip",
        "annotations.txt",
    }
    assert [path for path, _ in server.requests] == ["/annotations.txt"]
    assert acquired.dataset is not None
    assert ingest_raw_videos(acquired.dataset).quarantined == {}
    events = read_events(acquired.dataset)
    assert events == {"Black.Hawk.Down.2001__#01-32-40_01-34-00_label_G-B2-B6": [(3, 9), (20, 30)]}


def test_ucf_crime_is_put_together_of_its_archive_and_its_lists(
    project: Project, server: FileServer, tmp_path: Path, write_video: WriteVideo
) -> None:
    folder = public_datasets.ucf_crime(tmp_path / "ucf", write_video)
    train, events = tmp_path / "Anomaly_Train.txt", tmp_path / "events.txt"
    train.write_text(public_datasets.UCF_TRAIN)
    events.write_text(public_datasets.UCF_EVENTS)
    archive = public_datasets.packed(folder, tmp_path / "UCF_Crimes.zip")
    entry = served(server, catalogue.UCF_CRIME, archive, train, events)
    acquired = get(project, entry)
    assert not list(acquired.folder.rglob("z_Normal_Videos_event"))
    assert acquired.dataset is not None
    assert ingest_raw_videos(acquired.dataset).quarantined == {}
    assert read_events(acquired.dataset) == {
        "Abuse028_x264": [(10, 20)],
        "Arson011_x264": [(0, 5), (29, 40)],
    }


def test_shanghaitech_takes_its_split_from_given_lists(
    project: Project, server: FileServer, tmp_path: Path
) -> None:
    folder = public_datasets.shanghaitech(tmp_path / "shanghai")
    archive = public_datasets.packed(folder, tmp_path / "shanghaitech.tar.gz")
    train, test = tmp_path / "SH_Train.txt", tmp_path / "SH_Test.txt"
    train.write_text("01_001,0\n01_0014,1\n")
    test.write_text("01_002,0\n01_0015,0\n01_0016,1\n")
    entry = served(server, catalogue.SHANGHAITECH, archive)
    acquired = get(project, entry, archives=(train, test))
    assert acquired.dataset is not None
    assert acquired.dataset.entry.fps == 24
    assert ingest_raw_videos(acquired.dataset).quarantined == {}
    assert {row.fps for row in read_raw_videos(acquired.dataset).usable} == {24}
    assert read_events(acquired.dataset) == {"01_0014": [(2, 5), (7, 8)], "01_0016": [(0, 1)]}


def test_given_files_are_not_fetched(
    project: Project, tmp_path: Path, write_video: WriteVideo
) -> None:
    folder = public_datasets.ucf_crime(tmp_path / "ucf", write_video)
    train = tmp_path / "Anomaly_Train.txt"
    events = tmp_path / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt"
    train.write_text(public_datasets.UCF_TRAIN)
    events.write_text(public_datasets.UCF_EVENTS)
    videos = folder / "UCF_Crimes"
    parts = tuple(
        public_datasets.packed(videos / name, tmp_path / f"{name}.zip")
        for name in ("Videos", "Anomaly_Detection_splits")
    )
    acquired = get(project, catalogue.UCF_CRIME, archives=(*parts, train, events))
    assert acquired.dataset is not None
    assert ingest_raw_videos(acquired.dataset).quarantined == {}


def test_a_failure_after_the_download_keeps_it_and_nothing_else(
    project: Project, server: FileServer, fights_archive: Path
) -> None:
    right = catalogue.SURVEILLANCE_FIGHTS
    url = server.serve("master.zip", fights_archive.read_bytes())
    files = (RemoteFile(url),)
    wrong = dataclasses.replace(right, files=files, layout=catalogue.PED2.layout)
    with pytest.raises(InputError, match="folders 'UCSDped2'"):
        get(project, wrong)
    assert nothing_remains(project)
    get(project, dataclasses.replace(right, files=files))
    assert len(server.requests) == 1


def test_a_cut_download_goes_on_with_the_next_call(
    project: Project, server: FileServer, ped2_archive: Path
) -> None:
    entry = served(server, catalogue.PED2, ped2_archive)
    server.faults["/UCSD_Anomaly_Dataset.tar.gz"] = [
        Fault(cut_after=5000),
        Fault(status=503),
        Fault(status=503),
    ]
    with pytest.raises(InputError, match=r"503.*go on where it stopped"):
        get(project, entry)
    get(project, entry)
    assert server.asked_ranges() == [None, *["bytes=5000-"] * 3]


def test_a_folder_that_is_there_is_left_alone(
    project: Project, server: FileServer, ped2_archive: Path
) -> None:
    folder = project.root / "datasets" / "ped2"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is there already.*tevad dataset add ped2"):
        get(project, served(server, catalogue.PED2, ped2_archive))
    assert (folder / "mine.txt").read_text() == "mine"
    assert server.requests == []


def test_one_that_was_laid_out_only_is_added_by_the_command_that_is_told(
    project: Project, server: FileServer, ped2_archive: Path, tmp_path: Path
) -> None:
    """Its frame folders do not say how many frames a second they are of."""
    entry = served(server, catalogue.PED2, ped2_archive)
    folder = tmp_path / "big disk" / "ped2"
    get(project, entry, add=False, into=folder)
    with pytest.raises(InputError, match="is there already") as error:
        get(project, entry, into=folder)
    [command] = re.findall("`tevad (.*)`", str(error.value))
    result = CliRunner().invoke(main, shlex.split(command))
    assert result.exit_code == 0, result.output
    assert "28 of 28 rows usable" in result.stdout
    assert project.params.datasets["ped2"].fps == 10


def test_a_dataset_of_its_name_is_not_replaced(
    project: Project, server: FileServer, ped2_archive: Path, tmp_path: Path
) -> None:
    write_dataset(project.root, "ped2", DatasetParams(source="/videos/ped2"))
    entry = served(server, catalogue.PED2, ped2_archive)
    with pytest.raises(InputError, match=r"datasets\.ped2 is there already.*/videos/ped2"):
        get(project, entry)
    assert server.requests == []
    assert get(project, entry, add=False, into=tmp_path / "ped2 again").dataset is None


def test_two_at_a_time_do_not_write_the_same_files(
    project: Project, server: FileServer, ped2_archive: Path
) -> None:
    downloads = project.state / "downloads" / "ped2"
    downloads.mkdir(parents=True)
    with (downloads / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another download of it is running"):
            get(project, served(server, catalogue.PED2, ped2_archive))
    assert server.requests == []


@pytest.mark.parametrize("name", sorted(catalogue.ENTRIES))
def test_an_entry_says_what_somebody_must_know(name: str) -> None:
    entry = catalogue.find(name)
    assert entry.name == name
    for told in (entry.title, entry.home, entry.citation, entry.terms, entry.size):
        assert told in str(entry)
    assert all(file.url.startswith(("http://", "https://")) for file in entry.files)
    assert entry.steps
