"""Scoring in bulk: a real champion, a trained project's own videos, and one that nobody labelled."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import assets.scored_videos
from assets.captions import load_captions
from assets.evaluation_metrics import SCORES
from assets.raw_videos import ingest_raw_videos, read_raw_videos
from assets.scored_videos import (
    TABLE,
    read_scores,
    read_snippet_scores,
    score_dataset,
    scores_folder,
)
from assets.workspace import listing
from assets.workspace.project import Dataset
from assets.workspace.tracking import CHAMPION, Tracking, registered_name
from tevad_model import timeline
from tevad_model.errors import InputError
from tevad_model.fingerprint import sha256_file


@pytest.fixture
def tracking(trained_copy: Dataset) -> Tracking:
    return Tracking.of(trained_copy.project)


@pytest.fixture
def dataset(trained_copy: Dataset, tracking: Tracking) -> Dataset:
    """A trained dataset whose first version serves."""
    crown(trained_copy, tracking, "1")
    return trained_copy


def crown(dataset: Dataset, tracking: Tracking, version: str) -> None:
    name = registered_name(dataset.name)
    tracking.client.set_registered_model_alias(name, CHAMPION, version)


def second_version(dataset: Dataset, tracking: Tracking) -> str:
    """The same model, registered once more."""
    client, name = tracking.client, registered_name(dataset.name)
    first = client.get_model_version(name, "1")
    made = client.create_model_version(name, first.source, first.run_id, model_id=first.model_id)
    return str(made.version)


def modified(dataset: Dataset) -> dict[str, int]:
    """When each video's scores were written."""
    return {path.stem: path.stat().st_mtime_ns for path in scores_folder(dataset).glob("*.jsonl")}


def test_every_usable_video_is_scored_by_the_champion(dataset: Dataset, tracking: Tracking) -> None:
    import pandas as pd

    report = score_dataset(dataset, tracking)
    raw = read_raw_videos(dataset).by_video()
    assert (report.done, report.reused, report.quarantined) == (len(raw), 0, {})
    scores = read_scores(dataset).set_index("video")
    assert list(scores.index) == sorted(raw)
    version = tracking.client.get_model_version(registered_name(dataset.name), "1")
    assert set(scores["version"]) == {"1"}
    assert set(scores["run_id"]) == {version.run_id}
    assert all(scores["source"][video] == row.sha256 for video, row in raw.items())

    evaluated = pd.read_parquet(dataset.stage("evaluation_metrics") / SCORES)
    for video, expected in evaluated.groupby("video"):
        snippets = read_snippet_scores(dataset, str(video))
        np.testing.assert_allclose(snippets["score"], expected["score"], atol=1e-6)
        assert list(snippets["caption"]) == load_captions(dataset, str(video))
        assert {"without_visual", "without_text"} <= set(snippets)
        row = scores.loc[video]
        frames = timeline.frame_values(snippets["score"], row["frames"])
        events = timeline.runs(frames >= row["threshold"])
        assert [(e["start_frame"], e["end_frame"]) for e in row["events"]] == events
        assert row["max_score"] == frames.max()


def test_nothing_is_scored_twice_and_the_table_stays_the_same_bytes(
    dataset: Dataset, tracking: Tracking
) -> None:
    score_dataset(dataset, tracking)
    before, table = modified(dataset), sha256_file(scores_folder(dataset) / TABLE)
    again = score_dataset(dataset, tracking)
    assert (again.done, again.reused) == (0, len(before))
    assert modified(dataset) == before
    assert sha256_file(scores_folder(dataset) / TABLE) == table


