"""Streams: a real RTSP server that drops, stalls and garbles; files; and addresses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rtsp_server import Session, rtsp_server

from tevad_model import video
from tevad_model.errors import InputError
from tevad_model.stream import (
    BEHIND_S,
    Connection,
    Stream,
    StreamLostError,
    _Clock,
    without_credentials,
)

WriteVideo = Callable[..., Path]
FRAMES = 100


@pytest.fixture
def clip(write_video: WriteVideo, tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", frames=FRAMES, width=96, height=64)


def count(stream: Stream) -> tuple[int, int]:
    """Pictures that come, and packets that were passed over."""
    with stream.connect() as connection:
        pictures = sum(1 for _ in connection.frames())
        return pictures, connection.damaged


def test_a_stream_gives_the_pictures_of_the_file_behind_it(clip: Path) -> None:
    expected = list(video.frames(clip, max_side=48))
    with rtsp_server(clip) as server, Stream(server.address, max_side=48).connect() as connection:
        got = list(connection.frames())
        assert connection.fps == 10.0
    assert len(got) == FRAMES
    assert all((one == other).all() for one, other in zip(got, expected, strict=True))


def test_a_file_is_read_as_if_it_came_in(clip: Path) -> None:
    assert count(Stream(str(clip))) == (FRAMES, 0)


def test_a_stream_that_breaks_off_ends_early(clip: Path) -> None:
    with rtsp_server(clip, Session(drop_after=30)) as server:
        pictures, _ = count(Stream(server.address))
    assert 0 < pictures < FRAMES


def test_a_stream_that_stalls_is_given_up(clip: Path) -> None:
    stalls = Session(stall_after=30)
    with (
        rtsp_server(clip, stalls) as server,
        pytest.raises(StreamLostError, match=r"/live: nothing came for too long"),
    ):
        count(Stream(server.address, stall_s=1.0))


def test_a_corrupt_packet_is_passed_over_and_counted(clip: Path) -> None:
    with rtsp_server(clip, Session(garble=frozenset({20, 40}))) as server:
        pictures, damaged = count(Stream(server.address))
    assert damaged >= 1
    assert FRAMES - 10 <= pictures < FRAMES


def test_a_server_that_is_not_there_is_named_without_the_password(clip: Path) -> None:
    with rtsp_server(clip) as server:
        gone = server.address.replace("127", "user:secret@127")
    with pytest.raises(StreamLostError, match="cannot be opened") as error:
        count(Stream(gone))
    assert "secret" not in str(error.value)
    assert error.value.__suppress_context__


def test_pictures_that_are_taken_too_slowly_end_the_connection(clip: Path) -> None:
    """A tenth of a second lies between two pictures, and whoever takes them needs twice that."""

    def take(connection: Connection) -> None:
        for _ in connection.frames():
            time.sleep(0.2)

    with (
        rtsp_server(clip) as server,
        Stream(server.address, behind_s=0.3).connect() as connection,
        pytest.raises(StreamLostError, match="cannot keep up"),
    ):
        take(connection)


@pytest.mark.parametrize("drift", [-1e-4, 1e-4])
def test_a_clock_that_drifts_is_not_late(drift: float) -> None:
    clock = _Clock()
    late = [clock.behind(now * (1 - drift), now) for now in range(0, 48 * 3600, 5)]
    assert max(late) < 0.2


def test_pictures_that_come_later_and_later_are_late() -> None:
    """Two hundredths too slow; and one time stamp that is ahead is held against it for minutes only."""
    clock = _Clock()
    late = [clock.behind(now / 1.02, now) for now in range(0, 900, 5)]
    assert late[-1] > BEHIND_S
    clock = _Clock()
    clock.behind(5.0, 0.0)
    late = [clock.behind(now, now) for now in range(1, 3600)]
    assert late[0] == 5
    assert late[-1] == 0


def test_a_stop_ends_the_pictures(clip: Path) -> None:
    stop = threading.Event()
    with Stream(str(clip)).connect(stop) as connection:
        frames = connection.frames()
        next(frames)
        stop.set()
        assert len(list(frames)) < FRAMES - 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("none.mp4", "no such file"),
        ("concat://etc/passwd|x", "not by concat"),
        ("file:///etc/passwd", "not by file"),
    ],
)
def test_other_addresses_are_refused(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        count(Stream(address))


def test_a_stream_without_pictures_is_no_stream(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("nothing to see")
    with pytest.raises(StreamLostError, match=r"notes\.mp4: cannot be opened"):
        count(Stream(str(tmp_path / "notes.mp4")))


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("rtsp://cam:554/Streaming/Channels/101", "rtsp://cam:554/Streaming/Channels/101"),
        ("/videos/a@b?c=d.mp4", "/videos/a@b?c=d.mp4"),
        ("udp://@239.0.0.1:1234", "udp://239.0.0.1:1234"),
        ("rtsp://me:s3cr3t@cam:554/1?x=2", "rtsp://cam:554/1"),
        ("rtsp://me:s3@cr3t@[::1]:554/1", "rtsp://[::1]:554/1"),
        ("rtsp://me:s3[cr3t@cam/1", "rtsp://cam/1"),
        ("rtsp://me:s3#cr3t@cam/1", "rtsp://cam/1"),
        ("rtsp://me:s3/cr3t@cam/1", "rtsp://cam/1"),
        ("rtsp://cam/?user=me&password=s3cr3t", "rtsp://cam/"),
        ("rtsp://cam/live#s3cr3t", "rtsp://cam/live"),
        ("http://cam/video.cgi?loginuse=me&loginpas=s3cr3t", "http://cam/video.cgi"),
        ("srt://cam:9000?passphrase=s3cr3t", "srt://cam:9000"),
        ("rtsp://cam/real?channel=1&pwd=s3cr3t&subtype=0", "rtsp://cam/real?channel=1&subtype=0"),
        ("rtsp://cam/user=me&password=s3cr3t&channel=2&stream=0.sdp?real", "rtsp://cam/channel=2&stream=0"),
        ("rtsp://cam/user=me_password=s3cr3t_channel=2_stream=1.sdp", "rtsp://cam/channel=2&stream=1"),
        ("http://cam/user%3Dme%26pwd%3Ds3cr3t", "http://cam/"),
    ],
)  # fmt: skip
def test_credentials_are_left_out_of_names(address: str, name: str) -> None:
    assert without_credentials(address) == name
