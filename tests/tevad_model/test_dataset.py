"""The dataset's tables: what is read, what is refused, and with which words."""

import re

import pytest

from tevad_model.dataset import (
    EventRow,
    VideoRow,
    assign_splits,
    format_events,
    format_videos,
    name_problem,
    parse_events,
    parse_videos,
    rows_from_paths,
    unlisted_videos,
)
from tevad_model.errors import InputError

HEADER = "video,path,label,split,class\n"


def test_reads_all_columns_and_trims_them() -> None:
    [row] = parse_videos(HEADER + " a , a.mp4,Abnormal,TEST, cart \n", "videos.csv")
    assert row == VideoRow("a", "a.mp4", "abnormal", "test", "cart")


def test_what_is_written_is_read_back() -> None:
    rows = [VideoRow("a b, c", "ü/ä.mp4", "normal", "train"), VideoRow("d", "d.mp4", "", "")]
    assert parse_videos(format_videos(rows), "videos.csv") == rows
    events = [EventRow("a", 3, 9, "fall")]
    assert parse_events(format_events(events), "events.csv") == (events, {})


def test_byte_order_mark_of_a_spreadsheet_is_no_column_name() -> None:
    assert len(parse_videos("\ufeffvideo,path,label\na,a.mp4,normal\n", "videos.csv")) == 1


@pytest.mark.parametrize("column", ["video", "path", "label"])
def test_missing_column_is_named(column: str) -> None:
    columns = [name for name in ("video", "path", "label") if name != column]
    with pytest.raises(InputError, match=f"videos.csv: column '{column}' is missing"):
        parse_videos(",".join(columns) + "\na,b\n", "videos.csv")


def test_no_rows_is_an_error() -> None:
    with pytest.raises(InputError, match=r"videos\.csv: no video is listed"):
        parse_videos(HEADER, "videos.csv")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a,a.mp4,odd,train,", "label 'odd' is unknown"),
        ("a,a.mp4,normal,dev,", "split 'dev' is unknown"),
        ("a,../a.mp4,normal,train,", "must stay within the dataset's folder"),
        ("a,/etc/a.mp4,normal,train,", "must stay within the dataset's folder"),
        ("a,,normal,train,", "must stay within the dataset's folder"),
        ("../a,a.mp4,normal,train,", "must be a plain name"),
        (".a,a.mp4,normal,train,", "must be a plain name"),
        (f"{'x' * 201},a.mp4,normal,train,", "over 200 bytes long"),
    ],
)
def test_a_row_that_cannot_be_used_says_why_and_leaves_the_others(line: str, reason: str) -> None:
    bad, good = parse_videos(HEADER + line + "\nb,b.mp4,normal,train,\n", "videos.csv")
    assert reason in bad.problem
    assert "videos.csv line 2" in bad.problem
    assert good.problem == ""


def test_a_row_listed_twice_counts_once() -> None:
    line = "a,a.mp4,normal,train,\n"
    [row] = parse_videos(HEADER + line + line, "videos.csv")
    assert row.problem == ""


def test_rows_of_one_name_that_differ_lose_both() -> None:
    text = HEADER + "a,a.mp4,normal,train,\na,a.mp4,abnormal,train,\n"
    [row] = parse_videos(text, "videos.csv")
    assert "listed 2 times with different values" in row.problem


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a,9,3,", r"\[9, 3\) is reversed"),
        ("a,3,3,", "empty"),
        ("a,-1,3,", "negative"),
        ("a,one,3,", "whole numbers"),
    ],
)
def test_an_unsound_event_is_told_by_video(line: str, reason: str) -> None:
    text = "video,start_frame,end_frame,class\n" + line + "\nb,0,5,\n"
    rows, problems = parse_events(text, "events.csv")
    assert [row.video for row in rows] == ["b"]
    assert problems.keys() == {"a"}
    assert re.search(reason, problems["a"])


def test_events_without_a_column_are_refused() -> None:
    with pytest.raises(InputError, match="column 'end_frame' is missing"):
        parse_events("video,start_frame\n", "events.csv")


def test_labelled_folders_name_their_videos() -> None:
    rows = rows_from_paths(
        ["normal/a.mp4", "abnormal/b c.MP4", "abnormal/frames/0001.jpg", "abnormal/frames/0002.jpg",
         "other/x.mp4", "readme.txt", "normal/notes.txt"],
        "here",
    )  # fmt: skip
    assert {(row.video, row.path, row.label) for row in rows} == {
        ("a", "normal/a.mp4", "normal"),
        ("b c", "abnormal/b c.MP4", "abnormal"),
        ("frames", "abnormal/frames", "abnormal"),
    }


def test_same_stem_in_both_folders_gets_two_names() -> None:
    rows = rows_from_paths(["normal/a.mp4", "abnormal/a.mp4"], "here")
    assert {row.video for row in rows} == {"normal-a", "abnormal-a"}


def test_a_folder_without_videos_is_refused() -> None:
    with pytest.raises(InputError, match=r"add a videos\.csv"):
        rows_from_paths(["x.mp4"], "here")


def test_splits_have_both_labels_and_do_not_move_when_videos_come() -> None:
    rows = [
        VideoRow(f"v{i}", f"v{i}.mp4", label) for label in ("normal", "abnormal") for i in range(20)
    ]
    rows = [VideoRow(f"{r.label}-{r.video}", r.path, r.label) for r in rows]
    before = {row.video: row.split for row in assign_splits(rows[:-5])}
    after = {row.video: row.split for row in assign_splits(rows)}
    for label in ("normal", "abnormal"):
        assert {split for video, split in after.items() if video.startswith(label)} == {
            "train",
            "test",
        }
    assert {video: after[video] for video in before} == before


def test_unlabelled_videos_belong_to_no_split() -> None:
    rows = assign_splits([VideoRow("a", "a.mp4", ""), VideoRow("b", "b.mp4", "normal")])
    assert [row.split for row in rows] == ["", "train"]


def test_unlisted_videos_are_named() -> None:
    rows = [VideoRow("a", "a.mp4", "normal", "train")]
    assert unlisted_videos(rows, ["a.mp4", "b.MOV", "c.txt"]) == ["b.MOV"]


@pytest.mark.parametrize("name", ["Ünï cödé 1", "a.b", "名前"])
def test_names_people_use_are_allowed(name: str) -> None:
    assert name_problem(name) == ""
