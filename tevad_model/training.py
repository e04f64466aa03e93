"""Training: bags in, a model with its checkpoint picked on validation videos out.

The loop, its checkpoints, and the choice of the step to keep. Training sees one label per video and
nothing else; frame-level events and test videos never come here. Runs are deterministic: a step's
batch and its dropout depend on the seed and the number of the step alone, so that a run that was
interrupted goes on from its last checkpoint to the same weights, bit for bit, on one machine.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import log_loss, roc_auc_score, roc_curve
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tevad_model import __version__
from tevad_model.artifact import Model
from tevad_model.atomic import replacing
from tevad_model.bags import (
    Bags,
    BoolArray,
    FloatFeatures,
    IntArray,
    VideoExample,
    batch_indices,
    class_sources,
    cut_bags,
    hold_out,
    split_folds,
)
from tevad_model.config import Selection, TrainingParams
from tevad_model.devices import resolve_device
from tevad_model.errors import InputError
from tevad_model.losses import bag_scores, tevad_loss, top_snippets
from tevad_model.network import FeatureInput, Output, TevadNetwork
from tevad_model.timeline import FloatArray

CHECKPOINT_FORMAT = 3

HOLDOUT_MINIMUM = 20
"""Held-out videos of each class from which ``selection: auto`` trusts a held-out part. An AUC over
fewer pairs moves in steps that are larger than the differences between checkpoints."""

_DIVERGED = 1e4
"""A loss so many times the first step's will not come back."""

_NO_THRESHOLD = 0.5

_NAMED = 3
"""Videos that a message names before it counts the rest."""

_ROWS_AT_ONCE = 2048
"""Rows that are multiplied at once: for a few, most of the time goes into adding up the product."""


