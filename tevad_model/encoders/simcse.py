"""Unsupervised SimCSE: tuning a sentence encoder on the captions at hand, and measuring what it did.

Each caption is encoded twice under different dropout; the two are drawn together and apart from the
other captions of the batch (Gao, Yao and Chen, SimCSE, 2021, section 3). Captions of one camera
resemble each other, and an encoder made for all of English keeps them in a corner of its space;
tuning spreads them out.

Belongs here: the tuning and its two measures. Doesn't: which captions, and whether the outcome is
used.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tevad_model.config import TuningParams

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.training_args import (
        SentenceTransformerTrainingArguments,
    )

logger = logging.getLogger("tevad")

LEAST_CAPTIONS = 3
"""Fewer cannot be told apart in a batch and held out at once."""

_MEASURED = 1000
"""Captions held out at most: uniformity looks at all their pairs."""


@dataclass(frozen=True)
class Spread:
    """How embeddings lie on the sphere (Wang and Isola, Understanding Contrastive Learning, 2020).

    Attributes:
        alignment: mean squared distance of a caption's two embeddings under different dropout; 0 is
            best, 4 worst.
        uniformity: log of the mean of exp(-2 d²) over the distances d of different captions; lower
            is more evenly spread, 0 is all in one point.
    """

    alignment: float
    uniformity: float

    def improves(self, other: Spread) -> bool:
        """Whether it is better than another in both."""
        return self.alignment < other.alignment and self.uniformity < other.uniformity


@dataclass(frozen=True)
class Tuning:
    """What tuning did.

    Attributes:
        tuned_on: captions it saw.
        held_out: captions that both spreads were measured on; it did not see them.
        before: the spread it found.
        after: the spread it left.
    """

    tuned_on: int
    held_out: int
    before: Spread
    after: Spread

    @property
    def improved(self) -> bool:
        """Whether both measures are better than before."""
        return self.after.improves(self.before)


def tune(model: SentenceTransformer, captions: Sequence[str], params: TuningParams) -> Tuning:
    """Tune a model in place.

    Args:
        model: in float32.
        captions: distinct ones, at least :data:`LEAST_CAPTIONS`; more than ``max_captions`` of them
            are drawn from at random.
        params: how.

    Raises:
        ValueError: if there are too few captions.
    """
    if len(captions) < LEAST_CAPTIONS:
        raise ValueError(f"{len(captions)} captions are too few to tune on")
    tuned_on, held_out = _divide(captions, params)
    before = measure(model, held_out, batch_size=params.batch_size, seed=params.seed)
    with _reading_at_most(model, params.max_tokens):
        _train(model, tuned_on, params)
    after = measure(model, held_out, batch_size=params.batch_size, seed=params.seed)
    return Tuning(len(tuned_on), len(held_out), before, after)


def measure(
    model: SentenceTransformer, captions: Sequence[str], *, batch_size: int, seed: int
) -> Spread:
    """The spread of some captions' embeddings.

    Args:
        model: which embeds them.
        captions: two or more different ones.
        batch_size: captions at once.
        seed: of the dropout, whose state elsewhere stays as it is.
    """
    import torch

    batches = [captions[i : i + batch_size] for i in range(0, len(captions), batch_size)]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model.train()
        views = [(_embed(model, batch), _embed(model, batch)) for batch in batches]
        model.eval()
        plain = torch.cat([_embed(model, batch) for batch in batches])
    distances = torch.cat([(one - other).square().sum(dim=1) for one, other in views])
    potential = torch.exp(-2 * torch.pdist(plain).square())
    return Spread(float(distances.mean()), float(potential.mean().log()))


def _embed(model: SentenceTransformer, captions: Sequence[str]) -> torch.Tensor:
    """On the unit sphere, (captions, dim), in the mode the model is in."""
    import torch

    read = model.preprocess(list(captions))
    moved = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in read.items()
    }
    embedded: torch.Tensor = model(moved)["sentence_embedding"]
    return torch.nn.functional.normalize(embedded.float(), dim=1).cpu()


def _divide(captions: Sequence[str], params: TuningParams) -> tuple[list[str], list[str]]:
    """Captions to tune on, and a tenth of as many, at least two, held out to measure."""
    order = np.random.default_rng(params.seed).permutation(len(captions))[: params.max_captions]
    drawn = [captions[index] for index in order]
    held_out = min(_MEASURED, max(2, len(drawn) // 10))
    return drawn[held_out:], drawn[:held_out]


@contextmanager
def _reading_at_most(model: SentenceTransformer, tokens: int) -> Iterator[None]:
    """Cut captions to so many tokens: a batch costs as much as its longest caption."""
    limit = model.max_seq_length
    model.max_seq_length = min(tokens, limit or tokens)
    try:
        yield
    finally:
        model.max_seq_length = limit


def _train(model: SentenceTransformer, captions: list[str], params: TuningParams) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import PrinterCallback

    logger.info("SimCSE: tuning on %d captions, %d at once", len(captions), params.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=_arguments(model, params, folder),
            train_dataset=Dataset.from_dict({"caption": captions, "again": captions}),
            loss=MultipleNegativesRankingLoss(model, scale=1 / params.temperature),
        )
        trainer.remove_callback(PrinterCallback)  # the figures that count are measured afterwards
        trainer.train()
    model.eval()


def _arguments(
    model: SentenceTransformer, params: TuningParams, folder: str
) -> SentenceTransformerTrainingArguments:
    from sentence_transformers.sentence_transformer.training_args import (
        SentenceTransformerTrainingArguments,
    )

    return SentenceTransformerTrainingArguments(
        output_dir=folder,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch_size,
        learning_rate=params.learning_rate,
        seed=params.seed,
        use_cpu=model.device.type == "cpu",
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )
