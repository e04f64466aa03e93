"""Model folders: what comes back, what is refused, and that bytes are the model's alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tevad_model.artifact import CARD_FILE, WEIGHTS_FILE, Model, check_fits, load, save
from tevad_model.config import TrainingParams
from tevad_model.errors import InputError, MismatchError
from tevad_model.fingerprint import Fingerprint
from tevad_model.network import TevadNetwork


def model(**settings: object) -> Model:
    torch.manual_seed(0)
    params = TrainingParams.model_validate(settings)
    return Model(
        network=TevadNetwork(params, 8, 4).eval(),
        params=params,
        seed=3,
        step=40,
        crops=2,
        threshold=0.25,
        validated="holdout",
        metrics={"validation_auc": 0.75},
        fingerprints={"visual": Fingerprint({"backend": "a", "size": 224})},
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fusion": "add", "text_temporal": False},
        {"modality": "text", "standardize": True},
        {"modality": "visual", "visual_projection": 4},
        {"paper_compat": True, "seeds": (7,)},
    ],
)
def test_a_saved_model_comes_back_the_same(tmp_path: Path, settings: dict[str, object]) -> None:
    saved = model(**settings)
    save(saved, tmp_path)
    loaded = load(tmp_path)
    for name in ("params", "seed", "step", "crops", "threshold", "validated", "metrics"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert loaded.fingerprints == saved.fingerprints
    assert (loaded.visual_dim, loaded.text_dim) == (saved.visual_dim, saved.text_dim)
    assert not loaded.network.training
    weights = loaded.network.state_dict()
    for name, tensor in saved.network.state_dict().items():
        assert torch.equal(weights[name], tensor)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    save(model(), tmp_path / "a")
    save(load(tmp_path / "a"), tmp_path / "b")
    for name in (WEIGHTS_FILE, CARD_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_a_card_can_be_added_to() -> None:
    richer = model().with_card(
        fingerprints={"sentence": Fingerprint({"backend": "b"})}, metrics={"frame_auc": 0.5}
    )
    assert set(richer.fingerprints) == {"visual", "sentence"}
    assert richer.metrics == {"validation_auc": 0.75, "frame_auc": 0.5}


def edit_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps(card | changes))


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    save(model(), tmp_path)
    edit_card(tmp_path, format=99)
    with pytest.raises(InputError, match="format 99 is unknown"):
        load(tmp_path)


def test_another_snippet_length_is_refused(tmp_path: Path) -> None:
    save(model(), tmp_path)
    edit_card(tmp_path, snippet_frames=8)
    with pytest.raises(MismatchError, match="snippet_frames: 8 in the model, 16 here"):
        load(tmp_path)


def test_weights_that_do_not_fit_the_card_are_all_listed(tmp_path: Path) -> None:
    save(model(), tmp_path)
    weights = load_file(tmp_path / WEIGHTS_FILE)
    del weights["head.2.bias"]
    weights["head.2.weight"] = torch.zeros(1, 5)
    weights["extra"] = torch.zeros(2)
    save_file(weights, tmp_path / WEIGHTS_FILE)
    with pytest.raises(MismatchError) as caught:
        load(tmp_path)
    assert [line.split(":")[0] for line in caught.value.differences] == [
        "extra",
        "head.2.bias",
        "head.2.weight",
    ]
    assert "(1, 5) in model.safetensors, (1, 128) by model.json" in caught.value.differences[2]


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CARD_FILE])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_broken_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    save(model(), tmp_path)
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=name):
        load(tmp_path)


def test_a_card_without_a_key_is_refused(tmp_path: Path) -> None:
    save(model(), tmp_path)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    del card["step"]
    (tmp_path / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(InputError, match="step"):
        load(tmp_path)


def test_fitting_inputs_are_let_through() -> None:
    trained = model()
    check_fits(trained, "scoring", visual_dim=8, text_dim=4, fingerprints=trained.fingerprints)
    check_fits(model(modality="visual"), "scoring", visual_dim=8)


def test_unfitting_inputs_are_all_listed() -> None:
    other = {"visual": Fingerprint({"backend": "a", "size": 160})}
    with pytest.raises(MismatchError, match=r"^scoring x: inputs do not fit") as caught:
        check_fits(
            model(), "scoring x", visual_dim=9, text_dim=4, fingerprints=other, snippet_frames=8
        )
    assert caught.value.differences == [
        "visual dim: the model reads 8, the features have 9",
        "snippet length: the model reads 16 frames, the features have 8",
        "visual encoder, size: 224 != 160",
    ]
    with pytest.raises(MismatchError, match="visual encoder: the model was trained with"):
        check_fits(model(), "scoring x", visual_dim=8, text_dim=4, fingerprints={})
