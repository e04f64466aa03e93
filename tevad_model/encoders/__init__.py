"""The registry of encoder backends: a name in ``params.yaml``, a class in a file beside this one.

A backend is a class that takes its validated options (and, if it keeps anything it can make again,
a cache folder) and fulfils one of the Protocols of :mod:`tevad_model.encoders.base`. Nothing is
imported before a backend is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tevad_model.encoders.base import CaptionEncoder, SentenceEncoder, VisualEncoder
from tevad_model.errors import InputError

Options = Mapping[str, Any]
_Options = TypeVar("_Options", bound=BaseModel)


def _efficientnet(options: Options, cache: Path) -> VisualEncoder:
    from tevad_model.encoders.efficientnet import EfficientNetEncoder, EfficientNetOptions

    return EfficientNetEncoder(_parse(EfficientNetOptions, options, "snippet_features"), cache)


def _video_model(options: Options, cache: Path) -> VisualEncoder:
    from tevad_model.encoders.video_model import VideoModelEncoder, VideoModelOptions

    return VideoModelEncoder(_parse(VideoModelOptions, options, "snippet_features"), cache)


def _motion(options: Options, cache: Path) -> CaptionEncoder:  # noqa: ARG001 - keeps nothing
    from tevad_model.encoders.motion import MotionCaptioner, MotionOptions

    return MotionCaptioner(_parse(MotionOptions, options, "captions"))


def _captioner(options: Options, cache: Path) -> CaptionEncoder:  # noqa: ARG001 - keeps nothing
    from tevad_model.encoders.captioner import CaptionerOptions, TransformersCaptioner

    return TransformersCaptioner(_parse(CaptionerOptions, options, "captions"))


def _sentence(options: Options, cache: Path) -> SentenceEncoder:  # noqa: ARG001 - keeps nothing
    from tevad_model.encoders.sentence import SentenceOptions, SentenceTransformerEncoder

    return SentenceTransformerEncoder(_parse(SentenceOptions, options, "caption_embeddings"))


VISUAL: dict[str, Callable[[Options, Path], VisualEncoder]] = {
    "efficientnet-lite0": _efficientnet,
    "transformers": _video_model,
}
CAPTION: dict[str, Callable[[Options, Path], CaptionEncoder]] = {
    "motion": _motion,
    "transformers": _captioner,
}
SENTENCE: dict[str, Callable[[Options, Path], SentenceEncoder]] = {
    "sentence-transformers": _sentence
}


def build_visual(backend: str, options: Options, cache: Path) -> VisualEncoder:
    """Build a visual encoder.

    Args:
        backend: its name.
        options: its own options, checked here.
        cache: a folder for what it can make again.

    Raises:
        InputError: if the backend is unknown or an option is wrong, naming the key.
    """
    return _backend(VISUAL, backend, "snippet_features")(options, cache)


def build_caption(backend: str, options: Options, cache: Path) -> CaptionEncoder:
    """Build a captioner; arguments and errors as :func:`build_visual`."""
    return _backend(CAPTION, backend, "captions")(options, cache)


def build_sentence(backend: str, options: Options, cache: Path) -> SentenceEncoder:
    """Build a sentence encoder; arguments and errors as :func:`build_visual`."""
    return _backend(SENTENCE, backend, "caption_embeddings")(options, cache)


_Builder = TypeVar("_Builder")


def _backend(known: Mapping[str, _Builder], backend: str, section: str) -> _Builder:
    if backend not in known:
        raise InputError(
            f"{section}.backend: {backend!r} is unknown; there are {', '.join(sorted(known))}"
        )
    return known[backend]


def _parse(model: type[_Options], options: Options, section: str) -> _Options:
    try:
        return model.model_validate(options)
    except ValidationError as error:
        problems = "; ".join(
            f"{section}.options.{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors()
        )
        raise InputError(problems) from None
