"""The whole way from a video file to snippet scores, as one folder and one value.

A pipeline is a trained model together with the encoders whose features it was trained on, named by
their cards. What was ready-made in training comes with each video here. Its folder::

    model.safetensors, model.json   the model (:mod:`tevad_model.artifact`)
    pipeline.json                   the cards, and how pixels are read
    validation.json                 what validation said of videos, if there was one
    <kind>/                         weights of an encoder that were made here, by tuning

Other encoders are not kept in the folder but built anew; one that would encode otherwise than in
training is refused.

Belongs here: joining decoder, encoders and network. Doesn't: what any of them computes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from tevad_model import artifact, encoders, timeline, video
from tevad_model.alerts import VALIDATION_FILE, ValidationVideo, read_validation
from tevad_model.artifact import Model
from tevad_model.atomic import replacing
from tevad_model.bags import FloatFeatures, VideoFeatures
from tevad_model.config import Modality
from tevad_model.encoders.base import (
    CaptionEncoder,
    Features,
    Frame,
    SentenceEncoder,
    VisualEncoder,
)
from tevad_model.encoders.card import EncoderCard, pixel_fingerprint
from tevad_model.errors import InputError, MismatchError, VideoError
from tevad_model.explain import ExplainedSnippet, explain, score_without_each
from tevad_model.fingerprint import Fingerprint
from tevad_model.ready_made import ASSUMED_FPS, CAPTIONS, EMBEDDINGS, FEATURES, TOLERANCE, fit
from tevad_model.scoring import LeaveOut, SnippetScores, score
from tevad_model.timeline import FloatArray
from tevad_model.video import FrameStream

PIPELINE_FORMAT = 1
"""Version of ``pipeline.json``. Others are refused."""

PIPELINE_FILE = "pipeline.json"

_Encoder = TypeVar("_Encoder")

_READS: dict[Modality, tuple[str, ...]] = {
    "both": ("visual", "caption", "sentence"),
    "visual": ("visual",),
    "text": ("caption", "sentence"),
}

_READY_MADE = {"visual": FEATURES, "caption": CAPTIONS, "sentence": EMBEDDINGS}
"""What takes the place of an encoder's output, by the encoder's kind."""


@dataclass(frozen=True)
class ReadyMade:
    """What was made of a video elsewhere.

    Attributes:
        features: (snippets, crops, dim), or None.
        embeddings: (snippets, dim), or None.
        captions: one a snippet, or None.
    """

    features: FloatFeatures | None = None
    embeddings: FloatFeatures | None = None
    captions: Sequence[str] | None = None

    def snippets(self) -> int:
        """Snippets of the longest part."""
        parts = (self.features, self.embeddings, self.captions)
        return max(len(part) for part in parts if part is not None)

    def fitted(self, snippets: int, video: str) -> ReadyMade:
        """Brought to a video's snippets.

        Raises:
            VideoError: if a part is longer or shorter by more than
                :data:`tevad_model.ready_made.TOLERANCE`.
        """
        fitted: dict[str, Any] = {}
        for name in (FEATURES, EMBEDDINGS, CAPTIONS):
            part = getattr(self, name)
            if part is not None and abs(len(part) - snippets) > TOLERANCE:
                raise VideoError(
                    f"{video}: {snippets} snippets, but {name} of {len(part)}; "
                    "make all of them from the same video at the same frame rate"
                )
            if part is not None:
                fitted[name] = fit(np.asarray(part), snippets)
        if CAPTIONS in fitted:
            fitted[CAPTIONS] = fitted[CAPTIONS].tolist()
        return ReadyMade(**fitted)


@dataclass(frozen=True)
class VideoScores:
    """What a pipeline says of one video.

    Attributes:
        video: the path it was read from, or the name it was given without pixels.
        frames: frames it really has; without pixels, those of its snippets.
        fps: frames a second; without pixels, as given.
        captions: one a snippet; empty strings if the pipeline has no captioner.
        scores: (snippets,) in [0, 1].
        magnitudes: (snippets,) feature magnitudes.
        without: scores with a modality left out, if they were asked for.
    """

    video: str
    frames: int
    fps: float
    captions: tuple[str, ...]
    scores: FloatArray
    magnitudes: FloatArray
    without: Mapping[LeaveOut, SnippetScores] = field(default_factory=dict)

    @property
    def frame_scores(self) -> FloatArray:
        """Each frame its snippet's score: (frames,)."""
        return timeline.frame_values(self.scores, self.frames)

    def snippets(self) -> Iterator[dict[str, Any]]:
        """A row a snippet: ``snippet, start_frame, end_frame, score, magnitude, caption``."""
        for snippet, caption in enumerate(self.captions):
            start, end = timeline.snippet_range(snippet, self.frames)
            yield {
                "snippet": snippet,
                "start_frame": start,
                "end_frame": end,
                "score": float(self.scores[snippet]),
                "magnitude": float(self.magnitudes[snippet]),
                "caption": caption,
            }

    def explained(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[ExplainedSnippet, ...]]:
        """The snippets that explain ranges of frames (:func:`tevad_model.explain.explain`)."""
        return explain(
            ranges,
            SnippetScores(self.scores, self.magnitudes),
            self.without,
            frames=self.frames,
            captions=self.captions,
        )


