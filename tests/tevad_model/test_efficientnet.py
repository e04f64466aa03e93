"""The embedded visual encoder, with its real weights."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tevad_model.encoders.base import Features, Frame
from tevad_model.encoders.efficientnet import (
    CHANNELS,
    EfficientNetEncoder,
    EfficientNetOptions,
    exported_network,
    network,
    picture_shape,
    pool,
    weights_file,
)
from tevad_model.errors import InputError, VideoError
from tevad_model.fingerprint import sha256_file

SIDE = 96


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One exported network for all tests, and what was printed as it was made.

    It is made by a process of its own, where no earlier test has touched loggers and warnings.
    """
    folder = tmp_path_factory.mktemp("network")
    code = "import pathlib, sys; from tevad_model.encoders import efficientnet as e; "
    code += "e.exported_network(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    return folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(export: tuple[Path, str]) -> Path:
    return export[0]


def make(cache: Path, **options: Any) -> EfficientNetEncoder:
    return EfficientNetEncoder(EfficientNetOptions(**{"side": SIDE, **options}), cache)


def features(encoder: EfficientNetEncoder, frames: Sequence[Frame]) -> Features:
    return np.concatenate(list(encoder.encode(frames)))


def moving_square(frames: int, speed: int, height: int = 96, width: int = 128) -> list[Frame]:
    """A bright square that goes right over a textured ground, by ``speed`` pixels a frame."""
    ground = np.random.default_rng(7).integers(60, 120, (height, width, 1), dtype=np.uint8)
    pictures = []
    for index in range(frames):
        picture = np.repeat(ground, 3, axis=2)
        left = 8 + index * speed
        picture[32:64, left : left + 16] = (220, 200, 180)
        pictures.append(picture)
    return pictures


def noise(frames: int, height: int = 96, width: int = 128) -> list[Frame]:
    pictures = np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3))
    return list(pictures.astype(np.uint8))


@pytest.mark.parametrize("shape", [(1, 224, 224, 3), (3, 64, 96, 3), (2, 160, 32, 3)])
def test_runtime_equals_pytorch(cache: Path, shape: tuple[int, ...]) -> None:
    import onnxruntime
    import torch

    pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    session = onnxruntime.InferenceSession(exported_network(cache))
    (maps,) = session.run(None, {"pictures": pictures})
    with torch.no_grad():
        expected = network()(torch.from_numpy(pictures)).numpy()
    assert maps.shape == (shape[0], CHANNELS, shape[1] // 32, shape[2] // 32)
    assert expected.std() > 0.1
    np.testing.assert_allclose(maps, expected, atol=1e-4)


@pytest.mark.parametrize(("frames", "snippets"), [(1, 1), (2, 1), (16, 1), (17, 2), (33, 3)])
@pytest.mark.parametrize("crops", [1, 5])
def test_gives_one_row_a_snippet(cache: Path, frames: int, snippets: int, crops: int) -> None:
    encoder = make(cache, crops=crops, batch_size=2)
    rows = features(encoder, noise(frames))
    assert rows.shape == (snippets, encoder.crops, encoder.dim) == (snippets, crops, 2 * CHANNELS)
    assert rows.dtype == np.float32
    assert np.isfinite(rows.astype(np.float16)).all()


def test_last_snippet_is_padded_by_the_last_frame(cache: Path) -> None:
    frames = moving_square(19, speed=2)
    encoder = make(cache)
    padded = features(encoder, frames + frames[-1:] * 13)
    np.testing.assert_array_equal(features(encoder, frames), padded)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batch_size_changes_nothing(cache: Path, batch_size: int) -> None:
    """To the rounding of sums: the runtime may cut its work in other places."""
    frames = noise(16 * 5 + 3)
    expected = features(make(cache, batch_size=5), frames)
    encoder = make(cache, batch_size=batch_size)
    assert max(len(batch) for batch in encoder.encode(frames)) == min(batch_size, 6)
    np.testing.assert_allclose(features(encoder, frames), expected, atol=1e-5)


def test_a_list_and_a_stream_give_the_same(cache: Path) -> None:
    frames = noise(40)
    encoder = make(cache)
    np.testing.assert_array_equal(
        np.concatenate(list(encoder.encode(iter(frames)))), features(encoder, frames)
    )


def test_look_ahead_is_bounded(cache: Path) -> None:
    taken = 0

    def counted() -> Iterator[Frame]:
        nonlocal taken
        frame = noise(1)[0]
        for _ in range(16 * 40):
            taken += 1
            yield frame

    snippets = 0
    for batch in make(cache, batch_size=2).encode(counted()):
        snippets += len(batch)
        assert taken <= 16 * (snippets + 2)
    assert snippets == 40


def test_may_be_left_early(cache: Path) -> None:
    encoder = make(cache, batch_size=1)
    batches = encoder.encode(noise(64))
    first = next(batches)
    batches.close()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(first[0], features(encoder, noise(64))[0])


def test_motion_is_what_moves(cache: Path) -> None:
    """A still picture has the motion of a black one; what moves shows, and how fast it does."""
    encoder = make(cache, crops=1)
    still, slow, fast = (
        features(encoder, moving_square(16, speed))[0, 0, CHANNELS:] for speed in (0, 1, 4)
    )
    black = features(encoder, [np.zeros((96, 128, 3), np.uint8)] * 16)[0, 0, CHANNELS:]
    np.testing.assert_allclose(still, black, atol=1e-5)
    for one, other in ((slow, still), (fast, still), (fast, slow)):
        assert np.linalg.norm(one - other) > 10
    assert min(slow.sum(), fast.sum()) > still.sum()


def test_appearance_tells_pictures_apart_that_do_not_move(cache: Path) -> None:
    encoder = make(cache, crops=1)
    empty, square = (
        features(encoder, [picture] * 16)[0, 0]
        for picture in (np.full((96, 128, 3), 90, np.uint8), moving_square(1, 0)[0])
    )
    assert np.linalg.norm(square[:CHANNELS] - empty[:CHANNELS]) > 1
    np.testing.assert_allclose(square[CHANNELS:], empty[CHANNELS:], atol=1e-5)


def test_a_crop_sees_its_part_of_the_picture() -> None:
    maps = np.zeros((1, 1, 4, 6), np.float32)
    maps[0, 0, 0, 0] = 2.0
    maps[0, 0, 3, 5] = 3.0
    np.testing.assert_array_equal(pool(maps, 5)[0, :, 0], [2, 0, 0, 3, 0])
    np.testing.assert_array_equal(pool(maps, 1)[0, :, 0], [3])


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 3), (7, 5)])
def test_no_crop_is_empty_and_none_misses_a_place(size: tuple[int, int]) -> None:
    for place in np.ndindex(size):
        maps = np.zeros((1, 1, *size), np.float32)
        maps[0, 0, *place] = 1.0
        assert pool(maps, 5).max() == 1.0


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(240, 360, (320, 480)), (360, 240, (480, 320)), (100, 100, (384, 384)), (2, 999, (32, 8576))],
)
def test_pictures_keep_their_aspect(height: int, width: int, expected: tuple[int, int]) -> None:
    shape = picture_shape(np.zeros((height, width, 3), np.uint8), 384)
    assert shape == expected


