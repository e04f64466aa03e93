from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from tevad_model import timeline, video
from tevad_model.encoders.base import CaptionEncoder, Frame
from tevad_model.encoders.motion import MotionCaptioner, MotionOptions
from tevad_model.encoders.motion.measure import Background, median_picture, working_picture
from tevad_model.encoders.motion.tracks import Facts, Mover
from tevad_model.encoders.motion.words import direction, sentence, speed_word
from tevad_model.errors import InputError

FPS = 10.0
SIZE = (160, 240)


@dataclass
class Walker:
    """A textured upright rectangle that moves ``vx, vy`` pixels a frame."""

    x: float
    foot: float
    vx: float = 0.0
    vy: float = 0.0
    height: int = 40
    width: int = 16
    starts: int = 0


def _texture(height: int, width: int, seed: int) -> np.ndarray:
    rough = np.random.default_rng(seed).normal(0, 1, (height, width))
    smooth = cv2.GaussianBlur(rough, (0, 0), 2)
    return smooth / (smooth.std() or 1.0)


def scene(
    walkers: Iterable[Walker],
    frames: int,
    *,
    size: tuple[int, int] = SIZE,
    noise: float = 0.0,
) -> list[Frame]:
    """Frames of dark walkers before a bright still ground."""
    walkers = list(walkers)
    ground = 160 + 6 * _texture(*size, seed=0)
    rng = np.random.default_rng(1)
    pictures = []
    for number in range(frames):
        picture = ground.copy()
        for index, walker in enumerate(walkers):
            x = walker.x + walker.vx * (number - walker.starts)
            foot = walker.foot + walker.vy * (number - walker.starts)
            if number >= walker.starts:
                _paint(picture, walker, x, foot, seed=index + 2)
        picture += rng.normal(0, noise, size) if noise else 0
        grey = np.clip(picture, 0, 255).astype(np.uint8)
        pictures.append(np.repeat(grey[..., None], 3, axis=2))
    return pictures


def _paint(picture: np.ndarray, walker: Walker, x: float, foot: float, seed: int) -> None:
    body = (60 + 15 * _texture(walker.height, walker.width, seed)).astype(np.float32)
    shift = np.array([[1, 0, x], [0, 1, foot - walker.height]], dtype=np.float32)
    columns_rows = picture.shape[::-1]
    layer = cv2.warpAffine(body, shift, columns_rows)
    alpha = cv2.warpAffine(np.ones_like(body), shift, columns_rows)
    picture[:] = (1 - alpha) * picture + alpha * layer


def captions(frames: Iterable[Frame], fps: float = FPS) -> list[str]:
    return list(MotionCaptioner(MotionOptions()).caption(frames, fps))


def lone(vx: float, *, height: int = 40, fps: float = FPS, vy: float = 0.0) -> str:
    """The caption of one walker who crosses the picture."""
    x = 20.0 if vx >= 0 else 200.0
    foot = 60.0 if vy > 0 else 120.0
    width = round(0.4 * height)
    return captions(scene([Walker(x, foot, vx, vy, height, width)], 64), fps)[0]


def test_fulfils_the_protocol() -> None:
    encoder: CaptionEncoder = MotionCaptioner(MotionOptions())
    assert encoder.fingerprint.parts["backend"] == "motion"


def test_fingerprint_names_every_option() -> None:
    default, other = MotionCaptioner(MotionOptions()), MotionCaptioner(MotionOptions(contrast=20))
    assert default.fingerprint.differences(other.fingerprint) == ["contrast: 12 != 20"]
    assert set(MotionOptions.model_fields) <= set(default.fingerprint.parts)


def test_unknown_or_impossible_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        MotionOptions.model_validate({"colour": True})
    with pytest.raises(ValidationError, match="contrast"):
        MotionOptions(contrast=0)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_frame_rate_is_refused(fps: float) -> None:
    with pytest.raises(InputError, match="fps"):
        captions(scene([], 4), fps)


def test_faster_is_called_faster() -> None:
    # 40 pixels high at 10 frames a second: 0.25, 0.75 and 1.75 body heights a second.
    assert "slowly" in lone(1.0)
    assert "at walking pace" in lone(3.0)
    assert lone(7.0).startswith("A figure moves fast")


def test_far_and_near_compare_by_body_height() -> None:
    assert lone(1.5, height=20) == lone(3.0, height=40) == lone(4.5, height=60)


