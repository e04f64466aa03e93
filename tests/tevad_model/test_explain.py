"""Explanations: the right snippets, in order, with what each would score without a modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tevad_model import scoring, training
from tevad_model.artifact import Model
from tevad_model.bags import VideoExample, VideoFeatures
from tevad_model.config import Modality, TrainingParams
from tevad_model.explain import TOP, explain, score_without_each
from tevad_model.scoring import SnippetScores


def scores(*values: float) -> SnippetScores:
    found = np.array(values)
    return SnippetScores(found, 10 * found)


def test_the_highest_snippets_of_a_range_explain_it() -> None:
    of_video = scores(0.9, 0.2, 0.7, 0.3, 0.8, 0.1)
    without = {"text": scores(0.5, 0.5, 0.6, 0.5, 0.1, 0.5)}
    captions = [f"caption {n}" for n in range(6)]
    [found] = explain([(16, 85)], of_video, without, frames=90, captions=captions)  # type: ignore[arg-type]
    assert [snippet.snippet for snippet in found] == [4, 2, 3]
    assert len(found) == TOP
    assert found[0].to_json() == {
        "snippet": 4,
        "start_frame": 64,
        "end_frame": 80,
        "score": 0.8,
        "magnitude": 8.0,
        "caption": "caption 4",
        "score_without": {"text": 0.1},
    }


def test_a_range_within_a_snippet_is_explained_by_it() -> None:
    found = explain([(17, 18), (88, 90)], scores(*np.linspace(0, 1, 6)), {}, frames=90)
    assert [[snippet.snippet for snippet in each] for each in found] == [[1], [5]]
    assert found[1][0].end_frame == 90
    assert found[1][0].caption == ""


def test_equal_scores_go_by_magnitude() -> None:
    of_video = SnippetScores(np.array([0.5, 0.5]), np.array([1.0, 2.0]))
    [found] = explain([(0, 32)], of_video, {}, frames=32)
    assert [snippet.snippet for snippet in found] == [1, 0]


def model(modality: Modality, folder: Path) -> Model:
    """Trained on bags whose text alone tells the classes apart."""
    rng = np.random.default_rng(0)
    examples = []
    for number in range(8):
        visual, text = rng.normal(size=(20, 1, 8)), rng.normal(size=(20, 8))
        text[5:9] += 3 * (number % 2)
        examples.append(
            VideoExample.from_arrays(
                f"v{number}", number % 2 == 1, visual.astype("f4"), text.astype("f4")
            )
        )
    params = TrainingParams(
        modality=modality, batch_size=4, iterations=60, selection="last", evaluate_every=60
    )
    return training.train(examples, params, seed=0, work_dir=folder).last


def features() -> VideoFeatures:
    rng = np.random.default_rng(1)
    text = rng.normal(size=(20, 8)).astype("f4")
    text[5:9] += 3
    return VideoFeatures(rng.normal(size=(20, 1, 8)).astype("f4"), text)


def test_leaving_out_what_tells_them_apart_lowers_the_score(tmp_path: Path) -> None:
    trained, of_video = model("both", tmp_path), features()
    full = scoring.score(trained, of_video.visual, of_video.text)
    without = score_without_each(trained, "v", of_video)
    assert without.keys() == {"visual", "text"}
    top = int(full.scores.argmax())
    assert without["text"].scores[top] < without["visual"].scores[top]
    assert without["text"].scores[top] < full.scores[top] - 0.1


@pytest.mark.parametrize("modality", ["visual", "text"])
def test_a_model_of_one_modality_has_nothing_to_leave_out(
    modality: Modality, tmp_path: Path
) -> None:
    assert score_without_each(model(modality, tmp_path), "v", features()) == {}
