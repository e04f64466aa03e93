"""Tiny models of the full-size classes, with random weights, saved as the hub has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


WORDS = [
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


def tiny_bert(folder: Path) -> Path:
    """A BERT with a tokenizer of a small vocabulary."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(4)
    tokenizer = _tokenizer()
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **_TRANSFORMER)
    _unsettle(BertModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_git(folder: Path, *, frames: int | None = 6) -> Path:
    """A GIT that captions so many frames of a video, or one picture, and its processor."""
    from transformers import CLIPImageProcessorPil, GitConfig, GitForCausalLM, GitProcessor

    torch.manual_seed(5)
    tokenizer = _tokenizer()
    config = GitConfig(
        vision_config={"image_size": SIDE, "patch_size": 16, **_TRANSFORMER},
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        num_image_with_embedding=frames,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **_TRANSFORMER,
    )
    model = _unsettle(GitForCausalLM(config))
    model.save_pretrained(folder)
    size, crop = {"shortest_edge": SIDE}, {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=size, crop_size=crop)
    GitProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def tiny_blip(folder: Path) -> Path:
    """A BLIP that captions a picture, and its processor."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessorPil,
        BlipProcessor,
    )

    torch.manual_seed(6)
    tokenizer = _tokenizer()
    config = BlipConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "encoder_hidden_size": WIDTH,
            "projection_dim": WIDTH,
            "max_position_embeddings": 64,
            "bos_token_id": tokenizer.cls_token_id,
            "eos_token_id": tokenizer.sep_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **_TRANSFORMER,
        },
        vision_config={"image_size": SIDE, "patch_size": 16, **_TRANSFORMER},
        projection_dim=WIDTH,
        image_text_hidden_size=WIDTH,
    )
    _unsettle(BlipForConditionalGeneration(config)).save_pretrained(folder)
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def _tokenizer(*special: str) -> Any:
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *WORDS]
    tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def tiny_llava(folder: Path) -> Path:
    """A LLaVA that answers what it is asked of a picture, and its processor with a chat's form."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(7)
    tokenizer = _tokenizer("<image>")
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=SIDE, patch_size=16, **_TRANSFORMER),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **_TRANSFORMER,
        ),
        image_token_index=image,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    _unsettle(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    size, crop = {"shortest_edge": SIDE}, {"height": SIDE, "width": SIDE}
    LlavaProcessor(
        CLIPImageProcessorPil(size=size, crop_size=crop),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{% for c in m.content %}"
        "{% if c.type == 'image' %}<image> {% else %}{{ c.text }}{% endif %}"
        "{% endfor %}{% endfor %} .",
    ).save_pretrained(folder)
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
