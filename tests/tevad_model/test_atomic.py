"""Files are written whole or not at all, and a disk that takes no more is named."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tevad_model.atomic import full_disks_named, replacing
from tevad_model.errors import StorageError

LIMIT = 1 << 16


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond the limit, as the system itself sees to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "below" / "it.json"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == ".json"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_text("old")
    with pytest.raises(TypeError), replacing(path) as temporary:
        temporary.write_text(b"no text")  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_text("old")
    with (
        small_disk(),
        pytest.raises(StorageError, match=r"it: cannot be written \(File too large\); make room"),
        replacing(path) as temporary,
    ):
        temporary.write_bytes(bytes(2 * LIMIT))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_for_arrays_too(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    with (
        small_disk(),
        pytest.raises(StorageError, match=r"cannot be written \(File too large\)"),
        replacing(path) as temporary,
    ):
        save_file({"array": np.zeros(LIMIT)}, temporary)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(StorageError, match=r"file/it: cannot be written \(.*\)"),
        replacing(tmp_path / "file" / "it"),
    ):
        pass


def test_another_error_of_the_system_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "it"):
        (tmp_path / "no-such-source").read_bytes()


def test_a_full_disk_is_told_whoever_wrote(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="No space left"),
        full_disks_named(),
        Path("/dev/full").open("w") as file,  # a device that is full
    ):
        file.write("content")
    with pytest.raises(FileNotFoundError), full_disks_named():
        (tmp_path / "absent").open()
