"""What speaks for a challenger: figures and conditions, of it and the champion on the same test data.

Computes and judges by the policy; writes nothing and moves nothing. Each condition says what was
found and what was asked for. What costs a process of its own, the smoke set, comes last and only
where nothing else has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from assets.checks.evaluation_metrics import check_evaluation_metrics
from assets.checks.tevad_model import check_tevad_model
from assets.evaluation_metrics import TestSplit
from assets.promotion import smoke
from assets.promotion.policy import Policy
from assets.registered_model import ready_made_parts
from assets.scoring import part_of, version_files
from assets.tevad_model import Inputs, is_current, read_inputs
from assets.workspace import listing, versions
from assets.workspace.project import Dataset
from assets.workspace.provenance import ENCODED_BY
from assets.workspace.stage import read_encoder_card
from assets.workspace.tracking import DATA_TAG, Tracking
from tevad_model.errors import InputError, MismatchError
from tevad_model.timeline import FloatArray

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from tevad_model.metrics import FrameScores, GroundTruth

_JUDGED = {"tevad_model", "evaluation_metrics"}
"""The stages whose data are what is decided on."""


@dataclass(frozen=True)
class Condition:
    """One thing the policy asks for.

    Attributes:
        name: what it is about.
        passed: None where it was not looked at, as another had failed.
        says: what was found, and what was asked for.
    """

    name: str
    passed: bool | None
    says: str


@dataclass(frozen=True)
class Part:
    """The AUC on a part of the test videos.

    Attributes:
        kind: ``class`` or ``source``.
        name: of the class, or the folder.
        challenger: its AUC.
        champion: its AUC; None where there is no champion.
    """

    kind: str
    name: str
    challenger: float
    champion: float | None


@dataclass(frozen=True)
class Evidence:
    """All that a decision rests on.

    Attributes:
        conditions: in the order they were looked at.
        figures: by name: ``challenger``, ``champion``, ``difference``, their ``low`` and ``high``
            ends, ``chance``, ``videos``, ``smoke_difference``; those there are.
        parts: by class and by source.
    """

    conditions: tuple[Condition, ...]
    figures: dict[str, float] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    @property
    def failed(self) -> tuple[Condition, ...]:
        """The conditions that are not met."""
        return tuple(each for each in self.conditions if each.passed is False)


@dataclass(frozen=True)
class ModelFiles:
    """A registered version's files, on this machine for the time of a block.

    Attributes:
        version: the version.
        folder: where they lie.
    """

    version: ModelVersion
    folder: Path

    @classmethod
    @contextmanager
    def of(cls, version: ModelVersion, tracking: Tracking) -> Iterator[Self]:
        """Fetch them."""
        with version_files(version, tracking) as folder:
            yield cls(version, folder)

    @property
    def pipeline(self) -> Path:
        """The folder of its pipeline.

        Raises:
            InputError: if it has none.
        """
        return part_of(self.folder, self.version, "pipeline")


def gather(
    dataset: Dataset,
    tracking: Tracking,
    policy: Policy,
    challenger: ModelVersion,
    champion: ModelVersion | None,
    smoke_folder: Path,
) -> Evidence:
    """Hold a challenger against the policy.

    Args:
        dataset: whose test split lies there.
        tracking: where the versions are.
        policy: what is asked for.
        challenger: the version that is proposed.
        champion: the version it would take the place of, if there is one.
        smoke_folder: where its smoke set is written to.

    Raises:
        InputError: if the dataset has no test split, or its stages have not run.
    """
    inputs = read_inputs(dataset)
    test = TestSplit.of(inputs)
    with ExitStack() as fetched:
        ours = fetched.enter_context(ModelFiles.of(challenger, tracking))
        theirs = fetched.enter_context(ModelFiles.of(champion, tracking)) if champion else None
        conditions = [_provenance(inputs, challenger), _described(ours)]
        if conditions[0].passed:  # the checks are of what lies there
            conditions.append(_checks(dataset))
        scores, unscored = _score(test, ours, theirs)
        compared = Evidence((unscored,)) if unscored else _judge(test, policy, scores)
        conditions += compared.conditions
        if any(each.passed is False for each in conditions):
            conditions.append(
                Condition("smoke set", None, "not scored, as the version is refused already")
            )
            return replace(compared, conditions=tuple(conditions))
        difference = _smoke(test, policy, ours, scores["challenger"], smoke_folder)
    conditions.append(judge_smoke(difference, policy))
    figures = {**compared.figures, "smoke_difference": difference}
    return Evidence(tuple(conditions), figures, compared.parts)


def judge_smoke(difference: float, policy: Policy) -> Condition:
    """Whether the served model scores its smoke set as it did."""
    tolerance = policy.smoke.tolerance
    return Condition(
        "smoke set",
        difference <= tolerance,
        f"through the served model its scores differ by {difference:.2g} at most; "
        f"the limit is {tolerance:g}",
    )


def _provenance(inputs: Inputs, version: ModelVersion) -> Condition:
    """Whether the version is of the models that dvc.lock names, by a commit that is known.

    Of what the models were made of, the version may name earlier data: unlabelled videos and events
    change what lies there, and no model. Then today's data must be such as would train these models.
    """
    dataset = inputs.dataset
    recorded = versions.recorded(dataset.project)
    tagged = {
        key.removeprefix(DATA_TAG): value
        for key, value in version.tags.items()
        if key.startswith(DATA_TAG)
    }
    differences = {
        stage: f"{stage}: {tagged.get(stage, 'no tag')} at the version, "
        f"{recorded.get((stage, dataset.name), 'nothing')} in {versions.LOCK_FILE}"
        for stage in sorted({"raw_videos", *_JUDGED, *tagged})
        if tagged.get(stage) != recorded.get((stage, dataset.name))
    }
    earlier = sorted(differences.keys() - _JUDGED)
    problems = [differences[stage] for stage in differences if stage in _JUDGED]
    if earlier and not problems and not is_current(dataset, inputs):
        problems = [differences[stage] for stage in earlier]
    commit = version.tags.get("tevad.git.commit")
    if not commit:
        problems.append("the commit of the code was not recorded; keep the project in git")
    if problems:
        return Condition("provenance", False, "; ".join(problems))
    but = f"; of {', '.join(earlier)} by an earlier one that trains the same" if earlier else ""
    return Condition(
        "provenance",
        True,
        f"made of the data versions in {versions.LOCK_FILE}{but}; by commit {commit}",
    )


def _described(model: ModelFiles) -> Condition:
    """Whether a caller can see what the model takes and gives."""
    from mlflow.models import Model

    described = Model.load(model.folder)
    missing = [
        name
        for name, value in (
            ("signature", described.signature),
            ("input example", described.saved_input_example_info),
        )
        if not value
    ]
    says = f"has no {' and no '.join(missing)}" if missing else "both are there"
    return Condition("signature and input example", not missing, says)


def _checks(dataset: Dataset) -> Condition:
    """Whether the blocking checks of the models and their evaluation pass."""
    outcomes = [*check_tevad_model(dataset), *check_evaluation_metrics(dataset)]
    blocking = [outcome for outcome in outcomes if outcome.check.blocking]
    failed = [f"{o.check.name}: {o.summary}" for o in blocking if not o.passed]
    says = "; ".join(failed) or f"all {len(blocking)} that stop the chain pass"
    return Condition("checks", not failed, says)


def _score(
    test: TestSplit, ours: ModelFiles, theirs: ModelFiles | None
) -> tuple[dict[str, dict[str, FloatArray]], Condition | None]:
    """The snippet scores of the test split by both models, and what fails if one cannot score it."""
    cache = test.inputs.dataset.project.cache
    scores: dict[str, dict[str, FloatArray]] = {}
    for who, model in (("challenger", ours), ("champion", theirs)):
        if model is None:
            continue
        try:
            scores[who] = snippet_scores(test, model.pipeline, cache)
        except InputError as error:
            says = f"the {who}, version {model.version.version}, cannot score it: {error}"
            return scores, Condition("the same test data", False, says)
    return scores, None


def _judge(
    test: TestSplit, policy: Policy, scores: Mapping[str, Mapping[str, FloatArray]]
) -> Evidence:
    """Judge by the snippet scores of the challenger, and of the champion if there is one."""
    sources = source_folders(test.inputs.dataset)
    challenger = test.frame_scores(scores["challenger"])
    if "champion" not in scores:
        return judge_first(challenger, test.truth, sources, policy)
    champion = test.frame_scores(scores["champion"])
    return judge_pair(challenger, champion, test.truth, sources, policy)


def snippet_scores(test: TestSplit, pipeline: Path, cache: Path) -> dict[str, FloatArray]:
    """Score the test split as it lies there with a version's model.

    By the dataset's features, where the model's encoders made them; else by the version's own
    encoders, from the videos.

    Args:
        test: the test split.
        pipeline: the folder of the version's pipeline.
        cache: for what encoders can make again.

    Returns:
        (snippets,) by video.

    Raises:
        MismatchError: if neither is possible; every difference is listed.
        VideoError: if the version's encoders cannot read a video.
    """
    from tevad_model import artifact, scoring

    model = artifact.load(pipeline)
    cards = test.inputs.encoders
    made_by_others = [
        kind
        for kind, own in model.fingerprints.items()
        if kind not in cards or own.differences(cards[kind].fingerprint)
    ]
    if not made_by_others:
        found = scoring.score_many(model, test.features())
        return {video: scored.scores for video, scored in found.items()}
    return dict(_scored_from_videos(test, pipeline, cache))


def _scored_from_videos(
    test: TestSplit, folder: Path, cache: Path
) -> Iterator[tuple[str, FloatArray]]:
    from assets.raw_videos import video_path
    from tevad_model.pipeline import Pipeline, ReadyMade

    dataset = test.inputs.dataset
    pipeline = Pipeline.load(folder, cache)
    differences = [
        f"{kind} encoder, {line}"
        for kind, card in pipeline.ready_made.items()
        for line in card.fingerprint.differences(
            read_encoder_card(dataset.stage(ENCODED_BY[kind])).fingerprint
        )
    ]
    without = [row.video for row in test.rows if not row.path] if pipeline.reads_pixels else []
    differences += [f"{video}: has no pixels to encode" for video in without]
    if differences:
        raise MismatchError(
            f"scoring {dataset.name}", differences, "Train both models on the same features."
        )
    for row in test.rows:
        given = ReadyMade(**ready_made_parts(dataset, row.video, pipeline.takes))
        if pipeline.reads_pixels:
            yield row.video, pipeline.score_video(video_path(dataset, row), given).scores
        else:
            yield row.video, pipeline.score_ready_made(row.video, given, fps=row.fps).scores


def source_folders(dataset: Dataset) -> dict[str, str]:
    """The folder of the source that each video comes from; empty where there is but one."""
    folders = {
        row.video: str(PurePosixPath(row.path).parent)
        for row in listing.read(dataset).rows
        if row.path
    }
    return folders if len(set(folders.values())) > 1 else {}


def judge_first(
    scores: FrameScores,
    truth: Mapping[str, GroundTruth],
    sources: Mapping[str, str],
    policy: Policy,
) -> Evidence:
    """Judge a model that has no champion to beat: its AUC's interval lies above the floor."""
    from tevad_model.metrics import bootstrap_frame_auc, frame_auc

    metric, scores, truth = _as_measured(scores, truth, policy)
    auc = frame_auc(scores, truth)
    if auc is None:
        return Evidence((_undefined(metric),))
    low, high = bootstrap_frame_auc(
        [scores],
        truth,
        resamples=policy.resamples,
        seed=policy.seed,
        level=2 * policy.confidence - 1,
    )
    condition = Condition(
        "above the floor",
        low > policy.floor,
        f"{metric} {auc:.4f}, at least {low:.4f} with {policy.confidence:.1%} confidence; "
        f"the first model must lie above {policy.floor:g}",
    )
    figures = {"challenger": auc, "low": low, "high": high, "videos": float(len(truth))}
    return Evidence((condition,), figures, _parts(scores, None, truth, sources))


