"""Scoring new videos with a registered model: what ``tevad score`` does.

Finds the model in MLflow's registry, loads its pipeline once, and writes each video's scores as
files. Needs neither Dagster nor DVC, and nothing heavy is imported before there is something to do.
How a video is scored is :mod:`tevad_model.pipeline`'s; a dataset's own videos are scored by
:mod:`assets.scored_videos`.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.workspace import files, s3
from assets.workspace.progress import over_videos
from assets.workspace.project import Dataset
from assets.workspace.tracking import (
    CHALLENGER,
    CHAMPION,
    Tracking,
    registered_name,
)
from tevad_model import timeline
from tevad_model.dataset import VIDEO_SUFFIXES
from tevad_model.errors import InputError, SourceUnreachableError, VideoError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from tevad_model.encoders.base import Frame
    from tevad_model.pipeline import Pipeline, VideoScores

logger = logging.getLogger("tevad")

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")

_PICTURES = 4
_PICTURE_SIDE = 480


@dataclass(frozen=True)
class ScoreReport:
    """What became of the videos.

    Attributes:
        model: the version that scored them, ``models:/<name>/<version>``.
        written: the files written, by video.
        failed: why a video could not be scored, by video.
    """

    model: str
    written: Mapping[Path, tuple[Path, ...]]
    failed: Mapping[Path, str]


def score_videos(
    paths: Sequence[Path],
    tracking: Tracking,
    *,
    out: Path,
    cache: Path,
    model_uri: str | None = None,
    as_json: bool = False,
    threshold: float | None = None,
) -> ScoreReport:
    """Score videos and write ``<name>.frames.csv``, ``.snippets.csv`` and ``.png`` for each.

    A video that cannot be read is reported and does not stop the others. A file appears whole or
    not at all; those of an earlier call are replaced. Of videos with the same name in different
    folders, the second's files are named ``<name>-2`` and so on.

    Args:
        paths: videos, and folders of which every video is scored.
        tracking: where the registry is.
        out: the folder to write to, made if missing.
        cache: a folder for what encoders can make again.
        model_uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; by default
            :func:`default_model`.
        as_json: also write ``<name>.json``: all of it, with the events over the threshold.
        threshold: the score from which a frame counts as abnormal; by default the model's own.

    Raises:
        InputError: if there is no such model, it cannot be loaded here, a folder holds no video,
            or ``out`` cannot be made.
        SourceUnreachableError: if its files cannot be fetched.
        MismatchError: if the encoders installed here are not those of the model.
    """
    videos = output_names(find_videos(paths))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); give another --out") from None
    written: dict[Path, tuple[Path, ...]] = {}
    failed: dict[Path, str] = {}
    with loaded(model_uri or default_model(tracking), tracking, cache) as (model, pipeline):
        level = pipeline.model.threshold if threshold is None else threshold
        writer = _Writer(out, model, level, as_json=as_json)
        for video, name in over_videos(list(videos.items()), "scoring"):
            try:
                scored = pipeline.score_video(video, explain=as_json)
                written[video] = writer.write(name, video, scored)
            except VideoError as error:
                logger.warning("not scored: %s", error)
                failed[video] = str(error)
    return ScoreReport(model, written, failed)


def find_videos(paths: Iterable[Path]) -> list[Path]:
    """The videos that paths name, each once: files as given, and all videos below folders.

    Raises:
        InputError: if a folder holds no video.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        videos = _videos_below(path) if path.is_dir() else [path]
        if not videos:
            kinds = " ".join(sorted(VIDEO_SUFFIXES))
            raise InputError(f"{path}: holds no video; looked for files of type {kinds}")
        for video in videos:
            found.setdefault(video.resolve(), video)
    return list(found.values())


def _videos_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and path.name[0] != "."
    )


def output_names(videos: Iterable[Path]) -> dict[Path, str]:
    """What each video's files are named after: its own name, numbered where that is taken."""
    taken: set[str] = set()
    names = {}
    for video in videos:
        name, number = video.stem, 1
        # Compared without case: some file systems do not tell it apart.
        while name.casefold() in taken:
            number += 1
            name = f"{video.stem}-{number}"
        taken.add(name.casefold())
        names[video] = name
    return names


def default_model(tracking: Tracking) -> str:
    """The only registered model's champion, or its challenger if it has no champion yet.

    Raises:
        InputError: if there is no model, or more than one; they are listed.
    """
    models = {model.name: model.aliases for model in tracking.registered_models()}
    if len(models) != 1:
        listed = ", ".join(sorted(models)) or "none"
        raise InputError(
            f"MLflow at {tracking.address} has {len(models)} registered models ({listed}); "
            + ("say which by --model models:/NAME@ALIAS" if models else "train one: `tevad run`")
        )
    [(name, aliases)] = models.items()
    for alias in (CHAMPION, CHALLENGER):
        if alias in aliases:
            logger.info("model: models:/%s@%s (version %s)", name, alias, aliases[alias])
            return f"models:/{name}@{alias}"
    raise InputError(
        f"{name}: no version is {CHAMPION} or {CHALLENGER}; say which by --model models:/{name}/N"
    )


