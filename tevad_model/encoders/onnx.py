"""Networks exported to ONNX: kept in the cache, known by their bytes, run by ONNX Runtime.

What is exported, and whether it equals its original, is the encoders' business.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tevad_model.atomic import replacing
from tevad_model.errors import InputError

if TYPE_CHECKING:
    import onnxruntime


def cached_network(cache: Path, name: str, identity: str, export: Callable[[], bytes]) -> bytes:
    """A network as ONNX, from the cache or, if it is missing or damaged there, exported anew.

    A cached file bears its own hash in its name, so a damaged one is known by its bytes, and
    processes that export at the same time do not disturb each other.

    Args:
        cache: the folder, made if missing.
        name: how the file begins.
        identity: of the weights and of all that the export depends on but the exporter.
        export: makes the network's bytes.

    Raises:
        InputError: if the cache cannot be a folder.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{cache}: cannot be the folder of the exported network: {error.strerror}; name another"
        ) from None
    exporter = "-".join(version(package) for package in ("torch", "onnx", "onnxscript"))
    stem = f"{name}-{hashlib.sha256(f'{identity} {exporter}'.encode()).hexdigest()[:12]}"
    for path in sorted(cache.glob(f"{stem}-*.onnx")):
        content = path.read_bytes()
        if path.name == _cache_name(stem, content):
            _mark_used(path)
            return content
        path.unlink(missing_ok=True)
    content = export()
    with replacing(cache / _cache_name(stem, content)) as temporary:
        temporary.write_bytes(content)
    return content


def _mark_used(path: Path) -> None:
    """Let the file's time say when it was last of use, where the cache may be written."""
    with suppress(PermissionError):
        path.touch()


def _cache_name(stem: str, content: bytes) -> str:
    return f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}.onnx"


def session(network: bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A network ready to run on the CPU; by default with a thread for each core."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads or 0
    # Waiting threads would take the cores from decoding and from the other encoders.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(network, settings, providers=["CPUExecutionProvider"])


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Let only the exporter's errors through: it warns of operators of torchvision, not used here."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)
