"""A training step and a test set's scoring, beside the ordinary way of doing them.

The ordinary way, in plain code below, is that of the published runs: at each step every video's
features are read from disk and cut to 32 segments crop by crop; text is repeated for each crop
before its temporal network; convolutions are ``nn.Conv1d`` on transposed features; the top snippets
are gathered in a loop over crops; test videos are scored one by one. Ours takes bags that were cut
once from a memory-mapped array, computes text once for all crops, keeps features last, and scores
videos in batches by length.

Both sides get the same inputs and the same weights, without dropout (its draws could not be the
same), and must give the same bags, losses, updated weights and scores. The figures named ``mixed``
are of ours with ``mixed_precision`` on (bfloat16 products, fast where the processor has them; the
loss within 1 %) beside the ordinary way in float32. Times are taken in turns, so
that other load on the machine falls on both alike; the medians are compared.

The statistics by which features are projected are fitted on 500 bags of 8 segments in one crop: many
bags at a time, beside bag by bag, which must come to the same directions.

Training is measured at UCF-Crime's shape (10 crops, 2048 + 768 features, 500 snippets a video in
float32 files) with a smaller batch, 4 + 4 bags. UCF-Crime's features fill 65 GB, more than most
machines' memory, so the feature files are dropped from the page cache before they are read; its
bags fill 2 GB, and stay there. Scoring is measured on 290 videos of 4 to 16 snippets (those of Ped2 have 8 to 12) in
one crop.

``python -m benchmarks.training`` prints a table, ``--json`` one object. ``--full`` adds the peak
memory of a step of 32 + 32 bags, measured in a process of its own, which takes a minute or two.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor, nn

from tevad_model.artifact import Model
from tevad_model.bags import Bags, VideoExample, VideoFeatures, cut_bags
from tevad_model.config import TrainingParams
from tevad_model.losses import tevad_loss
from tevad_model.network import DILATIONS, FeatureInput, TemporalNetwork, TevadNetwork
from tevad_model.scoring import score_many
from tevad_model.training import fitting_rows

CROPS, VISUAL, TEXT, SNIPPETS = 10, 2048, 768, 500
BAGS = 4
FULL_BAGS = 32
RUNS = 3
TEST_VIDEOS, SHORTEST, LONGEST = 290, 4, 16
FITTED_BAGS, FITTED_SEGMENTS, PROJECTION = 500, 8, 64
MIXED_TOLERANCE = 0.01
PARAMS = TrainingParams(dropout=0.0, paper_compat=True)

FloatArray = npt.NDArray[np.float32]


# The ordinary way ---------------------------------------------------------------------------------


class OrdinaryNonLocal(nn.Module):
    """The non-local block, features first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = dim // 2
        self.theta = nn.Conv1d(dim, inner, 1)
        self.phi = nn.Conv1d(dim, inner, 1)
        self.g = nn.Conv1d(dim, inner, 1)
        self.out = nn.Conv1d(inner, dim, 1)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend: x (N, D, T)."""
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)
        attention = theta.transpose(1, 2) @ phi / x.shape[-1]
        attended: Tensor = self.out((attention @ g.transpose(1, 2)).transpose(1, 2))
        z: Tensor = self.norm(attended) + x
        return z


class OrdinaryTemporal(nn.Module):
    """The multi-scale temporal network, features first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        quarter = dim // 4
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(dim, quarter, 3, padding=d, dilation=d),
                nn.ReLU(),
                nn.BatchNorm1d(quarter),
            )
            for d in DILATIONS
        )
        self.reduce = nn.Conv1d(dim, quarter, 1, bias=False)
        self.attention = OrdinaryNonLocal(quarter)
        self.join = nn.Sequential(
            nn.Conv1d(dim, dim, 3, padding=1, bias=False), nn.ReLU(), nn.BatchNorm1d(dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform x (N, T, D)."""
        x = x.permute(0, 2, 1)
        parts = [scale(x) for scale in self.scales]
        parts.append(self.attention(F.relu(self.reduce(x))))
        z: Tensor = self.join(torch.cat(parts, dim=1)) + x
        return z.permute(0, 2, 1)

    def copy_from(self, ours: TemporalNetwork) -> None:
        """Take our network's weights."""
        for scale, conv, norm in zip(self.scales, ours.scales, ours.scale_norms, strict=True):
            weights = {"0.weight": conv.get_parameter("weight").permute(1, 2, 0)}
            weights["0.bias"] = conv.get_parameter("bias")
            weights |= {f"2.{name}": value for name, value in norm.state_dict().items()}
            scale.load_state_dict(weights)
        self.reduce.weight.data = ours.reduce.weight.data[..., None].clone()
        for name in ("theta", "phi", "g", "out"):
            layer = getattr(ours.attention, name)
            getattr(self.attention, name).load_state_dict(
                {"weight": layer.weight[..., None], "bias": layer.bias}
            )
        self.attention.norm.load_state_dict(ours.attention.norm.state_dict())
        self.join[0].weight.data = ours.join.weight.data.permute(1, 2, 0).clone()
        self.join[2].load_state_dict(ours.join_norm.state_dict())


class OrdinaryNetwork(nn.Module):
    """TEVAD by concatenation, with text repeated for each crop."""

    def __init__(self, ours: TevadNetwork) -> None:
        super().__init__()
        self.visual = OrdinaryTemporal(VISUAL)
        self.text = OrdinaryTemporal(TEXT)
        self.visual.copy_from(ours.visual_temporal)
        assert ours.text_temporal is not None
        self.text.copy_from(ours.text_temporal)
        self.head = copy.deepcopy(ours.head)

    def forward(self, visual: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, T) and features (B · C, T, F) of visual (B, C, T, D) and text (B, T, E)."""
        batch, crops, length, _ = visual.shape
        v = self.visual(visual.reshape(batch * crops, length, VISUAL))
        t = self.text(text.unsqueeze(1).repeat(1, crops, 1, 1).reshape(batch * crops, length, TEXT))
        features = torch.cat([v, t], dim=2)
        hidden = F.relu(self.head[1](F.relu(self.head[0](features))))
        scores = torch.sigmoid(self.head[2](hidden))
        return scores.view(batch, crops, length).mean(dim=1), features


def ordinary_loss(scores: Tensor, features: Tensor, half: int, crops: int) -> Tensor:
    """The published objective; the first ``half`` bags are normal, the others abnormal."""
    length, dim = features.shape[1:]
    magnitudes = features.norm(p=2, dim=2).view(2 * half, crops, length).mean(dim=1)
    bag_scores, bag_features = [], []
    for start in (0, half):
        index = magnitudes[start : start + half].topk(PARAMS.top_k, dim=1).indices
        by_crop = features.view(2 * half, crops, length, dim)[start : start + half]
        selected = [
            crop.gather(1, index.unsqueeze(2).expand(-1, -1, dim)) for crop in by_crop.unbind(1)
        ]
        bag_features.append(torch.cat(selected).mean(dim=1).norm(p=2, dim=1))
        bag_scores.append(scores[start : start + half].gather(1, index).mean(dim=1))
    target = torch.cat([torch.zeros(half), torch.ones(half)])
    abnormal = scores[half:].reshape(-1)
    loss: Tensor = (
        F.binary_cross_entropy(torch.cat(bag_scores), target)
        + PARAMS.alpha * ((PARAMS.margin - bag_features[1]).abs() + bag_features[0]).square().mean()
        + PARAMS.smoothness * (abnormal[1:] - abnormal[:-1]).square().sum()
        + PARAMS.sparsity * abnormal.norm()
    )
    return loss


def ordinary_load(folder: Path, videos: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Read each video's features and cut them to segments, crop by crop."""
    visual, text = [], []
    for video in videos:
        by_crop = np.load(folder / f"{video}_i3d.npy", allow_pickle=False).transpose(1, 0, 2)
        visual.append(np.stack([ordinary_cut(crop) for crop in by_crop]))
        text.append(ordinary_cut(np.load(folder / f"{video}_emb.npy", allow_pickle=False)))
    return torch.from_numpy(np.stack(visual)), torch.from_numpy(np.stack(text))


def ordinary_cut(features: FloatArray) -> FloatArray:
    """Mean of each of 32 segments, one after the other."""
    cuts = np.linspace(0, len(features), PARAMS.segments + 1, dtype=int)
    segments = np.zeros((PARAMS.segments, features.shape[1]), dtype=np.float32)
    for i in range(PARAMS.segments):
        if cuts[i] != cuts[i + 1]:
            segments[i] = np.mean(features[cuts[i] : cuts[i + 1]], axis=0)
        else:
            segments[i] = features[cuts[i]]
    return segments


@torch.no_grad()
def ordinary_scoring(
    network: OrdinaryNetwork, videos: Sequence[tuple[str, VideoFeatures]]
) -> dict[str, FloatArray]:
    """Score test videos one by one."""
    network.eval()
    scored = {}
    for video, features in videos:
        visual = torch.from_numpy(np.asarray(features.visual)).permute(1, 0, 2)[None].float()
        text = torch.from_numpy(np.asarray(features.text))[None].float()
        scored[video] = network(visual, text)[0][0].numpy()
    return scored


# Ours ---------------------------------------------------------------------------------------------


def our_load(bags: Bags, chosen: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Take the bags from the memory-mapped arrays, as a training step does."""
    assert bags.visual is not None
    assert bags.text is not None
    return torch.from_numpy(bags.visual[chosen]).float(), torch.from_numpy(
        bags.text[chosen]
    ).float()


def our_loss(
    network: TevadNetwork, visual: Tensor, text: Tensor, half: int, *, mixed: bool = False
) -> Tensor:
    """The objective of a batch; the first ``half`` bags are normal, the others abnormal."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        output = network(visual, text)
    return tevad_loss(output, torch.arange(2 * half) >= half, PARAMS).total


# Measuring ----------------------------------------------------------------------------------------


def measure() -> dict[str, float]:
    """Every figure but the full batch's memory; see the module's docstring for what they mean."""
    torch.manual_seed(0)
    network = TevadNetwork(PARAMS, VISUAL, TEXT)
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure_training(network, Path(folder))
    return figures | _measure_scoring(network) | _measure_fitting()


def _measure_training(network: TevadNetwork, folder: Path) -> dict[str, float]:
    videos = [f"video{i}" for i in range(2 * BAGS)]
    _write_features(folder, videos)
    examples = [
        VideoExample(video, i >= BAGS, partial(_read, folder, video), digest="synthetic")
        for i, video in enumerate(videos)
    ]
    bags = cut_bags(examples, "both", PARAMS.segments, folder)
    ordinary = OrdinaryNetwork(network)
    optimizers = {
        n: torch.optim.Adam(n.parameters(), PARAMS.learning_rate) for n in (network, ordinary)
    }
    everything = np.arange(2 * BAGS)

    def load_ours() -> tuple[Tensor, Tensor]:
        return our_load(bags, everything)

    def load_ordinary() -> tuple[Tensor, Tensor]:
        return ordinary_load(folder, videos)

    def step_ours(batch: tuple[Tensor, Tensor], *, mixed: bool = False) -> Tensor:
        loss = our_loss(network.train(), *batch, BAGS, mixed=mixed)
        return _update(optimizers[network], loss)

    def step_ordinary(batch: tuple[Tensor, Tensor]) -> Tensor:
        scores, features = ordinary.train()(*batch)
        return _update(optimizers[ordinary], ordinary_loss(scores, features, BAGS, CROPS))

    ours, theirs = load_ours(), load_ordinary()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(step_ours(ours), step_ordinary(theirs), rtol=1e-4, atol=1e-5)
    # The second loss is equal only if the first update was.
    torch.testing.assert_close(step_ours(ours), step_ordinary(theirs), rtol=1e-3, atol=1e-4)

    exact, rounded = (our_loss(network, *ours, BAGS, mixed=mixed) for mixed in (False, True))
    torch.testing.assert_close(rounded, exact, rtol=MIXED_TOLERANCE, atol=0)

    times: dict[str, list[float]] = {}
    for _ in range(RUNS):
        _drop_from_page_cache(folder, videos)
        _timed(times, "ordinary_load_s", load_ordinary)
        _timed(times, "ordinary_step_s", lambda: step_ordinary(theirs))
        _timed(times, "our_load_s", load_ours)
        _timed(times, "our_step_s", lambda: step_ours(ours))
        _timed(times, "our_mixed_step_s", lambda: step_ours(ours, mixed=True))
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    load, step = seconds["ordinary_load_s"], seconds["ordinary_step_s"]
    our_load_s, our_step_s = seconds["our_load_s"], seconds["our_step_s"]
    our_mixed_s = seconds["our_mixed_step_s"]
    return {
        "step_with_loading_ratio": (load + step) / (our_load_s + our_step_s),
        "step_with_loading_mixed_ratio": (load + step) / (our_load_s + our_mixed_s),
        "loading_ratio": load / our_load_s,
        "step_ratio": step / our_step_s,
        "step_mixed_ratio": step / our_mixed_s,
        **seconds,
    }


def _measure_scoring(network: TevadNetwork) -> dict[str, float]:
    rng = np.random.default_rng(0)
    videos = []
    for i, length in enumerate(rng.integers(SHORTEST, LONGEST + 1, TEST_VIDEOS)):
        visual = rng.standard_normal((length, 1, VISUAL), dtype=np.float32)
        text = rng.standard_normal((length, TEXT), dtype=np.float32)
        videos.append((f"video{i}", VideoFeatures(visual, text)))
    ordinary = OrdinaryNetwork(network)
    model = Model(network.eval(), PARAMS, seed=0, step=0)
    ours, theirs = score_many(model, videos), ordinary_scoring(ordinary, videos)
    for video, scores in theirs.items():
        np.testing.assert_allclose(ours[video].scores, scores, atol=1e-5)
    times: dict[str, list[float]] = {}
    for _ in range(RUNS):
        _timed(times, "ordinary_scoring_s", lambda: ordinary_scoring(ordinary, videos))
        _timed(times, "our_scoring_s", lambda: score_many(model, videos))
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    ratio = seconds["ordinary_scoring_s"] / seconds["our_scoring_s"]
    return {"scoring_ratio": ratio, **seconds}


def _measure_fitting() -> dict[str, float]:
    shape = (FITTED_BAGS, 1, FITTED_SEGMENTS, VISUAL)
    bags = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    bags *= np.geomspace(1, 100, VISUAL, dtype=np.float32)  # as features do, a few vary most
    everything = np.arange(FITTED_BAGS)
    ours, theirs = (FeatureInput(VISUAL, projection=PROJECTION) for _ in range(2))

    def fit_ours() -> None:
        ours.fit(fitting_rows(bags, everything))

    def fit_ordinary() -> None:
        theirs.fit(fitting_rows(bags, everything, at_once=1))

    times: dict[str, list[float]] = {}
    for _ in range(RUNS):
        _timed(times, "ordinary_fit_s", fit_ordinary)
        _timed(times, "our_fit_s", fit_ours)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.basis, theirs.basis)
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    return {"fit_ratio": seconds["ordinary_fit_s"] / seconds["our_fit_s"], **seconds}


def measure_full_memory() -> dict[str, float]:
    """Peak memory of two steps of 32 + 32 bags, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "--full-step"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"peak_memory_gib": float(output)}


def _full_step() -> float:
    network = TevadNetwork(PARAMS, VISUAL, TEXT)
    optimizer = torch.optim.Adam(network.parameters(), PARAMS.learning_rate)
    segments = PARAMS.segments
    visual = torch.randn(2 * FULL_BAGS, CROPS, segments, VISUAL)
    text = torch.randn(2 * FULL_BAGS, segments, TEXT)
    for _ in range(2):
        _update(optimizer, our_loss(network, visual, text, FULL_BAGS))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def _timed(times: dict[str, list[float]], name: str, call: Callable[[], object]) -> None:
    start = time.perf_counter()
    call()
    times.setdefault(name, []).append(time.perf_counter() - start)


def _write_features(folder: Path, videos: Sequence[str]) -> None:
    rng = np.random.default_rng(0)
    for video in videos:
        visual = rng.standard_normal((SNIPPETS, CROPS, VISUAL), dtype=np.float32)
        np.save(folder / f"{video}_i3d.npy", visual)
        np.save(
            folder / f"{video}_emb.npy", rng.standard_normal((SNIPPETS, TEXT), dtype=np.float32)
        )


def _read(folder: Path, video: str) -> VideoFeatures:
    return VideoFeatures(
        np.load(folder / f"{video}_i3d.npy", allow_pickle=False),
        np.load(folder / f"{video}_emb.npy", allow_pickle=False),
    )


def _drop_from_page_cache(folder: Path, videos: Sequence[str]) -> None:
    """Make the next read of the feature files come from the disk (Linux; elsewhere nothing)."""
    if not hasattr(os, "posix_fadvise"):
        return
    for video in videos:
        with (folder / f"{video}_i3d.npy").open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Print what :func:`measure` finds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one object {figure: value}")
    parser.add_argument("--full", action="store_true", help="also the memory of 32 + 32 bags")
    parser.add_argument("--full-step", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.full_step:
        print(_full_step())
        return
    figures = measure() | (measure_full_memory() if options.full else {})
    if options.json:
        print(json.dumps(figures))
        return
    print(
        f"{BAGS} + {BAGS} bags of {CROPS} crops, {VISUAL} + {TEXT} features, {torch.get_num_threads()} threads"
    )
    print(f"scoring: {TEST_VIDEOS} videos of {SHORTEST} to {LONGEST} snippets, one crop")
    for name, value in figures.items():
        print(f"  {name:30s} {value:8.3f}")


if __name__ == "__main__":
    main()
