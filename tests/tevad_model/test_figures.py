import io
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tevad_model import figures
from tevad_model.figures import Curve, ScoredVideo, Thumbnail

Pixels = npt.NDArray[np.uint8]

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 255, (48, 64, 3)).astype(np.uint8)
GREY = np.full((48, 64, 3), 128, np.uint8)
DIAGONAL = Curve("seed 0", np.linspace(0, 1, 5), np.linspace(0, 1, 5) ** 0.5, 0.7)
HISTORY = [
    {"step": step, "losses": {"loss": 1 / step}, "validation": {"validation_auc": step / 40}}
    for step in (10, 20, 30)
]
VIDEO = ScoredVideo(
    "Test 001 $x$ é",
    frames=40,
    fps=10.0,
    scores=np.array([0.1, 0.9, 0.2]),
    captions=["Nobody moves.", "A cart costs $5 to $10.", "Somebody walks."],
    events=[(16, 32)],
)


def draw_contact_sheet() -> bytes:
    return figures.contact_sheet([Thumbnail(PICTURE, "a", "A caption.", 0.5, True)] * 5, title="t")


def draw_feature_pca() -> bytes:
    features = np.random.default_rng(1).normal(size=(30, 6))
    return figures.feature_pca(features, ["normal", "abnormal", "unlabelled"] * 10)


def draw_training_curves() -> bytes:
    return figures.training_curves({0: HISTORY, 1: HISTORY[:2]}, picked={0: 20})


def draw_roc() -> bytes:
    return figures.roc([DIAGONAL])


def draw_precision_recall() -> bytes:
    return figures.precision_recall([DIAGONAL], prevalence=0.3)


def draw_reliability() -> bytes:
    return figures.reliability([0.1, 0.5, 0.9], [0.0, 0.4, 1.0], [100, 0, 3])


def draw_score_timelines() -> bytes:
    return figures.score_timelines([VIDEO, VIDEO], threshold=0.5)


def draw_score_timeline() -> bytes:
    return figures.score_timeline(VIDEO, {1: PICTURE, 2: GREY}, threshold=0.5)


DRAWN = [
    draw_contact_sheet,
    draw_feature_pca,
    draw_training_curves,
    draw_roc,
    draw_precision_recall,
    draw_reliability,
    draw_score_timelines,
    draw_score_timeline,
]


def pixels(png: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def has_colour(png: bytes, colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((pixels(png) == wanted).all(axis=-1).any())


@pytest.mark.parametrize("draw", DRAWN)
def test_a_figure_is_a_picture_and_always_the_same(draw: Callable[[], bytes]) -> None:
    first = draw()
    assert Image.open(io.BytesIO(first)).format == "PNG"
    assert pixels(first).std() > 1, "nothing is drawn"
    assert draw() == first


def test_drawing_leaves_the_state_of_pyplot_alone() -> None:
    code = (
        "import sys, numpy as np\n"
        "from tevad_model import figures\n"
        "assert 'matplotlib' not in sys.modules, 'imported before it is needed'\n"
        "figures.roc([figures.Curve('a', np.array([0, 1]), np.array([0, 1]), 0.5)])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.contact_sheet([]),
        lambda: figures.training_curves({0: []}),
        lambda: figures.roc([]),
        lambda: figures.precision_recall([], prevalence=0.5),
        lambda: figures.reliability([0.5], [0.5], [0]),
        lambda: figures.score_timelines([]),
        lambda: figures.feature_pca(np.zeros((1, 4)), ["normal"]),
    ],
)
def test_nothing_to_draw_is_refused(draw: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"nothing to draw|a PCA needs"):
        draw()


def test_only_highlighted_thumbnails_are_framed() -> None:
    plain, framed = Thumbnail(GREY, "a"), Thumbnail(GREY, "a", highlighted=True)
    assert not has_colour(figures.contact_sheet([plain]), figures.ABNORMAL)
    assert has_colour(figures.contact_sheet([plain, framed]), figures.ABNORMAL)


def test_a_sheet_grows_by_rows() -> None:
    one, two = (pixels(figures.contact_sheet([Thumbnail(GREY)] * n)) for n in (4, 5))
    assert one.shape[1] == two.shape[1]
    assert one.shape[0] < two.shape[0]


def test_labels_keep_their_colours_whatever_else_there_is() -> None:
    features = np.random.default_rng(1).normal(size=(12, 3)) * np.array([9, 3, 1])
    legend_of = {
        name: figures.feature_pca(features, [name, *others] * (12 // (1 + len(others))))
        for name, others in (("normal", []), ("abnormal", ["other", "another"]))
    }
    assert near(legend_of["normal"], figures.NORMAL)
    assert not near(legend_of["normal"], figures.ABNORMAL)
    assert near(legend_of["abnormal"], figures.ABNORMAL)
    assert not near(legend_of["abnormal"], figures.NORMAL)


def near(png: bytes, colour: str) -> bool:
    """Whether a colour is there, drawn half transparent on white."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) * 0.5 + 127.5
    return bool((np.abs(pixels(png) - wanted).max(axis=-1) < 4).any())


def test_equal_features_can_be_drawn() -> None:
    assert figures.feature_pca(np.ones((5, 4)), ["normal"] * 5)


def test_the_picked_step_is_marked() -> None:
    histories = {0: HISTORY}
    assert figures.training_curves(histories, picked={0: 20}) != figures.training_curves(histories)


def test_training_without_validation_shows_the_losses() -> None:
    rows = [{**row, "validation": {}} for row in HISTORY]
    assert (
        pixels(figures.training_curves({0: rows})).shape[1]
        < pixels(figures.training_curves({0: HISTORY})).shape[1]
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"events": []},
        {"captions": []},
        {"scores": np.array([0.1, 0.9, 0.8])},
        {"fps": 5.0},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_events_captions_scores_and_time_are_shown(changed: dict[str, object]) -> None:
    other = ScoredVideo(**{**vars(VIDEO), **changed})
    assert figures.score_timelines([other]) != figures.score_timelines([VIDEO])


def test_a_video_of_one_frame_has_a_timeline() -> None:
    assert figures.score_timeline(ScoredVideo("one", 1, 25.0, np.array([0.5])))


def test_the_last_snippet_ends_with_the_video() -> None:
    assert VIDEO.edges.tolist() == [0.0, 1.6, 3.2, 4.0]


def test_peaks_are_the_highest_scores_apart_from_each_other() -> None:
    scores = [0.9, 0.8, 0.1, 0.0, 0.2, 0.7, 0.6, 0.0]
    assert figures.peaks(scores, 2) == [0, 5]
    assert figures.peaks(scores, 3, apart=1) == [0, 1, 5]
    assert figures.peaks(scores, 9) == [0, 5]
    assert figures.peaks([0.5, 0.5, 0.5], 1) == [0]
    assert figures.peaks([], 3) == []
