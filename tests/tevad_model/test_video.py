"""Videos that a site really has: sound ones decode exactly, bad ones say what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from odd_videos import cut, write, write_sound

from tevad_model.encoders.base import Frame
from tevad_model.errors import InputError, VideoError
from tevad_model.video import (
    VideoInfo,
    broadcast,
    encode,
    encode_folder,
    frame_near,
    frames,
    plays_in_browsers,
    prefetch,
    probe,
    stated,
)

BLUE, RED = (0, 0, 255), (255, 0, 0)
CUTS = (0.1, 0.5, 0.9)


def noise(count: int, height: int = 48, width: int = 64) -> list[Frame]:
    """Pictures that do not compress, so that each takes its share of the file."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def levels(count: int) -> list[Frame]:
    """Grey pictures, each brighter than the one before."""
    return [np.full((48, 64, 3), 10 + 5 * index, dtype=np.uint8) for index in range(count)]


def mean_levels(path: Path) -> list[float]:
    return [float(picture.mean()) for picture in frames(path)]


# Sound videos


@pytest.mark.parametrize("count", [1, 2, 40])
def test_every_frame_comes_back_in_order(tmp_path: Path, count: int) -> None:
    encode(tmp_path / "a.mp4", levels(count), 12.5)
    assert probe(tmp_path / "a.mp4") == VideoInfo(count, 12.5, 64, 48)
    assert mean_levels(tmp_path / "a.mp4") == pytest.approx(
        [10 + 5 * i for i in range(count)], abs=1.5
    )