def judge_pair(
    challenger: FrameScores,
    champion: FrameScores,
    truth: Mapping[str, GroundTruth],
    sources: Mapping[str, str],
    policy: Policy,
) -> Evidence:
    """Judge whether a model is better than another beyond what chance explains.

    Args:
        challenger: frame scores by video.
        champion: those of the other model, of the same videos.
        truth: of the same videos.
        sources: the folder each video comes from, where there are several.
        policy: what is asked for.
    """
    from tevad_model.metrics import frame_auc, paired_auc_difference

    metric, challenger, truth_of = _as_measured(challenger, truth, policy)
    _, champion, truth = _as_measured(champion, truth, policy)
    if frame_auc(challenger, truth_of) is None:
        return Evidence((_undefined(metric),))
    found = paired_auc_difference(
        challenger,
        champion,
        truth,
        confidence=policy.confidence,
        resamples=policy.resamples,
        seed=policy.seed,
    )
    parts = _parts(challenger, champion, truth, sources)
    conditions = (
        Condition(
            "better than the champion",
            found.low > 0,
            f"{metric} {found.challenger:.4f} against {found.champion:.4f} on {found.videos} "
            f"videos: better by {found.difference:+.4f}, at least {found.low:+.4f} with "
            f"{policy.confidence:.1%} confidence; that must be above 0",
        ),
        Condition(
            "not by chance",
            found.chance <= 1 - policy.confidence,
            f"models that are alike differ by as much with probability {found.chance:.4f}; "
            f"the limit is {1 - policy.confidence:.4f}",
        ),
        _no_drop(parts, "class", policy.largest_drop.class_),
        _no_drop(parts, "source", policy.largest_drop.source),
    )
    figures = {
        "challenger": found.challenger,
        "champion": found.champion,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "chance": found.chance,
        "videos": float(found.videos),
    }
    return Evidence(conditions, figures, parts)


def _as_measured(
    scores: FrameScores, truth: Mapping[str, GroundTruth], policy: Policy
) -> tuple[str, FrameScores, Mapping[str, GroundTruth]]:
    """The metric's name, and scores and truth whose frame AUC it is.

    A video's AUC is that of its peak, as if that were its only frame.
    """
    from tevad_model.metrics import GroundTruth

    if policy.metric == "frame_auc" and all(each.is_marked for each in truth.values()):
        return "frame AUC", scores, truth
    peaks = {video: values.max(keepdims=True) for video, values in scores.items()}
    labels = {
        video: GroundTruth(each.label, each.fps, [(0, 1)] if each.label else [], each.event_class)
        for video, each in truth.items()
    }
    return "video AUC", peaks, labels


def _undefined(metric: str) -> Condition:
    return Condition(
        "the same test data", False, f"{metric} is undefined: the test split needs both labels"
    )


def _parts(
    challenger: FrameScores,
    champion: FrameScores | None,
    truth: Mapping[str, GroundTruth],
    sources: Mapping[str, str],
) -> tuple[Part, ...]:
    """The AUC of each class and of each source, where it is defined."""
    from tevad_model.metrics import per_class_auc

    measures: dict[str, Callable[[FrameScores], dict[str, float]]] = {
        "class": lambda scores: per_class_auc(scores, truth),
        "source": lambda scores: _per_source_auc(scores, truth, sources),
    }
    parts = []
    for kind, measure in measures.items():
        ours, theirs = measure(challenger), measure(champion) if champion else {}
        parts += [Part(kind, name, auc, theirs.get(name)) for name, auc in ours.items()]
    return tuple(parts)


