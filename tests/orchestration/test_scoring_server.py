"""``tevad serve`` and its client: paths and uploads within limits, a 4xx with the reason, no crash."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from networking import free_ports
from projects import TrainedProject, enter_project

from assets.workspace.tracking import CHALLENGER, registered_name
from orchestration.cli import main
from orchestration.scoring_client import ScoringClient, ScoringRefusedError
from tevad_model import video
from tevad_model.timeline import snippet_count

TEVAD = str(Path(sys.executable).with_name("tevad"))
UPLOAD_MB = 1


@dataclass(frozen=True)
class Serving:
    """A running server, the version it serves, and a folder that it reads."""

    client: ScoringClient
    port: int
    model: str
    videos: Path


@pytest.fixture(scope="module")
def serving(trained_project: TrainedProject, encoder_cache: Path) -> Iterator[Serving]:
    videos = trained_project.root / ".tevad" / "rendered" / "videos"
    [port] = free_ports(1)
    with pytest.MonkeyPatch.context() as patch:
        enter_project(trained_project.root, encoder_cache, patch)
        name = registered_name(trained_project.dataset.name)
        command = [
            TEVAD, "serve", "--model", f"models:/{name}@{CHALLENGER}", "--port", str(port),
            "--root", str(videos), "--upload-mb", str(UPLOAD_MB),
        ]  # fmt: skip
        with started(command, port):
            model = f"models:/{trained_project.outcome.model}"
            yield Serving(ScoringClient(f"http://127.0.0.1:{port}"), port, model, videos)


@contextmanager
def started(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, env=os.environ.copy(), start_new_session=True)
    deadline = time.monotonic() + 180
    try:
        while True:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture
def clip(serving: Serving) -> Path:
    return min(serving.videos.glob("*.mp4"))


def test_a_file_of_an_allowed_folder_is_scored_and_the_version_named(
    serving: Serving, clip: Path
) -> None:
    scored = serving.client.score_there(str(clip))
    assert scored.model == serving.model
    assert len(scored.snippets) == snippet_count(video.probe(clip).frames)


def test_an_upload_scores_as_the_file_does(serving: Serving, clip: Path) -> None:
    there, uploaded = serving.client.score_there(str(clip)), serving.client.upload(clip)
    assert uploaded.snippets["score"].tolist() == there.snippets["score"].tolist()
    assert set(uploaded.snippets["video"]) == {"upload"}


@pytest.mark.parametrize("path", ["/etc/passwd", "{videos}/../videos.csv", "file:///etc/passwd"])
def test_a_path_outside_of_the_allowed_folders_is_refused(serving: Serving, path: str) -> None:
    with pytest.raises(
        ScoringRefusedError, match="not in a folder that this server reads"
    ) as error:
        serving.client.score_there(path.format(videos=serving.videos))
    assert error.value.status == 400


def test_a_link_out_of_an_allowed_folder_is_refused(serving: Serving, tmp_path: Path) -> None:
    link = serving.videos / "link.mp4"
    link.symlink_to(tmp_path / "elsewhere.mp4")
    try:
        with pytest.raises(ScoringRefusedError, match="not in a folder"):
            serving.client.score_there(str(link))
    finally:
        link.unlink()


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:video/mp4;base64,!!!", "upload: not base64"),
        ("data:video/mp4,abc", "upload: write data:video/mp4;base64"),
        ("data:video/mp4;base64,bm8gdmlkZW8=", "upload: not a readable video"),
        ("http://example.org/a.mp4", "only paths and file:// URIs"),
    ],
)
def test_what_is_no_video_is_the_callers_error(serving: Serving, uri: str, reason: str) -> None:
    with pytest.raises(ScoringRefusedError, match=reason) as error:
        serving.client.score([{"video": uri}])
    assert error.value.status == 400


def test_a_request_that_is_no_table_is_the_callers_error(serving: Serving) -> None:
    with pytest.raises(ScoringRefusedError) as error:
        serving.client.score([{"path": "a.mp4"}])
    assert error.value.status == 400


def test_an_upload_above_the_limit_is_refused(serving: Serving, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(UPLOAD_MB * 2**20 + 1000))
    with pytest.raises(ScoringRefusedError, match="upload: larger than 1 MB") as error:
        serving.client.upload(large)
    assert error.value.status == 400


def raw_answer(port: int, head: bytes, parts: Iterator[bytes]) -> bytes:
    """The answer to a request that is sent piece by piece until the server has heard enough."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(head)

        def send() -> None:
            try:
                for part in parts:
                    line.sendall(part)
            except OSError:
                return  # the server has closed the line

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        return line.recv(65536)


def test_two_gigabytes_are_refused_before_they_come(serving: Serving, clip: Path) -> None:
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2147483648\r\n\r\n"
    )
    answer = raw_answer(serving.port, head, iter([b"{"]))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"larger than 2 MB" in answer
    assert len(serving.client.score_there(str(clip)).snippets), "and it goes on serving"


def test_a_request_that_does_not_state_its_length_is_cut_off(serving: Serving, clip: Path) -> None:
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = raw_answer(serving.port, head, iter([chunk] * 4000))
    assert answer.startswith(b"HTTP/1.1 413")
    assert len(serving.client.score_there(str(clip)).snippets)


def test_an_alias_that_moves_leaves_the_answer_with_its_version(
    serving: Serving, trained_project: TrainedProject, clip: Path
) -> None:
    """The server goes on with the version it was started for, and says so."""
    client, name = trained_project.tracking.client, serving.model.split("/")[1]
    version = client.get_model_version_by_alias(name, CHALLENGER)
    client.delete_registered_model_alias(name, CHALLENGER)
    try:
        assert serving.client.score_there(str(clip)).model == serving.model
    finally:
        client.set_registered_model_alias(name, CHALLENGER, version.version)


def test_an_unknown_model_is_named(trained: TrainedProject) -> None:
    for unknown in ("models:/nobody@champion", "models:/tevad-rendered/99"):
        done = CliRunner().invoke(main, ["serve", "--model", unknown])
        assert done.exit_code == 1
        assert unknown in done.output


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with pytest.raises(ValueError, match=f"{port}: does not answer"):
        ScoringClient(f"http://127.0.0.1:{port}").score([{"video": "a"}])