def served_version(dataset: Dataset, tracking: Tracking) -> ModelVersion:
    """The version that serves a dataset: its champion, as the alias stands at this moment.

    A challenger does not serve: whether it is good enough has not been decided.

    Raises:
        InputError: if the dataset has no registered model, or no version of it is champion.
    """
    name = registered_name(dataset.name)
    found = tracking.aliased(name, CHAMPION)
    if found is None:
        raise InputError(
            f"{dataset.name}: no version of {name} is {CHAMPION}; promote one by "
            f"`tevad promote {dataset.name}` (`tevad run {dataset.name}` registers one)"
        )
    return found


def newest_version(dataset: Dataset, tracking: Tracking) -> ModelVersion | None:
    """The version that was registered last, whatever has been decided about it; None without any.

    Raises:
        InputError: if the registry does not answer.
    """
    with tracking.answering():
        found = tracking.client.search_model_versions(
            f"name = '{registered_name(dataset.name)}'",
            order_by=["version_number DESC"],
            max_results=1,
        )
    return found[0] if found else None


def address(version: ModelVersion) -> str:
    """``models:/<name>/<version>``, which never comes to mean another one."""
    return f"models:/{version.name}/{version.version}"


@contextmanager
def version_files(version: ModelVersion, tracking: Tracking) -> Iterator[Path]:
    """The files of a version, as MLflow keeps them, fetched for the time of the block."""
    files_uri = tracking.client.get_model_version_download_uri(version.name, version.version)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(_download(files_uri, folder, tracking))


def part_of(local: Path, version: ModelVersion, part: str) -> Path:
    """The folder of one of the artifacts among a version's files.

    Raises:
        InputError: if the version carries none of that name.
    """
    from mlflow.models import Model

    artifacts = Model.load(local).flavors["python_function"].get("artifacts", {})
    if part not in artifacts:
        raise InputError(f"{address(version)}: not a model of this project; it has no {part}")
    root = local.resolve()
    packed = (root / str(artifacts[part]["path"])).resolve()
    if not packed.is_relative_to(root):
        raise InputError(f"{address(version)}: names a {part} outside of its own files")
    return packed


@contextmanager
def packed_part(version: ModelVersion, tracking: Tracking, part: str) -> Iterator[Path]:
    """The folder of one of the artifacts that a version carries, fetched for the time of the block.

    Raises:
        InputError: if the version carries none of that name.
    """
    with version_files(version, tracking) as local:
        yield part_of(local, version, part)


@contextmanager
def packed_pipeline(version: ModelVersion, tracking: Tracking) -> Iterator[Path]:
    """The folder of the pipeline that a version carries, fetched for the time of the block.

    Raises:
        InputError: if the version is no model of this project.
    """
    with packed_part(version, tracking, "pipeline") as folder:
        yield folder


@contextmanager
def loaded(
    model_uri: str, tracking: Tracking, cache: Path, *, at_once: bool = False
) -> Iterator[tuple[str, Pipeline]]:
    """The address of the version that a URI means now, and its pipeline.

    Args:
        model_uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        tracking: where it is registered.
        cache: for what encoders can make again.
        at_once: as for :meth:`tevad_model.pipeline.Pipeline.load`.

    Raises:
        InputError: if there is no such version, or it takes what was made elsewhere.
        MismatchError: if the encoders installed here are not those of the model.
    """
    from tevad_model.pipeline import Pipeline

    version = find_version(tracking.client, model_uri)
    with packed_pipeline(version, tracking) as folder:
        pipeline = Pipeline.load(folder, cache, at_once=at_once)
        if pipeline.takes:
            raise InputError(
                f"{model_uri}: was trained on ready-made {' and '.join(pipeline.takes)}, which "
                "videos do not bring; score through MLflow, which takes them as columns"
            )
        yield address(version), pipeline