def test_a_header_is_read_without_decoding(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", levels(25), 10)
    assert stated(tmp_path / "a.mp4") == VideoInfo(25, 10, 64, 48)
    (tmp_path / "b.mp4").write_text("no video")
    for path in (tmp_path / "b.mp4", tmp_path / "gone.mp4", write_sound(tmp_path / "c.mp4")):
        with pytest.raises(VideoError, match=path.name):
            stated(path)


def test_duration_counts_the_last_frame(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", levels(25), 10)
    assert probe(tmp_path / "a.mp4").duration_s == pytest.approx(2.5)


def test_pictures_are_rgb(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = RED, BLUE
    encode(tmp_path / "a.mp4", [picture], 10, crf=1)
    (decoded,) = frames(tmp_path / "a.mp4")
    assert decoded.shape == (48, 64, 3)
    assert decoded.dtype == np.uint8
    assert decoded[24, 8] == pytest.approx(RED, abs=12)
    assert decoded[24, 56] == pytest.approx(BLUE, abs=12)


def test_odd_sides_are_padded_by_repeating_the_edge(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", [np.full((47, 63, 3), 200, np.uint8)] * 3, 10)
    info = probe(tmp_path / "a.mp4")
    assert (info.height, info.width) == (48, 64)
    assert next(frames(tmp_path / "a.mp4")).min() > 190


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", levels(3), codec="ffv1", pix_fmt="gray")
    (first, *_) = frames(path)
    assert first.shape == (48, 64, 3)
    assert np.ptp(first, axis=2).max() == 0


@pytest.mark.parametrize(
    ("counter_clockwise", "corner"),
    [(90, (slice(-20, None), slice(0, 20))), (180, (slice(-20, None), slice(-20, None))), (-90, (slice(0, 20), slice(-20, None)))],
)  # fmt: skip
def test_rotation_by_metadata_is_applied(
    tmp_path: Path, counter_clockwise: int, corner: tuple[slice, slice]
) -> None:
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[:24, :24] = RED  # upper left before it is turned
    path = write(tmp_path / "a.mp4", [picture] * 3, rotation=counter_clockwise)
    decoded = next(frames(path))
    info = probe(path)
    assert decoded.shape == (info.height, info.width, 3)
    assert decoded.shape[:2] == ((48, 80) if counter_clockwise == 180 else (80, 48))
    assert decoded[corner].mean(axis=(0, 1)) == pytest.approx(RED, abs=15)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_varying_frame_rate_gives_each_frame_once(tmp_path: Path, suffix: str) -> None:
    gaps = [40] * 20 + [200] * 20
    times = [0, *np.cumsum(gaps).tolist()]
    path = write(tmp_path / f"a.{suffix}", levels(41), times_ms=times)
    info = probe(path)
    assert info.frames == 41
    assert info.fps == pytest.approx(40 / 4.8, rel=0.02)
    assert mean_levels(path) == pytest.approx([10 + 5 * i for i in range(41)], abs=1.5)


def test_names_with_spaces_unicode_and_colons(tmp_path: Path) -> None:
    path = tmp_path / "caméra 2: 入口 %03d.mp4"
    encode(path, levels(3), 10)
    assert probe(path).frames == 3


def test_large_pictures_are_scaled_down_and_small_ones_left(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", [np.full((90, 160, 3), 99, np.uint8)] * 2, 10)
    assert next(frames(tmp_path / "a.mp4", max_side=64)).shape == (36, 64, 3)
    assert next(frames(tmp_path / "a.mp4", max_side=1000)).shape == (90, 160, 3)


def test_an_edit_list_is_no_cut(tmp_path: Path) -> None:
    """A phone's trim keeps the samples in the file and tells players to skip them."""
    encode(tmp_path / "whole.mp4", levels(40), 10)
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        av.open(str(tmp_path / "a.mp4"), "w") as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None or packet.pts is None:
                continue
            packet.dts -= int(1 / packet.time_base)
            packet.pts -= int(1 / packet.time_base)
            packet.stream = stream
            target.mux(packet)
    assert probe(tmp_path / "a.mp4").frames == 30
    assert mean_levels(tmp_path / "a.mp4")[0] == pytest.approx(60, abs=1.5)


# Bad videos


def assert_refused(path: Path, *words: str) -> None:
    """Both ways in refuse the file, in one line that names it, the reason and a remedy."""
    for way in (probe, lambda p: list(frames(p))):
        with pytest.raises(VideoError) as caught:
            way(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert "Traceback" not in message
        assert all(word in message for word in words), message


def test_missing(tmp_path: Path) -> None:
    assert_refused(tmp_path / "a.mp4", "no such file")


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert_refused(tmp_path / "a.mp4", "empty")


def test_text_renamed(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("This is not a film.\n" * 200)
    assert_refused(tmp_path / "a.mp4", "not a readable video")


def test_sound_only(tmp_path: Path) -> None:
    assert_refused(write_sound(tmp_path / "a.mp4"), "holds no video", "audio")


def test_no_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", noise(3), options={"movflags": "frag_keyframe+empty_moov"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])  # the header alone
    assert_refused(path, "no picture")


@pytest.mark.parametrize("share", CUTS)
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("index_at_end.mp4", "libx264", {}),
        ("index_first.mp4", "libx264", {"movflags": "faststart"}),
        ("fragments.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mov", "libx264", {}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx-vp9", {}),
        ("a.avi", "mpeg4", {}),
        ("a.ts", "libx264", {}),
        ("a.flv", "libx264", {}),
    ],
)
def test_cut(tmp_path: Path, name: str, codec: str, options: dict[str, str], share: float) -> None:
    path = write(tmp_path / name, noise(40), codec=codec, options=options)
    assert probe(path).frames == 40
    short = cut(path, share)
    with pytest.raises(VideoError, match=r"cut short or damaged|only the beginning|no picture"):
        probe(short)
    with pytest.raises(VideoError):
        list(frames(short))


def test_cut_names_where(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", noise(50))
    with pytest.raises(VideoError, match=r"it ends at 0\.\d+ s of 2\.00 s"):
        probe(cut(path, 0.5))


def test_damage_in_the_middle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", noise(40))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(4096)  # a lost block of a disk
    path.write_bytes(data)
    assert_refused(path, "cut short or damaged", "frames")


# Encoding


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        encode(tmp_path / name, noise(20), 12)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_failed_encode_leaves_what_was_there(tmp_path: Path) -> None:
    def breaks() -> Iterator[Frame]:
        yield from levels(3)
        raise RuntimeError("camera unplugged")

    (tmp_path / "a.mp4").write_bytes(b"before")
    with pytest.raises(RuntimeError, match="unplugged"):
        encode(tmp_path / "a.mp4", breaks(), 10)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"before"


def test_encode_refuses_nothing_and_mixed_sizes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        encode(tmp_path / "a.mp4", [], 10)
    with pytest.raises(InputError, match=r"picture 1 is uint8 \(20, 20, 3\)"):
        encode(tmp_path / "a.mp4", [levels(1)[0], np.zeros((20, 20, 3), np.uint8)], 10)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "Test 001"
    folder.mkdir()
    for index, picture in enumerate(levels(12)):
        suffix = ("png", "tif", "bmp")[index % 3]
        assert cv2.imwrite(str(folder / f"{index}.{suffix}"), picture[..., 0])
    (folder / "._0.png").write_bytes(b"left by a file manager")
    (folder / "notes.txt").write_text("not a picture")
    encode_folder(folder, tmp_path / "a.mp4", 10)
    assert mean_levels(tmp_path / "a.mp4") == pytest.approx(
        [10 + 5 * i for i in range(12)], abs=1.5
    )


def test_a_frame_folder_without_pictures_or_with_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        encode_folder(tmp_path, tmp_path / "a.mp4", 10)
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"1\.png: not a readable picture"):
        encode_folder(tmp_path, tmp_path / "a.mp4", 10)


# One decode, several consumers


def run_all(jobs: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


def assert_feeder_ends() -> None:
    for thread in threading.enumerate():
        if thread.name == "frames":
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_every_consumer_gets_every_frame_in_order() -> None:
    source = levels(40)
    streams = broadcast(iter(source), 3, depth=2)
    got: list[list[Frame]] = [[], [], []]
    run_all([lambda i=i: got[i].extend(streams[i]) for i in range(3)])
    for taken in got:
        assert len(taken) == 40
        assert all(a is b for a, b in zip(taken, source, strict=True))
    assert_feeder_ends()


def test_queues_are_bounded() -> None:
    produced: list[int] = []

    def count() -> Iterator[Frame]:
        for index, picture in enumerate(levels(40)):
            produced.append(index)
            yield picture

    with prefetch(count(), depth=4) as stream:
        for taken, _ in enumerate(stream, start=1):
            # Those taken, those waiting, and the one the thread holds.
            assert len(produced) <= taken + 4 + 1
    assert len(produced) == 40


def test_an_error_reaches_every_consumer_after_the_frames_before_it() -> None:
    def breaks() -> Iterator[Frame]:
        yield from levels(5)
        raise VideoError("a.mp4: cut short")

    seen: list[int] = []

    def consume(stream: Iterator[Frame]) -> None:
        taken: list[Frame] = []
        with pytest.raises(VideoError, match="cut short"):
            taken.extend(stream)
        seen.append(len(taken))

    streams = broadcast(breaks(), 2, depth=2)
    run_all([lambda s=stream: consume(s) for stream in streams])
    assert seen == [5, 5]
    assert_feeder_ends()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_consumer_that_stops_early_blocks_nobody(how: str) -> None:
    stops, goes_on = broadcast(iter(levels(40)), 2, depth=2)
    next(stops)
    if how == "close":
        stops.close()
        assert list(stops) == []
    else:
        del stops
    assert len(list(goes_on)) == 40
    assert_feeder_ends()


def test_the_source_is_closed_when_nobody_listens_any_more() -> None:
    closed = threading.Event()

    def endless() -> Iterator[Frame]:
        try:
            while True:
                yield levels(1)[0]
        finally:
            closed.set()

    streams = broadcast(endless(), 2, depth=2)
    for stream in streams:
        next(stream)
        stream.close()
    assert closed.wait(timeout=30)
    assert_feeder_ends()


def test_no_consumers_and_no_room_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot feed 0 consumers"):
        broadcast([], 0)
    with pytest.raises(ValueError, match="queues of 0"):
        broadcast([], 1, depth=0)


@pytest.mark.shared_data
def test_ped2_decodes_to_the_published_counts(shared_data: Path) -> None:
    table = np.genfromtxt(shared_data / "ped2/videos.csv", delimiter=",", names=True, dtype=None, encoding=None)  # fmt: skip
    for row in table[:4]:
        info = probe(shared_data / "ped2" / str(row["path"]))
        assert (info.frames, info.width, info.height, info.fps) == (row["frames"], 360, 240, 10.0)


def test_the_picture_near_a_time_is_the_one_shown_then(tmp_path: Path) -> None:
    pictures = [np.full((32, 48, 3), 4 * index, dtype=np.uint8) for index in range(60)]
    path = write(tmp_path / "grey.mp4", pictures, options={"movflags": "faststart"})
    for frame in (0, 7, 31, 59):
        found = frame_near(path, frame / 25 + 0.01)
        assert abs(float(found.mean()) - 4 * frame) < 3
    assert abs(float(frame_near(path, 99.0).mean()) - 4 * 59) < 3
    assert frame_near(path, 1.0, max_side=24).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "plays"),
    [
        ("a.mp4", "libx264", "yuv420p", True),
        ("a.mp4", "libx264", "yuv444p", False),
        ("a.mp4", "mpeg4", "yuv420p", False),
        ("a.avi", "libx264", "yuv420p", False),
        ("a.webm", "libvpx-vp9", "yuv420p", True),
    ],
)
def test_what_browsers_play(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, plays: bool
) -> None:
    pictures = [np.zeros((32, 48, 3), dtype=np.uint8)] * 3
    path = write(tmp_path / name, pictures, codec=codec, pix_fmt=pix_fmt)
    assert plays_in_browsers(path) is plays
