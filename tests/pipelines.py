"""Rendered clips with what the stages make of them, and pipelines that were trained on that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tevad_model import artifact, encoders, pipeline, render, training, video
from tevad_model.bags import VideoExample
from tevad_model.config import Modality, TrainingParams
from tevad_model.encoders.base import Features
from tevad_model.encoders.card import EncoderCard, pixel_fingerprint

MAX_SIDE = 160
VISUAL = ("efficientnet-lite0", {"crops": 5, "side": 96})
CAPTION = ("motion", {"samples_a_second": 4.0})
SENTENCE = ("sentence-transformers", {"model": "embedded"})


@dataclass(frozen=True)
class Stored:
    """What the stages keep of one video."""

    path: Path
    features: npt.NDArray[np.float16]
    captions: list[str]
    embeddings: Features


@dataclass(frozen=True)
class World:
    """Rendered clips with their stored features, and the cards of what made them."""

    folder: Path
    cache: Path
    clips: dict[str, Stored]
    cards: dict[str, EncoderCard]

    def pipeline(self, modality: Modality, kinds: Iterable[str]) -> Path:
        """The folder of a pipeline that reads a modality, with the encoders of some kinds."""
        folder = self.folder / "-".join((modality, *kinds))
        if not folder.exists():
            cards = {kind: self.cards[kind] for kind in kinds}
            pipeline.write(folder, self.model(modality), cards, MAX_SIDE)
        return folder

    def model(self, modality: Modality) -> Path:
        """The folder of a trained model."""
        folder = self.folder / f"model-{modality}"
        if not folder.exists():
            reads = {"both": self.cards, "visual": ["visual"], "text": ["caption", "sentence"]}
            fingerprints = {kind: self.cards[kind].fingerprint for kind in reads[modality]}
            trained = self._train(modality)
            artifact.save(trained.with_card(fingerprints=fingerprints), folder)
        return folder

    def _train(self, modality: Modality) -> artifact.Model:
        params = TrainingParams(
            modality=modality,
            visual_projection=None if modality == "text" else 8,
            segments=4,
            batch_size=2,
            iterations=4,
            evaluate_every=4,
            selection="last",
        )
        examples = [
            VideoExample.from_arrays(name, index % 2 == 1, clip.features, clip.embeddings)
            for index, (name, clip) in enumerate(self.clips.items())
        ]
        work = self.folder / f"work-{modality}"
        return training.train(examples, params, seed=0, work_dir=work).picked


def build_world(folder: Path, cache: Path) -> World:
    """Render clips, encode them, and keep what the stages would keep."""
    render.render(folder / "raw", train=2, test=2, lengths=(48, 70))
    visual = encoders.build_visual(*VISUAL, cache)
    captioner = encoders.build_caption(*CAPTION, cache)
    sentence = encoders.build_sentence(*SENTENCE, cache)
    clips = {}
    for path in sorted((folder / "raw" / "videos").glob("*.mp4")):
        frames = list(video.frames(path, max_side=MAX_SIDE))
        features = np.concatenate(list(visual.encode(frames))).astype(np.float16)
        captions = list(captioner.caption(frames, video.probe(path).fps))
        distinct = sorted(set(captions))
        embedded = dict(zip(distinct, sentence.embed(distinct), strict=True))
        embeddings = np.stack([embedded[caption] for caption in captions])
        clips[path.stem] = Stored(path, features, captions, embeddings)
    cards = {
        "visual": EncoderCard(*VISUAL, pixel_fingerprint(visual.fingerprint, MAX_SIDE)),
        "caption": EncoderCard(*CAPTION, pixel_fingerprint(captioner.fingerprint, MAX_SIDE)),
        "sentence": EncoderCard(*SENTENCE, sentence.fingerprint),
    }
    return World(folder, cache, clips, cards)
