"""The registered model as MLflow loads it: a table of videos in, a row for each snippet out.

A model trained on ready-made features, embeddings or captions takes them as further columns.

Logged as code (``python_model="mlflow/tevad_pyfunc.py"``), so nothing is pickled. The work is done by
:class:`tevad_model.pipeline.Pipeline`, whose folder is the artifact ``pipeline``; here is only what
MLflow needs to call it: the context, the table, and errors a caller can tell from the server's own.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from tevad_model.errors import InputError
from tevad_model.pipeline import Pipeline, ReadyMade
from tevad_model.ready_made import CAPTIONS, STORED_AS, read_array

COLUMNS = ("video", "snippet", "start_frame", "end_frame", "score", "caption")

EXAMPLE_SCHEME = "example:"
"""Names a clip that travels with the model: ``example:clip.mp4``, as in the input example."""

UPLOAD_SCHEME = "data:"
"""Begins a video that comes with the request: ``data:video/mp4;base64,…`` (RFC 2397)."""

ROOTS = "TEVAD_SERVE_ROOTS"
"""The variable with the only folders that videos are read from, joined as ``PATH`` is. `tevad serve`
sets it. Where it is not set, whoever asks reads what the process may read."""

UPLOAD_MEGABYTES = "TEVAD_SERVE_UPLOAD_MB"
"""The variable with the largest upload."""

_UPLOAD_MEGABYTES = 64


class TevadModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Scores the snippets of videos that lie where the model runs."""

    def load_context(self, context: Any) -> None:
        """Load the pipeline and build its encoders.

        What they can make again, such as an exported network, is kept in ``TEVAD_CACHE``, or else
        in ``tevad`` below the user's cache folder.

        Raises:
            MismatchError: if the encoders installed here are not those of the training.
        """
        self._pipeline = Pipeline.load(Path(context.artifacts["pipeline"]), _cache())
        self._examples = Path(context.artifacts["examples"])

    def predict(
        self,
        context: Any,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002 - there are none
    ) -> pd.DataFrame:
        """Score videos.

        Args:
            context: not read; :meth:`load_context` did.
            model_input: column ``video``: a path, or a ``file://`` URI, on the machine the model
                runs on, or the video itself as a ``data:`` URI; for a model that reads no pixels, a
                name. Where the model was trained on
                them, ``features`` and ``embeddings``: paths of ``.npy`` files; ``captions``: lists
                of one sentence a snippet.
            params: there are none.

        Returns:
            A row a snippet, videos in the order given: ``video, snippet, start_frame, end_frame,
            score, caption``. Frames are 0-based, ``end_frame`` is not included.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE (HTTP 400), naming the video and the reason, if
                one cannot be read, lies outside of :data:`ROOTS`, or is too large to upload.
        """
        videos = model_input.to_dict("records")
        rows = [row for video in videos for row in self._score(video)]
        types = {"snippet": "int64", "start_frame": "int64", "end_frame": "int64"}
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype({**types, "score": "float64"})

    def _score(self, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        said = str(entry["video"])
        name = "upload" if said.startswith(UPLOAD_SCHEME) else said
        try:
            given = self._ready_made(entry)
            if self._pipeline.reads_pixels:
                with self._file(said) as path:
                    scored = self._pipeline.score_video(path, given)
            else:
                scored = self._pipeline.score_ready_made(name, given)
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return [{"video": name, **row} for row in scored.snippets()]

    @contextmanager
    def _file(self, video: str) -> Iterator[Path]:
        """The file of a video; an upload lies on disk only while it is scored."""
        if not video.startswith(UPLOAD_SCHEME):
            yield self._path(video)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            path.write_bytes(_uploaded(video))
            try:
                yield path
            except InputError as error:
                raise InputError(str(error).replace(str(path), "upload")) from None

    def _ready_made(self, entry: Mapping[str, Any]) -> ReadyMade:
        parts: dict[str, Any] = {}
        for kind in self._pipeline.takes:
            if kind == CAPTIONS:
                parts[kind] = [str(caption) for caption in entry[kind]]
            else:
                parts[kind] = read_array(self._path(str(entry[kind])), kind, STORED_AS[kind])
        return ReadyMade(**parts)

    def _path(self, video: str) -> Path:
        """The file that an entry of a column of paths names."""
        if video.startswith(EXAMPLE_SCHEME):
            return self._examples / Path(video.removeprefix(EXAMPLE_SCHEME)).name
        uri = urlsplit(video)
        if uri.scheme == "file" and uri.netloc in ("", "localhost"):
            return _allowed(Path(url2pathname(uri.path)))
        if "://" in video:
            raise InputError(
                f"{video}: only paths and file:// URIs are read; fetch the video and give its path"
            )
        return _allowed(Path(video))


def _allowed(path: Path) -> Path:
    """A path that may be read; of another, not even whether it is there is told."""
    roots = os.environ.get(ROOTS)
    if roots is None:
        return path
    folders = [Path(root).resolve() for root in roots.split(os.pathsep) if root]
    if not any(path.resolve().is_relative_to(folder) for folder in folders):
        raise InputError(
            f"{path}: not in a folder that this server reads; put it into one, or upload it"
        )
    return path


def _uploaded(uri: str) -> bytes:
    """The bytes of a ``data:`` URI."""
    limit = int(os.environ.get(UPLOAD_MEGABYTES, _UPLOAD_MEGABYTES))
    head, comma, text = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InputError("upload: write data:video/mp4;base64, and the file in base64")
    if len(text) * 3 // 4 > limit * 2**20:
        raise InputError(
            f"upload: larger than {limit} MB; put it into a folder that the server reads and give "
            "its path"
        )
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InputError(f"upload: not base64 ({error})") from None


def _cache() -> Path:
    if folder := os.environ.get("TEVAD_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tevad"


mlflow.models.set_model(TevadModel())