def _download(files_uri: str, folder: str, tracking: Tracking) -> str:
    """Fetch a model's files, from a folder, a server or the bucket that has them."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        with s3.told(files_uri):
            return str(
                mlflow.artifacts.download_artifacts(
                    artifact_uri=files_uri, dst_path=folder, tracking_uri=tracking.uri
                )
            )
    except MlflowException as error:
        raise SourceUnreachableError(f"{files_uri}: cannot be fetched: {error.message}") from None


def find_version(client: MlflowClient, model_uri: str) -> ModelVersion:
    """The registered version that an address means now.

    Raises:
        InputError: if it is no address of a model, or there is no such version.
    """
    from mlflow.exceptions import MlflowException

    parts = _URI.fullmatch(model_uri)
    if parts is None:
        raise InputError(f"{model_uri}: give models:/NAME@ALIAS or models:/NAME/VERSION")
    try:
        if parts["alias"]:
            return client.get_model_version_by_alias(parts["name"], parts["alias"])
        return client.get_model_version(parts["name"], parts["version"])
    except MlflowException as error:
        raise InputError(f"{model_uri}: {error.message}") from None


class _Writer:
    """Writes the files of one video after another."""

    def __init__(self, out: Path, model: str, threshold: float, *, as_json: bool) -> None:
        self._out = out
        self._model = model
        self._threshold = threshold
        self._as_json = as_json

    def write(self, name: str, video: Path, scored: VideoScores) -> tuple[Path, ...]:
        """Write a video's files and return their paths."""
        frames = self._out / f"{name}.frames.csv"
        snippets = self._out / f"{name}.snippets.csv"
        picture = self._out / f"{name}.png"
        _write_frames(frames, scored)
        _write_snippets(snippets, scored)
        files.write_bytes(picture, _timeline(name, video, scored, self._threshold))
        if not self._as_json:
            return frames, snippets, picture
        whole = self._out / f"{name}.json"
        files.write_json(whole, self._as_data(scored))
        return frames, snippets, picture, whole

    def _as_data(self, scored: VideoScores) -> dict[str, Any]:
        return {
            "video": scored.video,
            "model": self._model,
            "frames": scored.frames,
            "fps": scored.fps,
            "threshold": self._threshold,
            "events": _events(scored, self._threshold),
            "snippets": [_with_seconds(row, scored.fps) for row in scored.snippets()],
        }


def _write_frames(path: Path, scored: VideoScores) -> None:
    rows = (
        (frame, _time(timeline.seconds(frame, scored.fps)), _exact(score))
        for frame, score in enumerate(scored.frame_scores.tolist())
    )
    files.write_csv(path, ("frame", "time_s", "score"), rows)


def _write_snippets(path: Path, scored: VideoScores) -> None:
    columns = ("snippet", "start_frame", "end_frame")
    rows = (
        (
            *(row[column] for column in columns),
            *map(_time, _seconds(row, scored.fps)),
            *(_exact(row["score"]), _exact(row["magnitude"])),
            row["caption"],
        )
        for row in scored.snippets()
    )
    header = (*columns, "start_s", "end_s", "score", "magnitude", "caption")
    files.write_csv(path, header, rows)


def _seconds(row: Mapping[str, Any], fps: float) -> tuple[float, float]:
    return timeline.seconds(row["start_frame"], fps), timeline.seconds(row["end_frame"], fps)


def _with_seconds(row: Mapping[str, Any], fps: float) -> dict[str, Any]:
    start_s, end_s = _seconds(row, fps)
    return {**row, "start_s": start_s, "end_s": end_s}


def _events(scored: VideoScores, threshold: float) -> list[dict[str, Any]]:
    """The runs of frames whose score reaches the threshold, with the peak of each and its reasons."""
    scores = scored.frame_scores
    ranges = timeline.runs(scores >= threshold)
    return [
        _with_seconds(
            {
                "start_frame": start,
                "end_frame": end,
                "score": float(scores[start:end].max()),
                "snippets": [snippet.to_json() for snippet in snippets],
            },
            scored.fps,
        )
        for (start, end), snippets in zip(ranges, scored.explained(ranges), strict=True)
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


def _exact(value: float) -> str:
    """Nine digits bring a float32, which the network computes in, back whole."""
    return f"{value:.9g}"


def _timeline(name: str, video: Path, scored: VideoScores, threshold: float) -> bytes:
    """The score over time as PNG, with pictures of the peaks."""
    from tevad_model import figures

    shown = figures.ScoredVideo(name, scored.frames, scored.fps, scored.scores, scored.captions)
    pictures = _pictures(video, figures.peaks(scored.scores, _PICTURES), scored.frames)
    return figures.score_timeline(shown, pictures, threshold=threshold)


def _pictures(path: Path, snippets: Sequence[int], frames: int) -> dict[int, Frame]:
    """A frame from the middle of each snippet."""
    from tevad_model import video

    middles = {sum(timeline.snippet_range(snippet, frames)) // 2: snippet for snippet in snippets}
    pictures = {}
    for index, frame in enumerate(video.frames(path, max_side=_PICTURE_SIDE)):
        if index in middles:
            pictures[middles[index]] = frame
            if len(pictures) == len(middles):
                break
    return pictures
