"""The registry of encoder backends: a name in ``params.yaml``, a class in a file beside this one.

A backend is a class with a schema of its options, ``Options``, that is made of such options and of
a folder for what it can make again, and fulfils one of the Protocols of
:mod:`tevad_model.encoders.base`. One's own is named by its place, ``package.module:Class``, and is
built like those of the project. Nothing is imported before a backend is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from pydantic import BaseModel, ValidationError

from tevad_model.encoders.base import CaptionEncoder, SentenceEncoder, VisualEncoder
from tevad_model.errors import InputError
from tevad_model.fingerprint import Fingerprint
from tevad_model.plugins import named_class

Options = Mapping[str, Any]


class Kind(NamedTuple):
    """A kind of encoder.

    Attributes:
        section: of ``params.yaml`` that names the backend.
        backends: the project's own, a class's place by name.
        offers: what a backend must have besides ``Options``.
    """

    section: str
    backends: Mapping[str, str]
    offers: tuple[str, ...]


VISUAL = Kind(
    "snippet_features",
    MappingProxyType(
        {
            "efficientnet-lite0": "tevad_model.encoders.efficientnet:EfficientNetEncoder",
            "transformers": "tevad_model.encoders.video_model:VideoModelEncoder",
        }
    ),
    ("fingerprint", "crops", "dim", "encode"),
)
CAPTION = Kind(
    "captions",
    MappingProxyType(
        {
            "motion": "tevad_model.encoders.motion:MotionCaptioner",
            "transformers": "tevad_model.encoders.captioner:TransformersCaptioner",
        }
    ),
    ("fingerprint", "caption"),
)
SENTENCE = Kind(
    "caption_embeddings",
    MappingProxyType(
        {"sentence-transformers": "tevad_model.encoders.sentence:SentenceTransformerEncoder"}
    ),
    ("fingerprint", "dim", "embed"),
)
KINDS = (VISUAL, CAPTION, SENTENCE)


def build_visual(backend: str, options: Options, cache: Path) -> VisualEncoder:
    """Build a visual encoder.

    Args:
        backend: its name, or the place of one's own.
        options: its own options, checked here.
        cache: a folder for what it can make again.

    Raises:
        InputError: if the backend is unknown, cannot be imported or is none of this kind, or an
            option is wrong, naming the key.
    """
    return cast("VisualEncoder", _build(VISUAL, backend, options, cache))


def build_caption(backend: str, options: Options, cache: Path) -> CaptionEncoder:
    """Build a captioner; arguments and errors as :func:`build_visual`."""
    return cast("CaptionEncoder", _build(CAPTION, backend, options, cache))


def build_sentence(backend: str, options: Options, cache: Path) -> SentenceEncoder:
    """Build a sentence encoder; arguments and errors as :func:`build_visual`."""
    return cast("SentenceEncoder", _build(SENTENCE, backend, options, cache))


def at_once(kind: Kind, backend: str, options: Options) -> Options:
    """The options by which a backend gives each result as soon as it can, on one thread.

    For a live stream, where waiting for a batch is delay, and for many at once, where each has a
    thread of its own. What an encoder makes does not depend on these options, save for rounding.

    Raises:
        InputError: if the backend is unknown or cannot be imported.
    """
    known = find_backend(kind, backend).Options.model_fields
    return {**options, **{name: 1 for name in ("batch_size", "threads") if name in known}}


def as_made(kind: Kind, backend: str, options: Options, fingerprint: Fingerprint) -> Options:
    """The options by which a backend computes in the precision that a fingerprint names.

    ``dtype: auto`` is left to the device, so that an encoder which made features on a GPU would
    not be the same one on the CPU.

    Raises:
        InputError: if the backend is unknown or cannot be imported.
    """
    field = find_backend(kind, backend).Options.model_fields.get("dtype")
    made_in = fingerprint.parts.get("dtype")
    if field is None or made_in is None or options.get("dtype", field.default) != "auto":
        return options
    return {**options, "dtype": made_in}


def find_backend(kind: Kind, backend: str) -> type[Any]:
    """A backend's class.

    Raises:
        InputError: if the backend is unknown, cannot be imported, or has no schema of its options.
    """
    key = f"{kind.section}.backend"
    found = named_class(kind.backends.get(backend, backend), key, kind.backends)
    schema = getattr(found, "Options", None)
    if not (inspect.isclass(found) and inspect.isclass(schema) and issubclass(schema, BaseModel)):
        raise InputError(
            f"{key}: {backend!r} is no encoder; it must be a class with a pydantic model Options"
        )
    return cast("type[Any]", found)


def _build(kind: Kind, backend: str, options: Options, cache: Path) -> object:
    encoder = find_backend(kind, backend)
    built: object = encoder(_parse(encoder.Options, options, kind.section), cache)
    nothing = object()
    # getattr_static: to ask is not to compute, and a fingerprint reads the weights.
    missing = [n for n in kind.offers if inspect.getattr_static(built, n, nothing) is nothing]
    if missing:
        raise InputError(
            f"{kind.section}.backend: {backend!r} lacks {', '.join(missing)}, which "
            "tevad_model.encoders.base asks of it"
        )
    return built


def _parse(schema: type[BaseModel], options: Options, section: str) -> BaseModel:
    try:
        return schema.model_validate(options)
    except ValidationError as error:
        problems = "; ".join(
            f"{section}.options.{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors()
        )
        raise InputError(problems) from None
