"""The rendered dataset: the same every time, exact ground truth, nothing abnormal where it says so."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tevad_model import timeline
from tevad_model.errors import InputError
from tevad_model.render import CLASSES, Clip, plan, render
from tevad_model.video import probe

SHORT = (48, 64)
PLAN = plan(train=16, test=12, seed=0)
NORMAL = [clip for clip, _, kind in PLAN if not kind]
ABNORMAL = {kind: clip for clip, _, kind in reversed(PLAN) if kind}
"""The first video of each class."""


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    render(folder, train=4, test=2, seed=3, lengths=SHORT)
    return folder


def test_the_tables_list_what_is_there(dataset: Path) -> None:
    videos = table(dataset / "videos.csv")
    assert list(videos[0]) == ["video", "path", "label", "split", "class"]
    assert Counter((row["split"], row["label"]) for row in videos) == {
        ("train", "normal"): 2,
        ("train", "abnormal"): 2,
        ("test", "normal"): 1,
        ("test", "abnormal"): 1,
    }
    assert {row["path"] for row in videos} == {
        path.relative_to(dataset).as_posix() for path in dataset.glob("videos/*")
    }


def test_events_lie_in_the_abnormal_videos_and_within_their_frames(dataset: Path) -> None:
    videos = {row["video"]: row for row in table(dataset / "videos.csv")}
    events = table(dataset / "events.csv")
    assert list(events[0]) == ["video", "start_frame", "end_frame", "class"]
    assert {row["video"] for row in events} == {
        name for name, row in videos.items() if row["label"] == "abnormal"
    }
    for event in events:
        video = videos[event["video"]]
        info = probe(dataset / video["path"])
        assert event["class"] == video["class"]
        assert 0 <= int(event["start_frame"]) < int(event["end_frame"]) <= info.frames


def test_videos_decode_to_the_planned_frames(dataset: Path) -> None:
    for clip, _, _ in plan(train=4, test=2, seed=3, lengths=SHORT):
        info = probe(dataset / "videos" / f"{clip.name}.mp4")
        assert (info.frames, info.fps) == (clip.frames, clip.fps)
        assert (info.width, info.height) == (clip.camera.width, clip.camera.height)


def test_the_same_seed_gives_the_same_bytes_whatever_else_is_rendered(
    dataset: Path, tmp_path: Path
) -> None:
    render(tmp_path, train=2, test=2, seed=3, lengths=SHORT)
    for path in tmp_path.glob("videos/*"):
        assert path.read_bytes() == (dataset / "videos" / path.name).read_bytes()


def test_another_seed_gives_other_videos() -> None:
    first, other = (next(plan(train=2, test=2, seed=seed)[0][0].pictures()) for seed in (0, 1))
    assert np.abs(first.astype(int) - other).mean() > 1


def test_every_class_is_in_both_splits() -> None:
    for split in ("train", "test"):
        kinds = Counter(kind for _, where, kind in PLAN if where == split)
        assert set(kinds) == {"", *CLASSES}
        assert kinds[""] == sum(kinds.values()) / 2


def test_camera_and_rate_do_not_give_the_label_away() -> None:
    looks = {
        label: Counter((c.camera, c.fps) for c, _, kind in PLAN if bool(kind) is label)
        for label in (False, True)
    }
    assert looks[False] == looks[True]
    assert len(looks[True]) > 1


def test_normal_videos_hold_people_and_nothing_abnormal() -> None:
    for clip in NORMAL:
        views = [clip.boxes(frame) for frame in range(0, clip.frames, 20)]
        assert {kind for view in views for kind, _ in view} == {""}
        assert np.mean([len(view) for view in views]) > 1
        assert clip.events() == []


@pytest.mark.parametrize("kind", CLASSES)
def test_events_are_the_frames_with_something_abnormal_in_view(kind: str) -> None:
    clip = ABNORMAL[kind]
    events = clip.events()
    truth = timeline.frame_mask([(start, end) for start, end, _ in events], clip.frames)
    views = [[kind for kind, _ in clip.boxes(frame)] for frame in range(clip.frames)]
    assert {event_kind for *_, event_kind in events} == {kind}
    assert truth.tolist() == [kind in view for view in views]
    assert 0.05 < truth.mean() < 0.7
    assert np.mean(["" in view for view in views]) > 0.8, "people go about during events, too"


@pytest.mark.parametrize("kind", CLASSES)
def test_only_the_frames_of_events_show_the_abnormal_actor(kind: str) -> None:
    """Take the actor out and render again: the frames of its events change, and no other."""
    (clip,) = (c for c, _, k in plan(train=10, test=2, seed=0, lengths=SHORT) if k == kind and c.name.startswith("train"))  # fmt: skip
    without = replace(clip, cast=tuple(actor for actor in clip.cast if not actor.kind))
    truth = timeline.frame_mask([(start, end) for start, end, _ in clip.events()], clip.frames)
    pairs = zip(clip.pictures(), without.pictures(), strict=True)
    assert [bool((a != b).any()) for a, b in pairs] == truth.tolist()


def speeds(clip: Clip, kind: str) -> list[float]:
    """Body heights a second that actors of a class move across the picture, fully in view."""
    alone = [replace(clip, cast=(actor,)) for actor in clip.cast if actor.kind == kind]
    found = []
    for one in alone:
        boxes = [dict(one.boxes(frame)).get(kind) for frame in range(one.frames)]
        for a, b in zip(boxes, boxes[4:], strict=False):
            if a and b and min(a[0], b[0]) > 0 and max(a[2], b[2]) < clip.camera.width:
                across = abs(a[0] + a[2] - b[0] - b[2]) / 2
                found.append(across / (b[3] - b[1]) * clip.fps / 4)
    return found


def test_who_runs_or_cycles_is_faster_for_their_size_than_who_walks() -> None:
    walking = [speed for clip in NORMAL[:4] for speed in speeds(clip, "")]
    for kind in ("running", "cycling"):
        assert np.min(speeds(ABNORMAL[kind], kind)) > 1.5 * np.max(walking)


@pytest.mark.parametrize(
    "wrong", [{"train": 1, "test": 2}, {"train": 2, "test": 0}, {"lengths": (10, 300)}, {"lengths": (200, 100)}]
)  # fmt: skip
def test_impossible_plans_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        render(tmp_path / "new", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
