"""The TEVAD network: features of a batch of videos in, snippet scores and magnitudes out.

Only layers and their arithmetic. Losses, sampling, files and the choice of a checkpoint live in
:mod:`tevad_model.losses`, :mod:`~tevad_model.bags`, :mod:`~tevad_model.artifact` and
:mod:`~tevad_model.training`.

Sources: Chen et al., "TEVAD: Improved video anomaly detection with captions", CVPRW 2023; Tian et
al., "Weakly-supervised Video Anomaly Detection with Robust Temporal Feature Magnitude Learning"
(RTFM), ICCV 2021.

Axes are always in the order batch B, crops C, time T, features D. Features come last, so that a
convolution over time is one matrix product and no tensor is ever transposed in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor, nn

from tevad_model.config import TrainingParams
from tevad_model.errors import InputError

DILATIONS = (1, 2, 4)
"""Dilations of the multi-scale temporal network's convolutions (RTFM section 3.2)."""

_TAPS = 3
_HEAD = (512, 128)
_SMALLEST_VARIANCE = 1e-10


@dataclass(frozen=True)
class Output:
    """What the network makes of a batch.

    Attributes:
        scores: (B, T) snippet scores in [0, 1], the mean over crops.
        magnitudes: (B, T) L2 norms of the fused features, the mean over crops.
        features: (B, C, T, F) fused features.
    """

    scores: Tensor
    magnitudes: Tensor
    features: Tensor


class TemporalConvolution(nn.Module):
    """A kernel-3 convolution over time with zero padding: (N, T, in) to (N, T, out).

    The same function as ``nn.Conv1d(in, out, 3, dilation=d, padding=d)``, laid out with features
    last: one matrix product for the three taps, whose results are shifted by the dilation and
    added.

    Attributes:
        weight: (3, out, in), the tap of the past first.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int = 1, *, bias: bool = True) -> None:
        super().__init__()
        self.dilation = dilation
        self.weight = nn.Parameter(torch.empty(_TAPS, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        bound = (6 / (_TAPS * (inputs + outputs))) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)  # Xavier's, with a kernel's fan-in and -out

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, T, in)."""
        past, present, future = F.linear(x, self.weight.flatten(0, 1)).chunk(_TAPS, dim=-1)
        shift = min(self.dilation, x.shape[1])
        y = present if self.bias is None else present + self.bias
        y = y + F.pad(past[:, : x.shape[1] - shift], (0, 0, shift, 0))
        return y + F.pad(future[:, shift:], (0, 0, 0, shift))


class FeatureNorm(nn.BatchNorm1d):
    """Batch normalisation of each feature over batch and time: (N, T, D) to (N, T, D)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, T, D)."""
        normed: Tensor = super().forward(x.flatten(0, 1)).view(x.shape)
        return normed


class NonLocalBlock(nn.Module):
    """Self-attention over time in the dot-product form, with a skip connection (RTFM section 3.2).

    ``z = x + BN(W(θ(x) φ(x)ᵀ g(x) / T))``, without softmax. The block starts as the identity:
    its batch norm's scale is 0 at first (Wang et al., "Non-local Neural Networks", section 4.1).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = max(1, dim // 2)
        self.theta = _linear(dim, inner)
        self.phi = _linear(dim, inner)
        self.g = _linear(dim, inner)
        self.out = _linear(inner, dim)
        self.norm = FeatureNorm(dim)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend over the real snippets: x (N, T, D), mask (N, T, 1) or None for all."""
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)
        length: Tensor | int = x.shape[1]
        if mask is not None:
            phi = phi * mask
            length = mask.sum(dim=1, keepdim=True)
        # Without softmax the product is associative: long videos need no T × T matrix.
        if x.shape[1] > phi.shape[-1]:
            attended = theta @ (phi.transpose(1, 2) @ g / length)
        else:
            attended = (theta @ phi.transpose(1, 2) / length) @ g
        z: Tensor = x + self.norm(self.out(attended))
        return z


class TemporalNetwork(nn.Module):
    """The multi-scale temporal network: (N, T, D) to (N, T, D) (RTFM section 3.2, figure 3).

    Three dilated convolutions see neighbours near and far, the non-local block sees the whole
    video; a convolution joins them, and the input is added.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        quarter = max(1, dim // 4)
        self.scales = nn.ModuleList(TemporalConvolution(dim, quarter, d) for d in DILATIONS)
        self.scale_norms = nn.ModuleList(FeatureNorm(quarter) for _ in DILATIONS)
        self.reduce = _linear(dim, quarter, bias=False)
        self.attention = NonLocalBlock(quarter)
        self.join = TemporalConvolution(quarter * (len(DILATIONS) + 1), dim, bias=False)
        self.join_norm = FeatureNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Masked snippets must be zero in ``x``; they are zero in what the convolutions read."""
        parts = [
            norm(F.relu(scale(x)))
            for scale, norm in zip(self.scales, self.scale_norms, strict=True)
        ]
        parts.append(self.attention(F.relu(self.reduce(x)), mask))
        joined = torch.cat(parts, dim=-1)
        if mask is not None:
            joined = joined * mask
        z: Tensor = x + self.join_norm(F.relu(self.join(joined)))
        return z


