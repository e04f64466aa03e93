"""raw_videos and its listing: what is taken in, what goes to quarantine and with which words."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from s3_server import S3Server

from assets.raw_videos import (
    INCOMING,
    ingest_raw_videos,
    read_events,
    read_raw_videos,
    video_path,
    was_unreached,
)
from assets.workspace import listing
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project
from tevad_model.errors import InputError, SourceRefusedError

WriteVideo = Callable[..., Path]


@pytest.fixture
def source(tmp_path: Path, write_video: WriteVideo) -> Path:
    """A folder with one sound normal and one sound abnormal video."""
    folder = tmp_path / "source"
    write_video(folder / "good.mp4", seed=1)
    write_video(folder / "odd.mp4", seed=2)
    return folder


@pytest.fixture
def dataset(project_root: Path, source: Path) -> Dataset:
    write_dataset(project_root, "site", DatasetParams(source=str(source)))
    return Project.find().dataset("site")


def table(source: Path, *lines: str, header: str = "video,path,label,split") -> None:
    """Write videos.csv: the two sound videos and further lines."""
    rows = ["good,good.mp4,normal,train", "odd,odd.mp4,abnormal,train", *lines]
    (source / "videos.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def take_in(dataset: Dataset) -> dict[str, str]:
    """Look at the source, take it in, and return the quarantine."""
    listing.refresh(dataset)
    return ingest_raw_videos(dataset).quarantined


def usable(dataset: Dataset) -> set[str]:
    return {row.video for row in read_raw_videos(dataset).usable}


def test_what_is_taken_in_is_what_the_file_holds(dataset: Dataset, source: Path) -> None:
    table(source)
    assert take_in(dataset) == {}
    row = read_raw_videos(dataset).by_video()["good"]
    assert (row.frames, row.fps, row.width, row.height) == (20, 10.0, 64, 48)
    assert (row.label, row.split) == ("normal", "train")
    assert video_path(dataset, row).read_bytes() == (source / "good.mp4").read_bytes()


def cut(part: float) -> Callable[[Path, Path], None]:
    def make(good: Path, bad: Path) -> None:
        content = good.read_bytes()
        bad.write_bytes(content[: int(len(content) * part)])

    return make


def audio_only(_: Path, bad: Path) -> None:
    with av.open(str(bad), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _, bad: bad.write_bytes(b""), "empty"),
        (lambda _, bad: bad.write_text("not a video at all\n" * 50), "bad.mp4: "),
        (cut(0.1), "bad.mp4: "),
        (cut(0.5), "bad.mp4: "),
        (cut(0.9), "bad.mp4: "),
        (audio_only, "holds no video"),
        (lambda _, bad: None, "listed, but not in"),
    ],
    ids=["empty", "text", "cut at 10 %", "cut at 50 %", "cut at 90 %", "audio only", "not there"],
)
def test_an_unusable_file_is_quarantined_and_the_rest_stands(
    dataset: Dataset, source: Path, make: Callable[[Path, Path], None], reason: str
) -> None:
    make(source / "good.mp4", source / "bad.mp4")
    table(source, "bad,bad.mp4,normal,train")
    quarantined = take_in(dataset)
    assert quarantined.keys() == {"bad"}
    assert reason in quarantined["bad"]
    assert "bad.mp4" in quarantined["bad"]
    assert "\n" not in quarantined["bad"]
    assert usable(dataset) == {"good", "odd"}
    assert {p.name for p in (dataset.stage("raw_videos") / "videos").iterdir()} == {
        "good.mp4",
        "odd.mp4",
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("up,../elsewhere.mp4,normal,train", "must stay within"),
        ("../up,good.mp4,normal,train", "must be a plain name"),
        ("odd label,good.mp4,strange,train", "label 'strange' is unknown"),
    ],
)
def test_an_unusable_row_is_quarantined(
    dataset: Dataset, source: Path, line: str, reason: str
) -> None:
    shutil.copy(source / "good.mp4", source.parent / "elsewhere.mp4")
    table(source, line)
    [problem] = take_in(dataset).values()
    assert reason in problem
    assert usable(dataset) == {"good", "odd"}


def test_a_link_out_of_the_folder_is_quarantined(dataset: Dataset, source: Path) -> None:
    outside = source.parent / "outside.mp4"
    shutil.move(source / "odd.mp4", outside)
    (source / "odd.mp4").symlink_to(outside)
    table(source)
    assert "leads out of" in take_in(dataset)["odd"]
    assert usable(dataset) == {"good"}


def test_same_content_under_two_labels_is_quarantined_twice(dataset: Dataset, source: Path) -> None:
    shutil.copy(source / "good.mp4", source / "twin.mp4")
    table(source, "twin,twin.mp4,abnormal,train")
    quarantined = take_in(dataset)
    assert quarantined.keys() == {"good", "twin"}
    assert "listed as abnormal and normal" in quarantined["good"]


def test_same_content_under_one_label_is_taken_once(dataset: Dataset, source: Path) -> None:
    shutil.copy(source / "good.mp4", source / "twin.mp4")
    table(source, "twin,twin.mp4,normal,train")
    assert take_in(dataset).keys() == {"twin"}


def test_a_copy_of_what_is_in_quarantine_is_taken(dataset: Dataset, source: Path) -> None:
    shutil.copy(source / "odd.mp4", source / "twin.mp4")
    table(source, "twin,twin.mp4,abnormal,train")
    (source / "events.csv").write_text("video,start_frame,end_frame\nodd,0,21\ntwin,0,5\n")
    quarantined = take_in(dataset)
    assert quarantined.keys() == {"odd"}
    assert "ends past the video's 20 frames" in quarantined["odd"]
    assert usable(dataset) == {"good", "twin"}


def test_a_copy_of_what_has_no_features_is_taken(
    project_root: Path, source: Path, tmp_path: Path
) -> None:
    shutil.copy(source / "odd.mp4", source / "twin.mp4")
    table(source, "twin,twin.mp4,abnormal,train")
    (tmp_path / "features").mkdir()
    for video in ("good", "twin"):
        np.save(tmp_path / "features" / f"{video}.npy", np.ones((2, 1, 4), np.float32))
    entry = DatasetParams(source=str(source), features=str(tmp_path / "features"))
    write_dataset(project_root, "site", entry)
    found = Project.find().dataset("site")
    quarantined = take_in(found)
    assert quarantined.keys() == {"odd"}
    assert "no features" in quarantined["odd"]
    assert usable(found) == {"good", "twin"}


@pytest.mark.parametrize("line", [1, 3], ids=["before it", "after it"])
def test_a_copy_without_a_label_leaves_the_labelled_video_alone(
    dataset: Dataset, source: Path, line: int
) -> None:
    table(source)
    take_in(dataset)
    shutil.copy(source / "good.mp4", source / "copy.mp4")
    lines = (source / "videos.csv").read_text().splitlines()
    lines.insert(line, "copy,copy.mp4,,")
    (source / "videos.csv").write_text("\n".join(lines) + "\n")
    assert take_in(dataset) == {"copy": "copy: the same content as 'good'; it is taken once"}
    assert usable(dataset) == {"good", "odd"}
    path = video_path(dataset, read_raw_videos(dataset).by_video()["good"])
    assert path.read_bytes() == (source / "good.mp4").read_bytes()


def test_a_file_listed_twice_is_taken_once(dataset: Dataset, source: Path) -> None:
    table(source, "good,good.mp4,normal,train")
    assert take_in(dataset) == {}
    assert usable(dataset) == {"good", "odd"}


def test_a_file_that_is_not_listed_is_left_out_and_told(dataset: Dataset, source: Path) -> None:
    shutil.copy(source / "good.mp4", source / "stranger.mp4")
    table(source)
    listing.refresh(dataset)
    report = ingest_raw_videos(dataset)
    assert any("stranger.mp4" in warning for warning in report.warnings)
    assert usable(dataset) == {"good", "odd"}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("odd,0,21", "ends past the video's 20 frames"),
        ("odd,9,3", "reversed"),
        ("odd,x,3", "whole numbers"),
        ("good,0,5", "labelled normal"),
    ],
)
def test_unsound_events_quarantine_their_video(
    dataset: Dataset, source: Path, event: str, reason: str
) -> None:
    table(source)
    (source / "events.csv").write_text(f"video,start_frame,end_frame\n{event}\n")
    video = event.split(",")[0]
    quarantined = take_in(dataset)
    assert quarantined.keys() == {video}
    assert reason in quarantined[video]


def test_sound_events_are_kept_by_video(dataset: Dataset, source: Path) -> None:
    table(source)
    (source / "events.csv").write_text(
        "video,start_frame,end_frame,class\nodd,12,20,cart\nodd,0,5,fall\nnobody,0,3,\n"
    )
    listing.refresh(dataset)
    report = ingest_raw_videos(dataset)
    assert read_events(dataset) == {"odd": [(12, 20), (0, 5)]}
    assert any("'nobody'" in warning for warning in report.warnings)


def test_a_dataset_without_events_has_none(dataset: Dataset, source: Path) -> None:
    table(source)
    take_in(dataset)
    assert read_events(dataset) is None


def test_a_missing_column_stops_before_anything_is_written(dataset: Dataset, source: Path) -> None:
    table(source)
    take_in(dataset)
    before = (dataset.source / "videos.csv").read_bytes()
    (source / "videos.csv").write_text("video,path\ngood,good.mp4\n")
    with pytest.raises(InputError, match="column 'label' is missing"):
        listing.refresh(dataset)
    assert (dataset.source / "videos.csv").read_bytes() == before


def test_no_videos_is_an_error(dataset: Dataset, source: Path) -> None:
    (source / "videos.csv").write_text("video,path,label\n")
    with pytest.raises(InputError, match="no video is listed"):
        listing.refresh(dataset)


def test_names_with_spaces_and_unicode_work(
    dataset: Dataset, source: Path, write_video: WriteVideo
) -> None:
    write_video(source / "Ünï cödé" / "Straße 1.mp4", seed=5)
    table(source, "Straße 1,Ünï cödé/Straße 1.mp4,normal,train")
    assert take_in(dataset) == {}
    assert "Straße 1" in usable(dataset)


def test_labelled_folders_need_no_table(
    project_root: Path, tmp_path: Path, write_video: WriteVideo
) -> None:
    folder = tmp_path / "folders"
    for index in range(3):
        write_video(folder / "normal" / f"n{index}.mp4", seed=index)
        write_video(folder / "abnormal" / f"a{index}.mp4", seed=10 + index)
    write_dataset(project_root, "folders", DatasetParams(source=str(folder)))
    found = Project.find().dataset("folders")
    assert take_in(found) == {}
    rows = read_raw_videos(found).usable
    assert {row.label for row in rows if row.split == "train"} == {"normal", "abnormal"}
    assert {row.label for row in rows if row.split == "test"} == {"normal", "abnormal"}


def frame_folder(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        picture = np.full((48, 64, 3), index * 10, np.uint8)
        assert cv2.imwrite(str(folder / f"{index + 1}.jpg"), picture)


def test_frame_folders_become_videos_at_the_fps_given(
    project_root: Path, source: Path, dataset: Dataset
) -> None:
    frame_folder(source / "frames", 12)
    table(source, "frames,frames,normal,train")
    write_dataset(project_root, "site", DatasetParams(source=str(source), fps=8.0))
    found = Project.find().dataset("site")
    assert take_in(found) == {}
    row = read_raw_videos(found).by_video()["frames"]
    assert (row.frames, row.fps, row.path) == (12, 8.0, "videos/frames.mp4")


def test_frame_folders_without_fps_say_what_is_missing(dataset: Dataset, source: Path) -> None:
    frame_folder(source / "frames", 3)
    table(source, "frames,frames,normal,train")
    assert "--fps" in take_in(dataset)["frames"]


def test_only_what_changed_is_fetched_again(
    dataset: Dataset, source: Path, write_video: WriteVideo
) -> None:
    table(source)
    take_in(dataset)
    listing.refresh(dataset)
    assert ingest_raw_videos(dataset).done == 0
    write_video(source / "odd.mp4", seed=9, frames=25)
    listing.refresh(dataset)
    report = ingest_raw_videos(dataset)
    assert (report.done, report.reused) == (1, 1)
    assert read_raw_videos(dataset).by_video()["odd"].frames == 25


def test_a_copy_that_was_damaged_is_fetched_again(dataset: Dataset, source: Path) -> None:
    table(source)
    take_in(dataset)
    path = video_path(dataset, read_raw_videos(dataset).by_video()["good"])
    path.write_bytes(path.read_bytes()[:-10])
    assert ingest_raw_videos(dataset).done == 1
    assert path.read_bytes() == (source / "good.mp4").read_bytes()


def test_a_video_that_is_gone_from_the_table_is_gone_from_the_data(
    dataset: Dataset, source: Path
) -> None:
    table(source)
    take_in(dataset)
    (source / "videos.csv").write_text("video,path,label,split\ngood,good.mp4,normal,train\n")
    take_in(dataset)
    assert usable(dataset) == {"good"}
    assert [p.name for p in (dataset.stage("raw_videos") / "videos").iterdir()] == ["good.mp4"]


def test_a_new_label_takes_no_new_fetch(dataset: Dataset, source: Path) -> None:
    table(source)
    take_in(dataset)
    text = (source / "videos.csv").read_text().replace("good.mp4,normal", "good.mp4,abnormal")
    (source / "videos.csv").write_text(text)
    listing.refresh(dataset)
    assert ingest_raw_videos(dataset).done == 0
    assert read_raw_videos(dataset).by_video()["good"].label == "abnormal"


def test_a_second_copy_is_not_fetched_again_each_time(dataset: Dataset, source: Path) -> None:
    shutil.copy(source / "good.mp4", source / "twin.mp4")
    table(source, "twin,twin.mp4,normal,train")
    take_in(dataset)
    assert ingest_raw_videos(dataset).done == 0
    (source / "videos.csv").write_text("video,path,label,split\ntwin,twin.mp4,normal,train\n")
    take_in(dataset)
    assert usable(dataset) == {"twin"}
    assert video_path(dataset, read_raw_videos(dataset).by_video()["twin"]).is_file()


def test_a_copy_with_another_time_is_known_by_its_content(dataset: Dataset, source: Path) -> None:
    table(source)
    take_in(dataset)
    path = video_path(dataset, read_raw_videos(dataset).by_video()["good"])
    os.utime(path, ns=(1, 1))
    shutil.rmtree(source)
    assert ingest_raw_videos(dataset).done == 0


def test_pictures_of_two_sizes_are_the_videos_own_problem(
    project_root: Path, source: Path, dataset: Dataset
) -> None:
    frame_folder(source / "frames", 2)
    assert cv2.imwrite(str(source / "frames" / "3.jpg"), np.zeros((10, 10, 3), np.uint8))
    table(source, "frames,frames,normal,train")
    write_dataset(project_root, "site", DatasetParams(source=str(source), fps=8.0))
    assert take_in(Project.find().dataset("site")).keys() == {"frames"}


def test_a_link_out_of_a_frame_folder_is_not_followed(dataset: Dataset, source: Path) -> None:
    frame_folder(source / "frames", 2)
    (source.parent / "secret.jpg").write_bytes(b"secret")
    (source / "frames" / "3.jpg").symlink_to(source.parent / "secret.jpg")
    table(source, "frames,frames,normal,train")
    assert "leads out of" in take_in(dataset)["frames"]


def test_a_video_without_a_label_belongs_to_no_split(dataset: Dataset, source: Path) -> None:
    table(source, "new,new.mp4,,train")
    shutil.copy(source / "good.mp4", source / "new.mp4")
    with (source / "new.mp4").open("ab") as file:
        file.write(b"\0" * 8)
    take_in(dataset)
    assert read_raw_videos(dataset).by_video()["new"].split == ""


def test_a_table_that_broke_is_never_passed_over(dataset: Dataset, source: Path) -> None:
    table(source)
    take_in(dataset)
    (source / "videos.csv").write_text("video,path\ngood,good.mp4\n")
    with pytest.raises(InputError, match="column 'label' is missing"):
        listing.refresh_if_reachable(dataset)


def test_an_unreachable_source_leaves_the_last_listing_in_force(
    dataset: Dataset, source: Path
) -> None:
    table(source)
    take_in(dataset)
    shutil.rmtree(source)
    with pytest.raises(InputError, match="no such folder"):
        listing.refresh(dataset)
    unreached = listing.refresh_if_reachable(dataset)
    assert unreached == (
        f"going on with the last listing: {source}: no such folder; give the folder that holds the "
        "videos"
    )
    report = ingest_raw_videos(dataset, unreached)
    assert (report.reused, report.warnings) == (2, (unreached,))
    assert was_unreached(dataset)


def test_a_bucket_that_refuses_is_no_reason_to_go_on(
    dataset: Dataset, source: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(source)
    take_in(dataset)
    s3_server.enter(monkeypatch)
    write_dataset(dataset.project.root, "site", DatasetParams(source="s3://no-such-bucket/x"))
    with pytest.raises(SourceRefusedError, match="no such bucket"):
        listing.refresh_if_reachable(Project.find().dataset("site"))


def test_data_may_lie_on_a_disk_of_their_own(dataset: Dataset, source: Path) -> None:
    other = Path("/dev/shm")  # noqa: S108 - a file system that is not the data's
    if not other.is_dir() or other.stat().st_dev == dataset.project.root.stat().st_dev:
        pytest.skip("no second file system to write to")
    frame_folder(source / "frames", 12)
    table(source, "frames,frames,normal,train")
    write_dataset(dataset.project.root, "site", DatasetParams(source=str(source), fps=8.0))
    found = Project.find().dataset("site")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        found.work.parent.mkdir(parents=True)
        found.work.symlink_to(folder)
        assert take_in(found) == {}
        assert ingest_raw_videos(found).done == 0
        assert not list((found.work / INCOMING).glob("*.mp4"))
    good = read_raw_videos(found).by_video()["good"]
    assert video_path(found, good).read_bytes() == (source / "good.mp4").read_bytes()
    assert {path.name for path in (found.stage("raw_videos") / "videos").iterdir()} == {
        "good.mp4", "odd.mp4", "frames.mp4",
    }  # fmt: skip