@dataclass(frozen=True)
class Pipeline:
    """A trained model and the encoders that feed it.

    Attributes:
        model: the model.
        max_side: limit of the frames' longer side in pixels; None for none.
        visual: None if the model reads text alone.
        captioner: what the model reads, or what explains a model that reads pixels alone; None if
            its training knew no captions.
        sentence: None if the model reads pixels alone.
        ready_made: cards of what was ready-made in training, by kind of encoder.
        validation: the videos the model was validated on, by models that did not train on them.
    """

    model: Model
    max_side: int | None
    visual: VisualEncoder | None = None
    captioner: CaptionEncoder | None = None
    sentence: SentenceEncoder | None = None
    ready_made: Mapping[str, EncoderCard] = field(default_factory=dict)
    validation: tuple[ValidationVideo, ...] = ()

    @property
    def reads_pixels(self) -> bool:
        """Whether a video's pictures are needed."""
        return self.visual is not None or self.captioner is not None

    @property
    def takes(self) -> tuple[str, ...]:
        """The ready-made parts that must come with a video."""
        return _taken(self.ready_made)

    @classmethod
    def load(cls, folder: Path, cache: Path, *, at_once: bool = False) -> Self:
        """Read a pipeline's folder and build its encoders.

        Args:
            folder: what :func:`write` made.
            cache: a folder for what encoders can make again, such as an exported network.
            at_once: whether encoders give each result as soon as they can, for live streams, rather
                than in batches, which is faster for files.

        Raises:
            InputError: if a file is missing, broken or of an unknown format version, or an encoder
                cannot be built here.
            MismatchError: if an encoder built here encodes otherwise than the one in training;
                every difference is listed.
        """
        cards, max_side = _read(folder / PIPELINE_FILE)
        model = artifact.load(folder)
        _check_complete(model, cards, folder)
        builder = _Builder(cards, folder, cache, at_once)
        pipeline = cls(
            model,
            max_side,
            visual=builder.built(encoders.build_visual, "visual", encoders.VISUAL),
            captioner=builder.built(encoders.build_caption, "caption", encoders.CAPTION),
            sentence=builder.built(encoders.build_sentence, "sentence", encoders.SENTENCE),
            ready_made={kind: card for kind, card in cards.items() if card.is_ready_made},
            validation=read_validation(folder / VALIDATION_FILE),
        )
        pipeline._check_encoders(cards, folder)
        return pipeline

    def score_video(
        self, path: Path, ready_made: ReadyMade | None = None, *, explain: bool = False
    ) -> VideoScores:
        """Score a video file.

        Its pictures are decoded once for the visual encoder and the captioner, which run side by
        side. Before that the file is read through to see that it is whole and how fast it plays,
        which captions depend on. Features have the precision in which the stages keep them: a
        video's scores differ from those of its dataset's evaluation by no more than the rounding
        of float32 in batches of another size.

        Args:
            path: the file.
            ready_made: the parts that the pipeline takes besides (:attr:`takes`).
            explain: whether to score with each modality left out, too.

        Raises:
            InputError: if a ready-made part that the pipeline takes is missing.
            VideoError: if the video cannot be read or encoded, with the reason.
        """
        given = self._taken(ready_made or ReadyMade(), str(path))
        info = video.probe(path)
        features, captions = self._encode(path, info.fps)
        due = timeline.snippet_count(info.frames)
        for name, rows in (("features", features), ("captions", captions)):
            if rows is not None and len(rows) != due:
                raise VideoError(
                    f"{path}: {name} of {len(rows)} snippets, but {info.frames} frames have {due}"
                )
        given = given.fitted(due, str(path))
        encoded = ReadyMade(
            given.features if features is None else features,
            given.embeddings,
            given.captions if captions is None else captions,
        )
        return self._score(str(path), encoded, info.frames, info.fps, explain=explain)

    def score_ready_made(
        self,
        name: str,
        ready_made: ReadyMade,
        *,
        fps: float = ASSUMED_FPS,
        explain: bool = False,
    ) -> VideoScores:
        """Score a video of which there are no pixels, by what was made of it elsewhere.

        Args:
            name: the video's.
            ready_made: the parts that the pipeline takes (:attr:`takes`); snippets by which they
                differ are reconciled as in training.
            fps: frames a second.
            explain: whether to score with each modality left out, too.

        Raises:
            InputError: if the pipeline reads pixels, or a part that it takes is missing.
            VideoError: if the parts are of different lengths or not finite.
            MismatchError: if their dimensions are not the model's.
        """
        if self.reads_pixels:
            raise InputError(f"{name}: the model reads pixels; give the video's file")
        given = self._taken(ready_made, name)
        snippets = given.snippets()
        frames = snippets * timeline.SNIPPET_FRAMES
        return self._score(name, given.fitted(snippets, name), frames, fps, explain=explain)

    def _taken(self, ready_made: ReadyMade, name: str) -> ReadyMade:
        """The parts the pipeline takes, and no others."""
        parts = {kind: getattr(ready_made, kind) for kind in self.takes}
        if missing := [kind for kind, part in parts.items() if part is None]:
            raise InputError(
                f"{name}: the model was trained on ready-made {' and '.join(self.takes)}; "
                f"give its {' and '.join(missing)}"
            )
        return ReadyMade(**parts)

    def _score(
        self, name: str, encoded: ReadyMade, frames: int, fps: float, *, explain: bool
    ) -> VideoScores:
        embeddings = encoded.embeddings
        if embeddings is None:
            embeddings = self._embed(encoded.captions)
        features = VideoFeatures(encoded.features, embeddings)
        scored = score(self.model, features.visual, features.text, video=name)
        return VideoScores(
            video=name,
            frames=frames,
            fps=fps,
            captions=tuple(encoded.captions or [""] * len(scored.scores)),
            scores=scored.scores,
            magnitudes=scored.magnitudes,
            without=score_without_each(self.model, name, features) if explain else {},
        )

    def _encode(
        self, path: Path, fps: float
    ) -> tuple[npt.NDArray[np.float16] | None, list[str] | None]:
        """Visual features (snippets, crops, dim) and captions, of those that there are encoders for."""
        tasks: dict[str, Callable[[FrameStream], Any]] = {}
        if self.visual is not None:
            tasks["features"] = partial(_features, self.visual)
        if self.captioner is not None:
            tasks["captions"] = partial(_captions, self.captioner, fps)
        results = _side_by_side(video.frames(path, max_side=self.max_side), tasks)
        return results.get("features"), results.get("captions")

    def _embed(self, captions: Sequence[str] | None) -> Features | None:
        """Sentence embeddings, (snippets, dim) float32; each distinct caption is embedded once."""
        if self.sentence is None or captions is None:
            return None
        distinct = sorted(set(captions))
        embedded = dict(zip(distinct, self.sentence.embed(distinct), strict=True))
        return np.stack([embedded[caption] for caption in captions])

    def _check_encoders(self, cards: Mapping[str, EncoderCard], folder: Path) -> None:
        """See that the encoders are those of the cards, and the cards those of the model."""
        built = self._fingerprints()
        differences = [
            f"{kind} encoder, {line}"
            for kind, card in sorted(cards.items())
            for line in card.fingerprint.differences(built[kind])
        ]
        if differences:
            raise MismatchError(
                f"loading {folder}, the model's encoders against those installed here",
                differences,
                "Install the versions the model was trained with, or train a model with these.",
            )
        artifact.check_fits(
            self.model,
            f"loading {folder}",
            visual_dim=self.visual.dim if self.visual else self.model.visual_dim,
            text_dim=self.sentence.dim if self.sentence else self.model.text_dim,
            fingerprints=built,
        )

    def _fingerprints(self) -> dict[str, Fingerprint]:
        """Of the encoders as they are here, by kind."""
        prints = {kind: card.fingerprint for kind, card in self.ready_made.items()}
        if self.visual is not None:
            prints["visual"] = pixel_fingerprint(self.visual.fingerprint, self.max_side)
        if self.captioner is not None:
            prints["caption"] = pixel_fingerprint(self.captioner.fingerprint, self.max_side)
        if self.sentence is not None:
            prints["sentence"] = self.sentence.fingerprint
        return prints