class FeatureInput(nn.Module):
    """How a modality's features enter: as they are, standardised, or projected.

    Fitted on training bags and fixed from then on: ``((x - mean) · scale) basis``.

    Attributes:
        mean: (D,) mean of the training features. Kept in every case: it stands in for features
            that are left out of a score.
        scale: (D,) inverse deviations where standardised, else ones.
        basis: (D, P) orthonormal principal directions where projected.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor | None

    def __init__(self, dim: int, *, standardize: bool = False, projection: int | None = None):
        super().__init__()
        self.standardize = standardize
        self.dim_out = dim if projection is None else min(projection, dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer(
            "basis", None if projection is None else torch.eye(dim)[:, : self.dim_out].clone()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform features (…, D) to (…, dim_out)."""
        if self.standardize:
            x = (x - self.mean) * self.scale
        elif self.basis is not None:
            x = x - self.mean
        return x if self.basis is None else x @ self.basis

    @torch.no_grad()
    def fit(self, rows: Iterable[Tensor]) -> None:
        """Take mean, deviations and principal directions from samples, in one pass.

        Args:
            rows: batches of samples, each (samples, D).
        """
        samples = _Samples(len(self.mean), for_directions=self.basis is not None)
        for batch in rows:
            samples.add(batch.double())
        self.mean.copy_(samples.mean)
        if self.standardize:
            # A feature that never varies in training says nothing: leave it as it is.
            variance = samples.variance
            varies = variance > _SMALLEST_VARIANCE
            self.scale.copy_(torch.where(varies, variance.clamp(min=0).rsqrt(), 1))
        if self.basis is not None:
            self.basis.copy_(samples.principal_directions(self.scale.double(), self.dim_out))


