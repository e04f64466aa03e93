"""params.yaml: a mistake is named by its key, and writing leaves the rest as it was."""

from pathlib import Path

import pytest

from assets.workspace.params import (
    DatasetParams,
    load_params,
    remove_dataset,
    write_dataset,
)
from tevad_model.errors import InputError

REPOSITORY = Path(__file__).parents[3]
MINIMAL = """\
snippet_features: {backend: efficientnet-lite0}
captions: {backend: motion}
caption_embeddings: {backend: sentence-transformers}
"""


def write(root: Path, text: str) -> Path:
    (root / "params.yaml").write_text(MINIMAL + text, encoding="utf-8")
    return root


def test_the_projects_own_file_is_right_with_every_preset() -> None:
    params = load_params(REPOSITORY)
    assert "paper" in params.presets
    for preset in params.presets:
        entry = DatasetParams(source="x", preset=preset)
        params.model_copy(update={"datasets": {"x": entry}}).for_dataset("x")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tevad_model: {modality: smell}", "tevad_model.modality"),
        ("tevad_model: {iterations: many}", "tevad_model.iterations"),
        ("tevad_model: {itertions: 10}", "tevad_model.itertions"),
        ("checks: {min_auc: 2}", "checks.min_auc"),
        ("video: {max_side: 3}", "video.max_side"),
        ("datasets: {a: {}}", "datasets.a"),
        ("datasets: {a: {labels: x.csv}}", "datasets.a"),
        ("datasets: {a: {labels: x.csv, features: 's3://b/f'}}", "datasets.a"),
        ("datasets: {a: {source: x, fps: 0}}", "datasets.a.fps"),
        ("datasets: {a: {source: x, unlisted: train}}", "datasets.a.unlisted"),
        ("arrivals: {settle_seconds: -1}", "arrivals.settle_seconds"),
        ("retraining: {timezone: Mars/Olympus}", "retraining.timezone"),
        ("retraining: {drift: {scores: 0}}", "retraining.drift.scores"),
        ("retraining: {drift: {permutations: 99, significance: 0.005}}", "retraining.drift"),
        ("notifications: {notifier: [log]}", "notifications.notifier"),
        ("nonsense: 1", "nonsense"),
    ],
)
def test_a_mistake_is_named_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(InputError) as error:
        load_params(write(tmp_path, text))
    assert f"  - {key}: " in str(error.value)
    assert "params.yaml" in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 wrong"):
        load_params(write(tmp_path, "nonsense: 1\nchecks: {min_auc: 2}"))


def test_what_is_no_yaml_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not YAML"):
        load_params(write(tmp_path, "checks: ["))


def test_no_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not there"):
        load_params(tmp_path)


def test_a_preset_departs_only_in_what_it_says(tmp_path: Path) -> None:
    text = """
tevad_model: {top_k: 2}
presets: {paper: {}, small: {tevad_model: {batch_size: 3}}}
datasets: {a: {source: x, preset: small}, b: {source: y}}
"""
    params = load_params(write(tmp_path, text))
    assert params.for_dataset("a").tevad_model.batch_size == 3
    assert params.for_dataset("a").tevad_model.top_k == 2
    assert params.for_dataset("b").tevad_model.batch_size == 32


def test_a_preset_that_is_wrong_or_absent_is_named(tmp_path: Path) -> None:
    text = """
presets: {bad: {tevad_model: {batch_size: 0}}}
datasets: {a: {source: x, preset: bad}, b: {source: y, preset: none}}
"""
    params = load_params(write(tmp_path, text))
    with pytest.raises(InputError, match=r"presets\.bad: 1 wrong:\n  - tevad_model\.batch_size"):
        params.for_dataset("a")
    with pytest.raises(InputError, match=r"datasets\.b\.preset: 'none' is not one of bad"):
        params.for_dataset("b")


def test_an_unknown_dataset_says_which_are_known(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, "datasets: {a: {source: x}}"))
    with pytest.raises(InputError, match=r"datasets\.b is not there \(known: a\)"):
        params.for_dataset("b")


def test_adding_a_dataset_keeps_comments_and_order(tmp_path: Path) -> None:
    text = "# a comment\nchecks: {min_auc: 0.6} # another\n"
    write(tmp_path, text)
    write_dataset(tmp_path, "site-1", DatasetParams(source="s3://bucket/x", fps=12.5))
    write_dataset(tmp_path, "site-2", DatasetParams(source="/videos"))
    written = (tmp_path / "params.yaml").read_text()
    assert written.startswith(MINIMAL + text)
    params = load_params(tmp_path)
    assert params.datasets["site-1"] == DatasetParams(source="s3://bucket/x", fps=12.5)
    assert list(params.datasets) == ["site-1", "site-2"]
    remove_dataset(tmp_path, "site-1")
    assert list(load_params(tmp_path).datasets) == ["site-2"]


def test_writing_what_is_there_touches_nothing(tmp_path: Path) -> None:
    write(tmp_path, "datasets:   {a: {source:   x}}\n")
    before = (tmp_path / "params.yaml").stat().st_mtime_ns
    write_dataset(tmp_path, "a", DatasetParams(source="x"))
    assert (tmp_path / "params.yaml").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["../up", "a b", "a/b", "", "a@b", "a.b"])
def test_a_name_that_cannot_be_a_dataset_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, "")
    with pytest.raises(InputError, match="letters, digits"):
        write_dataset(tmp_path, name, DatasetParams(source="x"))