def test_speed_is_a_second_not_a_frame() -> None:
    assert "slowly" in lone(1.5, fps=10)
    assert "at walking pace" in lone(1.5, fps=20)


@pytest.mark.parametrize(
    ("vx", "vy", "words"),
    [(3, 0, "right"), (-3, 0, "left"), (0, 1.2, "downwards"), (0, -1.2, "upwards")],
)
def test_direction(vx: float, vy: float, words: str) -> None:
    assert words in lone(vx, vy=vy)


def test_number_is_told_in_classes() -> None:
    def crowd(count: int) -> str:
        walkers = [Walker(10.0 + 26 * i, 60.0 + 45 * (i % 3), 1.0) for i in range(count)]
        return captions(scene(walkers, 64))[0]

    assert crowd(2).startswith("Two figures move")
    assert crowd(4).startswith("A few figures move")
    assert crowd(7).startswith("Many figures move")


def test_the_outstanding_object_is_told() -> None:
    walkers = [Walker(10 + 50 * i, 60 + 45 * (i % 2), 1.0) for i in range(4)]
    usual = captions(scene(walkers, 64))[0]
    told = captions(scene([*walkers, Walker(220, 155, -4.0)], 64))[0]
    assert usual == "A few figures move slowly."
    assert told.endswith(
        "A figure moves at walking pace to the left, many times faster than the others."
    )


def test_a_wide_object_among_walkers_is_told() -> None:
    walkers = [Walker(10 + 50 * i, 60 + 45 * (i % 2), 1.0) for i in range(4)]
    cart = Walker(10, 155, 1.1, height=40, width=44)
    assert "A wide object moves slowly to the right" in captions(scene([*walkers, cart], 64))[0]


def test_a_still_scene_is_empty() -> None:
    assert set(captions(scene([], 70))) == {"The scene is empty and nothing moves."}


def test_camera_noise_makes_no_object() -> None:
    assert set(captions(scene([], 70, noise=8.0))) == {"The scene is empty and nothing moves."}


def test_a_change_of_brightness_makes_no_object() -> None:
    frames = scene([], 64)
    brighter = [np.clip(frame.astype(int) + 25, 0, 255).astype(np.uint8) for frame in frames]
    assert set(captions([*frames, *brighter])) == {"The scene is empty and nothing moves."}


def test_who_comes_and_stays_stands_still() -> None:
    frames = scene([Walker(100, 120, starts=100)], 164)
    assert captions(frames)[7] == "One figure stands still."


def test_a_moving_camera_is_told() -> None:
    told = captions([*scene([], 64), *_panning(32)])
    assert told[0] == "The scene is empty and nothing moves."
    assert told[-1].startswith("The whole picture changes")


def test_a_new_view_is_learned() -> None:
    frames = scene([], 64) + list(_panning(1)) * 128
    assert captions(frames)[-1] == "The scene is empty and nothing moves."


def _panning(frames: int) -> Iterator[Frame]:
    """A camera that sweeps over rough ground."""
    wide = np.clip(128 + 45 * _texture(SIZE[0], SIZE[1] + 20 * frames, seed=9), 0, 255)
    for number in range(frames):
        view = wide[:, 20 * number : 20 * number + SIZE[1]].astype(np.uint8)
        yield np.repeat(view[..., None], 3, axis=2)


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17, 63, 64, 65, 80, 97])
def test_one_caption_a_snippet(frames: int) -> None:
    told = captions(scene([Walker(10, 120, 2.0)], frames))
    assert len(told) == timeline.snippet_count(frames)
    assert all(caption.endswith(".") for caption in told)


def test_no_frames_no_captions() -> None:
    assert captions([]) == []


def test_the_end_of_a_video_is_no_stillness() -> None:
    told = captions(scene([Walker(10, 120, 2.2)], 97))
    assert told[-1] == told[0] == "A figure moves at walking pace to the right."


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (33, 61), (121, 97)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    assert len(captions(scene([], 20, size=size))) == 2


def test_large_pictures_are_told_like_small_ones() -> None:
    frames = scene([Walker(20, 120, 3.0)], 64)
    enlarged = [cv2.resize(frame, None, fx=4, fy=4) for frame in frames]
    assert captions(enlarged) == captions(frames)


