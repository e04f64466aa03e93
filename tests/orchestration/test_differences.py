"""Where two versions of a folder first differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from orchestration.differences import first_file, within


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "then", tmp_path / "now"


def test_causes_come_before_what_follows_from_them() -> None:
    then = {"a.safetensors": "1", "encoder.json": "1", "manifest.parquet": "1", "z.csv": "1"}
    assert first_file(then, then) is None
    assert first_file(then, {**then, "a.safetensors": "2", "manifest.parquet": "2"}) == (
        "manifest.parquet"
    )
    assert first_file(then, dict.fromkeys(then, "2")) == "encoder.json"
    assert first_file({}, {"a.safetensors": "1"}) == "a.safetensors"


def test_of_tensors_the_first_is_named_and_how_far_it_is_off(both: tuple[Path, Path]) -> None:
    then, now = both
    same = np.zeros(3, np.float32)
    old = np.arange(6, dtype=np.float32).reshape(2, 3)
    new = old.copy()
    new[1, 2] += 0.5
    save_file({"a": same, "b": old}, then)
    save_file({"a": same, "b": new}, now)
    said = within("m.safetensors", then, now)
    assert said == "tensor b (2, 3): 1 of 6 values differ, by at most 0.5"

    save_file({"a": same}, now)
    assert within("m.safetensors", then, now) == "tensor b: absent now"
    save_file({"a": same, "b": old.astype(np.float16)}, now)
    assert within("m.safetensors", then, now) == "tensor b: float32(2, 3) then, float16(2, 3) now"
    save_file({"a": same, "b": old}, now, metadata={"step": "3"})
    assert within("m.safetensors", then, now) == "header.step: 'absent' then, '3' now"


@pytest.mark.parametrize(
    ("name", "then", "now", "said"),
    [
        ("x.json", '{"a": {"b": [1, 2]}}', '{"a": {"b": [1, 3]}}', "a.b.1: 2 then, 3 now"),
        ("x.json", '{"a": 1}', '{"a": 1, "b": 2}', "b: 'absent' then, 2 now"),
        ("x.jsonl", "{}\n1\n", "{}\n2\n", "line 2: '1' then, '2' now"),
        ("x.mp4", "abc", "abcd", "3 bytes then, 4 now"),
    ],
)
def test_of_other_files_the_place_is_named(
    both: tuple[Path, Path], name: str, then: str, now: str, said: str
) -> None:
    for path, text in zip(both, (then, now), strict=True):
        path.write_text(text)
    assert within(name, *both) == said


def test_of_tables_the_row_and_column_are_named(both: tuple[Path, Path]) -> None:
    for path, frames in zip(both, (20, 21), strict=True):
        rows = [{"video": "a", "frames": 10}, {"video": "b", "frames": frames}]
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert within("manifest.parquet", *both) == "row.1.frames: 20 then, 21 now"