@dataclass(frozen=True)
class StepReport:
    """What ``on_step`` is told after every step.

    Attributes:
        phase: ``"train"``, or ``"fold 1/4"`` and so on in a cross-validation.
        step: from 1.
        steps: of this phase, if it is not stopped early.
        losses: ``loss`` and its parts by name.
        validation: figures on the phase's held-out videos by name, at evaluations where there
            are any; else empty.
    """

    phase: str
    step: int
    steps: int
    losses: dict[str, float]
    validation: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """One row of a training history.

    Attributes:
        step: training step.
        losses: parts of the loss, the mean over the steps since the row before.
        validation: ``validation_auc`` and ``validation_loss`` (cross-entropy) of the bag scores of
            videos that the weights were not trained on; empty without validation.
    """

    step: int
    losses: dict[str, float]
    validation: dict[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """What a training run made.

    Attributes:
        picked: the model at the step that validation chose.
        last: the model after the last step.
        history: one row for each evaluation.
        selection: how the step was chosen: ``holdout``, ``cross_validation`` or ``last``.
        validation_videos: videos that were held out; all of them in a cross-validation.
        validation_scores: (videos, segments) their segments' scores at the picked step, each by a
            model that was not trained on the video.
    """

    picked: Model
    last: Model
    history: tuple[Evaluation, ...]
    selection: Selection
    validation_videos: tuple[str, ...]
    validation_scores: FloatArray


OnStep = Callable[[StepReport], None]
OnCheckpoint = Callable[[Model], None]


def train(
    examples: Sequence[VideoExample],
    params: TrainingParams,
    *,
    seed: int,
    work_dir: Path,
    on_step: OnStep | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> TrainingResult:
    """Train one model.

    Args:
        examples: the videos of the training split, in any order.
        params: the recipe; ``params.seeds`` is not read.
        seed: of initial weights, batches, dropout and the validation split.
        work_dir: folder for bags and checkpoints, made if absent. Calling again with the same
            arguments goes on from what is there. Safe to delete at any time between calls.
        on_step: called after every step.
        on_checkpoint: called with the model at every evaluation of the final training, such as to
            score test videos for the best-on-test figure. What it does cannot change the result.
            Steps before an interruption are not shown again.

    Raises:
        InputError: if there are no examples, only one class, a device that is not there, or if
            the loss diverges; the message names the step, the part and the videos.
        VideoError: if the features of a video cannot be used.
        MismatchError: if features differ in shape between videos.
    """
    device = resolve_device(params.device)
    bags = cut_bags(examples, params.modality, params.segments, work_dir)
    plan = _plan(bags, params, seed)
    everything = np.arange(len(bags.videos))
    with _deterministic():
        if plan.selection == "cross_validation":
            predictions = _cross_validate(bags, plan.folds, params, seed, work_dir, on_step)
            curve = {step: _figures(made.bags, bags.labels) for step, made in predictions.items()}
            step = max(curve, key=lambda s: _merit(curve[s], s))
            run = _Run("train", bags, everything, everything[:0], params, seed, work_dir, device)
            run.train(on_step, on_checkpoint, pick_at=step)
            return run.result(plan.selection, everything, predictions[step], curve)
        held_out = plan.folds[0] if plan.folds else everything[:0]
        rest = np.setdiff1d(everything, held_out)
        run = _Run("train", bags, rest, held_out, params, seed, work_dir, device)
        run.train(on_step, on_checkpoint)
        return run.result(plan.selection, held_out, run.picked_predictions)


@dataclass(frozen=True)
class _Predictions:
    """What a network says of some bags.

    Attributes:
        bags: (n,) bag scores, as the classification loss sees them.
        segments: (n, segments) scores.
    """

    bags: FloatArray
    segments: FloatArray

    @classmethod
    def none(cls, bags: int, segments: int) -> _Predictions:
        """Of bags that nothing has been said of yet."""
        return cls(np.full(bags, np.nan), np.full((bags, segments), np.nan))

    def put(self, bags: IntArray, said: _Predictions) -> None:
        """Take over what was said of some of the bags."""
        self.bags[bags], self.segments[bags] = said.bags, said.segments


@dataclass(frozen=True)
class _Plan:
    """How the step is chosen: the folds of a cross-validation, the one held-out part, or none."""

    selection: Selection
    folds: list[IntArray]


def _plan(bags: Bags, params: TrainingParams, seed: int) -> _Plan:
    """The way of selection that ``params`` asks for or, with ``auto``, that these videos allow."""
    wanted = params.selection
    sources = min(len(of_class) for of_class in class_sources(bags.labels, bags.sources))
    if wanted in ("auto", "holdout"):
        held_out = hold_out(bags.labels, bags.sources, params.validation_share, seed)
        smallest = _per_class(bags.labels[held_out])
        if smallest >= (HOLDOUT_MINIMUM if wanted == "auto" else 1):
            return _Plan("holdout", [held_out])
    if wanted in ("auto", "cross_validation") and sources > 1:
        folds = min(params.folds, sources)
        return _Plan("cross_validation", split_folds(bags.labels, bags.sources, folds, seed))
    if wanted in ("auto", "last"):
        return _Plan("last", [])
    raise InputError(
        f"selection: {wanted!r} needs more videos than {sources} of one class (counted by source); "
        f"use 'auto' or 'last', or label more videos"
    )


def _per_class(labels: BoolArray) -> int:
    return min(int(labels.sum()), int((~labels).sum()))


def _cross_validate(
    bags: Bags,
    folds: Sequence[IntArray],
    params: TrainingParams,
    seed: int,
    work_dir: Path,
    on_step: OnStep | None,
) -> dict[int, _Predictions]:
    """Scores of all bags by step, each video's by the run that was not trained on it."""
    device = resolve_device(params.device)
    everything = np.arange(len(bags.videos))
    predictions: dict[int, _Predictions] = {}
    for number, fold in enumerate(folds, start=1):
        rest = np.setdiff1d(everything, fold)
        phase = f"fold {number}/{len(folds)}"
        run = _Run(phase, bags, rest, fold, params, seed, work_dir, device)
        run.train(on_step, None, stop_early=False)
        for step, said in run.predictions.items():
            none = _Predictions.none(len(everything), params.segments)
            predictions.setdefault(step, none).put(fold, said)
    return predictions


def _figures(scores: FloatArray, labels: BoolArray) -> dict[str, float]:
    """Validation figures of bag scores (n,) with labels (n,) of both classes."""
    return {
        "validation_auc": float(roc_auc_score(labels, scores)),
        "validation_loss": float(log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7))),
    }


def _merit(figures: dict[str, float], step: int) -> tuple[float, float, int]:
    """What is largest at the best step: the AUC, of equal ones the lower loss, then the later."""
    return figures["validation_auc"], -figures["validation_loss"], step


def _threshold(scores: FloatArray, labels: BoolArray) -> float:
    """The score with the largest true minus false positive rate (Youden's J), halfway down.

    Halfway between the lowest score that is called abnormal and the next one below it, so that it
    does not hang on one video's score.
    """
    if _per_class(labels) == 0:
        return _NO_THRESHOLD
    false_rate, true_rate, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    best = int(np.argmax(true_rate - false_rate))
    if best == 0:
        return _NO_THRESHOLD
    below = thresholds[best + 1] if best + 1 < len(thresholds) else 0.0
    return float((thresholds[best] + below) / 2)


