"""What an encoder's output depends on, as one short hash, and how two of them differ.

A fingerprint changes with the weights, the code version and any parameter that changes the output,
and with nothing else (not the batch size, the device or the number of threads; a precision that is
left to the device counts as the one it came to).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    """The named parts of an identity and their digest.

    Attributes:
        parts: JSON values by name, for example ``{"backend": …, "weights": …, "size": 224}``.
    """

    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the parts in canonical JSON."""
        canonical = json.dumps(self.parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def differences(self, other: Fingerprint) -> list[str]:
        """One line for each part that differs, naming the part and both values."""
        names = sorted(self.parts.keys() | other.parts.keys())
        return [
            f"{name}: {self.parts.get(name, 'absent')!r} != {other.parts.get(name, 'absent')!r}"
            for name in names
            if self.parts.get(name) != other.parts.get(name)
        ]

    def __str__(self) -> str:
        return self.digest


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_folder(folder: Path, patterns: Iterable[str] = ("*",)) -> str:
    """SHA-256 over the names and bytes of a folder's files, such as a saved model's.

    Args:
        folder: looked through with all below it.
        patterns: which files count, by name.
    """
    digest = hashlib.sha256()
    for path in matching(folder, patterns):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of a folder and all below it whose names match a pattern, in order."""
    return sorted({p for each in patterns for p in folder.rglob(each) if p.is_file()})
