"""What an encoder was, written beside what it made, so that it can be built again or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tevad_model.fingerprint import Fingerprint
from tevad_model.timeline import SNIPPET_FRAMES

READY_MADE = "ready-made"
"""The backend of what was made elsewhere: nothing here can make more of it."""

_READY_MADE_VERSION = 1
"""Changes when ready-made results would be brought to a video's snippets otherwise."""


@dataclass(frozen=True)
class EncoderCard:
    """An encoder's backend, its options, and the fingerprint its output has.

    Attributes:
        backend: name in the registry.
        options: the backend's options, as in ``params.yaml``.
        fingerprint: of the encoder together with how its frames were read.
        own_weights: whether its weights were made here, from the dataset, and so have to go
            wherever the card goes.
    """

    backend: str
    options: Mapping[str, Any]
    fingerprint: Fingerprint
    own_weights: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "backend": self.backend,
            "options": dict(self.options),
            "fingerprint": self.fingerprint.parts,
            "digest": self.fingerprint.digest,
            "own_weights": self.own_weights,
        }

    @classmethod
    def ready_made(cls, kind: str) -> EncoderCard:
        """The card of features, embeddings or captions that were made elsewhere."""
        parts = {"backend": READY_MADE, "kind": kind, "code_version": _READY_MADE_VERSION}
        return cls(READY_MADE, {}, Fingerprint(parts))

    @property
    def is_ready_made(self) -> bool:
        """Whether no encoder can be built from it."""
        return self.backend == READY_MADE

    def options_with(self, weights: Path) -> Mapping[str, Any]:
        """The options to build the encoder by.

        Args:
            weights: the folder of its own weights; not read if it has none.
        """
        return {**self.options, "model": str(weights)} if self.own_weights else self.options

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EncoderCard:
        """From what :meth:`to_json` made."""
        return cls(
            data["backend"],
            data["options"],
            Fingerprint(data["fingerprint"]),
            data.get("own_weights", False),
        )


def pixel_fingerprint(encoder: Fingerprint, max_side: int | None) -> Fingerprint:
    """An encoder's fingerprint with what else its output from a video depends on."""
    return Fingerprint({**encoder.parts, "max_side": max_side, "snippet_frames": SNIPPET_FRAMES})