def write(
    folder: Path,
    model_folder: Path,
    cards: Mapping[str, EncoderCard],
    max_side: int | None,
    own_weights: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Make a pipeline's folder. ``pipeline.json`` comes last: without it the folder does not load.

    Args:
        folder: the folder to make.
        model_folder: a saved model (:func:`tevad_model.artifact.save`), and where there is one
            what its validation said.
        cards: of the encoders by kind (``visual``, ``caption``, ``sentence``): all that the model
            reads, and the captioner also for a model that reads pixels alone, if there is one.
        max_side: limit of the longer side of the frames the encoders saw.
        own_weights: folders of the weights by kind, for encoders that have their own; others are
            not looked at.

    Raises:
        InputError: if the model cannot be read.
        MismatchError: if the cards are not of the encoders the model was trained with.
    """
    model = artifact.load(model_folder)
    _check_complete(model, cards, model_folder)
    artifact.check_fits(
        model,
        f"making a pipeline of {model_folder}",
        visual_dim=model.visual_dim,
        text_dim=model.text_dim,
        fingerprints={kind: card.fingerprint for kind, card in cards.items()},
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name in (artifact.WEIGHTS_FILE, artifact.CARD_FILE):
        shutil.copyfile(model_folder / name, folder / name)
    if (model_folder / VALIDATION_FILE).is_file():
        shutil.copyfile(model_folder / VALIDATION_FILE, folder / VALIDATION_FILE)
    for kind, card in cards.items():
        if card.own_weights:
            shutil.copytree(own_weights[kind], folder / kind, dirs_exist_ok=True)
    content = {
        "format": PIPELINE_FORMAT,
        "max_side": max_side,
        "encoders": {kind: card.to_json() for kind, card in cards.items()},
    }
    with replacing(folder / PIPELINE_FILE) as temporary:
        text = json.dumps(content, indent=2, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def ready_made_kinds(folder: Path) -> tuple[str, ...]:
    """What a pipeline's folder says it takes besides videos (:attr:`Pipeline.takes`).

    Raises:
        InputError: as :meth:`Pipeline.load`.
    """
    cards, _ = _read(folder / PIPELINE_FILE)
    return _taken(kind for kind, card in cards.items() if card.is_ready_made)


def _taken(ready_made: Iterable[str]) -> tuple[str, ...]:
    kinds = set(ready_made)
    return tuple(part for kind, part in _READY_MADE.items() if kind in kinds)


def _read(path: Path) -> tuple[dict[str, EncoderCard], int | None]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the folder of a pipeline") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); register the model anew") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version != PIPELINE_FORMAT:
        raise InputError(
            f"{path}: format {version!r} is unknown to this version, which reads "
            f"{PIPELINE_FORMAT}; load it with the version that wrote it, or register the model anew"
        )
    cards = {kind: EncoderCard.from_json(card) for kind, card in content["encoders"].items()}
    return cards, content["max_side"]


def _check_complete(model: Model, cards: Mapping[str, EncoderCard], folder: Path) -> None:
    modality = model.params.modality
    sentence = cards.get("sentence")
    missing = [
        kind
        for kind in _READS[modality]
        if kind not in cards
        # Ready-made embeddings were made of captions that nobody here needs to know.
        and not (kind == "caption" and sentence and sentence.is_ready_made)
    ]
    if missing:
        raise MismatchError(
            f"the pipeline of {folder}",
            [f"{kind} encoder: modality {modality!r} reads it, none is given" for kind in missing],
            "Give the cards of the encoders the model was trained with.",
        )


@dataclass(frozen=True)
class _Builder:
    """Builds the encoders that cards name."""

    cards: Mapping[str, EncoderCard]
    folder: Path
    cache: Path
    at_once: bool

    def built(
        self,
        build: Callable[[str, Mapping[str, Any], Path], _Encoder],
        name: str,
        kind: encoders.Kind,
    ) -> _Encoder | None:
        """The encoder of a card; None if there is no card, or what it made was ready-made."""
        card = self.cards.get(name)
        if card is None or card.is_ready_made:
            return None
        options = card.options_with(self.folder / name)
        options = encoders.as_made(kind, card.backend, options, card.fingerprint)
        if self.at_once:
            options = encoders.at_once(kind, card.backend, options)
        return build(card.backend, options, self.cache)


def _features(encoder: VisualEncoder, stream: FrameStream) -> npt.NDArray[np.float16]:
    """(snippets, crops, dim), rounded as the stage snippet_features keeps them."""
    return np.concatenate(list(encoder.encode(stream))).astype(np.float16)


def _captions(captioner: CaptionEncoder, fps: float, stream: FrameStream) -> list[str]:
    return list(captioner.caption(stream, fps))


def _side_by_side(
    frames: Iterator[Frame], tasks: Mapping[str, Callable[[FrameStream], Any]]
) -> dict[str, Any]:
    """Feed several tasks, each in a thread of its own, from one pass over the frames.

    The first error of a task, or of the frames' source, ends the others and is raised.
    """
    streams = video.broadcast(frames, len(tasks))
    # The streams close first: that ends the tasks still running, which the pool then waits for.
    with ThreadPoolExecutor(len(tasks), "encoder") as pool, ExitStack() as reading:
        running = {
            name: pool.submit(task, reading.enter_context(stream))
            for (name, task), stream in zip(tasks.items(), streams, strict=True)
        }
        ended, _ = wait(running.values(), return_when=FIRST_EXCEPTION)
        for future in ended:
            future.result()
        return {name: future.result() for name, future in running.items()}
