"""What DVC says of a stage's data, and what is said where it cannot."""

import hashlib
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.utils.serialize import dumps_yaml

from assets.workspace import files, versions
from assets.workspace.params import DatasetParams, write_dataset
from assets.workspace.project import Dataset, Project
from tevad_model.errors import InputError


@pytest.fixture
def dataset(project_root: Path) -> Dataset:
    """A dataset with a file in each of its first two folders."""
    write_dataset(project_root, "site", DatasetParams(source="nowhere"))
    found = Project.at(project_root).dataset("site")
    for folder in (found.source, found.stage("raw_videos"), found.stage("snippet_features")):
        folder.mkdir(parents=True)
        (folder / "file").write_text("content")
    return found


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def edit(dataset: Dataset, old: str, new: str) -> None:
    path = dataset.project.root / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_commit_takes_what_lies_there_and_leaves_nothing_to_do(dataset: Dataset) -> None:
    version = versions.commit(dataset, "raw_videos")
    assert version == versions.current(dataset, "raw_videos")
    assert versions.recorded(dataset.project) == {("raw_videos", "site"): version}
    with Repo(str(dataset.project.root)) as repo:
        assert repo.status(targets=["raw_videos@site"]) == {}


def test_a_commit_writes_what_dvc_itself_would(dataset: Dataset) -> None:
    root = dataset.project.root
    stages = (
        "raw_videos",
        "snippet_features",
        "captions",
        "sentence_encoder",
        "caption_embeddings",
    )
    for stage in stages:
        below = dataset.stage(stage) / "below"
        below.mkdir(parents=True)
        (below / "one ü").write_text(f"{stage}\r\n")
        (dataset.stage(stage) / "two").write_text("two")
        versions.commit(dataset, stage)
    ours = (root / "dvc.lock").read_bytes()
    (root / "dvc.lock").unlink()
    with Repo(str(root)) as repo:
        for stage in stages:
            repo.commit(target=f"{root}/dvc.yaml:{stage}@site", force=True)
    assert ours == (root / "dvc.lock").read_bytes()


def test_a_commit_keeps_what_else_the_lock_file_has(dataset: Dataset) -> None:
    lock = dataset.project.root / "dvc.lock"
    other = {"cmd": "make", "outs": [{"path": "else/where", "md5": "0" * 32, "size": 1}]}
    before = {"schema": "2.0", "datasets": [], "stages": {"other": other}}
    lock.write_text(dumps_yaml(before))
    versions.commit(dataset, "raw_videos")
    after = files.read_yaml(lock)
    assert list(after["stages"]) == ["other", "raw_videos@site"]
    assert after | {"stages": {"other": after["stages"]["other"]}} == before


def test_a_commit_of_what_is_committed_writes_nothing(dataset: Dataset) -> None:
    assert not versions.is_up_to_date(dataset, "raw_videos")
    version = versions.commit(dataset, "raw_videos")
    lock, file = dataset.project.root / "dvc.lock", dataset.stage("raw_videos") / "file"
    before = (files.stamp(lock), files.stamp(file))
    assert versions.is_up_to_date(dataset, "raw_videos")
    assert versions.commit(dataset, "raw_videos") == version
    assert (files.stamp(lock), files.stamp(file)) == before


def test_a_commit_brings_back_what_the_cache_lost(dataset: Dataset) -> None:
    version = versions.commit(dataset, "raw_videos")
    cache = dataset.project.root / ".dvc" / "cache"
    before = set(cache.rglob("*"))
    shutil.rmtree(cache)
    assert not versions.is_up_to_date(dataset, "raw_videos")
    assert versions.commit(dataset, "raw_videos") == version
    assert set(cache.rglob("*")) == before


def test_links_to_what_the_cache_lost_are_not_up_to_date(dataset: Dataset) -> None:
    root, file = dataset.project.root, dataset.stage("raw_videos") / "file"
    (root / ".dvc" / "config.local").write_text("[cache]\n    type = symlink\n")
    version = versions.commit(dataset, "raw_videos")
    assert file.is_symlink()
    assert versions.is_up_to_date(dataset, "raw_videos")
    shutil.rmtree(root / ".dvc" / "cache")
    assert not versions.is_up_to_date(dataset, "raw_videos")
    files.write_text(file, "content")
    assert versions.commit(dataset, "raw_videos") == version
    assert versions.is_up_to_date(dataset, "raw_videos")


@pytest.mark.parametrize("changed", ["source", "output", "parameter"])
def test_what_changed_since_the_commit_is_not_up_to_date(dataset: Dataset, changed: str) -> None:
    versions.commit(dataset, "raw_videos")
    if changed == "source":
        (dataset.source / "file").write_text("other")
    elif changed == "output":
        (dataset.stage("raw_videos") / "more").write_text("content")
    else:
        edit(dataset, "source: nowhere", "source: elsewhere")
    assert not versions.is_up_to_date(dataset, "raw_videos")


def test_what_a_stage_was_made_from_changes_with_any_stage_before_it(dataset: Dataset) -> None:
    versions.commit(dataset, "raw_videos")
    versions.commit(dataset, "snippet_features")
    before = versions.made_from(dataset, "snippet_features")
    (dataset.stage("raw_videos") / "file").write_text("other")
    versions.commit(dataset, "raw_videos")
    assert versions.made_from(dataset, "snippet_features") != before


def test_other_content_is_another_version_and_the_same_the_same(dataset: Dataset) -> None:
    file = dataset.stage("raw_videos") / "file"
    first = versions.commit(dataset, "raw_videos")
    file.write_text("other")
    assert versions.current(dataset, "raw_videos") != first
    assert versions.recorded(dataset.project) == {("raw_videos", "site"): first}
    file.write_text("content")
    assert versions.commit(dataset, "raw_videos") == first


def test_a_section_that_dvc_tracks_and_the_file_lacks_is_named(dataset: Dataset) -> None:
    versions.commit(dataset, "raw_videos")
    edit(dataset, "video: {max_side: 640}\n", "")
    with pytest.raises(InputError, match=r"'video' .*params\.yaml.* Add them there"):
        versions.commit(dataset, "snippet_features")


def test_a_key_that_dvc_yaml_reads_and_the_dataset_lacks_is_named(dataset: Dataset) -> None:
    versions.commit(dataset, "raw_videos")
    edit(dataset, "preset: paper", "fps: 5.0")
    with pytest.raises(InputError, match=r"item\.preset.*datasets\.site of params\.yaml"):
        versions.commit(dataset, "snippet_features")


def test_a_stage_that_dvc_yaml_lacks_is_named(dataset: Dataset) -> None:
    (dataset.project.root / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(InputError, match="no stage raw_videos@site"):
        versions.commit(dataset, "raw_videos")


def test_without_a_dvc_repository_the_remedy_is_told(dataset: Dataset) -> None:
    (dataset.project.root / ".dvc").rename(dataset.project.root / "gone")
    with pytest.raises(InputError, match="not a DVC repository; run `dvc init`"):
        versions.commit(dataset, "raw_videos")


def test_each_file_has_its_md5_and_changes_with_its_content(dataset: Dataset) -> None:
    folder = dataset.stage("raw_videos")
    (folder / "below").mkdir()
    (folder / "below" / "other").write_text("other")
    before = versions.contents(dataset, "raw_videos")
    assert before == {
        "file": md5(b"content"),
        "below/other": md5(b"other"),
    }
    (folder / "below" / "other").write_text("another")
    after = versions.contents(dataset, "raw_videos")
    assert after == before | {"below/other": md5(b"another")}
