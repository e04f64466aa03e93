"""The network against literal statements of its layers, and what must not change a score."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tevad_model.config import TrainingParams
from tevad_model.devices import resolve_device
from tevad_model.errors import InputError
from tevad_model.network import (
    FeatureInput,
    NonLocalBlock,
    TemporalConvolution,
    TemporalNetwork,
    TevadNetwork,
)

VISUAL, TEXT = 16, 8


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def awake(network: nn.Module) -> nn.Module:
    """Batch norms as after training: no statistic or weight at its initial 0 or 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def network(**settings: object) -> TevadNetwork:
    return TevadNetwork(TrainingParams.model_validate(settings), VISUAL, TEXT)


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 11])
def test_temporal_convolution_is_conv1d(dilation: int, length: int) -> None:
    ours = TemporalConvolution(6, 5, dilation)
    theirs = nn.Conv1d(6, 5, 3, padding=dilation, dilation=dilation)
    theirs.weight.data = ours.weight.data.permute(1, 2, 0)
    nn.init.normal_(ours.bias)
    theirs.bias.data = ours.bias.data
    x = torch.randn(2, length, 6)
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2))


def test_temporal_convolution_has_xaviers_initial_spread() -> None:
    weight = TemporalConvolution(40, 50).weight
    bound = (6 / (3 * 40 + 3 * 50)) ** 0.5
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.99 * bound


