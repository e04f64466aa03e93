"""The cards of a real version: what they say is what the stages recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import TrainedProject

from assets.cards import DATA_CARD, MODEL_CARD, write_cards
from assets.raw_videos import read_raw_videos
from assets.workspace import versions
from assets.workspace.project import STAGES, Dataset
from tevad_model.errors import InputError

pytestmark = pytest.mark.slow

NAME = "tevad-rendered"


@pytest.fixture
def cards(trained: TrainedProject, tmp_path: Path) -> dict[str, str]:
    """Those kept with version 1, by file."""
    client = trained.tracking.client
    version = client.get_model_version(NAME, "1")
    folder = client.download_artifacts(version.run_id, "cards/version-1", str(tmp_path))
    return {path.name: path.read_text(encoding="utf-8") for path in Path(folder).iterdir()}


def test_both_cards_lead_to_the_bytes(trained: TrainedProject, cards: dict[str, str]) -> None:
    assert set(cards) == {MODEL_CARD, DATA_CARD}
    commit = trained.tracking.client.get_model_version(NAME, "1").tags["tevad.git.commit"]
    for card in cards.values():
        assert "$" not in card
        assert commit in card
        for stage in STAGES:
            assert versions.current(trained.dataset, stage) in card


def test_the_model_card_has_the_figures_of_the_evaluation(
    trained: TrainedProject, cards: dict[str, str]
) -> None:
    path = trained.dataset.stage("evaluation_metrics") / "evaluation.json"
    picked = json.loads(path.read_text())["seeds"]["0"]["picked"]
    low, high = picked["intervals"]["frame_auc"]
    figure = picked["figures"]["frame_auc"]
    assert f"| frame_auc | {figure:.4f} | {low:.4f} to {high:.4f} |" in cards[MODEL_CARD]
    for name, auc in picked["per_class"].items():
        assert f"| {name} | {auc:.4f} |" in cards[MODEL_CARD]
    assert "| batch_size | 4 |" in cards[MODEL_CARD]
    assert "There are only 4 test videos" in cards[MODEL_CARD]
    encoders = cards[MODEL_CARD].partition("## Encoders")[2].partition("## Training")[0]
    assert encoders.count("Apache-2.0") == 3


def test_the_data_card_counts_the_videos(trained: TrainedProject, cards: dict[str, str]) -> None:
    rows = read_raw_videos(trained.dataset).usable
    for split in ("train", "test"):
        for label in ("normal", "abnormal"):
            of = [row for row in rows if (row.split, row.label) == (split, label)]
            frames = sum(row.frames for row in of)
            assert f"| {split} | {label} | {len(of)} | {frames} |" in cards[DATA_CARD]


def test_the_registry_says_in_a_line_what_the_version_is(trained: TrainedProject) -> None:
    described = trained.tracking.client.get_model_version(NAME, "1").description
    assert described.startswith("TEVAD on rendered: trained on 6 videos with one label each; ")
    assert described.endswith("on 4 test videos.")


def test_a_template_that_asks_for_what_is_not_known_is_named(trained_copy: Dataset) -> None:
    path = trained_copy.project.mlflow_folder / MODEL_CARD
    path.write_text("$name by $autor")
    with pytest.raises(InputError, match=r"model_card.md: 'autor' cannot be filled in; there are"):
        write_cards(trained_copy, NAME, "1", {})