def test_a_damaged_and_a_new_unlabelled_video_are_scored_and_one_that_is_gone_is_not(
    dataset: Dataset, tracking: Tracking, write_video: Any
) -> None:
    score_dataset(dataset, tracking)
    before = modified(dataset)
    damaged, gone, *_ = sorted(before)
    (scores_folder(dataset) / f"{damaged}.jsonl").write_text("{")
    source = dataset.project.root / str(dataset.entry.source)
    write_video(source / "videos" / "arrived.mp4", frames=40)
    table = (source / "videos.csv").read_text().splitlines()
    kept = [line for line in table if not line.startswith(f"{gone},")]
    row = dict.fromkeys(table[0].split(","), "") | {
        "video": "arrived",
        "path": "videos/arrived.mp4",
    }
    (source / "videos.csv").write_text("\n".join([*kept, ",".join(row.values())]) + "\n")
    listing.refresh(dataset)
    ingest_raw_videos(dataset)

    report = score_dataset(dataset, tracking)
    after = modified(dataset)
    assert report.done == 2
    assert after.keys() == (before.keys() - {gone}) | {"arrived"}
    assert {video for video in before.keys() & after if before[video] != after[video]} == {damaged}
    # The chain has not seen the new one yet: it went from pixels to scores by the version itself.
    assert len(read_snippet_scores(dataset, "arrived")) == timeline.snippet_count(40)


def test_features_of_other_encoders_are_left_and_the_versions_own_pipeline_scores_the_same(
    dataset: Dataset, tracking: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    score_dataset(dataset, tracking)
    video = read_scores(dataset)["video"][0]
    by_chain = read_snippet_scores(dataset, video)
    shutil.rmtree(dataset.stage("snippet_features"))
    (scores_folder(dataset) / f"{video}.jsonl").unlink()  # the others stay: one is decoded
    caplog.set_level(logging.INFO, "tevad")
    assert score_dataset(dataset, tracking).done == 1
    assert "scores from the videos themselves" in caplog.text
    by_version = read_snippet_scores(dataset, video)
    assert list(by_version) == list(by_chain)
    assert list(by_version["caption"]) == list(by_chain["caption"])
    np.testing.assert_allclose(by_version["score"], by_chain["score"], atol=1e-4)


def test_another_champion_scores_all_again(dataset: Dataset, tracking: Tracking) -> None:
    first = score_dataset(dataset, tracking)
    crown(dataset, tracking, second_version(dataset, tracking))
    assert score_dataset(dataset, tracking).done == first.done
    assert set(read_scores(dataset)["version"]) == {"2"}


def test_an_alias_that_moves_meanwhile_changes_nothing_of_the_run(
    dataset: Dataset, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = second_version(dataset, tracking)

    def promoted_after_the_first(items: Sequence[Any], _: str) -> Iterator[Any]:
        for index, item in enumerate(items):
            if index == 1:
                crown(dataset, tracking, version)
            yield item

    monkeypatch.setattr(assets.scored_videos, "over_videos", promoted_after_the_first)
    report = score_dataset(dataset, tracking)
    assert set(read_scores(dataset)["version"]) == {"1"}
    [warning] = report.warnings
    assert warning.startswith("champion is models:/tevad-rendered/2 since models:/tevad-rendered/1")


def test_a_challenger_does_not_serve(trained_copy: Dataset, tracking: Tracking) -> None:
    tracking.client.delete_registered_model_alias(registered_name(trained_copy.name), CHAMPION)
    with pytest.raises(
        InputError, match=r"no version of tevad-rendered is champion; .*tevad promote"
    ):
        score_dataset(trained_copy, tracking)
    with pytest.raises(InputError, match="not there; score the dataset first"):
        read_scores(trained_copy)


def test_a_video_that_cannot_be_read_is_reported_and_stops_no_other(
    dataset: Dataset, tracking: Tracking
) -> None:
    shutil.rmtree(dataset.stage("snippet_features"))
    rows = read_raw_videos(dataset).usable
    for row in rows[2:]:
        path = dataset.stage("raw_videos") / row.path
        os.truncate(path, 1000)
    bad = {row.video for row in rows[2:]}
    report = score_dataset(dataset, tracking)
    assert set(report.quarantined) == bad
    assert set(read_scores(dataset)["video"]) == {row.video for row in rows[:2]}
