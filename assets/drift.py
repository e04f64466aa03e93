"""drift: whether videos that arrived since are still like those the champion learned from.

Compares features, caption embeddings and the champion's scores of the videos that were not there
when it was trained with what it carries of its training (:mod:`assets.training_reference`). How far
two samples are apart is :mod:`tevad_model.drift`'s to measure; the thresholds are in ``params.yaml``
below ``retraining.drift``. The finding is a report, ``.tevad/reports/<dataset>/drift.json``.

Vectors are compared with the training split's. Scores are compared with those of labelled videos
that the champion did not learn from: of what it learned from it is surer than of anything new, which
would pass for a drift.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import numpy as np

from assets.raw_videos import read_raw_videos
from assets.scored_videos import read_scores, read_snippet_scores
from assets.scoring import address, served_version
from assets.tevad_model import read_inputs
from assets.training_reference import (
    TrainingReference,
    VectorKind,
    reference_of,
    vector_kinds,
    video_vectors,
)
from assets.workspace import files
from assets.workspace.face import (
    access,
    dataset_of,
    explained,
    markdown_table,
    picture,
    stage_asset,
)
from assets.workspace.params import DriftParams
from assets.workspace.project import Dataset
from assets.workspace.stage import logger

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from tevad_model.drift import Difference

STAGE = "drift"
CODE_VERSION = "1"
"""Changes when the same videos and champion would be found to differ otherwise."""

REPORT = "drift.json"

Kind = Literal["features", "captions", "scores"]
Finding = Literal["alike", "drifted", "not enough to tell"]
MEASURES: Mapping[Kind, str] = {
    "features": "squared maximum mean discrepancy",
    "captions": "squared maximum mean discrepancy",
    "scores": "population stability index",
}


@dataclass(frozen=True)
class KindOfDrift:
    """What was found of one kind.

    Attributes:
        kind: what was compared.
        finding: what came of it; ``drifted`` is over the threshold and no chance.
        threshold: of ``params.yaml``.
        reference: videos compared with.
        newer: videos compared.
        value: of the measure; None if there are too few videos for it to mean anything.
        p_value: share of divisions at random that come to as much; None likewise.
        reason: why it cannot be told, or empty.
    """

    kind: Kind
    finding: Finding
    threshold: float
    reference: int
    newer: int
    value: float | None = None
    p_value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class DriftReport:
    """What was found of a dataset.

    Attributes:
        model: the champion's address.
        newer: the videos that were not there when it was trained.
        kinds: what was found, by kind.
    """

    model: str
    newer: tuple[str, ...]
    kinds: tuple[KindOfDrift, ...]

    @property
    def drifted(self) -> tuple[Kind, ...]:
        """The kinds that drifted."""
        return tuple(each.kind for each in self.kinds if each.finding == "drifted")


def measure_drift(
    dataset: Dataset, champion: "ModelVersion", reference: TrainingReference
) -> DriftReport:
    """Compare a dataset's newer videos with those its champion was trained on, and keep the report.

    Args:
        dataset: the dataset, held.
        champion: its champion.
        reference: what that was trained on.

    Raises:
        InputError: if a stage before has not run.
    """
    started = time.perf_counter()
    comparison = _Comparison(dataset, reference, champion)
    report = DriftReport(
        address(champion), tuple(sorted(comparison.newer)), tuple(comparison.kinds())
    )
    files.write_json(dataset.reports / REPORT, asdict(report))
    logger.info(
        "%s/%s: %d newer videos than %s, drifted: %s, in %.1f s",
        dataset.name,
        STAGE,
        len(report.newer),
        report.model,
        ", ".join(report.drifted) or "nothing",
        time.perf_counter() - started,
    )
    return report


def read_drift(dataset: Dataset) -> DriftReport | None:
    """The last report, or None if there is none."""
    path = dataset.reports / REPORT
    if not path.is_file():
        return None
    data = files.read_json(path)
    kinds = tuple(KindOfDrift(**each) for each in data["kinds"])
    return DriftReport(data["model"], tuple(data["newer"]), kinds)


class _Comparison:
    """The newer videos of a dataset against what its champion carries of its training.

    Attributes:
        newer: videos that were not there, or had other content.
    """

    def __init__(
        self, dataset: Dataset, reference: TrainingReference, version: "ModelVersion"
    ) -> None:
        self._dataset = dataset
        self._reference = reference
        self._version = version
        self._params: DriftParams = dataset.project.params.retraining.drift
        known = {video: each.sha256 for video, each in reference.videos.items()}
        self.newer = {
            row.video
            for row in read_raw_videos(dataset).usable
            if known.get(row.video) != row.sha256
        }

    def kinds(self) -> list[KindOfDrift]:
        """What is found of each kind that the champion reads, and of its scores."""
        inputs = read_inputs(self._dataset)
        made = vector_kinds(inputs)
        readable = [row.video for row in inputs.rows if row.video in self.newer]
        found = [self._vectors(kind, made.get(kind), readable) for kind in self._reference.vectors]
        return [*found, self._scores()]

    def _vectors(self, kind: VectorKind, encoder: str | None, readable: list[str]) -> KindOfDrift:
        from tevad_model.drift import mean_discrepancy

        videos = self._compared_with("train", self._reference.vectors[kind])
        if encoder != self._reference.encoders[kind]:
            reason = "the encoder is another than the champion was trained with"
            return self._untold(kind, len(videos), len(readable), reason)
        if reason := self._too_few(videos, readable):
            return self._untold(kind, len(videos), len(readable), reason)
        newer = video_vectors(self._dataset, kind, readable)
        difference = mean_discrepancy(
            np.stack([self._reference.vectors[kind][video] for video in videos]),
            np.stack(list(newer.values())),
            permutations=self._params.permutations,
        )
        return self._told(kind, difference)

    def _scores(self) -> KindOfDrift:
        from tevad_model.drift import population_stability

        videos = self._compared_with("test", self._reference.scores)
        scored = self._scored_by_champion()
        if reason := self._too_few(videos, scored):
            return self._untold("scores", len(videos), len(scored), reason)
        difference = population_stability(
            [self._reference.scores[video] for video in videos],
            [read_snippet_scores(self._dataset, video)["score"].to_numpy() for video in scored],
            permutations=self._params.permutations,
        )
        return self._told("scores", difference)

    def _scored_by_champion(self) -> list[str]:
        scores = read_scores(self._dataset)
        by_champion = scores["version"] == str(self._version.version)
        return [video for video in scores.loc[by_champion, "video"] if video in self.newer]

    def _compared_with(self, split: str, there: Mapping[str, files.Array]) -> list[str]:
        labels = {"normal"} if self._params.reference == "normal" else {"normal", "abnormal"}
        return [
            video
            for video, known in self._reference.videos.items()
            if known.split == split and known.label in labels and video in there
        ]

    def _too_few(self, reference: Sequence[str], newer: Sequence[str]) -> str:
        least = self._params.min_videos
        if len(newer) < least:
            return f"{len(newer)} newer videos, {least} are needed"
        if len(reference) < least:
            return f"{len(reference)} videos to compare with, {least} are needed"
        return ""

    def _untold(self, kind: Kind, reference: int, newer: int, reason: str) -> KindOfDrift:
        threshold = getattr(self._params, kind)
        return KindOfDrift(kind, "not enough to tell", threshold, reference, newer, reason=reason)

    def _told(self, kind: Kind, difference: "Difference") -> KindOfDrift:
        threshold = getattr(self._params, kind)
        is_far = difference.value > threshold
        is_no_chance = difference.p_value <= self._params.significance
        return KindOfDrift(
            kind,
            "drifted" if is_far and is_no_chance else "alike",
            threshold,
            difference.reference,
            difference.newer,
            value=difference.value,
            p_value=difference.p_value,
        )


def drift_picture(
    dataset: Dataset, reference: TrainingReference, report: DriftReport
) -> bytes | None:
    """A PNG of the training's and the newer videos' features; None if there is nothing to show."""
    from tevad_model import figures

    kind = next(iter(reference.vectors), None)
    if kind is None:
        return None
    rows = {row.video for row in read_inputs(dataset).rows}
    newer = video_vectors(dataset, kind, [video for video in report.newer if video in rows])
    training = reference.vectors[kind]
    vectors = [*training.values(), *newer.values()]
    if not newer or len({len(vector) for vector in vectors}) != 1:
        return None
    groups = [*("trained on" for _ in training), *("newer" for _ in newer)]
    return figures.feature_pca(np.stack(vectors), groups, title=f"{dataset.name}: {kind}")


@stage_asset(
    deps=["raw_videos", "snippet_features", "caption_embeddings", "scored_videos"],
    code_version=CODE_VERSION,
    group_name="serving",
    kinds={"python", "mlflow"},
)
def drift(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Whether the videos since the champion's training are still like those it learned from."""
    dataset, tracking = dataset_of(context), access(context).tracking()
    with explained(), dataset.held():
        champion = served_version(dataset, tracking)
        reference = reference_of(dataset, tracking, champion)
        report = measure_drift(dataset, champion, reference)
        shown = drift_picture(dataset, reference, report)
    return dg.MaterializeResult(
        metadata={
            "champion": report.model,
            "newer videos": len(report.newer),
            "drifted": ", ".join(report.drifted) or "nothing",
            "findings": dg.MetadataValue.md(_findings(report)),
            **_figures(report),
            **({"videos": picture(shown, "features of videos")} if shown else {}),
        },
        data_version=dg.DataVersion(_digest(report)),
    )


def _figures(report: DriftReport) -> dict[str, float]:
    """The numbers, which Dagster draws over time."""
    return {
        f"{each.kind} {name}": value
        for each in report.kinds
        for name, value in (("drift", each.value), ("p-value", each.p_value))
        if value is not None
    }


def _findings(report: DriftReport) -> str:
    rows = [
        (
            each.kind,
            each.finding + (f": {each.reason}" if each.reason else ""),
            MEASURES[each.kind],
            "" if each.value is None else f"{each.value:.3f}",
            f"{each.threshold:g}",
            "" if each.p_value is None else f"{each.p_value:.3f}",
            f"{each.newer} / {each.reference}",
        )
        for each in report.kinds
    ]
    header = ("kind", "finding", "measure", "value", "threshold", "p", "newer / reference videos")
    return markdown_table(header, rows)


def _digest(report: DriftReport) -> str:
    return hashlib.sha256(json.dumps(asdict(report), sort_keys=True).encode()).hexdigest()
