"""Files are whole or not there, and the same content is the same bytes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assets.workspace import files


class InterruptedWriteError(Exception):
    pass


def test_a_write_that_fails_leaves_the_old_file_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with files.replace_text(path) as file:
            file.write("half of the n")
            raise InterruptedWriteError

    with pytest.raises(InterruptedWriteError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_goes_and_all_else_stays(tmp_path: Path) -> None:
    """Of DVC's names, those that it gave to its own files when it was killed."""
    left = {".partial-a1.csv", ".fU8LZeZHp1Qzdi-VdSczrA.tmp", "a.csv.oC3yUq4_1jv-nFvZzGmR9w.tmp"}
    kept = {"a.csv", ".gitignore", "notes.tmp"}
    for folder in (tmp_path, tmp_path / "below"):
        folder.mkdir(exist_ok=True)
        for name in left | kept:
            (folder / name).write_text("something")
    files.remove_half_written(tmp_path, below=False)
    assert {path.name for path in tmp_path.iterdir()} == kept | {"below"}
    assert {path.name for path in (tmp_path / "below").iterdir()} == left | kept
    files.remove_half_written(tmp_path)
    assert {path.name for path in (tmp_path / "below").iterdir()} == kept


def test_arrays_come_back_with_their_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    array = np.arange(12, dtype=np.float16).reshape(3, 2, 2)
    files.write_array(path, "features", array, {"video": "ü", "snippets": 3})
    np.testing.assert_array_equal(files.read_array(path, "features"), array)
    assert files.read_array_header(path) == {"video": "ü", "snippets": 3}


def test_the_same_array_and_header_are_the_same_bytes(tmp_path: Path) -> None:
    array = np.ones((2, 2), np.float32)
    for name, header in (("a", {"x": 1, "y": 2, "z": "3"}), ("b", {"z": "3", "y": 2, "x": 1})):
        files.write_array(tmp_path / name, "v", array, header)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_cut_array_has_no_header(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    files.write_array(path, "v", np.ones((4, 4), np.float32), {"x": 1})
    path.write_bytes(path.read_bytes()[:keep])
    assert files.read_array_header(path) is None


def test_lines_come_back_with_their_header(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    files.write_lines(path, {"video": "a"}, [{"caption": "Nö"}, {"caption": "b\nc"}])
    assert files.read_lines(path) == ({"video": "a"}, [{"caption": "Nö"}, {"caption": "b\nc"}])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"a": 1}\n{"b"', b"[1]\n"])
def test_lines_that_are_not_whole_read_as_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert files.read_lines(path) is None


def test_files_that_nobody_keeps_are_removed(tmp_path: Path) -> None:
    for name in ("a", "b", files.TEMPORARY_PREFIX + "c"):
        (tmp_path / name).touch()
    files.remove_others(tmp_path, {tmp_path / "a"})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def touched(folder: Path) -> None:
    files.write_text(folder / "below" / "a", "content")


def added(folder: Path) -> None:
    (folder / "below" / "b").touch()


def renamed(folder: Path) -> None:
    (folder / "below" / "a").rename(folder / "below" / "b")


def moved_up(folder: Path) -> None:
    (folder / "below" / "a").rename(folder / "a")


def removed(folder: Path) -> None:
    (folder / "below" / "a").unlink()


@pytest.mark.parametrize("change", [touched, added, renamed, moved_up, removed])
def test_the_stamps_of_a_folder_change_with_any_file_below_it(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a").write_text("content")
    before = files.folder_stamp(tmp_path)
    assert files.folder_stamp(tmp_path) == before
    change(tmp_path)
    assert files.folder_stamp(tmp_path) != before


def test_a_folder_has_a_stamp_with_links_that_lead_nowhere_or_round(tmp_path: Path) -> None:
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "round").symlink_to(".", target_is_directory=True)
    before = files.folder_stamp(tmp_path)
    (tmp_path / "nowhere").touch()
    assert files.folder_stamp(tmp_path) != before
