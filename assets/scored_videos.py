"""scored_videos: every usable video of a dataset as its champion sees it, labelled or not.

What it writes, in ``data/<dataset>/scored_videos/``::

    <video>.jsonl     a header that says what was scored by which version, then a row a snippet
    scores.parquet    a row a video: version, run, hashes, largest score, events

A video is scored again only if it, or what was ready-made of it, or the serving version changed.
Where the chain's features are those that the version reads they are scored, else the version's own
pipeline goes from the pixels: the scores are the same to the rounding of float32.

This is no stage of ``dvc.yaml``: its result depends on an alias in MLflow's registry, which moves
without any file of the project changing, so DVC could not tell whether it is up to date. It is made
again from versioned data and a version of the model at any time; the data version that Dagster
shows is the hash of the table, which holds the hash of every file.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from assets.caption_embeddings import read_caption_embeddings
from assets.captions import caption_path, has_captions, load_captions, read_caption_manifest
from assets.raw_videos import read_raw_videos, video_path
from assets.registered_model import ready_made_parts
from assets.scoring import address, packed_pipeline, served_version
from assets.snippet_features import read_snippet_features
from assets.tevad_model import Inputs, read_inputs
from assets.workspace import files
from assets.workspace.face import (
    access,
    dataset_of,
    explained,
    markdown_table,
    shown_report,
    stage_asset,
)
from assets.workspace.manifest import RawVideoRow, StageRow
from assets.workspace.progress import over_videos
from assets.workspace.project import Dataset
from assets.workspace.stage import LINES, StageReport, logger
from assets.workspace.tracking import CHAMPION, Tracking
from tevad_model import timeline
from tevad_model.atomic import replacing
from tevad_model.errors import InputError, VideoError
from tevad_model.fingerprint import sha256_file
from tevad_model.ready_made import CAPTIONS, EMBEDDINGS, FEATURES

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

    from tevad_model.artifact import Model
    from tevad_model.pipeline import Pipeline, ReadyMade, VideoScores

STAGE = "scored_videos"
CODE_VERSION = "1"
"""Changes when the same videos and version would be written otherwise."""

TABLE = "scores.parquet"
_SHOWN = 10


def score_dataset(dataset: Dataset, tracking: Tracking) -> StageReport:
    """Score a dataset's usable videos with its champion; what fits already stays.

    Which version that is, is asked once: an alias that moves meanwhile changes nothing of this
    run, and is warned of. A video that cannot be scored is reported and stops no other.

    Args:
        dataset: whose videos.
        tracking: where the registry is.

    Raises:
        InputError: if there is no champion, raw_videos has not run, or the champion cannot be
            loaded here.
    """
    with dataset.held():
        return _score(dataset, tracking)


def _score(dataset: Dataset, tracking: Tracking) -> StageReport:
    started = time.perf_counter()
    version = served_version(dataset, tracking)
    folder = scores_folder(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_half_written(folder)
    raw = read_raw_videos(dataset)
    sources = _sources(dataset, raw.usable)
    turns = [_Turn.of(row, sources[row.video], version, folder) for row in raw.usable]
    due = [turn for turn in turns if not turn.is_done()]
    problems: dict[str, str] = {}
    seconds: dict[str, float] = {}
    if due:
        with packed_pipeline(version, tracking) as packed:
            scorer = _Scorer(dataset, packed, address(version))
            for turn in over_videos(due, f"{dataset.name}/{STAGE}"):
                begun = time.perf_counter()
                try:
                    turn.write(scorer.score(turn.row), scorer.threshold)
                except VideoError as error:
                    problems[turn.row.video] = str(error)
                seconds[turn.row.video] = time.perf_counter() - begun
    scored = [turn for turn in turns if turn.row.video not in problems]
    files.remove_others(folder, {turn.path for turn in scored} | {folder / TABLE})
    _write_table(folder, [turn.path for turn in scored])
    report = StageReport(
        stage=STAGE,
        dataset=dataset.name,
        done=len(due),
        reused=len(turns) - len(due),
        quarantined=raw.quarantined | problems,
        seconds=time.perf_counter() - started,
        frames=sum(turn.row.frames for turn in due),
        video_seconds=seconds,
        warnings=_moved(dataset, tracking, version),
    )
    report.publish(dataset, f"by {address(version)}")
    return report


def _moved(dataset: Dataset, tracking: Tracking, version: "ModelVersion") -> tuple[str, ...]:
    """A warning, if another version serves by now."""
    try:
        now = address(served_version(dataset, tracking))
    except InputError:  # the alias was taken away
        now = "none"
    if now == address(version):
        return ()
    return (
        f"{CHAMPION} is {now} since {address(version)} began to score; score again to see the "
        "videos as it does",
    )


def scores_folder(dataset: Dataset) -> Path:
    """Where the scores lie."""
    return dataset.folder / STAGE


def read_scores(dataset: Dataset) -> "pd.DataFrame":
    """The table of scored videos, in order of name.

    Columns: ``video, model, version, run_id, source, scores_sha256, frames, fps, snippets,
    threshold, max_score, events``; events are the runs of frames whose score reaches the threshold,
    as records of ``start_frame, end_frame, score`` (the largest). :func:`read_snippet_scores` has
    a video's snippets.

    Raises:
        InputError: if nothing has been scored.
    """
    import pandas as pd

    path = scores_folder(dataset) / TABLE
    if not path.is_file():
        raise InputError(
            f"{path}: not there; score the dataset first (`tevad score --dataset {dataset.name}`)"
        )
    return pd.read_parquet(path)


def read_snippet_scores(dataset: Dataset, video: str) -> "pd.DataFrame":
    """The snippets of a scored video, in order.

    Columns: ``snippet, start_frame, end_frame, score, magnitude, caption`` and, for a model that
    reads both, ``without_visual`` and ``without_text``: the score with that modality left out.
    Each frame's score is its snippet's (:func:`tevad_model.timeline.frame_values`).

    Raises:
        InputError: if the video has not been scored.
    """
    import pandas as pd

    _, rows = _read(LINES.path(scores_folder(dataset), video))
    return pd.DataFrame(rows)


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    content = files.read_lines(path)
    if content is None:
        raise InputError(f"{path}: not there or damaged; score the dataset again")
    return content


@dataclass(frozen=True)
class _Turn:
    """A video, where its scores are to lie, and the header they must have."""

    row: RawVideoRow
    path: Path
    header: dict[str, object]

    @classmethod
    def of(cls, row: RawVideoRow, source: str, version: "ModelVersion", folder: Path) -> "_Turn":
        header: dict[str, object] = {
            "video": row.video,
            "source": source,
            "model": version.name,
            "version": str(version.version),
            "run_id": version.run_id or "",
            "code_version": CODE_VERSION,
            "frames": row.frames,
            "fps": row.fps,
        }
        return cls(row, LINES.path(folder, row.video), header)

    def is_done(self) -> bool:
        """Whether whole scores of just this lie there."""
        found = LINES.header(self.path)
        return found is not None and found | self.header == found

    def write(self, scored: "VideoScores", threshold: float) -> None:
        """Write the scores of its video."""
        left_out = {
            f"without_{name}": left.scores.tolist() for name, left in scored.without.items()
        }
        rows = [
            {**row, **{column: scores[row["snippet"]] for column, scores in left_out.items()}}
            for row in scored.snippets()
        ]
        files.write_lines(self.path, self.header | {"threshold": threshold}, rows)


def _sources(dataset: Dataset, rows: Sequence[RawVideoRow]) -> dict[str, str]:
    """What the scores of each video are made from: its file, and what was ready-made of it.

    What the encoders make of them needs no mention: the version says which encoders those are.
    """
    made = []
    if dataset.entry.features:
        made.append(read_snippet_features(dataset).by_video())
    if dataset.entry.captions:
        made.append(read_caption_manifest(dataset).by_video())
    if dataset.entry.embeddings:
        made.append(read_caption_embeddings(dataset).by_video())
    return {
        row.video: "/".join(
            [row.sha256, *(stage[row.video].source for stage in made if row.video in stage)]
        )
        for row in rows
    }


class _Scorer:
    """Scores videos with one version, by the chain's features where it reads just those.

    Attributes:
        threshold: the score from which the version calls a frame abnormal.
    """

    def __init__(self, dataset: Dataset, packed: Path, model: str) -> None:
        from tevad_model import artifact

        self._dataset = dataset
        self._packed = packed
        self._model = artifact.load(packed)
        self.threshold = self._model.threshold
        self._made: _ChainFeatures | None = None
        try:
            self._made = _ChainFeatures.fitting(dataset, self._model)
        except InputError as reason:
            logger.info("%s scores from the videos themselves: %s", model, reason)

    @cached_property
    def _pipeline(self) -> "Pipeline":
        from tevad_model.pipeline import Pipeline

        return Pipeline.load(self._packed, self._dataset.project.cache)

    def score(self, row: RawVideoRow) -> "VideoScores":
        """Score a video.

        Raises:
            VideoError: if it cannot be read or encoded.
        """
        if self._made is not None and self._made.are_of(row):
            return self._score_features(self._made, row)
        return self._score_video(row)

    def _score_features(self, made: "_ChainFeatures", row: RawVideoRow) -> "VideoScores":
        from tevad_model.explain import score_without_each
        from tevad_model.pipeline import VideoScores
        from tevad_model.scoring import score

        features = made.inputs.features(row.video)
        scored = score(self._model, features.visual, features.text, video=row.video)
        return VideoScores(
            video=row.video,
            frames=row.frames,
            fps=row.fps,
            captions=made.captions(row.video) or ("",) * len(scored.scores),
            scores=scored.scores,
            magnitudes=scored.magnitudes,
            without=score_without_each(self._model, row.video, features),
        )

    def _score_video(self, row: RawVideoRow) -> "VideoScores":
        pipeline, ready_made = self._pipeline, self._ready_made(row.video)
        if not pipeline.reads_pixels:
            scored = pipeline.score_ready_made(row.video, ready_made, fps=row.fps, explain=True)
        elif row.path:
            path = video_path(self._dataset, row)
            scored = pipeline.score_video(path, ready_made, explain=True)
        else:
            raise VideoError(f"{row.video}: the champion reads pixels, and of it there are none")
        return replace(scored, frames=row.frames, fps=row.fps)

    def _ready_made(self, video: str) -> "ReadyMade":
        """What the version takes besides pixels, as the chain took it in."""
        from tevad_model.pipeline import ReadyMade

        return ReadyMade(**ready_made_parts(self._dataset, video, self._pipeline.takes))


@dataclass(frozen=True)
class _ChainFeatures:
    """What the chain made of the videos, where it is just what a model reads."""

    inputs: Inputs
    stages: Mapping[str, Mapping[str, StageRow]]

    @classmethod
    def fitting(cls, dataset: Dataset, model: "Model") -> "_ChainFeatures":
        """Gather it.

        Raises:
            InputError: if a stage has not run.
            MismatchError: if the encoders are not those of the model; every difference is listed.
        """
        from tevad_model import artifact

        inputs = read_inputs(dataset, model.params)
        artifact.check_fits(
            model,
            f"scoring {dataset.name}",
            visual_dim=model.visual_dim,
            text_dim=model.text_dim,
            fingerprints={kind: card.fingerprint for kind, card in inputs.encoders.items()},
        )
        manifests = {"visual": read_snippet_features, "sentence": read_caption_embeddings}
        stages = {
            kind: read(dataset).by_video()
            for kind, read in manifests.items()
            if kind in inputs.encoders
        }
        if has_captions(dataset):
            stages["caption"] = read_caption_manifest(dataset).by_video()
        return cls(inputs, stages)

    def are_of(self, row: RawVideoRow) -> bool:
        """Whether they are there for a video, and of the file that lies there now."""
        return row.video in self.inputs.digests and all(
            stage[row.video].source == self._source(kind, row)
            for kind, stage in self.stages.items()
            if row.video in stage
        )

    def _source(self, kind: str, row: RawVideoRow) -> str:
        """What a stage's result for a video must have been made from."""
        made = self.stages[kind][row.video]
        entry = self.inputs.dataset.entry
        if getattr(entry, {"visual": FEATURES, "caption": CAPTIONS, "sentence": EMBEDDINGS}[kind]):
            return made.source  # of another file, which raw_videos has matched
        if kind == "sentence":
            return sha256_file(caption_path(self.inputs.dataset, row.video))
        return row.sha256

    def captions(self, video: str) -> tuple[str, ...]:
        """What is said of a video's snippets; nothing if nothing is."""
        if video not in self.stages.get("caption", {}):
            return ()
        return tuple(load_captions(self.inputs.dataset, video))


