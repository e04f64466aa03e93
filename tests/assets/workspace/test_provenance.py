"""Inputs that do not fit are refused: each kind of mismatch, and all of them in one error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assets.workspace import files, listing
from assets.workspace.manifest import Manifest, RawVideoRow, StageRow, read_manifest
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project
from assets.workspace.provenance import check_fit
from assets.workspace.stage import ENCODER, LINES
from tevad_model.dataset import VideoRow, format_videos
from tevad_model.encoders.card import EncoderCard, pixel_fingerprint
from tevad_model.errors import MismatchError
from tevad_model.fingerprint import Fingerprint, sha256_file

STAGES = ("snippet_features", "captions", "caption_embeddings")
NAMES = ("a", "b", "c")
CARD = EncoderCard("test", {}, pixel_fingerprint(Fingerprint({"backend": "test"}), None))


@pytest.fixture
def dataset(project_root: Path) -> Dataset:
    """Three videos of 40 frames whose features, captions and embeddings all fit."""
    write_dataset(project_root, "site", DatasetParams(source="nowhere"))
    found = Project.at(project_root).dataset("site")
    write_listing(found, [VideoRow(name, f"{name}.mp4", "normal", "train") for name in NAMES])
    Manifest.of(
        RawVideoRow(n, f"videos/{n}.mp4", "normal", "train", "", 40, 10.0, 64, 48, 7, f"sha {n}")
        for n in NAMES
    ).write(found.stage("raw_videos"), RawVideoRow)
    for name in NAMES:
        files.write_lines(LINES.path(found.stage("captions"), name), {}, ["Nobody moves."] * 3)
    for stage in STAGES:
        files.write_json(found.stage(stage) / ENCODER, CARD.to_json())
        Manifest.of(
            StageRow(n, source(found, stage, n), f"{CARD.fingerprint}.1", 3) for n in NAMES
        ).write(found.stage(stage), StageRow)
    check_fit(found, "a test", STAGES)
    return found


def source(dataset: Dataset, stage: str, video: str) -> str:
    if stage == "caption_embeddings":
        return sha256_file(LINES.path(dataset.stage("captions"), video))
    return f"sha {video}"


def write_listing(dataset: Dataset, rows: list[VideoRow]) -> None:
    files.write_text(dataset.source / listing.VIDEOS, format_videos(rows))
    sizes = ((row.path, 7, "1") for row in rows)
    files.write_csv(dataset.source / listing.FILES, ("path", "bytes", "version"), sizes)


def change_row(
    dataset: Dataset, stage: str, video: str, change: Callable[[StageRow], StageRow | None]
) -> None:
    rows = read_manifest(dataset.stage(stage), StageRow).rows
    changed = [change(row) if row.video == video else row for row in rows]
    Manifest.of(row for row in changed if row).write(dataset.stage(stage), StageRow)


def refused(dataset: Dataset, *reads: str) -> list[str]:
    with pytest.raises(MismatchError, match=r"^testing site: inputs do not fit") as caught:
        check_fit(dataset, "testing site", reads)
    return caught.value.differences


def test_a_listing_that_changed_since_the_videos_were_taken_in(dataset: Dataset) -> None:
    write_listing(
        dataset,
        [VideoRow("a", "a.mp4", "abnormal", "test"), VideoRow("b", "b.mp4", "normal", "train"),
         VideoRow("d", "d.mp4", "normal", "train")],
    )  # fmt: skip
    assert refused(dataset) == [
        "raw_videos: not taken in, though listed: d",
        "raw_videos: taken in, but listed no more: c",
        "raw_videos: label listed otherwise: a",
        "raw_videos: split listed otherwise: a",
    ]


def test_a_file_that_changed_in_the_source(dataset: Dataset) -> None:
    files.write_csv(
        dataset.source / listing.FILES, ("path", "bytes", "version"), [("b.mp4", 8, "2")]
    )
    assert refused(dataset) == ["raw_videos: the file's size listed otherwise: b"]


@pytest.mark.parametrize("stage", STAGES)
def test_videos_of_the_one_that_are_not_in_the_other(dataset: Dataset, stage: str) -> None:
    change_row(dataset, stage, "b", lambda _: None)
    change_row(dataset, stage, "c", lambda row: replace(row, video="x"))
    said = refused(dataset, stage)
    assert said == [
        f"{stage}: nothing of: b, c",
        f"{stage}: results of videos that raw_videos lacks: x",
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_results_of_other_content_or_another_encoder(dataset: Dataset, stage: str) -> None:
    change_row(dataset, stage, "a", lambda row: replace(row, source="other"))
    change_row(dataset, stage, "b", lambda row: replace(row, fingerprint="other.1"))
    assert refused(dataset, stage) == [
        f"{stage}: made of other content: a",
        f"{stage}: made by another encoder than encoder.json says: b",
    ]


def test_embeddings_of_captions_that_changed(dataset: Dataset) -> None:
    files.write_lines(LINES.path(dataset.stage("captions"), "a"), {}, ["A car passes."] * 3)
    assert refused(dataset, "caption_embeddings") == [
        "caption_embeddings: made of other content: a"
    ]


def test_another_snippet_length(dataset: Dataset) -> None:
    change_row(dataset, "snippet_features", "c", lambda row: replace(row, snippets=5))
    card = replace(CARD, fingerprint=Fingerprint({**CARD.fingerprint.parts, "snippet_frames": 8}))
    files.write_json(dataset.stage("captions") / ENCODER, card.to_json())
    for name in NAMES:
        change_row(
            dataset, "captions", name, lambda row: replace(row, fingerprint=f"{card.fingerprint}.1")
        )
    assert refused(dataset, "snippet_features", "captions") == [
        "snippet_features: snippets other than 16 frames each: c",
        "captions: snippets of 8 frames by encoder.json, of 16 here",
    ]


def test_all_mismatches_are_in_one_error_that_says_where_to_begin(dataset: Dataset) -> None:
    change_row(dataset, "captions", "a", lambda row: replace(row, source="other"))
    change_row(dataset, "snippet_features", "b", lambda _: None)
    with pytest.raises(MismatchError) as caught:
        check_fit(dataset, "testing site", STAGES, ["tevad_model: something else"])
    assert str(caught.value).splitlines() == [
        "testing site: inputs do not fit:",
        "  - snippet_features: nothing of: b",
        "  - captions: made of other content: a",
        "  - tevad_model: something else",
        "Materialize snippet_features and what follows it (`tevad run site`).",
    ]


def test_quarantined_and_ready_made_videos_fit(dataset: Dataset) -> None:
    change_row(dataset, "captions", "a", lambda row: replace(row, snippets=0, problem="no"))
    change_row(
        dataset, "caption_embeddings", "a", lambda row: replace(row, source="", problem="no")
    )
    card = EncoderCard.ready_made("features")
    files.write_json(dataset.stage("snippet_features") / ENCODER, card.to_json())
    for name in NAMES:
        change_row(
            dataset, "snippet_features", name,
            lambda row: replace(row, source="an array's", fingerprint=f"{card.fingerprint}.1"),
        )  # fmt: skip
    check_fit(dataset, "testing site", STAGES)


def test_of_many_videos_some_are_named_and_the_rest_counted(dataset: Dataset) -> None:
    rows = [VideoRow(f"new-{n:02}", f"{n}.mp4", "normal", "train") for n in range(12)]
    write_listing(dataset, rows)
    said = refused(dataset)
    assert said[0].endswith("new-08, new-09 and 2 more")
