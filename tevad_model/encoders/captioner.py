"""Captions by the image-text models of transformers, one for each 64-frame window.

A *video* captioner (GIT with temporal embeddings, such as the one fine-tuned on VATEX) sees some
frames of the window, an *image* captioner (GIT, BLIP, and any model that takes a picture and a
prompt) the one in its middle. Windows overlap by three quarters: each frame is made into pixels
once, and a video captioner's vision part, which sees every frame by itself, reads it once.

Belongs here: which frames are seen, generation, batching. Doesn't: where the files come from
(:mod:`tevad_model.encoders.hub`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import Field

from tevad_model.encoders import hub
from tevad_model.encoders.base import Frame
from tevad_model.encoders.batching import Batches
from tevad_model.encoders.once import built_once
from tevad_model.encoders.pretrained import ModelOptions, quiet_loading, read_config
from tevad_model.errors import InputError, VideoError
from tevad_model.fingerprint import Fingerprint
from tevad_model.timeline import SNIPPET_FRAMES, WINDOW_FRAMES

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

BACKEND: Final = "transformers"
SECTION: Final = "captions"
CODE_VERSION: Final = 1
"""Raise it when a change of this file changes what :meth:`TransformersCaptioner.caption` yields."""

GENERATION: Final[dict[str, Any]] = {"max_new_tokens": 30, "min_new_tokens": 1, "num_beams": 1}
"""Greedy, and never silent: a snippet without a caption would have no embedding."""


class CaptionerOptions(ModelOptions):
    """Which model captions the snippets, and how."""

    prompt: str | None = Field(
        None,
        description="What an instruction-tuned model is asked, or how a caption is to begin.",
    )
    generation: dict[str, Any] = Field(
        default_factory=dict,
        description="Generation parameters of transformers, over greedy search of 1 to 30 tokens; "
        "sampling is refused, as captions must come out the same again.",
    )
    batch_size: int = Field(
        8, ge=1, le=256, description="Windows captioned at once; halved out of memory."
    )


class TransformersCaptioner:
    """A model of transformers as a :class:`~tevad_model.encoders.base.CaptionEncoder`.

    Args:
        options: which model and how.

    Raises:
        InputError: if the model is not on this machine, says nothing of pictures, lacks its
            processor, or a generation parameter is unknown.
    """

    Options = CaptionerOptions

    def __init__(self, options: CaptionerOptions, _cache: Path | None = None) -> None:
        self.options = options
        self._folder = hub.resolve(options.model, options.revision, SECTION)
        self._config = _captioner_config(self._folder, options)
        self._processor = _processor(self._folder, options)
        self._generation = _generation(options)
        if self._chats and options.prompt is None:
            raise InputError(
                f"{SECTION}.options.prompt: {self._config.model_type} answers instructions; say "
                'what it is asked, such as "Describe in one sentence what the people do."'
            )

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Backend, weights, code version, generation parameters, prompt, frames and precision."""
        return Fingerprint(
            {
                "backend": BACKEND,
                "weights": hub.weights_hash(self._folder),
                "code": CODE_VERSION,
                "generation": {**GENERATION, **self.options.generation},
                "prompt": self.options.prompt,
                "frames": list(self.offsets),
                "dtype": self.options.precision,
            }
        )

    @property
    def offsets(self) -> tuple[int, ...]:
        """The frames of a window that are seen."""
        return sampled_frames(getattr(self._config, "num_image_with_embedding", None) or 1)

    @property
    def _chats(self) -> bool:
        """Whether the model takes its prompt in a chat's form."""
        return getattr(self._processor, "chat_template", None) is not None

    def caption(self, frames: Iterable[Frame], fps: float) -> Iterator[str]:  # noqa: ARG002
        """Yield one sentence a snippet, ``batch_size`` at a time. ``fps`` is not asked.

        Several videos may be captioned at once, in a thread each or in turns.

        Raises:
            VideoError: if there is no frame.
            InputError: if not even one window fits the memory.
        """
        speaker = self._speaker
        windows = _windows(iter(frames), self.offsets, speaker.pixels)
        batches = Batches(self.options.batch_size, f"{SECTION}.options.batch_size")
        seen: _Seen = {}
        none = True
        while group := list(islice(windows, self.options.batch_size)):
            none = False
            speaker.see(group, seen)
            yield from batches.run(group, lambda part: self._say(part, seen, batches.size))
        if none:
            raise VideoError("no frame to caption: the video is empty; remove or replace it")

    def _say(self, windows: Sequence[_Window], seen: _Seen, size: int) -> list[str]:
        """A batch is always full: products of other sizes round otherwise."""
        import torch

        filled = [*windows, *[windows[0]] * (size - len(windows))]
        with torch.inference_mode():
            tokens = self._speaker.generate(filled, seen, self._generation)
        said = self._processor.batch_decode(tokens[: len(windows)], skip_special_tokens=True)
        return [" ".join(text.split()) for text in said]

    @built_once
    def _speaker(self) -> _GitSpeaker | _ImageSpeaker:
        model = self._load()
        if self._config.model_type == "git":
            return _GitSpeaker(model, self._processor, self.options)
        return _ImageSpeaker(model, self._processor, self.options, chats=self._chats)

    def _load(self) -> Any:
        from transformers import AutoModelForImageTextToText

        with quiet_loading():
            model = AutoModelForImageTextToText.from_pretrained(
                self._folder,
                config=self._config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=self.options.trust_remote_code,
                dtype=self.options.torch_dtype,
            )
        return model.to(self.options.torch_device).eval()


