"""The loop over videos: what is made, reused, made again, quarantined and removed."""

from pathlib import Path

import numpy as np
import pytest

from assets.workspace import files
from assets.workspace.manifest import StageRow, read_manifest
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.progress import Progress
from assets.workspace.project import Dataset, Project
from assets.workspace.stage import (
    ARRAY,
    Item,
    StageReport,
    Turn,
    read_encoder_card,
    run_per_video,
)
from tevad_model.encoders.card import EncoderCard
from tevad_model.errors import InputError, VideoError
from tevad_model.fingerprint import Fingerprint

STAGE = "snippet_features"


@pytest.fixture
def dataset(project_root: Path) -> Dataset:
    write_dataset(project_root, "site", DatasetParams(source="nowhere"))
    return Project.find().dataset("site")


class Doubler:
    """Makes of every video an array of its snippets; says which it was asked for."""

    def __init__(self, fails: tuple[str, ...] = (), stops_at: str = "") -> None:
        self.made: list[str] = []
        self.fails = fails
        self.stops_at = stops_at

    def __call__(self, turn: Turn, _: Progress) -> None:
        item = turn.item
        if item.video == self.stops_at:
            raise KeyboardInterrupt
        if item.video in self.fails:
            raise VideoError(f"{item.video}: cannot be doubled")
        self.made.append(item.video)
        files.write_array(turn.path, "v", np.full(item.snippets, 2.0), turn.header)


def run(
    dataset: Dataset,
    compute: Doubler,
    sources: dict[str, str],
    version: int = 1,
    code_version: str = "1",
) -> StageReport:
    return run_per_video(
        dataset,
        STAGE,
        [Item(video, source, snippets=3, frames=40) for video, source in sources.items()],
        encoder=EncoderCard("doubler", {}, Fingerprint({"version": version})),
        code_version=code_version,
        result=ARRAY,
        compute=compute,
        quarantined={"bad": "was bad before"},
    )


ALL = {"a": "1", "b": "2", "c ü": "3"}


def test_results_manifest_card_and_report_agree(dataset: Dataset) -> None:
    report = run(dataset, Doubler(), ALL)
    assert (report.done, report.reused, report.frames) == (3, 0, 120)
    assert report.quarantined == {"bad": "was bad before"}
    manifest = read_manifest(dataset.stage(STAGE), StageRow)
    digest = Fingerprint({"version": 1}).digest
    assert manifest.by_video()["c ü"] == StageRow("c ü", "3", f"{digest}.1", 3)
    assert manifest.quarantined == {"bad": "was bad before"}
    assert read_encoder_card(dataset.stage(STAGE)).fingerprint.digest == digest
    assert files.read_json(dataset.reports / f"{STAGE}.json")["done"] == 3


def test_nothing_changed_nothing_made_and_the_bytes_stand(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    before = {p.name: p.read_bytes() for p in dataset.stage(STAGE).iterdir()}
    again = Doubler()
    assert run(dataset, again, ALL).reused == 3
    assert again.made == []
    assert {p.name: p.read_bytes() for p in dataset.stage(STAGE).iterdir()} == before


def test_one_more_video_costs_one_video(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    again = Doubler()
    run(dataset, again, {**ALL, "d": "4"})
    assert again.made == ["d"]


def test_changed_source_is_made_again(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    again = Doubler()
    run(dataset, again, {**ALL, "b": "other"})
    assert again.made == ["b"]


def test_another_encoder_makes_all_again(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    again = Doubler()
    run(dataset, again, ALL, version=2)
    assert again.made == list(ALL)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_or_missing_result_is_made_again(dataset: Dataset, damage: bytes | None) -> None:
    run(dataset, Doubler(), ALL)
    path = dataset.stage(STAGE) / "b.safetensors"
    path.unlink() if damage is None else path.write_bytes(damage)
    again = Doubler()
    run(dataset, again, ALL)
    assert again.made == ["b"]


def test_an_interrupted_run_goes_on_where_it_was(dataset: Dataset) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(dataset, Doubler(stops_at="c ü"), ALL)
    with pytest.raises(InputError, match="materialize snippet_features first"):
        read_manifest(dataset.stage(STAGE), StageRow)
    again = Doubler()
    assert run(dataset, again, ALL).reused == 2
    assert again.made == ["c ü"]


def test_a_video_that_fails_is_quarantined_and_its_old_result_removed(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    report = run(dataset, Doubler(fails=("b",)), {**ALL, "b": "other"})
    assert report.quarantined["b"] == "b: cannot be doubled"
    assert not (dataset.stage(STAGE) / "b.safetensors").exists()
    assert read_manifest(dataset.stage(STAGE), StageRow).by_video().keys() == {"a", "c ü"}


def test_results_of_videos_that_are_gone_are_removed(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    run(dataset, Doubler(), {"a": "1"})
    assert {p.name for p in dataset.stage(STAGE).iterdir()} == {
        "a.safetensors",
        "encoder.json",
        "manifest.parquet",
    }


def test_another_code_version_makes_all_again(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    again = Doubler()
    run(dataset, again, ALL, code_version="2")
    assert again.made == list(ALL)


def test_no_old_manifest_stands_beside_new_results(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, Doubler(stops_at="b"), ALL, version=2)
    with pytest.raises(InputError, match="materialize snippet_features first"):
        read_manifest(dataset.stage(STAGE), StageRow)


def test_a_damaged_manifest_says_what_to_do(dataset: Dataset) -> None:
    run(dataset, Doubler(), ALL)
    (dataset.stage(STAGE) / "manifest.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match="damaged"):
        read_manifest(dataset.stage(STAGE), StageRow)
