"""What was made elsewhere: the published layouts, and what is said of files that are not in them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tevad_model.dataset import VideoRow
from tevad_model.errors import InputError, VideoError
from tevad_model.ready_made import (
    Captions,
    find_files,
    fit,
    label_by_name,
    laid_over,
    parse_captions,
    read_array,
    read_shape,
    recording,
    rows_from_list,
    video_name,
)


@pytest.mark.parametrize(
    ("line", "video"),
    [
        ("/home/yu/UCF_Train_ten_crop_i3d/Abuse001_x264_i3d.npy", "Abuse001_x264"),
        ("SH_Train_ten_crop_i3d/01_0014_i3d.npy", "01_0014"),
        (r"features\v=8cTqh9tMz_I__#1_label_A.npy", "v=8cTqh9tMz_I__#1_label_A"),
        ("emb/Train001_emb.npy", "Train001"),
        ("Train001", "Train001"),
    ],
)
def test_a_list_s_line_names_a_video(line: str, video: str) -> None:
    assert video_name(line) == video


@pytest.mark.parametrize(
    ("video", "label", "category"),
    [
        ("Abuse001_x264", "abnormal", "Abuse"),
        ("RoadAccidents002_x264", "abnormal", "RoadAccidents"),
        ("Normal_Videos_003_x264", "normal", ""),
        ("Normal_Videos003_x264", "normal", ""),
        ("Testing_Normal_Videos_345_x264", "normal", ""),
        ("v=8cTqh9tMz_I__#1_label_A", "normal", ""),
        ("Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6", "abnormal", "Explosion"),
        ("01_0014", "", ""),
    ],
)
def test_names_of_the_benchmarks_say_the_label(video: str, label: str, category: str) -> None:
    assert label_by_name(video) == (label, category)


def test_clips_of_one_film_have_one_source() -> None:
    first, second = ("Bad.Boys.1995__#01-11-55_label_G", "Bad.Boys.1995__#01-14-00_label_A")
    assert recording(first) == recording(second) == "Bad.Boys.1995"
    assert recording("Abuse001_x264") == ""


def test_a_list_s_name_says_its_split() -> None:
    [train] = rows_from_list("a/Abuse001_x264_i3d.npy\n\n", "lists/ucf-i3d.list")
    [test] = rows_from_list("a/Abuse028_x264_i3d.npy", "test/ucf-i3d-test.list")
    assert train == VideoRow("Abuse001_x264", "", "abnormal", "train", "Abuse")
    assert test.split == "test"
    [train] = rows_from_list("a/Abuse001_x264_i3d.npy", "/tests/ucf-i3d.list")
    assert train.split == "train", "a folder's name says nothing"


def test_an_empty_list_is_an_error() -> None:
    with pytest.raises(InputError, match=r"ucf\.list: names no video"):
        rows_from_list("\n", "ucf.list")


def test_a_table_knows_labels_better_than_names() -> None:
    listed = rows_from_list("Abuse001_x264\n01_0014\n", "train.list")
    table = [VideoRow("01_0014", "", "abnormal", "", "Bike"), VideoRow("other", "", "normal")]
    assert [
        (row.video, row.label, row.split, row.category) for row in laid_over(listed, table)
    ] == [
        ("Abuse001_x264", "abnormal", "train", "Abuse"),
        ("01_0014", "abnormal", "train", "Bike"),
    ]


def test_listed_videos_without_a_label_are_named() -> None:
    listed = rows_from_list("".join(f"01_{n:04d}_i3d.npy\n" for n in range(5)), "sh.list")
    reason = r"5 of 5 listed videos have no label.*01_0000, 01_0001, 01_0002, ….*--labels"
    with pytest.raises(InputError, match=reason):
        laid_over(listed, [])


def test_files_are_found_by_the_video_they_are_of() -> None:
    paths = ["train/a_i3d.npy", "test/b.npy", "c_i3d.npy", "c.npy", "d.txt", "x/e.npy", "y/e.npy"]
    assert find_files(paths, "features") == {
        "a": ["train/a_i3d.npy"],
        "b": ["test/b.npy"],
        "c": ["c_i3d.npy"],
        "e": ["x/e.npy", "y/e.npy"],
    }


def write(path: Path, array: object) -> Path:
    np.save(path, array, allow_pickle=True)  # type: ignore[arg-type]
    return path


def test_features_of_one_crop_get_an_axis_for_it(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = write(tmp_path / "a.npy", values)
    assert read_shape(path, "features") == (3, 2)
    np.testing.assert_array_equal(read_array(path, "features", np.float16), values[:, None])
    np.testing.assert_array_equal(read_array(path, "embeddings", np.float32), values)


@pytest.mark.parametrize(
    ("array", "kind", "reason"),
    [
        (np.zeros((3, 2), np.int64), "features", "must be an array of floating-point numbers"),
        (np.zeros(3), "features", r"shape \(3,\); expected \(snippets, crops, dim\)"),
        (np.zeros((3, 10, 2)), "embeddings", r"expected \(snippets, dim\)"),
        (np.zeros((0, 10, 2)), "features", "no axis empty"),
        (np.full((3, 2), np.nan), "features", "in 3 of 3 snippets, the first 0"),
        (np.array([[1.0], [np.inf]]), "embeddings", "in 1 of 2 snippets, the first 1"),
        (np.array([[1.0], [70000.0]]), "features", "beyond float16 in 1 of 2"),
    ],
)
def test_an_array_that_cannot_be_used_is_said_to_be(
    tmp_path: Path, array: np.ndarray, kind: str, reason: str
) -> None:
    path = write(tmp_path / "a.npy", array)
    with pytest.raises(VideoError, match=rf"a\.npy: .*{reason}"):
        read_array(path, kind, np.float16 if kind == "features" else np.float32)


class Payload:
    """What an attacker would put into a file: reading it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    objects = write(tmp_path / "objects.npy", np.array([Payload(trap)], dtype=object))
    plain = tmp_path / "plain.npy"
    plain.write_bytes(pickle.dumps(Payload(trap)))
    for path in (objects, plain):
        with pytest.raises(VideoError, match=r"pickled objects, which can run code.*np\.save"):
            read_array(path, "features", np.float16)
    assert not trap.exists()