def sampled_frames(count: int) -> tuple[int, ...]:
    """Which frames of a caption window a model sees that takes ``count`` of them.

    One is the middle of the window. Several are those nearest to the middles of equal parts, on a
    grid that goes evenly into a snippet: so a frame that one window shows, the next ones that reach
    it show too, and a model that takes 6 of 64 reads 2 new frames a snippet, not 6.

    Raises:
        ValueError: if there are more than a window has.
    """
    if not 1 <= count <= WINDOW_FRAMES:
        raise ValueError(f"{count} of {WINDOW_FRAMES} frames")
    if count == 1:
        return (WINDOW_FRAMES // 2,)
    step = max(s for s in (1, 2, 4, 8, 16) if WINDOW_FRAMES // s >= count)
    grid = WINDOW_FRAMES // step
    # Rounded half to even is as far below the middle of a part as above it over the window.
    taken = [round((part + 0.5) * grid / count - 0.5) for part in range(count)]
    return tuple(step * index + step // 2 for index in taken)


@dataclass(frozen=True)
class _Window:
    """The frames that are seen of a window, with their numbers in the video."""

    indices: tuple[int, ...]
    pixels: tuple[Any, ...]


_Seen: TypeAlias = "dict[int, torch.Tensor]"
"""What GIT's vision part made of the frames of one video, by their numbers."""


def _windows(frames: Iterator[Frame], offsets: Sequence[int], pixels: Any) -> Iterator[_Window]:
    """Each snippet's window, as soon as all its frames are there; at the end, padded by the last.

    A frame that any window shows is made into pixels once, and kept as long as a window may.
    """
    grid = {offset % SNIPPET_FRAMES for offset in offsets}
    made: dict[int, Any] = {}
    start, index, frame = 0, -1, None
    for index, frame in enumerate(frames):
        if index % SNIPPET_FRAMES in grid:
            made[index] = pixels(frame)
        if index == start + max(offsets):
            yield _window(start, offsets, index, made)
            start += SNIPPET_FRAMES
            made = {each: kept for each, kept in made.items() if each >= start}
    if frame is not None:
        made.setdefault(index, pixels(frame))
    while start <= index:
        yield _window(start, offsets, index, made)
        start += SNIPPET_FRAMES


def _window(start: int, offsets: Sequence[int], last: int, made: dict[int, Any]) -> _Window:
    indices = tuple(min(start + offset, last) for offset in offsets)
    return _Window(indices, tuple(made[index] for index in indices))


class _GitSpeaker:
    """GIT, of one frame or several: its vision part reads a frame once, whatever windows show it.

    It holds weights; what was read of a video is kept by who captions it.
    """

    def __init__(self, model: Any, processor: Any, options: CaptionerOptions) -> None:
        self._model = model
        self._processor = processor
        self._beginning = None if options.prompt is None else _beginning(processor, options.prompt)
        self._vision = model.git.image_encoder
        model.git.image_encoder = _already_seen()
        self._batches = Batches(options.batch_size, f"{SECTION}.options.batch_size")

    def pixels(self, frame: Frame) -> torch.Tensor:
        """(channels, height, width)."""
        made = self._processor.image_processor(images=[frame], return_tensors="pt")
        pixels: torch.Tensor = made["pixel_values"][0]
        return pixels

    def see(self, windows: Sequence[_Window], seen: _Seen) -> None:
        """Read the frames that were not read yet, and forget those that no window will show.

        Args:
            windows: the next ones of a video.
            seen: of that video, changed in place.
        """
        first = min(min(window.indices) for window in windows)
        for index in [each for each in seen if each < first]:
            del seen[index]
        new = {
            index: pixels
            for window in windows
            for index, pixels in zip(window.indices, window.pixels, strict=True)
            if index not in seen
        }
        if new:
            seen |= zip(new, self._batches.run(list(new.values()), self._read), strict=True)

    def _read(self, pixels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import torch

        filled = [*pixels, *[pixels[0]] * (self._batches.size - len(pixels))]
        with torch.inference_mode():
            batch = torch.stack(filled).to(self._model.device, self._model.dtype)
            hidden = self._vision(batch).last_hidden_state
        return list(hidden[: len(pixels)])

    def generate(
        self, windows: Sequence[_Window], seen: _Seen, generation: dict[str, Any]
    ) -> torch.Tensor:
        """Tokens of each window's caption. The seen frames go where pixels would, and are let through."""
        import torch

        shown = torch.stack(
            [torch.stack([seen[index] for index in window.indices]) for window in windows]
        )
        # (windows, frames, 1, tokens, dim) where pixels have (windows, frames, channels, height,
        # width); a model of one picture has no axis for frames.
        is_of_video = self._model.config.num_image_with_embedding is not None
        inputs: dict[str, Any] = {"pixel_values": shown[:, :, None] if is_of_video else shown}
        if self._beginning is not None:
            ids = torch.tensor([self._beginning] * len(windows), device=self._model.device)
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        tokens: torch.Tensor = self._model.generate(**inputs, **generation)
        return tokens


class _ImageSpeaker:
    """Any model that takes a picture, with or without a prompt."""

    def __init__(
        self, model: Any, processor: Any, options: CaptionerOptions, *, chats: bool
    ) -> None:
        self._model = model
        self._processor = processor
        self._prompt = options.prompt
        self._chats = chats
        # The tokenizers of transformers are not to be used by two threads at once.
        self._processing = threading.Lock()

    def pixels(self, frame: Frame) -> Frame:
        """The frame as it is: the processor of an instruction-tuned model sees picture and text."""
        return frame

    def see(self, windows: Sequence[_Window], seen: _Seen) -> None:
        """Nothing is kept: no two windows have one middle, but the padded ones at the end."""

    def generate(
        self, windows: Sequence[_Window], _seen: _Seen, generation: dict[str, Any]
    ) -> torch.Tensor:
        """Tokens of each window's caption, without those of an instruction."""
        pictures = [window.pixels[0] for window in windows]
        given: dict[str, Any] = {"images": pictures, "return_tensors": "pt"}
        if self._prompt is not None:
            given |= {"text": [self._text()] * len(pictures), "padding": True}
        with self._processing:
            inputs = self._processor(**given)
        inputs = inputs.to(self._model.device, self._model.dtype)
        tokens: torch.Tensor = self._model.generate(**inputs, **generation)
        return tokens[:, inputs["input_ids"].shape[1] :] if self._chats else tokens

    def _text(self) -> str:
        if not self._chats:
            return str(self._prompt)
        content = [{"type": "image"}, {"type": "text", "text": self._prompt}]
        text: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return text


def _already_seen() -> torch.nn.Module:
    """In place of GIT's vision part: takes (N, 1, tokens, dim) that it made before, and gives that."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    class AlreadySeen(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutput:
            # A copy: GIT adds its temporal embedding in place.
            return BaseModelOutput(last_hidden_state=pixel_values[:, 0].clone())

    return AlreadySeen()


def _beginning(processor: Any, prompt: str) -> list[int]:
    """The tokens captions begin with: the start token and the prompt's, without an end."""
    tokenizer = processor.tokenizer
    return [tokenizer.cls_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]


def _captioner_config(folder: Path, options: CaptionerOptions) -> PretrainedConfig:
    """The model's configuration.

    Raises:
        InputError: if it is of no kind that makes text of pictures.
    """
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    config = read_config(folder, options, SECTION)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not options.trust_remote_code:
        raise InputError(
            f"{SECTION}.options.model: {folder} is a {config.model_type} model, which has no head "
            "that makes text of pictures; give a captioner, such as GIT or BLIP"
        )
    return config


def _processor(folder: Path, options: CaptionerOptions) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=options.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        processor, reason = None, str(error).strip().splitlines()[0]
    else:
        reason = "it has no tokenizer or no image processor"
    if not (
        hasattr(processor, "image_processor")
        and hasattr(processor, "tokenizer")
        # Without its files the tokenizer is made all the same, and knows no word.
        and any(
            (folder / name).is_file() for name in processor.tokenizer.vocab_files_names.values()
        )
    ):
        raise InputError(
            f"{SECTION}.options.model: {folder} lacks its processor ({reason}); save tokenizer and "
            "image processor there (save_pretrained)"
        )
    if processor.tokenizer.padding_side != "left":
        processor.tokenizer.padding_side = "left"  # what is generated follows the prompt
    return processor


def _generation(options: CaptionerOptions) -> dict[str, Any]:
    """The parameters of generation.

    Raises:
        InputError: if one is unknown or wrong, or asks for sampling.
    """
    from transformers import GenerationConfig

    key = f"{SECTION}.options.generation"
    unknown = sorted(options.generation.keys() - GenerationConfig().to_dict().keys())
    if unknown:
        raise InputError(
            f"{key}.{unknown[0]}: no generation parameter of the installed transformers"
        )
    if options.generation.get("do_sample"):
        raise InputError(f"{key}.do_sample: captions must come out the same again; use num_beams")
    parameters = {**GENERATION, **options.generation, "do_sample": False}
    try:
        GenerationConfig(**parameters).validate(strict=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"{key}: {' '.join(str(error).split())}") from None
    return parameters