def _write_table(folder: Path, paths: Sequence[Path]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    event = pa.struct(
        [("start_frame", pa.int64()), ("end_frame", pa.int64()), ("score", pa.float64())]
    )
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("video", "model", "version", "run_id", "source")),
            ("scores_sha256", pa.string()),
            ("frames", pa.int64()),
            ("fps", pa.float64()),
            ("snippets", pa.int64()),
            ("threshold", pa.float64()),
            ("max_score", pa.float64()),
            ("events", pa.list_(event)),
        ]
    )
    table = pa.Table.from_pylist([_table_row(path) for path in paths], schema=schema)
    with replacing(folder / TABLE) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _table_row(path: Path) -> dict[str, Any]:
    header, rows = _read(path)
    scores = np.array([row["score"] for row in rows])
    frame_scores = timeline.frame_values(scores, header["frames"])
    return {
        **header,
        "scores_sha256": sha256_file(path),
        "snippets": len(rows),
        "max_score": scores.max(),
        "events": [
            {"start_frame": start, "end_frame": end, "score": frame_scores[start:end].max()}
            for start, end in timeline.runs(frame_scores >= header["threshold"])
        ],
    }


@stage_asset(
    deps=["raw_videos", "snippet_features", "captions", "caption_embeddings", "promotion_decision"],
    code_version=CODE_VERSION,
    group_name="serving",
    kinds={"python", "mlflow", "parquet"},
)
def scored_videos(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Every usable video, labelled or not, as the champion sees it: a row a video and a snippet."""
    dataset = dataset_of(context)
    with explained():
        report = score_dataset(dataset, access(context).tracking())
        scores = read_scores(dataset)
    return dg.MaterializeResult(
        metadata={
            **shown_report(report, scores_folder(dataset)),
            "model": ", ".join(sorted(set(scores["model"] + "/" + scores["version"]))),
            "events": int(scores["events"].map(len).sum()),
            "most surprising": dg.MetadataValue.md(_surprise_table(scores)),
        },
        data_version=dg.DataVersion(sha256_file(scores_folder(dataset) / TABLE)),
    )


def _surprise_table(scores: "pd.DataFrame") -> str:
    first = scores.sort_values(["max_score", "video"], ascending=[False, True]).head(_SHOWN)
    rows = zip(
        first["video"],
        first["max_score"].map("{:.3f}".format),
        first["events"].map(len),
        strict=True,
    )
    return markdown_table(("video", "largest score", "events"), rows)