def literal_non_local(block: NonLocalBlock, x: Tensor) -> Tensor:
    """Non-local block of one video x (T, D), position by position."""
    theta, phi, g = block.theta(x), block.phi(x), block.g(x)
    length = len(x)
    rows = []
    for i in range(length):
        row = torch.zeros(g.shape[1])
        for j in range(length):
            row = row + (theta[i] @ phi[j]) * g[j] / length
        rows.append(row)
    y = block.out(torch.stack(rows))
    norm = block.norm
    y = (y - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    return x + y


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_non_local_block_is_its_equation(length: int) -> None:
    block = awake(NonLocalBlock(8)).eval()
    x = torch.randn(1, length, 8)
    torch.testing.assert_close(block(x)[0], literal_non_local(block, x[0]))


def test_non_local_block_starts_as_the_identity() -> None:
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(NonLocalBlock(8)(x), x)


def literal_temporal(net: TemporalNetwork, x: Tensor) -> Tensor:
    """Multi-scale temporal network of one video x (T, D), with torch's own convolutions."""

    def conv(layer: TemporalConvolution, signal: Tensor) -> Tensor:
        weight = layer.weight.permute(1, 2, 0)
        d = layer.dilation
        return F.conv1d(signal, weight, layer.bias, padding=d, dilation=d)

    def norm(layer: nn.BatchNorm1d, signal: Tensor) -> Tensor:
        return F.batch_norm(
            signal, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps
        )

    signal = x.T[None]
    parts = [
        norm(n, F.relu(conv(s, signal))) for s, n in zip(net.scales, net.scale_norms, strict=True)
    ]
    reduced = F.relu(F.conv1d(signal, net.reduce.weight[..., None]))
    parts.append(literal_non_local(net.attention, reduced[0].T).T[None])
    joined = norm(net.join_norm, F.relu(conv(net.join, torch.cat(parts, dim=1))))
    return (joined + signal)[0].T


@pytest.mark.parametrize("length", [1, 2, 3, 20])
def test_temporal_network_is_its_equations(length: int) -> None:
    net = awake(TemporalNetwork(16)).eval()
    assert [scale.dilation for scale in net.scales] == [1, 2, 4]
    assert {scale.weight.shape[1] for scale in net.scales} == {16 // 4}
    x = torch.randn(1, length, 16)
    torch.testing.assert_close(net(x)[0], literal_temporal(net, x[0]))


@pytest.mark.parametrize("fusion", ["concat", "add", "product"])
def test_forward_is_fusion_then_head(fusion: str) -> None:
    net = awake(network(fusion=fusion)).eval()
    visual, text = torch.randn(1, 2, 6, VISUAL), torch.randn(1, 6, TEXT)
    scores, magnitudes = torch.zeros(6), torch.zeros(6)
    for crop in range(2):
        v = literal_temporal(net.visual_temporal, visual[0, crop])
        t = literal_temporal(net.text_temporal, text[0])
        if fusion == "concat":
            fused = torch.cat([v, t], dim=1)
        else:
            v = net.project(v)
            fused = v + t if fusion == "add" else v * t
        first, second, last = net.head
        hidden = F.relu(second(F.relu(first(fused))))
        scores += torch.sigmoid(last(hidden))[:, 0] / 2
        magnitudes += fused.square().sum(dim=1).sqrt() / 2
    output = net(visual, text)
    assert [layer.out_features for layer in net.head] == [512, 128, 1]
    torch.testing.assert_close(output.scores[0], scores)
    torch.testing.assert_close(output.magnitudes[0], magnitudes)


@pytest.mark.parametrize(
    ("modality", "fusion", "crops", "text_temporal"),
    [
        *itertools.product(["both"], ["concat", "add", "product"], [1, 5, 10], [True, False]),
        *itertools.product(["visual"], ["concat"], [1, 5, 10], [True]),
        *itertools.product(["text"], ["concat"], [1], [True, False]),
    ],
)
@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_padding_and_batch_never_change_a_score(
    modality: str, fusion: str, crops: int, text_temporal: bool, length: int
) -> None:
    net = awake(network(modality=modality, fusion=fusion, text_temporal=text_temporal)).eval()
    visual = torch.randn(1, crops, length, VISUAL) if net.visual_dim else None
    text = torch.randn(1, length, TEXT) if net.text_dim else None
    alone = net(visual, text)

    def beside_a_longer(x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, 0, 45 - length), value=float("nan")).nan_to_num(7.0)
        return torch.cat([torch.randn_like(padded), padded])

    mask = torch.ones(2, 45, dtype=torch.bool)
    mask[1, length:] = False
    batched = net(
        None if visual is None else beside_a_longer(visual),
        None if text is None else beside_a_longer(text),
        mask,
    )
    for name in ("scores", "magnitudes"):
        inside = getattr(batched, name)[1, :length]
        torch.testing.assert_close(inside, getattr(alone, name)[0], atol=1e-5, rtol=1e-5)


def test_order_of_crops_does_not_matter() -> None:
    net = awake(network()).eval()
    visual, text = torch.randn(2, 5, 6, VISUAL), torch.randn(2, 6, TEXT)
    torch.testing.assert_close(net(visual, text).scores, net(visual.flip(1), text).scores)


def test_dropout_is_drawn_for_every_crop() -> None:
    net = network(modality="both", dropout=0.5).train()
    visual, text = torch.randn(2, 1, 6, VISUAL).expand(-1, 3, -1, -1), torch.randn(2, 6, TEXT)
    features = net(visual, text).features
    assert not torch.equal(features[:, 0, :, VISUAL:], features[:, 1, :, VISUAL:])


def test_a_wrong_and_certain_score_keeps_its_gradient_in_bfloat16() -> None:
    net = network()
    last = net.head[-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 6.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = net(torch.randn(1, 1, 4, VISUAL), torch.randn(1, 4, TEXT)).scores
    assert scores.dtype == torch.float32
    F.binary_cross_entropy(scores, torch.zeros_like(scores)).backward()
    assert float(last.bias.grad) == pytest.approx(1, abs=0.01)


def test_input_standardises_by_the_training_rows() -> None:
    rows = torch.randn(50, 4) * torch.tensor([1.0, 5.0, 0.1, 0.0]) + 3
    layer = FeatureInput(4, standardize=True)
    layer.fit([rows[:20], rows[20:]])
    transformed = layer(rows)
    torch.testing.assert_close(transformed.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    expected = torch.tensor([1.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(transformed.std(dim=0, correction=0), expected, atol=1e-4, rtol=0)


def test_input_projects_on_principal_directions() -> None:
    rows = torch.randn(200, 3) @ torch.diag(torch.tensor([0.1, 3.0, 1.0]))
    layer = FeatureInput(3, projection=2)
    layer.fit([rows])
    assert layer.dim_out == 2
    basis = layer.basis
    assert basis is not None
    torch.testing.assert_close(basis.T @ basis, torch.eye(2))
    assert basis[:, 0].argmax() == 1
    assert basis[:, 1].argmax() == 2
    assert layer(rows).var(dim=0).tolist() == sorted(layer(rows).var(dim=0).tolist(), reverse=True)


@pytest.mark.parametrize("samples", [12, 30, 31, 200])
@pytest.mark.parametrize("standardize", [False, True])
def test_fewer_and_more_samples_than_features_have_their_principal_directions(
    samples: int, standardize: bool
) -> None:
    rng = np.random.default_rng(samples)
    rows = rng.normal(size=(samples, 30)) * np.geomspace(10, 0.1, 30) + 3
    layer = FeatureInput(30, standardize=standardize, projection=5)
    layer.fit(torch.from_numpy(part) for part in np.array_split(rows, 4))
    centred = rows - rows.mean(axis=0)
    _, _, expected = np.linalg.svd(centred / centred.std(axis=0) if standardize else centred)
    basis = layer.basis
    assert basis is not None
    alike = np.abs(np.sum(basis.numpy() * expected[:5].T, axis=0))
    np.testing.assert_allclose(alike, 1, atol=1e-5)


@pytest.mark.parametrize("samples", [3, 20])
def test_directions_are_orthonormal_where_the_samples_leave_some_open(samples: int) -> None:
    rows = torch.randn(samples, 2) @ torch.randn(2, 30)
    layer = FeatureInput(30, projection=6)
    layer.fit([rows])
    basis = layer.basis
    assert basis is not None
    torch.testing.assert_close(basis.T @ basis, torch.eye(6))
    centred = rows - rows.mean(dim=0)
    torch.testing.assert_close(centred @ basis @ basis.T, centred, atol=1e-4, rtol=1e-4)


def test_input_leaves_features_alone_by_default_but_knows_their_mean() -> None:
    rows = torch.randn(10, 3)
    layer = FeatureInput(3)
    layer.fit([rows])
    assert torch.equal(layer(rows), rows)
    torch.testing.assert_close(layer.mean, rows.mean(dim=0))


def test_a_modality_without_its_features_is_refused() -> None:
    with pytest.raises(InputError, match="modality 'both' does not fit"):
        TevadNetwork(TrainingParams(), VISUAL, None)


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(InputError, match="device: 'cuda'"):
        resolve_device("cuda")
    assert resolve_device("auto").type in ("cpu", "mps")
