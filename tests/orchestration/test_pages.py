"""The server of the review pages: what it serves, by range too, and all that it does not."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from networking import free_ports

from assets.raw_videos import read_raw_videos, video_path
from assets.review.pictures import clip_path
from assets.review_page import page_path
from assets.workspace.project import Dataset
from orchestration.profiles import Places, review
from orchestration.serving import LOOPBACK, start, stop


@pytest.fixture(scope="module")
def port(reviewed_project: Dataset) -> Iterator[int]:
    """Of the real server, as `tevad up` starts it."""
    project = reviewed_project.project
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEVAD_PROJECT", str(project.root))
        patch.setenv("TEVAD_CACHE", str(project.cache))
        [port] = free_ports(1)
        running = start(project, [review(Places(pages=port))])
        try:
            yield port
        finally:
            stop(running)


def get(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask for a path just as it is written: no client tidies it up."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_pages_are_listed_and_served(port: int, reviewed_project: Dataset) -> None:
    status, _, body = get(port, "/")
    assert (status, b'href="/review/rendered/1"' in body) == (200, True)
    status, headers, _ = get(port, "/review/rendered")
    assert (status, headers["location"]) == (307, "/review/rendered/1")
    status, headers, body = get(port, "/review/rendered/1")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body == page_path(reviewed_project, "tevad-rendered", "1").read_bytes()


def test_videos_are_served_whole_and_by_range(port: int, reviewed_project: Dataset) -> None:
    row = read_raw_videos(reviewed_project).usable[0]
    content = video_path(reviewed_project, row).read_bytes()
    status, headers, body = get(port, f"/videos/rendered/{row.video}")
    assert (status, headers["content-type"], body) == (200, "video/mp4", content)
    assert headers["accept-ranges"] == "bytes"
    status, headers, body = get(port, f"/videos/rendered/{row.video}", Range="bytes=100-299")
    assert (status, body) == (206, content[100:300])
    assert headers["content-range"] == f"bytes 100-299/{len(content)}"
    status, _, body = get(port, f"/videos/rendered/{row.video}", Range="bytes=-10")
    assert (status, body) == (206, content[-10:])
    assert get(port, f"/videos/rendered/{row.video}", Range="bytes=999999999-")[0] == 416


def test_the_clip_made_of_a_video_takes_its_place(port: int, reviewed_project: Dataset) -> None:
    row = read_raw_videos(reviewed_project).usable[1]
    clip = clip_path(reviewed_project, row)
    clip.parent.mkdir(parents=True, exist_ok=True)
    clip.write_bytes(b"a clip")
    try:
        assert get(port, f"/videos/rendered/{row.video}")[2] == b"a clip"
    finally:
        clip.unlink()


@pytest.mark.parametrize(
    "path",
    [
        "/videos/rendered/../../../params.yaml",
        "/videos/rendered/..%2f..%2f..%2fparams.yaml",
        "/videos/rendered/%2e%2e/%2e%2e/params.yaml",
        "/videos/rendered/manifest.parquet",
        "/videos/rendered/test_000.mp4",
        "/videos/rendered/",
        "/videos/../params.yaml",
        "/videos/other/test_000",
        "/videos/%2e%2e/params.yaml",
        "/review/rendered/..%2f..%2fmlflow.db",
        "/review/rendered/2",
        "/review/..%2f..%2f..%2fetc/passwd",
        "/review/other",
        "//etc/passwd",
        "/params.yaml",
        "/.tevad/mlflow.db",
        "/videos/rendered/test_000%00",
    ],
)
def test_nothing_else_is_served(port: int, path: str) -> None:
    status, _, body = get(port, path)
    assert status == 404
    assert b"datasets:" not in body


def test_nothing_can_be_changed(port: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    connection.request("POST", "/videos/rendered/test_000", body=b"x")
    assert connection.getresponse().status == 405
    connection.close()


def test_a_name_that_somebody_points_here_is_refused(port: int) -> None:
    assert get(port, "/", Host="attacker.example.org")[0] == 400
    assert get(port, "/", Host=f"localhost:{port}")[0] == 200


def test_a_video_that_is_gone_is_said_to_be(port: int, reviewed_project: Dataset) -> None:
    row = read_raw_videos(reviewed_project).usable[2]
    path = video_path(reviewed_project, row)
    aside = Path(f"{path}.aside")
    path.rename(aside)
    try:
        status, _, body = get(port, f"/videos/rendered/{row.video}")
    finally:
        aside.rename(path)
    assert (status, b"dvc checkout" in body) == (404, True)
