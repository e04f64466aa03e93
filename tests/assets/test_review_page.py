"""The review page's parts: what is in it, where it is found, and clips of what browsers do not play."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import dagster as dg
import numpy as np
import pytest
from odd_videos import write
from projects import forget_artifacts

from assets.raw_videos import read_raw_videos, video_path
from assets.review.content import relative_address
from assets.review.pictures import clip_path, playable, thumbnail
from assets.review_page import TAG, page_path, review_page, write_review_page
from assets.scored_videos import read_scores, read_snippet_scores, scores_folder
from assets.workspace.face import RESOURCE
from assets.workspace.manifest import RawVideoRow
from assets.workspace.project import Dataset
from assets.workspace.tracking import Tracking, registered_name
from orchestration.resources import ProjectResource
from tevad_model import video
from tevad_model.errors import InputError, VideoError
from tevad_model.fingerprint import sha256_file


def embedded(dataset: Dataset) -> dict[str, Any]:
    """The data in a dataset's page."""
    text = page_path(dataset, registered_name(dataset.name), "1").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found
    return dict(json.loads(found[1]))


def test_the_page_holds_scores_and_captions_as_they_are(reviewed_project: Dataset) -> None:
    found = embedded(reviewed_project)
    scores = read_scores(reviewed_project).set_index("video")
    assert {shown["name"] for shown in found["videos"]} == set(scores.index)
    assert found["threshold"] == scores["threshold"].iloc[0]
    rows = read_raw_videos(reviewed_project).by_video()
    for shown in found["videos"]:
        snippets = read_snippet_scores(reviewed_project, shown["name"])
        packed = np.frombuffer(base64.b64decode(shown["scores"]), "<f4")
        assert packed.astype(np.float64).tolist() == snippets["score"].tolist()
        numbers = np.frombuffer(base64.b64decode(shown["said"]), "<u2")
        assert [found["captions"][number] for number in numbers] == list(snippets["caption"])
        row = rows[shown["name"]]
        assert (shown["label"], shown["split"], shown["frames"]) == (
            row.label,
            row.split,
            row.frames,
        )
        page = page_path(reviewed_project, "tevad-rendered", "1")
        assert urljoin(page.as_uri(), shown["file"]) == video_path(reviewed_project, row).as_uri()
        assert base64.b64decode(shown["thumb"]).startswith(b"\xff\xd8")


def test_a_file_is_found_whatever_its_name(tmp_path: Path) -> None:
    page, file = tmp_path / "pages" / "a" / "1.html", tmp_path / "data" / "50 % #1 & Ünï?.mp4"
    assert urljoin(page.as_uri(), relative_address(file, page)) == file.as_uri()


def test_the_page_needs_nothing_from_elsewhere(reviewed_project: Dataset) -> None:
    text = page_path(reviewed_project, "tevad-rendered", "1").read_text(encoding="utf-8")
    without_data = re.sub(r'id="data">.*?</script>', "", text)
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', without_data) == []
    assert "@import" not in without_data
    assert "default-src 'none'" in without_data


def test_the_version_and_its_run_lead_to_the_page(reviewed_project: Dataset) -> None:
    forget_artifacts()
    client = Tracking.of(reviewed_project.project).client
    version = client.get_model_version("tevad-rendered", "1")
    address = "http://127.0.0.1:5050/review/rendered/1"
    assert version.tags[TAG] == address
    assert client.get_run(version.run_id).data.tags[TAG] == address
    kept = [file.path for file in client.list_artifacts(version.run_id, "review")]
    assert kept == ["review/tevad-rendered-1.html"]


def test_the_asset_leads_to_the_page_and_its_version_is_the_hash(reviewed_project: Dataset) -> None:
    path = page_path(reviewed_project, "tevad-rendered", "1")
    before = sha256_file(path)
    with dg.build_asset_context(
        partition_key="rendered",
        resources={RESOURCE: ProjectResource(root=str(reviewed_project.project.root))},
    ) as context:
        result = review_page(context)
    assert isinstance(result, dg.MaterializeResult)
    assert result.data_version == dg.DataVersion(before)  # the same scores, the same bytes
    assert result.metadata["page"].value.endswith("/review/rendered/1")
    assert result.metadata["file"].value == str(path)


def test_without_scores_there_is_no_page(trained_copy: Dataset) -> None:
    tracking = Tracking.of(trained_copy.project)
    with pytest.raises(InputError, match="score the dataset first"):
        write_review_page(trained_copy, tracking)
    assert not scores_folder(trained_copy).exists()


@pytest.fixture
def odd(trained_copy: Dataset) -> tuple[Dataset, RawVideoRow]:
    """A video among a dataset's that browsers do not play."""
    pixels = np.zeros((30, 48, 64, 3), dtype=np.uint8)
    pixels[15:] = 255
    path = write(trained_copy.stage("raw_videos") / "videos" / "odd.avi", pixels, codec="mpeg4")
    first = read_raw_videos(trained_copy).usable[0]
    row = replace(
        first, video="odd", path="videos/odd.avi", frames=30, fps=25.0, sha256=sha256_file(path)
    )
    return trained_copy, row


def test_what_browsers_do_not_play_gets_a_clip_once(odd: tuple[Dataset, RawVideoRow]) -> None:
    dataset, row = odd
    own = read_raw_videos(dataset).usable[0]
    clip_path(dataset, row).unlink(missing_ok=True)
    found = playable(dataset, [own, row])
    assert found[own.video] == dataset.stage("raw_videos") / own.path
    clip = found["odd"]
    assert clip == clip_path(dataset, row)
    assert video.plays_in_browsers(clip)
    assert (video.probe(clip).frames, video.probe(clip).fps) == (30, 25.0)
    made = clip.stat().st_mtime_ns
    assert playable(dataset, [row])["odd"].stat().st_mtime_ns == made
    clip.unlink()


def test_no_more_is_encoded_than_allowed(odd: tuple[Dataset, RawVideoRow]) -> None:
    dataset, row = odd
    clip_path(dataset, row).unlink(missing_ok=True)
    assert playable(dataset, [row], limit=29) == {}
    assert not clip_path(dataset, row).exists()


def test_a_thumbnail_shows_the_frame_asked_for(odd: tuple[Dataset, RawVideoRow]) -> None:
    import cv2

    dataset, row = odd
    dark, bright = (
        cv2.imdecode(np.frombuffer(thumbnail(dataset, row, frame), np.uint8), cv2.IMREAD_COLOR)
        for frame in (5, 25)
    )
    assert dark.mean() < 20 < 235 < bright.mean()
    assert max(dark.shape) == 64  # not blown up


def test_a_damaged_video_has_no_clip_and_no_thumbnail(
    odd: tuple[Dataset, RawVideoRow], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, row = odd
    path = dataset.stage("raw_videos") / row.path
    path.write_bytes(path.read_bytes()[:6000])
    gone = replace(row, sha256="0" * 64)
    assert playable(dataset, [gone]) == {}
    assert "no clip to play" in caplog.text
    path.write_bytes(b"")
    with pytest.raises(VideoError):
        thumbnail(dataset, gone, 3)