class _Samples:
    """What mean, variance and principal directions follow from, of samples seen once.

    That is sums. For the directions it is the samples themselves while they are fewer than their
    features, and from then on the (D, D) sums of their products: whichever matrix is smaller.

    Args:
        dim: features of a sample, D.
        for_directions: whether principal directions will be asked for.
    """

    def __init__(self, dim: int, *, for_directions: bool) -> None:
        self._count = 0
        self._total = torch.zeros(dim, dtype=torch.float64)
        self._squares = torch.zeros(dim, dtype=torch.float64)
        self._for_directions = for_directions
        self._few: list[Tensor] = []
        self._products: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Take in samples: float64 of (samples, D)."""
        self._count += len(x)
        self._total += x.sum(dim=0)
        self._squares += x.square().sum(dim=0)
        if self._for_directions:
            self._few.append(x)
            if self._count > len(self._total):
                self._multiplied()

    @property
    def mean(self) -> Tensor:
        """(D,)."""
        return self._total / self._count

    @property
    def variance(self) -> Tensor:
        """(D,)."""
        return self._squares / self._count - self.mean.square()

    def principal_directions(self, scale: Tensor, count: int) -> Tensor:
        """Those of the scaled samples, of the largest variance first: (D, count), orthonormal.

        Their signs, which the decomposition leaves open, make each one's largest entry positive.

        Args:
            scale: (D,), which each feature is multiplied by.
            count: how many.
        """
        if self._products is None and count <= self._count:
            x = (torch.cat(self._few) - self.mean) * scale
            # What x xᵀ has for eigenvectors, xᵀ takes to those of xᵀ x.
            directions, _ = torch.linalg.qr(x.T @ _leading_eigenvectors(x @ x.T, count))
        else:
            covariance = self._multiplied() / self._count - torch.outer(self.mean, self.mean)
            directions = _leading_eigenvectors(covariance * torch.outer(scale, scale), count)
        largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
        signed: Tensor = directions * torch.where(largest < 0, -1.0, 1.0)
        return signed

    def _multiplied(self) -> Tensor:
        """The sums of products; from now on no sample is kept."""
        if self._products is None:
            self._products = torch.zeros((len(self._total),) * 2, dtype=torch.float64)
        for x in self._few:
            self._products.addmm_(x.T, x)
        self._few.clear()
        return self._products


def _leading_eigenvectors(symmetric: Tensor, count: int) -> Tensor:
    """Eigenvectors of the largest eigenvalues, largest first: (N, N) to (N, count)."""
    import scipy.linalg  # type: ignore[import-untyped]

    size = len(symmetric)
    # SciPy finds the wanted few alone; torch finds all, ten times slower at 2,560 features.
    _, found = scipy.linalg.eigh(symmetric.numpy(), subset_by_index=(size - count, size - 1))
    return torch.from_numpy(found).flip(1)


class TevadNetwork(nn.Module):
    """TEVAD: temporal networks for each modality, fusion, and the snippet classifier.

    Args:
        params: modality, fusion and the other settings of the architecture.
        visual_dim: features of a crop; None if and only if the modality is text.
        text_dim: length of a text embedding; None if and only if the modality is visual.

    Raises:
        InputError: if a dimension is missing for the modality.
    """

    def __init__(
        self, params: TrainingParams, visual_dim: int | None, text_dim: int | None
    ) -> None:
        super().__init__()
        self.visual_dim = visual_dim if params.modality != "text" else None
        self.text_dim = text_dim if params.modality != "visual" else None
        self.fusion = params.fusion
        self.dropout = nn.Dropout(params.dropout)
        if (self.visual_dim is None) != (params.modality == "text") or (self.text_dim is None) != (
            params.modality == "visual"
        ):
            raise InputError(
                f"modality {params.modality!r} does not fit visual_dim={visual_dim} and "
                f"text_dim={text_dim}: give the features it reads, or change modality"
            )
        fused = 0
        self.project: nn.Linear | None = None
        if self.visual_dim is not None:
            self.visual_input = FeatureInput(
                self.visual_dim,
                standardize=params.standardize,
                projection=params.visual_projection,
            )
            fused = self.visual_input.dim_out
            self.visual_temporal = TemporalNetwork(fused)
            if self.text_dim is not None and self.fusion != "concat":
                self.project = _linear(fused, self.text_dim)
                fused = 0
        if self.text_dim is not None:
            self.text_input = FeatureInput(self.text_dim, standardize=params.standardize)
            self.text_temporal = TemporalNetwork(self.text_dim) if params.text_temporal else None
            fused += self.text_dim
        self.fused_dim = fused
        self.head = nn.ModuleList(
            _linear(a, b) for a, b in zip((fused, *_HEAD), (*_HEAD, 1), strict=True)
        )

    def forward(
        self, visual: Tensor | None, text: Tensor | None, mask: Tensor | None = None
    ) -> Output:
        """Score a batch.

        Args:
            visual: (B, C, T, visual_dim), or None if the modality is text.
            text: (B, T, text_dim), one for all crops, or None if the modality is visual.
            mask: (B, T), true where a snippet is real; None if all are. For scoring: padded
                snippets would count in the batch norms' statistics of a training step.
        """
        features = self.fuse(self._visual_branch(visual, mask), self._text_branch(text, mask))
        scores = self.classify(features).squeeze(-1).mean(dim=1)
        return Output(scores, features.norm(dim=-1).mean(dim=1), features)

    def _visual_branch(self, visual: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if self.visual_dim is None or visual is None:
            return None
        batch, crops = visual.shape[:2]
        crop_mask = None
        if mask is not None:
            crop_mask = mask.repeat_interleave(crops, dim=0).unsqueeze(-1).to(visual.dtype)
        x = _masked(self.visual_input(visual.flatten(0, 1)), crop_mask)
        y: Tensor = self.visual_temporal(x, crop_mask)
        return y.view(batch, crops, *y.shape[1:])

    def _text_branch(self, text: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if self.text_dim is None or text is None:
            return None
        text_mask = None if mask is None else mask.unsqueeze(-1).to(text.dtype)
        x = _masked(self.text_input(text), text_mask)
        if self.text_temporal is not None:
            x = self.text_temporal(x, text_mask)
        return x.unsqueeze(1)

    def fuse(self, visual: Tensor | None, text: Tensor | None) -> Tensor:
        """Join visual (B, C, T, D) and text (B, 1, T, E) to (B, C, T, F) (TEVAD section 3.3)."""
        if visual is None or text is None:
            alone: Tensor = self.dropout(text if visual is None else visual)
            return alone
        visual = self.dropout(visual)
        text = self.dropout(text.expand(-1, visual.shape[1], -1, -1))
        if self.project is None:
            return torch.cat([visual, text], dim=-1)
        visual = self.project(visual)
        return visual + text if self.fusion == "add" else visual * text

    def classify(self, features: Tensor) -> Tensor:
        """Score of each crop of each snippet: (B, C, T, F) to (B, C, T, 1) in [0, 1].

        The sigmoid is in float32 whatever the products are in: in bfloat16 it is 1 from a logit of
        6.3 on, where a wrong score would have no gradient.
        """
        first, second, last = self.head
        x = self.dropout(F.relu(first(features)))
        x = self.dropout(F.relu(second(x)))
        return torch.sigmoid(last(x).float())


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with Xavier's uniform weights and zero bias, as in the published runs."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
