"""Where the files of a transformers or sentence-transformers model come from.

A model is a folder on this machine, or a name of the Hugging Face hub with a pinned revision whose
files lie in the hub's cache. Building an encoder never touches the network; fetching is a step of
its own (:func:`pull`), which a person asks for. Weights are safetensors only: the other formats are
pickles, which can run code when they are read.

Finding and fetching belong here; what kind of model a folder holds is the encoders' business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tevad_model.errors import InputError
from tevad_model.fingerprint import matching, sha256_folder

FETCHED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py")
"""What a snapshot needs: weights, configuration, vocabulary, chat template, the model's own code."""

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
"""Suffixes of checkpoints that are not read."""

TIMEOUT_SECONDS = 10.0
"""How long the hub may be silent."""

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pulled:
    """A model that was fetched.

    Attributes:
        model: its name.
        commit: the commit it is at, to be pinned as ``revision``.
        folder: where its files lie, in the hub's cache.
        bytes: their size.
    """

    model: str
    commit: str
    folder: Path
    bytes: int


def resolve(model: str, revision: str | None, section: str) -> Path:
    """The folder of a model, without touching the network.

    Args:
        model: a folder, or the hub's name of a model, such as ``microsoft/git-base-vatex``.
        revision: the full commit hash of a model of the hub; not read for a folder.
        section: of ``params.yaml``, for messages.

    Raises:
        InputError: if there is no such folder, the revision is not pinned or not fetched, or the
            folder holds no model that may be read.
    """
    key = f"{section}.options.model"
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _cached(model, revision, section)
    _check(folder, key)
    return folder


def is_name(model: object) -> bool:
    """Whether an option names a model of the hub: not a folder here, and formed like a name."""
    return (
        isinstance(model, str)
        and "/" in model
        and _NAME.fullmatch(model) is not None
        and not Path(model).expanduser().is_dir()
    )


def pull(model: str, revision: str | None = None) -> Pulled:
    """Fetch a model into the hub's cache: safetensors, configuration and vocabulary.

    Args:
        model: the hub's name of it.
        revision: branch, tag or commit; by default the newest commit.

    Raises:
        InputError: if the hub cannot be reached or has no such model or revision, if
            ``HF_HUB_OFFLINE`` is set, or if the model has no safetensors.
    """
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(model, revision=revision, timeout=TIMEOUT_SECONDS)
        names = [sibling.rfilename for sibling in info.siblings or []]
        if not any(name.endswith(".safetensors") for name in names):
            raise InputError(f"{model}: {_no_safetensors(names)}")
        folder = Path(
            snapshot_download(
                model,
                revision=info.sha,
                allow_patterns=list(FETCHED),
                etag_timeout=TIMEOUT_SECONDS,
            )
        )
    except OfflineModeIsEnabled:
        raise InputError(f"{model}: not fetched, as HF_HUB_OFFLINE is set; unset it") from None
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{model}: not fetched ({reason}); check the name, the revision and the network "
            "(HF_ENDPOINT names another hub, HF_TOKEN opens gated models)"
        ) from None
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Pulled(model, str(info.sha), folder, size)


def weights_hash(folder: Path) -> str:
    """What a model's output depends on: the names and bytes of weights, configuration, vocabulary.

    The bytes are read once in a process for as long as no file is written anew, comes or goes.
    """
    stats = [(path, path.stat()) for path in matching(folder, FETCHED)]
    return _weights_hash(
        folder, tuple((path, s.st_ino, s.st_size, s.st_mtime_ns) for path, s in stats)
    )


@lru_cache(maxsize=16)
def _weights_hash(folder: Path, _stamps: tuple[tuple[Path, int, int, int], ...]) -> str:
    return sha256_folder(folder, FETCHED)[:16]


def _cached(model: str, revision: str | None, section: str) -> Path:
    """The snapshot of a pinned revision in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    key = f"{section}.options"
    if not _NAME.fullmatch(model):
        raise InputError(f"{key}.model: {model} is no folder and no name of a model of the hub")
    if revision is None or not _COMMIT.fullmatch(revision):
        raise InputError(
            f"{key}.revision: {revision!r} does not pin {model} (a branch can move); give the full "
            f"commit hash, which `tevad encoders pull {model}` prints"
        )
    try:
        return Path(
            snapshot_download(
                model, revision=revision, allow_patterns=list(FETCHED), local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        raise InputError(
            f"{key}.model: {model} at {revision} is not on this machine; fetch it by "
            f"`tevad encoders pull {model} --revision {revision}`"
        ) from None


def _check(folder: Path, key: str) -> None:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if not {"config.json", "modules.json"} & set(names):
        raise InputError(
            f"{key}: {folder} holds no model (neither config.json nor modules.json); give the "
            "folder that save_pretrained wrote"
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise InputError(f"{key}: {folder}: {_no_safetensors(names)}")


def _no_safetensors(names: list[str]) -> str:
    pickled = [name for name in names if Path(name).suffix in PICKLES]
    if pickled:
        return (
            f"its weights are pickled ({', '.join(sorted(pickled)[:3])}), which can run code when "
            "they are read; convert them to safetensors (save_pretrained) or take another revision"
        )
    return "it has no weights (*.safetensors)"