def test_a_caption_needs_no_more_than_its_window() -> None:
    frames = scene([Walker(10, 120, 1.0)], 200)
    read = 0

    def counted() -> Iterator[Frame]:
        nonlocal read
        for frame in frames:
            read += 1
            yield frame

    for snippet, _ in enumerate(MotionCaptioner(MotionOptions()).caption(counted(), FPS)):
        window = timeline.window_frames(snippet, len(frames))
        assert read <= window[-1] + 1
    assert read == len(frames)


def test_a_frame_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[int] = []

    def counting(frame: Frame, longest_side: int) -> np.ndarray:
        converted.append(1)
        return working_picture(frame, longest_side)

    monkeypatch.setattr("tevad_model.encoders.motion.working_picture", counting)
    told = captions(scene([Walker(10, 120, 1.0)], 160))
    assert len(told) == 10
    assert len(converted) == 80  # every second frame at ten frames a second


def test_deterministic_whatever_the_threads() -> None:
    walkers = [Walker(10 + 30 * i, 60 + 30 * (i % 4), 1.0 + 0.5 * i) for i in range(5)]
    frames = scene(walkers, 96, noise=3.0)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = captions(frames)
        cv2.setNumThreads(4)
        assert captions(iter(frames)) == one
    finally:
        cv2.setNumThreads(threads)


def test_someone_falls() -> None:
    frames = scene([Walker(20, 120, 2.0)], 80)
    down = scene([Walker(180, 120, 0.0, height=16, width=40)], 60)
    told = captions([*frames, *down])
    assert any("falls down and lies still" in caption for caption in told)
    assert "falls" not in " ".join(captions(frames))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 15, 16])
def test_median_picture_is_the_median(count: int) -> None:
    """Also of pictures of which not all rows are looked at at once."""
    pictures = np.random.default_rng(0).integers(0, 256, (count, 50, 400, 3), dtype=np.uint8)
    lower = np.sort(pictures, axis=0)[(count - 1) // 2]
    np.testing.assert_array_equal(median_picture(list(pictures)), lower)


def test_a_background_is_learned_first() -> None:
    with pytest.raises(RuntimeError, match="learned"):
        Background().foreground(np.zeros((16, 16, 3), np.uint8), contrast=12, changed_view=0.5)


def _mover(**facts: object) -> Mover:
    plain = {"speed": 0.8, "ratio": 1.0, "vx": 1.0, "vy": 0.0, "size": 1.0, "aspect": 0.4}
    return Mover(**{**plain, "fell": False, **facts})  # type: ignore[arg-type]


def test_words_of_facts() -> None:
    crowd = (_mover(speed=2.5, ratio=3.0, vx=-1.0), _mover(), _mover(), _mover(fell=True))
    assert sentence(Facts(view_changed=0.0, count=4, movers=crowd)) == (
        "A few figures move at walking pace. "
        "A figure moves very fast to the left, much faster than the others. "
        "Someone falls down and lies still on the ground."
    )


def test_speed_classes_rise() -> None:
    words = [speed_word(speed) for speed in (0.2, 0.8, 1.8, 4.0)]
    assert words == ["slowly", "at walking pace", "fast", "very fast"]


def test_direction_takes_the_larger_part() -> None:
    assert direction(_mover(vx=-0.8, vy=0.6)) == "to the left"
    assert direction(_mover(vx=0.6, vy=-0.8)) == "upwards"


@pytest.mark.shared_data
def test_tells_a_cyclist_from_a_walker_more_often_than_not(shared_data: Path) -> None:
    """On the test split of Ped2; the thresholds were chosen on its training split."""
    root = shared_data / "ped2"
    with (root / "videos.csv").open() as file:
        videos = [row for row in csv.DictReader(file) if row["split"] == "test"]
    with (root / "events.csv").open() as file:
        events = list(csv.DictReader(file))
    told, abnormal = [], []
    for row in videos:
        count = int(row["frames"])
        ranges = [
            (int(event["start_frame"]), int(event["end_frame"]))
            for event in events
            if event["video"] == row["video"]
        ]
        mask = timeline.frame_mask(ranges, count)
        for snippet, caption in enumerate(captions(video.frames(root / row["path"]))):
            start, end = timeline.snippet_range(snippet, count)
            abnormal.append(mask[start:end].mean() >= 0.5)
            told.append("faster" in caption or "wide" in caption or "large" in caption)
    said, is_event = np.array(told), np.array(abnormal)
    hits, false_alarms = said[is_event].mean(), said[~is_event].mean()
    assert hits > 0.5
    assert (hits + 1 - false_alarms) / 2 > 0.7
