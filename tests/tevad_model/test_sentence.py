"""The sentence encoder: what a caption means, which models are taken, and that company is nothing."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_bert

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
WORDS = ["a man falls", "two people walk in the street", "a dog runs", "a car alone in the street"]


@pytest.fixture(scope="module")
def encoder() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(SentenceOptions())


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def of(model: Path, **options: object) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(SentenceOptions(model=str(model), **options))


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


def test_threads_that_embed_at_once_take_turns(bert: Path) -> None:
    """Sentences of other lengths for each, which the tokenizer would cut and pad otherwise."""
    said = [[" ".join(WORDS[:count])] * 50 for count in (1, 2, 3, 4)]
    alone = [of(bert).embed(each) for each in said]
    encoder = of(bert)
    with ThreadPoolExecutor(len(said)) as pool:
        together = list(pool.map(encoder.embed, said))
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_reworded_caption_stays_nearer_than_another_event(
    encoder: SentenceTransformerEncoder,
) -> None:
    walk, cycle, _, reworded = encoder.embed(CAPTIONS[:4])
    assert walk @ reworded > 0.8
    assert walk @ reworded > walk @ cycle + 0.2


@pytest.mark.parametrize("pooling", ["mean", "cls", "cls_pooler", "auto"])
def test_a_plain_model_is_pooled_as_the_library_would(bert: Path, pooling: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    read = tokenizer(WORDS, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**read)
    mask = read["attention_mask"].unsqueeze(-1)
    mean = (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
    expected = {
        "cls": output.last_hidden_state[:, 0],
        "cls_pooler": output.pooler_output,
    }.get(pooling, mean)
    embedded = of(bert, pooling=pooling).embed(WORDS)
    np.testing.assert_allclose(embedded, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_saved_sentence_transformer_is_taken_as_it_is(bert: Path, tmp_path: Path) -> None:
    first = of(bert, pooling="cls_pooler")
    first.model.save_pretrained(str(tmp_path), create_model_card=False)
    np.testing.assert_allclose(of(tmp_path).embed(WORDS), first.embed(WORDS), rtol=1e-6, atol=1e-7)
    with pytest.raises(InputError, match=r"options\.pooling: .*says its pooling itself"):
        of(tmp_path, pooling="mean")


def test_half_precision_stays_close(bert: Path) -> None:
    whole, half = of(bert, pooling="cls_pooler"), of(bert, pooling="cls_pooler", dtype="bfloat16")
    np.testing.assert_allclose(half.embed(WORDS), whole.embed(WORDS), atol=0.05)
    assert half.embed(WORDS).dtype == np.float32


def test_the_fingerprint_changes_with_what_changes_the_output_alone(
    bert: Path, tmp_path: Path
) -> None:
    digest = of(bert).fingerprint.digest
    assert of(bert, pooling="mean", batch_size=3, device="cpu").fingerprint.digest == digest
    assert of(bert, pooling="cls").fingerprint.digest != digest
    assert of(bert, dtype="bfloat16").fingerprint.digest != digest
    moved = tiny_bert(tmp_path / "moved")
    assert of(moved).fingerprint.digest == digest
    weights = load_file(moved / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0] += 1
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    assert of(moved).fingerprint.digest != digest


def test_a_pooler_that_was_never_trained_is_not_read(bert: Path, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if not name.startswith("pooler")}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="has no trained pooler; take cls or mean"):
        of(folder, pooling="cls_pooler")
    assert of(folder, pooling="cls").embed(WORDS).shape == (len(WORDS), 16)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"caption_embeddings\.options\.model: .*holds no model"):
        build_sentence("sentence-transformers", {"model": str(tmp_path)}, tmp_path)


def test_a_pickled_model_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"pickled \(pytorch_model\.bin\).*convert"):
        build_sentence("sentence-transformers", {"model": str(folder)}, tmp_path)


def test_a_model_of_the_hub_that_is_not_here_says_how_to_fetch_it(tmp_path: Path) -> None:
    options = {"model": "princeton-nlp/sup-simcse-bert-base-uncased", "revision": "0" * 40}
    with pytest.raises(InputError, match="`tevad encoders pull princeton-nlp/sup-simcse"):
        build_sentence("sentence-transformers", options, tmp_path)


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"caption_embeddings\.options\.modle"):
        build_sentence("sentence-transformers", {"modle": "x"}, tmp_path)


def test_an_unknown_backend_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'none' is unknown; there are sentence-transformers"):
        build_sentence("none", {}, tmp_path)
