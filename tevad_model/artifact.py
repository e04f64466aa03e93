"""A trained model as a value, and its folder on disk: ``model.safetensors`` and ``model.json``.

What a folder holds, how it is read back, and what a model refuses to be fed. No training and no
scoring. The same model always gives the same bytes, and nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tevad_model import __version__
from tevad_model.atomic import replacing
from tevad_model.config import TrainingParams
from tevad_model.errors import InputError, MismatchError
from tevad_model.fingerprint import Fingerprint
from tevad_model.network import TevadNetwork
from tevad_model.timeline import SNIPPET_FRAMES

ARTIFACT_FORMAT = 1
"""Version of the folder's layout. Others are refused."""

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"


@dataclass(frozen=True)
class Model:
    """A trained network with all that scoring needs to know of it.

    Attributes:
        network: in evaluation mode.
        params: what it was trained with.
        seed: the seed it was trained with.
        step: the training step its weights are of.
        crops: crops of its training videos; None for text alone. Scoring takes any number.
        threshold: the score from which a video was best called abnormal on validation videos;
            0.5 where there were none.
        validated: how the step was picked: ``holdout``, ``cross_validation`` or ``last``.
        metrics: figures by name, such as the validation AUC.
        fingerprints: of the encoders whose features it reads, by kind (``visual``, ``caption``,
            ``sentence``).
    """

    network: TevadNetwork
    params: TrainingParams
    seed: int
    step: int
    crops: int | None = None
    threshold: float = 0.5
    validated: str = "last"
    metrics: Mapping[str, float] = field(default_factory=dict)
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict)

    @property
    def visual_dim(self) -> int | None:
        """Features of a crop; None if the model reads text alone."""
        return self.network.visual_dim

    @property
    def text_dim(self) -> int | None:
        """Length of a text embedding; None if the model reads pixels alone."""
        return self.network.text_dim

    def with_card(
        self,
        *,
        fingerprints: Mapping[str, Fingerprint] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Model:
        """The same model with encoders' fingerprints or further metrics written on its card."""
        return replace(
            self,
            fingerprints={**self.fingerprints, **(fingerprints or {})},
            metrics={**self.metrics, **(metrics or {})},
        )


def save(model: Model, folder: Path) -> None:
    """Write the model's two files into a folder, each whole or not at all; the card comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.cpu().contiguous() for name, tensor in model.network.state_dict().items()
    }
    with replacing(folder / WEIGHTS_FILE) as temporary:
        save_file(weights, temporary)
    card = json.dumps(_card(model), indent=2, sort_keys=True)
    with replacing(folder / CARD_FILE) as temporary:
        temporary.write_text(card + "\n", encoding="utf-8")


def load(folder: Path, device: torch.device | str = "cpu") -> Model:
    """Read a model back, ready to score.

    Raises:
        InputError: if a file is missing or broken, or of an unknown format version.
        MismatchError: if the weights do not have the shapes the card calls for; every one is
            listed.
    """
    card = _read_card(folder / CARD_FILE)
    try:
        params = TrainingParams.model_validate(card["params"])
        network = TevadNetwork(params, card["visual_dim"], card["text_dim"])
        model = Model(
            network=network,
            params=params,
            seed=card["seed"],
            step=card["step"],
            crops=card["crops"],
            threshold=card["threshold"],
            validated=card["validated"],
            metrics=card["metrics"],
            fingerprints={kind: Fingerprint(parts) for kind, parts in card["fingerprints"].items()},
        )
    except (KeyError, ValidationError) as error:
        raise InputError(f"{folder / CARD_FILE}: {error}; save the model anew") from error
    weights = _read_weights(folder / WEIGHTS_FILE)
    _check_weights(folder, weights, network.state_dict())
    network.load_state_dict(weights)
    network.eval().to(device)
    return model


def check_fits(
    model: Model,
    what: str,
    *,
    visual_dim: int | None = None,
    text_dim: int | None = None,
    fingerprints: Mapping[str, Fingerprint] | None = None,
    snippet_frames: int = SNIPPET_FRAMES,
) -> None:
    """See that features fit the model they are to be scored with. Only what it reads is compared.

    Args:
        model: the model.
        what: what is being done, such as ``"scoring ped2 with models:/tevad-ped2/3"``.
        visual_dim: of the features at hand.
        text_dim: of the features at hand.
        fingerprints: of the encoders that made them, by kind. None leaves them out.
        snippet_frames: frames of a snippet of the features at hand.

    Raises:
        MismatchError: listing every difference.
    """
    differences = []
    for name, own, given in (
        ("visual dim", model.visual_dim, visual_dim),
        ("text dim", model.text_dim, text_dim),
    ):
        if own is not None and own != given:
            differences.append(f"{name}: the model reads {own}, the features have {given}")
    if snippet_frames != SNIPPET_FRAMES:
        differences.append(
            f"snippet length: the model reads {SNIPPET_FRAMES} frames, the features have "
            f"{snippet_frames}"
        )
    if fingerprints is not None:
        for kind, own_print in sorted(model.fingerprints.items()):
            other = fingerprints.get(kind)
            if other is None:
                differences.append(
                    f"{kind} encoder: the model was trained with {own_print}, none given"
                )
            else:
                differences += [f"{kind} encoder, {line}" for line in own_print.differences(other)]
    if differences:
        raise MismatchError(
            what,
            differences,
            "Encode the videos with the model's encoders, or train a model on these features.",
        )


def _card(model: Model) -> dict[str, Any]:
    return {
        "format": ARTIFACT_FORMAT,
        "code_version": __version__,
        "snippet_frames": SNIPPET_FRAMES,
        "params": model.params.model_dump(mode="json"),
        "visual_dim": model.visual_dim,
        "text_dim": model.text_dim,
        "crops": model.crops,
        "seed": model.seed,
        "step": model.step,
        "threshold": model.threshold,
        "validated": model.validated,
        "metrics": dict(model.metrics),
        "fingerprints": {kind: value.parts for kind, value in model.fingerprints.items()},
    }


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give the folder of a saved model") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); save the model anew") from error
    version = card.get("format") if isinstance(card, dict) else None
    if version != ARTIFACT_FORMAT:
        raise InputError(
            f"{path}: format {version!r} is unknown to this version, which reads "
            f"{ARTIFACT_FORMAT}; load it with the version that saved it, or train anew"
        )
    if card.get("snippet_frames") != SNIPPET_FRAMES:
        raise MismatchError(
            f"loading {path.parent}",
            [f"snippet_frames: {card.get('snippet_frames')} in the model, {SNIPPET_FRAMES} here"],
            "Train a model with this version.",
        )
    return dict(card)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give the folder of a saved model") from error
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read ({error}); save the model anew") from error


def _check_weights(
    folder: Path, found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    def shape(tensors: Mapping[str, torch.Tensor], name: str) -> str:
        return str(tuple(tensors[name].shape)) if name in tensors else "absent"

    differences = [
        f"{name}: {shape(found, name)} in {WEIGHTS_FILE}, {shape(wanted, name)} by {CARD_FILE}"
        for name in sorted(found.keys() | wanted.keys())
        if shape(found, name) != shape(wanted, name)
    ]
    if differences:
        raise MismatchError(
            f"loading {folder}", differences, "The two files are not of one model: save it anew."
        )