def _per_source_auc(
    scores: FrameScores, truth: Mapping[str, GroundTruth], sources: Mapping[str, str]
) -> dict[str, float]:
    from tevad_model.metrics import frame_auc

    aucs = {}
    for folder in sorted({sources[video] for video in truth if video in sources}):
        videos = [video for video in truth if sources.get(video) == folder]
        auc = frame_auc({v: scores[v] for v in videos}, {v: truth[v] for v in videos})
        if auc is not None:
            aucs[folder] = auc
    return aucs


def _no_drop(parts: tuple[Part, ...], kind: str, limit: float) -> Condition:
    """Whether the challenger keeps what the champion had, class by class or source by source."""
    found = [part for part in parts if part.kind == kind and part.champion is not None]
    dropped = [
        f"{part.name} from {part.champion:.4f} to {part.challenger:.4f}"
        for part in found
        if part.champion is not None and part.champion - part.challenger > limit
    ]
    if dropped:
        says = f"{'; '.join(dropped)}; the limit is {limit:g}"
    elif found:
        says = f"none of {len(found)} by more than {limit:g}"
    else:
        says = f"the test videos have no {kind} to tell apart"
    return Condition(f"no {kind} drops", not dropped, says)


def _smoke(
    test: TestSplit,
    policy: Policy,
    model: ModelFiles,
    scores: Mapping[str, FloatArray],
    folder: Path,
) -> float:
    """Keep a smoke set with the scores it had, and score it through the served model."""
    from tevad_model.pipeline import ready_made_kinds

    dataset = test.inputs.dataset
    rows = smoke.choose(test.rows, policy.smoke.videos)
    smoke.write_smoke_set(dataset, rows, ready_made_kinds(model.pipeline), scores, folder)
    return smoke.largest_difference(model.folder, folder, dataset.project.cache)