class _Run:
    """One training run with its state: network, optimiser, step, history, and the picked weights.

    A run writes its state to one file at every evaluation and takes it up from there.
    """

    def __init__(
        self,
        phase: str,
        bags: Bags,
        train: IntArray,
        held_out: IntArray,
        params: TrainingParams,
        seed: int,
        work_dir: Path,
        device: torch.device,
    ) -> None:
        self.phase = phase
        self.bags = bags
        self.train_on = train
        self.held_out = held_out
        self.params = params
        self.seed = seed
        self.device = device
        self.step = 0
        self.first_loss = math.nan
        self.history: list[Evaluation] = []
        self.predictions: dict[int, _Predictions] = {}
        self.picked_step = 0
        self.picked_weights: dict[str, Tensor] = {}
        torch.manual_seed(_step_seed(seed, 0))
        self.network = _new_network(bags, params)
        self.file = work_dir / f"checkpoint-{self._key()}.safetensors"
        if self.file.is_file():
            self._build(device)
            self._restore()
        else:
            _fit_inputs(self.network, bags, train)
            self._build(device)

    def _build(self, device: torch.device) -> None:
        self.network.to(device)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=self.params.learning_rate,
            weight_decay=self.params.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.forward = torch.compile(self.network) if self.params.compile else self.network
        self.average: AveragedModel | None = None
        if decay := self.params.weight_averaging:
            following = partial(_followed, decay)
            self.average = AveragedModel(self.network, avg_fn=following, use_buffers=True)

    @property
    def outcome(self) -> TevadNetwork:
        """The network that is evaluated and kept: the one that is trained, or its average."""
        if self.average is None:
            return self.network
        return cast("TevadNetwork", self.average.module)

    def train(
        self,
        on_step: OnStep | None,
        on_checkpoint: OnCheckpoint | None,
        *,
        pick_at: int | None = None,
        stop_early: bool = True,
    ) -> None:
        """Go from the last checkpoint to the end.

        Args:
            on_step: called after every step.
            on_checkpoint: called at every evaluation.
            pick_at: the step to keep, where it is known; else the best on the held-out videos,
                or the last if there are none.
            stop_early: whether ``params.patience`` applies.
        """
        since: list[dict[str, float]] = []
        while self.step < self.params.iterations and not (stop_early and self._out_of_patience()):
            losses = self._one_step()
            since.append(losses)
            validation: dict[str, float] = {}
            evaluated = (
                self.step % self.params.evaluate_every == 0 or self.step == self.params.iterations
            )
            if evaluated:
                validation = self._evaluate(since, pick_at)
                since = []
            if on_step is not None:
                steps = self.params.iterations
                on_step(StepReport(self.phase, self.step, steps, losses, validation))
            if evaluated:
                if on_checkpoint is not None:
                    on_checkpoint(self._model(self.step, self.outcome.state_dict()))
                self._save()

    def _out_of_patience(self) -> bool:
        if self.params.patience is None or not self.history or not len(self.held_out):
            return False
        steps_since = self.history[-1].step - self.picked_step
        return steps_since >= self.params.patience * self.params.evaluate_every

    def _one_step(self) -> dict[str, float]:
        params, labels = self.params, self.bags.labels[self.train_on]
        normal, abnormal = batch_indices(labels, params.batch_size, self.seed, self.step)
        if params.paper_compat:
            pairs = min(len(normal), len(abnormal))
            normal, abnormal = normal[:pairs], abnormal[:pairs]
        chosen = self.train_on[np.concatenate([normal, abnormal])]
        self.step += 1
        torch.manual_seed(_step_seed(self.seed, self.step))
        self.network.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=params.mixed_precision):
            output = self._forward(self.forward, chosen)
        output = Output(output.scores, output.magnitudes.float(), output.features.float())
        self._check_output(output, chosen)
        is_abnormal = torch.from_numpy(self.bags.labels[chosen]).to(self.device)
        losses = tevad_loss(output, is_abnormal, params)
        parts = losses.parts()
        self._check_losses(parts, output, chosen)
        self.optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return parts

    def _forward(self, network: Callable[..., Output], bags: IntArray) -> Output:
        visual = _tensor(self.bags.visual, bags, self.device)
        text = _tensor(self.bags.text, bags, self.device)
        return network(visual, text)

    def _check_output(self, output: Output, bags: IntArray) -> None:
        """Stop where the network's output is not finite, before a loss is made of it."""
        finite = output.features.detach().flatten(1).isfinite().all(dim=1)
        finite &= output.scores.detach().isfinite().all(dim=1)
        if not finite.all():
            self._stop("scores or features are not finite", bags[~finite.cpu().numpy()])

    def _check_losses(self, parts: dict[str, float], output: Output, bags: IntArray) -> None:
        """Stop on a loss that is not finite or has run away."""
        if math.isnan(self.first_loss):
            self.first_loss = parts["loss"]
        if not parts["loss"] <= _DIVERGED * self.first_loss:
            worst = max((name for name in parts if name != "loss"), key=lambda name: parts[name])
            largest = output.magnitudes.detach().amax(dim=1).argsort(descending=True)
            cause = f"the {worst} loss has grown from {self.first_loss:.3g} to {parts[worst]:.3g}"
            self._stop(cause, bags[largest.cpu().numpy()])

    def _stop(self, cause: str, bags: IntArray) -> NoReturn:
        names = ", ".join(self.bags.videos[bag] for bag in bags[:_NAMED])
        more = f" and {len(bags) - _NAMED} more" if len(bags) > _NAMED else ""
        raise InputError(
            f"training stopped at step {self.step} ({self.phase}): {cause}, foremost in {names}"
            f"{more}. Lower learning_rate or alpha, or set standardize"
        )

    def _evaluate(self, since: list[dict[str, float]], pick_at: int | None) -> dict[str, float]:
        """Add a row to the history, and keep the weights if they are the ones to keep."""
        validation: dict[str, float] = {}
        if len(self.held_out):
            said = self.predict(self.held_out)
            self.predictions[self.step] = said
            validation = _figures(said.bags, self.bags.labels[self.held_out])
        means = {name: float(np.mean([row[name] for row in since])) for name in since[0]}
        self.history.append(Evaluation(self.step, means, validation))
        if self._is_to_keep(pick_at):
            self.picked_step = self.step
            self.picked_weights = copy.deepcopy(self.outcome.state_dict())
        return validation

    def _is_to_keep(self, pick_at: int | None) -> bool:
        if pick_at is not None:
            return self.step == pick_at
        if not len(self.held_out):
            return True
        best = max(self.history, key=lambda row: _merit(row.validation, row.step))
        return best.step == self.step

    @torch.no_grad()
    def predict(self, bags: IntArray) -> _Predictions:
        """What the network says of bags, without dropout and in float32, as it scores later on."""
        network = self.forward if self.average is None else self.average.module
        self.outcome.eval()
        said = _Predictions.none(len(bags), self.params.segments)
        for start in range(0, len(bags), 2 * self.params.batch_size):
            part = np.arange(start, min(start + 2 * self.params.batch_size, len(bags)))
            output = self._forward(network, bags[part])
            top = top_snippets(output.magnitudes, self.params.top_k)
            of_bags = bag_scores(output.scores, top).double().cpu().numpy()
            said.put(part, _Predictions(of_bags, output.scores.double().cpu().numpy()))
        return said

    @property
    def picked_predictions(self) -> _Predictions:
        """What was said of the held-out videos at the picked step; of none if there are none."""
        return self.predictions.get(self.picked_step, _Predictions.none(0, self.params.segments))

    def result(
        self,
        selection: Selection,
        validated: IntArray,
        said: _Predictions,
        curve: dict[int, dict[str, float]] | None = None,
    ) -> TrainingResult:
        """The run's outcome.

        Args:
            selection: how the step was chosen.
            validated: the videos that chose it.
            said: of them at that step.
            curve: validation figures by step, where they come from other runs than this.
        """
        history = [
            Evaluation(row.step, row.losses, curve[row.step] if curve else row.validation)
            for row in self.history
        ]
        figures = {row.step: row.validation for row in history}
        threshold = _threshold(said.bags, self.bags.labels[validated])

        def model(step: int, weights: dict[str, Tensor]) -> Model:
            trained = self._model(step, weights, selection, threshold)
            return trained.with_card(metrics=figures[step])

        return TrainingResult(
            picked=model(self.picked_step, self.picked_weights),
            last=model(self.step, self.outcome.state_dict()),
            history=tuple(history),
            selection=selection,
            validation_videos=tuple(self.bags.videos[i] for i in validated),
            validation_scores=said.segments,
        )

    def _model(
        self,
        step: int,
        weights: dict[str, Tensor],
        selection: Selection = "last",
        threshold: float = _NO_THRESHOLD,
    ) -> Model:
        network = _new_network(self.bags, self.params)
        network.load_state_dict(weights)
        visual = self.bags.visual
        return Model(
            network=network.eval().to(self.device),
            params=self.params,
            seed=self.seed,
            step=step,
            crops=None if visual is None else visual.shape[1],
            threshold=threshold,
            validated=selection,
        )

    def _key(self) -> str:
        """What the run's outcome depends on, so that no other run takes up its checkpoint."""
        content = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "bags": self.bags.key,
            "train": self.train_on.tolist(),
            "held_out": self.held_out.tolist(),
            "params": self.params.model_dump(mode="json", exclude={"seeds"}),
            "seed": self.seed,
            "device": self.device.type,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _save(self) -> None:
        """Write the whole state as one file, under its name only when it is complete."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"picked.{name}": value for name, value in self.picked_weights.items()}
        if self.average is not None:
            tensors |= {f"average.{k}": value for k, value in self.average.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for slot, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{slot}.{name}"] = value
        state = {
            "step": self.step,
            "first_loss": self.first_loss,
            "picked_step": self.picked_step,
            "history": [asdict(row) for row in self.history],
            "predictions": {step: said.bags.tolist() for step, said in self.predictions.items()},
        }
        tensors |= {
            f"segments.{step}": torch.from_numpy(said.segments)
            for step, said in self.predictions.items()
        }
        contiguous = {name: value.cpu().contiguous().clone() for name, value in tensors.items()}
        with replacing(self.file) as temporary:
            save_file(contiguous, temporary, metadata={"state": json.dumps(state)})

    def _restore(self) -> None:
        with safe_open(self.file, framework="pt", device=str(self.device)) as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.step = state["step"]
        self.first_loss = state["first_loss"]
        self.picked_step = state["picked_step"]
        self.history = [Evaluation(**row) for row in state["history"]]
        segments = _under("segments.", tensors)
        self.predictions = {
            int(step): _Predictions(np.array(of_bags), segments[step].cpu().numpy())
            for step, of_bags in state["predictions"].items()
        }
        self.network.load_state_dict(_under("network.", tensors))
        self.picked_weights = _under("picked.", tensors)
        if self.average is not None:
            self.average.load_state_dict(_under("average.", tensors))
        for name, parameter in self.network.named_parameters():
            self.optimizer.state[parameter] = {
                slot: tensors[f"adam.{slot}.{name}"] for slot in ("step", "exp_avg", "exp_avg_sq")
            }


def _followed(decay: float, average: Tensor, value: Tensor, updates: Tensor | int) -> Tensor:
    """A moving average after one more value; it forgets faster while it is young."""
    if not average.is_floating_point():
        return value
    reached = int(updates)
    return torch.lerp(value, average, min(decay, (1 + reached) / (10 + reached)))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _new_network(bags: Bags, params: TrainingParams) -> TevadNetwork:
    visual_dim = None if bags.visual is None else bags.visual.shape[-1]
    text_dim = None if bags.text is None else bags.text.shape[-1]
    return TevadNetwork(params, visual_dim, text_dim)


def _fit_inputs(network: TevadNetwork, bags: Bags, train: IntArray) -> None:
    """Fit the input statistics on the training part's bags."""
    for array, name in ((bags.visual, "visual_input"), (bags.text, "text_input")):
        if array is not None:
            feature_input: FeatureInput = getattr(network, name)
            feature_input.fit(fitting_rows(array, train))


def fitting_rows(
    array: FloatFeatures, bags: IntArray, at_once: int = _ROWS_AT_ONCE
) -> Iterator[Tensor]:
    """The segments of several bags at a time as rows: float32 of (bags × crops × segments, dim).

    Args:
        array: (B, …, segments, dim), of all bags.
        bags: indices of those that are wanted.
        at_once: rows at a time, but at least one bag's.
    """
    together = max(1, at_once // math.prod(array.shape[1:-1]))
    for start in range(0, len(bags), together):
        values = array[bags[start : start + together]].astype(np.float32)
        yield torch.from_numpy(values.reshape(-1, values.shape[-1]))


def _tensor(array: FloatFeatures | None, bags: IntArray, device: torch.device) -> Tensor | None:
    return None if array is None else torch.from_numpy(array[bags]).to(device).float()


def _step_seed(seed: int, step: int) -> int:
    """A seed for one step's random numbers; step 0 is the initial weights."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic kernels and a random state of our own; both are put back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)
