"""Tiny models of the full-size classes, with random weights, saved as the hub has them."""

from __future__ import annotations

from pathlib import Path

import torch

SIDE = 32
WIDTH = 16
"""Of every hidden layer, unless a model wants another."""

_TRANSFORMER = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 2 * WIDTH,
}


def tiny_videomae(folder: Path, *, classifier: bool = True) -> Path:
    """A VideoMAE of 16 frames and its processor."""
    from transformers import (
        VideoMAEConfig,
        VideoMAEForVideoClassification,
        VideoMAEImageProcessorPil,
        VideoMAEModel,
    )

    torch.manual_seed(1)
    config = VideoMAEConfig(
        image_size=SIDE, patch_size=16, num_frames=16, tubelet_size=2, num_labels=3, **_TRANSFORMER
    )
    made = (VideoMAEForVideoClassification if classifier else VideoMAEModel)(config)
    _unsettle(made).save_pretrained(folder)
    _processor(VideoMAEImageProcessorPil, folder)
    return folder


def tiny_timesformer(folder: Path) -> Path:
    """A TimeSformer of 8 frames and its processor, which is VideoMAE's."""
    from transformers import (
        TimesformerConfig,
        TimesformerForVideoClassification,
        VideoMAEImageProcessorPil,
    )

    torch.manual_seed(2)
    config = TimesformerConfig(
        image_size=SIDE, patch_size=16, num_frames=8, num_labels=3, **_TRANSFORMER
    )
    _unsettle(TimesformerForVideoClassification(config)).save_pretrained(folder)
    _processor(VideoMAEImageProcessorPil, folder)
    return folder


def tiny_vjepa2(folder: Path, *, classifier: bool = True) -> Path:
    """A V-JEPA 2 of 64 frames; its processor needs torchvision, so only what it says is there."""
    import json

    from transformers import VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2Model

    torch.manual_seed(3)
    config = VJEPA2Config(
        crop_size=SIDE,
        patch_size=16,
        frames_per_clip=64,
        hidden_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
        mlp_ratio=2,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        num_pooler_layers=1,
        num_labels=3,
    )
    made = (VJEPA2ForVideoClassification if classifier else VJEPA2Model)(config)
    _unsettle(made).save_pretrained(folder)
    said = {
        "size": {"shortest_edge": int(SIDE * 256 / 224)},
        "crop_size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "video_processor_type": "VJEPA2VideoProcessor",
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(said))
    return folder


def _unsettle(model: torch.nn.Module) -> torch.nn.Module:
    """Widen the weights, which start so small that a tiny model says nearly the same of everything."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def _processor(processor: type, folder: Path) -> None:
    size, crop = {"shortest_edge": SIDE}, {"height": SIDE, "width": SIDE}
    processor(size=size, crop_size=crop).save_pretrained(folder)


def tiny_bert(folder: Path) -> Path:
    """A BERT with a tokenizer of a small vocabulary."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(4)
    words = [
        "a",
        "man",
        "woman",
        "car",
        "dog",
        "runs",
        "walks",
        "falls",
        "fights",
        "in",
        "the",
        "street",
        "alone",
        "two",
        "people",
    ]
    vocabulary = {
        word: index
        for index, word in enumerate(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words]
        )
    }
    tokenizer = BertTokenizerFast(vocab=vocabulary)
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **_TRANSFORMER)
    _unsettle(BertModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
