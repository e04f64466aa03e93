"""The training objective of TEVAD: four terms over a batch of bags.

Functions of tensors only; nothing here knows the network, files or the order of a batch. Labels
are a boolean tensor of shape (B,), true for an abnormal bag, and every term takes its bags by them.

Sources: RTFM (Tian et al., ICCV 2021), equations 2 to 5, and Sultani et al., "Real-world Anomaly
Detection in Surveillance Videos", CVPR 2018, equation 7, for the regularisers. ``paper_compat``
gives the forms of the published runs where they differ from the papers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from tevad_model.config import TrainingParams
from tevad_model.network import Output


@dataclass(frozen=True)
class Losses:
    """The weighted terms of the objective, each a scalar tensor."""

    classification: Tensor
    magnitude: Tensor
    smoothness: Tensor
    sparsity: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.classification + self.magnitude + self.smoothness + self.sparsity

    def parts(self) -> dict[str, float]:
        """All terms and their total as plain numbers, by name."""
        return {
            "loss": self.total.item(),
            "classification": self.classification.item(),
            "magnitude": self.magnitude.item(),
            "smoothness": self.smoothness.item(),
            "sparsity": self.sparsity.item(),
        }


def tevad_loss(
    output: Output, labels: Tensor, params: TrainingParams, *, training: bool = True
) -> Losses:
    """The whole objective on a batch.

    Args:
        output: what the network made of the B bags.
        labels: (B,) bool, true for abnormal; at least one bag of each class.
        params: weights, margin, k, dropout and ``paper_compat``.
        training: whether magnitudes are dropped at random before the top k are taken.
    """
    top = top_snippets(output.magnitudes, params.top_k, params.dropout if training else 0.0)
    abnormal = output.scores[labels]
    flat = params.paper_compat
    return Losses(
        classification=classification_loss(output.scores, labels, top),
        magnitude=params.alpha
        * magnitude_loss(output.features, labels, top, params.margin, paired=flat),
        smoothness=params.smoothness * smoothness(abnormal, flattened=flat),
        sparsity=params.sparsity * sparsity(abnormal, flattened=flat),
    )


def top_snippets(magnitudes: Tensor, k: int, dropout: float = 0.0) -> Tensor:
    """The snippets of largest magnitude: (B, T) to indices (B, min(k, T)).

    Magnitudes are set to 0 at random with probability ``dropout``, so that training sees other
    snippets than the few largest (RTFM, published runs). Where it leaves fewer than ``k``, places
    decide among those at 0, as in the published runs: hardly ever of 32 snippets, but in half of the
    bags of 8.
    """
    kept = F.dropout(magnitudes, dropout, training=dropout > 0)
    indices: Tensor = kept.topk(min(k, kept.shape[1]), dim=1).indices
    return indices


def bag_scores(scores: Tensor, top: Tensor) -> Tensor:
    """Mean score of a bag's top snippets: (B, T) and (B, k) to (B,)."""
    means: Tensor = scores.gather(1, top).mean(dim=1)
    return means


def classification_loss(scores: Tensor, labels: Tensor, top: Tensor) -> Tensor:
    """Binary cross-entropy of the bag scores (RTFM equation 4)."""
    return F.binary_cross_entropy(bag_scores(scores, top), labels.to(scores.dtype))


def magnitude_loss(
    features: Tensor, labels: Tensor, top: Tensor, margin: float, *, paired: bool = False
) -> Tensor:
    """Keep abnormal features near the margin and normal ones near 0 (RTFM equation 3).

    ``mean over pairs and crops of (|m - ‖a‖| + ‖n‖)²``, where a and n are the mean top-k features
    of an abnormal and a normal bag.

    Args:
        features: (B, C, T, F).
        labels: (B,) bool.
        top: (B, k) snippet indices.
        margin: m.
        paired: False takes every pair of an abnormal and a normal bag, the expectation over all
            ways to pair them, so that the order of the batch does not matter. True pairs the
            i-th with the i-th, as the published runs do; it needs as many of each.
    """
    index = top[:, None, :, None].expand(-1, features.shape[1], -1, features.shape[3])
    norms = features.gather(2, index).mean(dim=2).norm(dim=-1)
    abnormal, normal = (margin - norms[labels]).abs(), norms[~labels]
    if not paired:
        abnormal = abnormal.unsqueeze(1)
    loss: Tensor = (abnormal + normal).square().mean()
    return loss


def smoothness(scores: Tensor, *, flattened: bool = False) -> Tensor:
    """Squared differences between neighbours, summed over a bag: (B, T) to a scalar.

    The mean over bags (Sultani equation 7, first regulariser); ``flattened`` sums over the whole
    batch laid end to end, as the published runs do, so that a bag's last snippet is compared with
    the next bag's first.
    """
    if flattened:
        return scores.flatten().diff().square().sum()
    return scores.diff(dim=1).square().sum(dim=1).mean()


def sparsity(scores: Tensor, *, flattened: bool = False) -> Tensor:
    """Scores summed over a bag: (B, T) to a scalar.

    The mean over bags (Sultani equation 7, second regulariser); ``flattened`` takes the L2 norm of
    the whole batch, as the published runs do.
    """
    return scores.norm() if flattened else scores.sum(dim=1).mean()
