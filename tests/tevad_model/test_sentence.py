"""The sentence encoder: what a caption means, and that company does not change it."""

from pathlib import Path

import numpy as np
import pytest

from tevad_model.encoders import build_sentence
from tevad_model.encoders.sentence import SentenceOptions, SentenceTransformerEncoder
from tevad_model.errors import InputError

CAPTIONS = [
    "Two people walk slowly to the left.",
    "A cyclist moves very fast to the right, much faster than the others.",
    "Nothing moves.",
    "Two people slowly walk leftwards.",
    *(f"{count} figures move." for count in range(20)),
]


@pytest.fixture(scope="module")
def encoder() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(SentenceOptions())


def test_one_row_a_sentence_in_order(encoder: SentenceTransformerEncoder) -> None:
    rows = encoder.embed(CAPTIONS)
    assert rows.shape == (len(CAPTIONS), encoder.dim) == (len(CAPTIONS), 384)
    assert rows.dtype == np.float32
    assert encoder.embed([]).shape == (0, 384)


def test_company_and_order_never_change_a_bit(encoder: SentenceTransformerEncoder) -> None:
    together = encoder.embed(CAPTIONS)
    alone = np.concatenate([encoder.embed([caption]) for caption in CAPTIONS])
    backwards = encoder.embed(CAPTIONS[::-1])[::-1]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, backwards)


def test_a_reworded_caption_stays_nearer_than_another_event(
    encoder: SentenceTransformerEncoder,
) -> None:
    walk, cycle, _, reworded = encoder.embed(CAPTIONS[:4])
    assert walk @ reworded > 0.8
    assert walk @ reworded > walk @ cycle + 0.2


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    encoder = build_sentence("sentence-transformers", {"model": str(tmp_path)}, tmp_path)
    with pytest.raises(InputError, match=r"caption_embeddings\.options\.model: .*no modules\.json"):
        _ = encoder.fingerprint


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"caption_embeddings\.options\.modle"):
        build_sentence("sentence-transformers", {"modle": "x"}, tmp_path)


def test_an_unknown_backend_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'none' is unknown; there are sentence-transformers"):
        build_sentence("none", {}, tmp_path)