@pytest.mark.parametrize(
    "change",
    [{"crops": 1}, {"side": 128}, {"appearance": 3}, {"motion": 3}, {"motion_gain": 2.0}],
)
def test_fingerprint_changes_with_the_output(cache: Path, change: dict[str, Any]) -> None:
    ours, other = make(cache, crops=5), make(cache, **{"crops": 5, **change})
    assert len(ours.fingerprint.differences(other.fingerprint)) == 1
    frames = moving_square(16, speed=3)
    before, after = features(ours, frames), features(other, frames)
    assert before.shape != after.shape or not np.allclose(before, after, atol=1e-3)


def test_fingerprint_keeps_with_what_leaves_the_output(cache: Path, tmp_path: Path) -> None:
    assert make(cache).fingerprint == make(tmp_path, batch_size=3, threads=1).fingerprint
    assert make(cache).fingerprint.parts["weights"] == sha256_file(weights_file())


def test_network_is_exported_once(cache: Path) -> None:
    """A file that is written anew is another one; its time only says when it was last used."""
    before = {path: path.stat().st_ino for path in cache.iterdir()}
    exported_network(cache)
    assert {path: path.stat().st_ino for path in cache.iterdir()} == before


def test_damaged_cache_is_exported_again(cache: Path, tmp_path: Path) -> None:
    (whole,) = cache.iterdir()
    flipped = bytearray(whole.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    damaged = tmp_path / whole.name
    damaged.write_bytes(flipped)

    content = exported_network(tmp_path)

    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == content != bytes(flipped)
    assert kept.stem.endswith(hashlib.sha256(content).hexdigest()[:12])
    frames = noise(16)
    np.testing.assert_allclose(
        features(make(tmp_path), frames), features(make(cache), frames), atol=1e-4
    )


def test_a_cache_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(InputError, match="cache: cannot be the folder"):
        exported_network(tmp_path / "cache")


def test_export_says_nothing(export: tuple[Path, str]) -> None:
    assert export[1] == ""


def test_an_empty_video_is_refused(cache: Path) -> None:
    with pytest.raises(VideoError, match="empty"):
        list(make(cache).encode([]))


def test_a_frame_of_another_size_is_refused(cache: Path) -> None:
    frames = noise(3) + noise(1, height=64)
    with pytest.raises(VideoError, match="frame 3 is"):
        list(make(cache).encode(frames))


@pytest.mark.parametrize("shrink", [1, 4], ids=["larger", "smaller"])
def test_size_of_the_frames_hardly_matters(cache: Path, shrink: int) -> None:
    """Frames larger and smaller than the pictures the network sees give like features."""
    large = [
        cv2.GaussianBlur(frame, (0, 0), sigmaX=6)
        for frame in moving_square(16, speed=4, height=192, width=256)
    ]
    encoder = make(cache, side=111)  # pictures of 96 × 128
    given, exact = (
        features(
            encoder,
            [cv2.resize(f, (256 // n, 192 // n), interpolation=cv2.INTER_AREA) for f in large],
        )
        for n in (shrink, 2)
    )
    for part in (slice(None, CHANNELS), slice(CHANNELS, None)):
        ours, expected = given[0, 0, part], exact[0, 0, part]
        assert ours @ expected / np.linalg.norm(ours) / np.linalg.norm(expected) > 0.9


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)], ids=["grey", "float"]
)
def test_a_frame_that_is_no_rgb_picture_is_refused(cache: Path, frame: Any) -> None:
    with pytest.raises(VideoError, match="uint8"):
        list(make(cache).encode([frame]))
