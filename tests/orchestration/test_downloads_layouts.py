"""What the datasets' own lists and annotation come to as rows of videos.csv and events.csv."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import public_datasets
import pytest

from orchestration.downloads import layouts
from orchestration.downloads.layouts import Tables
from tevad_model.errors import InputError

WriteVideo = Callable[..., Path]


def videos(tables: Tables) -> dict[str, tuple[str, str, str]]:
    return {row.video: (row.label, row.split, row.category) for row in tables.videos}


def events(tables: Tables) -> list[tuple[str, int, int]]:
    return [(row.video, row.start_frame, row.end_frame) for row in tables.events or ()]


def test_ped2_has_the_papers_split_and_the_masks_frames(tmp_path: Path) -> None:
    tables = layouts.ped2(public_datasets.ped2(tmp_path / "files"))
    rows = videos(tables)
    assert len(rows) == 28
    train = [label for label, split, _ in rows.values() if split == "train"]
    assert sorted(train) == ["abnormal"] * 6 + ["normal"] * 4
    assert rows["Test002"] == ("abnormal", "train", "")
    assert rows["Train001"] == ("normal", "test", "")
    path = "UCSD_Anomaly_Dataset.v1p2/UCSDped2/Test/Test001"
    assert {row.path for row in tables.videos if row.video == "Test001"} == {path}
    assert len(events(tables)) == 12
    assert ("Test001", 2, 6) in events(tables)
    assert ("Test003", 0, 6) in events(tables)
    assert tables.fps == 10


@pytest.mark.shared_data
def test_ped2s_split_is_the_one_in_use(tmp_path: Path, shared_data: Path) -> None:
    from tevad_model.dataset import parse_videos

    listed = parse_videos((shared_data / "ped2" / "videos.csv").read_text(), "videos.csv")
    rows = videos(layouts.ped2(public_datasets.ped2(tmp_path / "files")))
    assert {row.video: (row.label, row.split, "") for row in listed} == rows


def test_ped2_with_a_mask_missing_is_told(tmp_path: Path) -> None:
    folder = public_datasets.ped2(tmp_path / "files")
    next(folder.rglob("Test004_gt/003.bmp")).unlink()
    with pytest.raises(InputError, match=r"Test004_gt: 5 masks for 6 frames"):
        layouts.ped2(folder)


def test_another_archive_is_no_ped2(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="0 folders 'UCSDped2'"):
        layouts.ped2(tmp_path)


@pytest.fixture
def ucf(tmp_path: Path, write_video: WriteVideo) -> Path:
    folder = public_datasets.ucf_crime(tmp_path / "files", write_video)
    (folder / "Anomaly_Train.txt").write_text(public_datasets.UCF_TRAIN)
    (folder / "Temporal_Anomaly_Annotation.txt").write_text(public_datasets.UCF_EVENTS)
    return folder


def test_ucf_crime_has_the_official_split_and_half_open_events(ucf: Path) -> None:
    tables = layouts.ucf_crime(ucf)
    assert videos(tables) == {
        "Abuse001_x264": ("abnormal", "train", "Abuse"),
        "Normal_Videos001_x264": ("normal", "train", ""),
        "Abuse028_x264": ("abnormal", "test", "Abuse"),
        "Arson011_x264": ("abnormal", "test", "Arson"),
        "Normal_Videos_003_x264": ("normal", "test", ""),
    }
    listed = {row.video: row.path for row in tables.videos}["Normal_Videos001_x264"]
    assert "Training_Normal_Videos_Anomaly" in listed  # not its copy
    # 1-based and inclusive 11..20; 0..5, which begins at the first frame; 30..45 of 40 frames
    assert events(tables) == [
        ("Abuse028_x264", 10, 20),
        ("Arson011_x264", 0, 5),
        ("Arson011_x264", 29, 40),
    ]
    assert tables.notes == ()


def test_ucf_crime_in_parts_is_found_by_file_name(ucf: Path) -> None:
    shutil.move(
        ucf / "UCF_Crimes/Videos/Training_Normal_Videos_Anomaly",
        ucf / "Training-Normal-Videos-Part-1",
    )
    shutil.rmtree(ucf / "UCF_Crimes/Videos/z_Normal_Videos_event")
    (ucf / "UCF_Crimes/Videos/Abuse/Abuse028_x264.mp4").unlink()
    tables = layouts.ucf_crime(ucf)
    paths = {row.video: row.path for row in tables.videos}
    assert paths["Normal_Videos001_x264"] == (
        "Training-Normal-Videos-Part-1/Normal_Videos001_x264.mp4"
    )
    assert tables.notes == ("1 of 5 listed videos are not there",)


def test_ucf_crime_without_its_list_is_told(ucf: Path) -> None:
    (ucf / "Anomaly_Train.txt").unlink()  # an empty one is still there, as in the archive
    with pytest.raises(InputError, match=r"no Anomaly_Train\.txt in it; give it by --archive"):
        layouts.ucf_crime(ucf)


def test_ucf_crime_with_broken_annotation_is_told(ucf: Path) -> None:
    (ucf / "Temporal_Anomaly_Annotation.txt").write_text("Abuse028_x264.mp4 Abuse 11\n")
    with pytest.raises(InputError, match=r"Annotation\.txt: 'Abuse028.*pairs of whole numbers"):
        layouts.ucf_crime(ucf)


@pytest.fixture
def campus(tmp_path: Path) -> Path:
    folder = public_datasets.shanghaitech(tmp_path / "files")
    (folder / "SHANGHAI_train.txt").write_text("SH/01_001 264 0\nSH/01_0014,265,1\n")
    (folder / "shanghai-i3d-test-10crop.list").write_text("/data/01_002_i3d.npy\n01_0016\n")
    return folder


def test_shanghaitech_takes_labels_from_masks_and_splits_from_lists(campus: Path) -> None:
    tables = layouts.shanghaitech(campus)
    assert videos(tables) == {
        "01_001": ("normal", "train", ""),
        "01_0014": ("abnormal", "train", ""),
        "01_0016": ("abnormal", "test", ""),
        "01_002": ("normal", "test", ""),
    }
    assert events(tables) == [("01_0014", 2, 5), ("01_0014", 7, 8), ("01_0016", 0, 1)]
    assert tables.fps == 24
    assert tables.notes == ("1 videos are in neither list",)


def test_shanghaitech_with_a_listed_video_missing_is_told(campus: Path) -> None:
    (campus / "shanghaitech/training/videos/01_001.avi").unlink()
    with pytest.raises(InputError, match="1 listed videos are not there, such as 01_001"):
        layouts.shanghaitech(campus)


def test_shanghaitech_with_two_lists_of_a_split_is_told(campus: Path) -> None:
    (campus / "another_train.txt").write_text("01_001\n")
    with pytest.raises(InputError, match=r"one list of the train split.*another_train\.txt"):
        layouts.shanghaitech(campus)


def test_a_mask_that_would_be_unpickled_is_refused(campus: Path) -> None:
    path = campus / "shanghaitech/testing/test_frame_mask/01_0014.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"01_0014\.npy: cannot be read as an array"):
        layouts.shanghaitech(campus)


@pytest.fixture
def xd(tmp_path: Path, write_video: WriteVideo) -> Path:
    return public_datasets.xd_violence(tmp_path / "files", write_video)


def test_xd_violence_reads_labels_from_names_and_slices_as_its_authors_do(xd: Path) -> None:
    tables = layouts.xd_violence(xd)
    abnormal = "Black.Hawk.Down.2001__#01-32-40_01-34-00_label_G-B2-B6"
    assert videos(tables) == {
        "v=-fOWSLV6Esw__#1_label_A": ("normal", "train", ""),
        "Bad.Boys.1995__#00-26-51_00-27-53_label_B2-0-0": ("abnormal", "train", "shooting"),
        abnormal: ("abnormal", "test", "explosion"),
        "v=ZaDHJxZpTcY__#1_label_A": ("normal", "test", ""),
    }
    assert events(tables) == [(abnormal, 3, 9), (abnormal, 20, 30)]


def test_xd_violence_without_a_test_archive_told_by_its_name_is_refused(xd: Path) -> None:
    (xd / "test_videos").rename(xd / "part-6")
    with pytest.raises(InputError, match=r"Black\.Hawk.*belongs to the test split"):
        layouts.xd_violence(xd)


def test_a_video_of_another_dataset_is_no_xd_violence(xd: Path, write_video: WriteVideo) -> None:
    write_video(xd / "1-1004" / "holiday.mp4")
    with pytest.raises(InputError, match=r"holiday\.mp4: its name does not end in _label_A"):
        layouts.xd_violence(xd)


def test_surveillance_fights_gets_a_split_and_has_no_events(
    tmp_path: Path, write_video: WriteVideo
) -> None:
    tables = layouts.surveillance_fights(
        public_datasets.surveillance_fights(tmp_path / "files", write_video)
    )
    rows = videos(tables)
    assert rows["fi001"][::2] == ("abnormal", "fight")
    assert rows["nofi001"][::2] == ("normal", "")
    kinds = {(label, split) for label, split, _ in rows.values()}
    assert len(rows) == 8
    assert len(kinds) == 4  # each label in each split
    assert tables.events is None