def test_half_a_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", np.zeros((100, 100)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(VideoError, match=r"a\.npy: not a whole \.npy file"):
        read_shape(path, "features")


def test_arrays_are_brought_to_a_video_s_snippets() -> None:
    array = np.arange(3)
    assert fit(array, 2).tolist() == [0, 1]
    assert fit(array, 3).tolist() == [0, 1, 2]
    assert fit(array, 4).tolist() == [0, 1, 2, 2]
    with pytest.raises(ValueError, match="3 snippets cannot be brought to 5"):
        fit(array, 5)


def segments(*parts: tuple[float, float, str]) -> str:
    told = [{"start_s": start, "end_s": end, "text": text} for start, end, text in parts]
    return json.dumps({"video": "a", "segments": told})


def test_captions_are_segments_or_one_text_a_snippet() -> None:
    text = f"{segments((0, 1.5, ' A man runs. '))}\n\n" + json.dumps(
        {"video": "b", "captions": ["One.", "Two."]}
    )
    captions, problems = parse_captions(text, "captions.jsonl")
    assert problems == {}
    assert captions["a"] == Captions(segments=((0.0, 1.5, "A man runs."),))
    assert captions["b"] == Captions(texts=("One.", "Two."))
    assert captions["a"].snippets(fps=32) == 3
    assert captions["b"].by_snippet(frames=33, fps=30) == ["One.", "Two.", "Two."]
    assert captions["a"].by_snippet(frames=17, fps=32) == ["A man runs.", "A man runs."]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (segments((2, 1, "x")), "reversed, negative or says nothing"),
        (segments((-1, 1, "x")), "reversed, negative or says nothing"),
        (segments((0, 1, " ")), "reversed, negative or says nothing"),
        (segments(), "no segment is given"),
        (json.dumps({"video": "a"}), "'segments' is missing"),
        (
            json.dumps({"video": "a", "segments": [{"start_s": 0, "text": "x"}]}),
            "'end_s' is missing",
        ),
        (
            json.dumps({"video": "a", "captions": ["x", ""]}),
            "one text for every snippet, none empty",
        ),
        (json.dumps({"video": "a", "captions": []}), "one text for every snippet, none empty"),
        (f"{segments((0, 1, 'x'))}\n{segments((0, 1, 'y'))}", "the video has a line already"),
    ],
)
def test_captions_that_cannot_be_used_are_left_out(line: str, reason: str) -> None:
    captions, problems = parse_captions(line, "captions.jsonl")
    assert captions == {}
    assert reason in problems["a"]
    assert problems["a"].startswith("captions.jsonl line ")


@pytest.mark.parametrize("line", ["{", "[]", '{"segments": []}', '{"video": 3}'])
def test_a_line_that_names_no_video_is_an_error(line: str) -> None:
    with pytest.raises(InputError, match=r"captions\.jsonl line 2: not "):
        parse_captions(f"{segments((0, 1, 'x'))}\n{line}", "captions.jsonl")
