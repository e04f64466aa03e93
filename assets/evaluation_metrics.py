"""evaluation_metrics: score the test split and hold it against the ground truth.

The only stage that reads ``events.csv``. What it writes::

    evaluation.json       every figure of every seed, labelled by how its checkpoint was picked
    explanations.json     the snippets behind each true event and each alarm of the served model
    scores.parquet        the served model's score of every test snippet, with its caption
    ../metrics.json       the headline figures, flat, for `dvc metrics`
    ../plots/*.csv        curves for `dvc plots`

How figures are computed is :mod:`tevad_model.metrics`'s business.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
import numpy as np

from assets.captions import has_captions, load_captions
from assets.explanations import FILE as EXPLANATIONS
from assets.explanations import ScoredVideo, explanation_table, explanations
from assets.raw_videos import read_events
from assets.tevad_model import (
    CHECKPOINT_SCORES,
    CHECKPOINTS,
    LAST,
    PICKED,
    TRAINING,
    Inputs,
    check_inputs,
    figure_path,
    is_current,
    picked_folder,
    pictures_of,
    read_history,
    read_inputs,
    run_link,
    run_to_evaluate,
    seed_folder,
    served_seed,
    trained_encoders,
    trained_seeds,
    training_runs,
)
from assets.tevad_model import STAGE as MODELS
from assets.workspace import files, versions
from assets.workspace.face import (
    access,
    committed,
    dataset_of,
    explained,
    markdown_table,
    stage_asset,
)
from assets.workspace.manifest import RawVideoRow
from assets.workspace.project import FEATURE_STAGES, Dataset
from assets.workspace.stage import StageReport
from assets.workspace.tracking import DATA_TAG, Tracking, data_tags
from tevad_model import timeline
from tevad_model.atomic import replacing
from tevad_model.errors import InputError, MismatchError
from tevad_model.timeline import FloatArray

if TYPE_CHECKING:
    from tevad_model import figures
    from tevad_model.bags import VideoFeatures
    from tevad_model.curves import RankingCurves
    from tevad_model.metrics import Evaluation, GroundTruth
    from tevad_model.scoring import SnippetScores

STAGE = "evaluation_metrics"
CODE_VERSION = "1"
"""Changes when the same model and ground truth would give other figures."""

EVALUATION = "evaluation.json"
SCORES = "scores.parquet"
METRICS = "metrics.json"
PLOTS = "plots"
SHOWN = ("frame_auc", "frame_ap", "video_auc", "last_frame_auc", "best_on_test_frame_auc")
TIMELINES = "timelines"
FIGURES = (TIMELINES, "roc", "precision_recall", "reliability")


def evaluate(dataset: Dataset, tracking: Tracking) -> StageReport:
    """Evaluate the models that lie there, unless the evaluation that lies there is of just these.

    Raises:
        InputError: if there is no model of the inputs that lie there, no test video, or MLflow is
            lost.
        MismatchError: if the features are not those the models were trained on.
    """
    with dataset.held(), tracking.answering():
        return _evaluate(dataset, tracking)


def _evaluate(dataset: Dataset, tracking: Tracking) -> StageReport:
    started = time.perf_counter()
    for folder in (dataset.stage(STAGE), dataset.folder / PLOTS):
        files.remove_half_written(folder)
    files.remove_half_written(dataset.folder, below=False)  # below it, DVC may be linking
    inputs = read_inputs(dataset)
    is_there = _is_there(dataset)
    if not is_there:
        _evaluate_and_write(inputs)
    if not (is_there and _is_logged(dataset, tracking)):
        _log(dataset, tracking)
    videos = len(inputs.split("test"))
    report = StageReport.of_whole(
        STAGE,
        dataset,
        videos,
        is_new=not is_there,
        seconds=time.perf_counter() - started,
        warnings=_warnings(files.read_json(dataset.stage(STAGE) / EVALUATION)),
    )
    report.publish(dataset)
    return report


def is_evaluated(dataset: Dataset, tracking: Tracking) -> bool:
    """Whether there is nothing to evaluate, and a run of the models has the evaluation."""
    return _is_there(dataset) and _is_logged(dataset, tracking)


def _is_there(dataset: Dataset) -> bool:
    """Whether the evaluation that lies there is of just these data, parameters and code."""
    if not figure_path(dataset, TIMELINES).is_file():
        return False  # it came from elsewhere, and pictures are not versioned
    if not versions.is_up_to_date(dataset, STAGE):
        return False
    written = files.read_json(dataset.stage(STAGE) / EVALUATION)
    return bool(written.get("code_version") == CODE_VERSION)


def _evaluate_and_write(inputs: Inputs) -> None:
    """Write what the module's docstring says, and draw it."""
    from tevad_model.curves import frame_curves

    dataset = inputs.dataset
    check_inputs(inputs, f"evaluating {dataset.name}")
    test = TestSplit.of(inputs)
    if not is_current(dataset, inputs):
        raise _outdated(inputs)
    seeds = {
        seed: evaluate_seed(test, seed_folder(dataset, seed)) for seed in trained_seeds(dataset)
    }
    served_by = served_seed(dataset)
    served = seeds[served_by]
    result = {
        "code_version": CODE_VERSION,
        "served_seed": served_by,
        "seeds": {str(seed): found.to_json() for seed, found in seeds.items()},
        "over_seeds": over_seeds(list(seeds.values())),
    }
    folder = dataset.stage(STAGE)
    files.write_json(folder / EVALUATION, result)
    _write_scores(folder / SCORES, test, served.scores)
    files.write_json(folder / EXPLANATIONS, _explanations(test, served, served_by))
    files.write_json(metrics_path(dataset), headline(result))
    curves = frame_curves(served.frames, test.truth)
    _write_plots(dataset, curves)
    _draw(test, served, curves)


def _warnings(result: Mapping[str, Any]) -> tuple[str, ...]:
    undefined = result["seeds"][str(result["served_seed"])][PICKED]["undefined"]
    return tuple(f"{name}: not defined, {reason}" for name, reason in sorted(undefined.items()))


def _outdated(inputs: Inputs) -> InputError:
    """What is wrong with models of other inputs, by each part that differs."""
    name, remedy = inputs.dataset.name, "materialize tevad_model again"
    differences = [
        f"{kind} encoder, {line}"
        for kind, trained_with in trained_encoders(inputs.dataset).items()
        if kind in inputs.encoders
        for line in trained_with.fingerprint.differences(inputs.encoders[kind].fingerprint)
    ]
    differences += _other_training(inputs)
    if differences:
        return MismatchError(f"evaluating {name}", differences, f"Now {remedy}.")
    return InputError(
        f"{name}: the models were trained on other inputs than lie there now; {remedy}"
    )


def _other_training(inputs: Inputs) -> Iterator[str]:
    """The parameters and videos of the training that are not those of now."""
    path = inputs.dataset.stage(MODELS) / TRAINING
    if not path.is_file():
        return
    training = files.read_json(path)
    now = inputs.params.model_dump(mode="json")
    for key in sorted(now.keys() | training["params"].keys()):
        if now.get(key) != training["params"].get(key):
            then = training["params"].get(key)
            yield f"tevad_model.{key}: {then!r} in training, {now.get(key)!r} in params.yaml"
    then, there = set(training["videos"]), {row.video for row in inputs.split("train")}
    yield from (f"video {video}: trained on, and not there now" for video in sorted(then - there))
    yield from (f"video {video}: not trained on" for video in sorted(there - then))


def metrics_path(dataset: Dataset) -> Path:
    """Where the headline figures lie."""
    return dataset.folder / METRICS


def headline(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures to look at first: means over the seeds, by how the checkpoint was picked."""
    flat: dict[str, float] = {}
    for pick, figures in result["over_seeds"].items():
        for name, spread in figures.items():
            if pick == "picked" or name == "frame_auc":
                prefix = "" if pick == "picked" else f"{pick}_"
                flat[f"{prefix}{name}"] = spread["mean"]
                flat[f"{prefix}{name}_std"] = spread["std"]
    return flat


@dataclass(frozen=True)
class TestSplit:
    """The videos that are evaluated, with what the models read and what is true of them."""

    __test__: ClassVar[bool] = False  # pytest takes the name for a test

    inputs: Inputs
    rows: Sequence[RawVideoRow]
    truth: Mapping[str, "GroundTruth"]
    has_captions: bool

    @classmethod
    def of(cls, inputs: Inputs) -> "TestSplit":
        """Gather it.

        Raises:
            InputError: if no usable video is in the test split.
        """
        from tevad_model.metrics import GroundTruth

        dataset = inputs.dataset
        rows = inputs.split("test")
        if not rows:
            raise InputError(
                f"{dataset.name}: no usable video is in the test split; give some videos the "
                "split `test` in videos.csv"
            )
        events = read_events(dataset)
        truth = {
            row.video: GroundTruth(
                label=row.label == "abnormal",
                fps=row.fps,
                events=None if events is None else events.get(row.video),
                event_class=row.category or None,
            )
            for row in rows
        }
        return cls(inputs, rows, truth, has_captions(dataset))

    def features(self) -> Iterator[tuple[str, "VideoFeatures"]]:
        """What the models read, video by video."""
        return ((row.video, self.inputs.features(row.video)) for row in self.rows)

    def captions(self, video: str) -> Sequence[str]:
        """What is said of a video's snippets; nothing where the dataset has no captions."""
        return load_captions(self.inputs.dataset, video) if self.has_captions else ()

    def frame_scores(self, snippet_scores: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Each frame its snippet's score, by video."""
        return {
            row.video: timeline.frame_values(snippet_scores[row.video], row.frames)
            for row in self.rows
        }


@dataclass(frozen=True)
class SeedFigures:
    """What one seed's models are worth.

    Attributes:
        scores: of the picked model, by video.
        frames: the same, each frame its snippet's.
        picks: figures by how the checkpoint was picked: ``picked``, ``last``.
        best_on_test: the checkpoint that test itself would pick: its step and frame AUC. Never a
            result, only what published figures are comparable with.
    """

    scores: Mapping[str, "SnippetScores"]
    frames: Mapping[str, FloatArray]
    picks: Mapping[str, "Evaluation"]
    best_on_test: Mapping[str, float]

    def figures(self) -> dict[str, dict[str, float]]:
        """The figures of every pick by name."""
        found = {pick: dict(evaluation.figures) for pick, evaluation in self.picks.items()}
        if self.best_on_test:
            found["best_on_test"] = {"frame_auc": self.best_on_test["frame_auc"]}
        return found

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            **{pick: evaluation.to_json() for pick, evaluation in self.picks.items()},
            "best_on_test": dict(self.best_on_test),
        }


def evaluate_seed(test: TestSplit, folder: Path) -> SeedFigures:
    """Score the test split with what training with a seed made, and hold it against the truth.

    Args:
        test: the test split.
        folder: what :func:`assets.tevad_model.train_seed` wrote.

    Raises:
        MismatchError: if the features are not those the models were trained on.
    """
    from tevad_model import artifact, metrics, scoring

    dataset = test.inputs.dataset
    fingerprints = {kind: card.fingerprint for kind, card in test.inputs.encoders.items()}
    _, first = next(test.features())
    scores, frames, picks = {}, {}, {}
    for pick in (PICKED, LAST):
        model = artifact.load(folder / pick)
        artifact.check_fits(
            model,
            f"evaluating {dataset.name}, {folder.name}",
            visual_dim=_last_dim(first.visual),
            text_dim=_last_dim(first.text),
            fingerprints=fingerprints,
        )
        scores[pick] = scoring.score_many(model, test.features())
        frames[pick] = test.frame_scores({v: found.scores for v, found in scores[pick].items()})
        picks[pick] = metrics.evaluate(
            frames[pick],
            test.truth,
            threshold=model.threshold,
            resamples=dataset.params.evaluation_metrics.bootstrap,
        )
    return SeedFigures(scores[PICKED], frames[PICKED], picks, _best_on_test(test, folder))


def _last_dim(array: files.Array | None) -> int | None:
    return None if array is None else int(array.shape[-1])


def _best_on_test(test: TestSplit, folder: Path) -> dict[str, float]:
    from tevad_model import metrics

    path = folder / CHECKPOINTS
    header = files.read_array_header(path)
    if header is None:
        return {}
    joined = files.read_array(path, CHECKPOINT_SCORES)
    lengths = [snippets for _, snippets in header["videos"]]
    aucs: dict[int, float] = {}
    for step, scores in zip(header["steps"], joined, strict=True):
        parts = np.split(scores.astype(np.float64), np.cumsum(lengths)[:-1])
        by_video = dict(zip((video for video, _ in header["videos"]), parts, strict=True))
        auc = metrics.frame_auc(test.frame_scores(by_video), test.truth)
        if auc is not None:
            aucs[step] = auc
    if not aucs:
        return {}
    step = max(aucs, key=lambda step: (aucs[step], -step))
    return {"step": step, "frame_auc": aucs[step]}


def over_seeds(seeds: Sequence[SeedFigures]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and deviation of every figure over the seeds, by pick.

    ``flattery`` is what picking the checkpoint on test would have added, seed by seed.
    """
    from tevad_model.metrics import summarize

    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in seeds:
        for pick, figures in seed.figures().items():
            for name, value in figures.items():
                values[pick][name].append(value)
        if seed.best_on_test and "frame_auc" in seed.picks["picked"].figures:
            gain = seed.best_on_test["frame_auc"] - seed.picks["picked"].figures["frame_auc"]
            values["flattery"]["frame_auc"].append(gain)
    return {
        pick: {name: asdict(summarize(found)) for name, found in figures.items()}
        for pick, figures in values.items()
    }


def _write_scores(path: Path, test: TestSplit, scores: Mapping[str, "SnippetScores"]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = []
    for row in test.rows:
        captions = test.captions(row.video)
        found = scores[row.video]
        for snippet, (score, magnitude) in enumerate(
            zip(found.scores.tolist(), found.magnitudes.tolist(), strict=True)
        ):
            start, end = timeline.snippet_range(snippet, row.frames)
            table.append(
                {
                    "video": row.video,
                    "snippet": snippet,
                    "start_frame": start,
                    "end_frame": end,
                    "score": score,
                    "magnitude": magnitude,
                    "caption": captions[snippet] if captions else "",
                }
            )
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(table), temporary, compression="zstd")


def _explanations(test: TestSplit, served: SeedFigures, served_by: int) -> list[dict[str, Any]]:
    """Why the served model says what it says, video by video."""
    from tevad_model import artifact

    return explanations(
        artifact.load(picked_folder(test.inputs.dataset, served_by)),
        (
            ScoredVideo(
                row,
                test.inputs.features(row.video),
                served.scores[row.video],
                served.frames[row.video],
                test.truth[row.video].events or (),
                test.captions(row.video),
            )
            for row in test.rows
        ),
    )


def _write_plots(dataset: Dataset, curves: "RankingCurves | None") -> None:
    """Write the curves; a curve that is not defined is an empty table, as DVC wants every output."""
    folder = dataset.folder / PLOTS
    roc = zip(*curves.roc, strict=True) if curves else ()
    precision_recall = zip(*curves.precision_recall, strict=True) if curves else ()
    files.write_csv(folder / "roc.csv", ("false_positive_rate", "true_positive_rate"), roc)
    files.write_csv(folder / "precision_recall.csv", ("recall", "precision"), precision_recall)
    losses: dict[int, list[float]] = defaultdict(list)
    for seed in trained_seeds(dataset):
        for row in read_history(dataset, seed)["rows"]:
            losses[row["step"]].append(row["losses"]["loss"])
    means = ((step, float(np.mean(found))) for step, found in sorted(losses.items()))
    files.write_csv(folder / "training.csv", ("step", "loss"), means)


def _draw(test: TestSplit, served: SeedFigures, curves: "RankingCurves | None") -> None:
    """Draw the curves and the score timelines of the served model."""
    from tevad_model import figures

    dataset = test.inputs.dataset
    found = {name: figure_path(dataset, name) for name in FIGURES}
    for path in found.values():
        path.unlink(missing_ok=True)
    picked = served.picks[PICKED]
    if curves:
        roc = figures.Curve("served model", *curves.roc, area=picked.figures["frame_auc"])
        files.write_bytes(found["roc"], figures.roc([roc], title=dataset.name))
        ranking = figures.Curve(
            "served model", *curves.precision_recall, area=picked.figures["frame_ap"]
        )
        files.write_bytes(
            found["precision_recall"],
            figures.precision_recall([ranking], prevalence=curves.prevalence, title=dataset.name),
        )
        bins = picked.reliability
        files.write_bytes(
            found["reliability"],
            figures.reliability(
                [b.mean_score for b in bins],
                [b.share_abnormal for b in bins],
                [b.frames for b in bins],
                title=dataset.name,
            ),
        )
    files.write_bytes(
        found[TIMELINES],
        figures.score_timelines(
            _shown_videos(test, served), threshold=picked.threshold, title=dataset.name
        ),
    )


def _shown_videos(test: TestSplit, served: SeedFigures) -> list["figures.ScoredVideo"]:
    """The most suspicious videos of either label."""
    from tevad_model import figures

    peaks = {video: float(found.scores.max()) for video, found in served.scores.items()}
    ranked = sorted(test.rows, key=lambda row: -peaks[row.video])
    shown = [
        row
        for label, count in (("abnormal", 4), ("normal", 2))
        for row in [row for row in ranked if row.label == label][:count]
    ]
    return [
        figures.ScoredVideo(
            video=row.video,
            frames=row.frames,
            fps=row.fps,
            scores=served.scores[row.video].scores,
            captions=test.captions(row.video),
            events=test.truth[row.video].events or (),
        )
        for row in shown
    ]


def _is_logged(dataset: Dataset, tracking: Tracking) -> bool:
    """Whether a run of the models has the evaluation that lies there."""
    recorded = versions.recorded(dataset.project)[STAGE, dataset.name]
    tags = [run.data.tags for run in training_runs(dataset, tracking)]
    return any(each.get(f"{DATA_TAG}{STAGE}") == recorded for each in tags)


def _log(dataset: Dataset, tracking: Tracking) -> None:
    """Add the figures to the run of the models they are of."""
    version = versions.current(dataset, STAGE)
    run = run_to_evaluate(dataset, tracking, version)
    figures = files.read_json(metrics_path(dataset))
    run.metrics({f"test_{name}": value for name, value in figures.items()})
    folder = dataset.stage(STAGE)
    for path in (folder / EVALUATION, folder / EXPLANATIONS, metrics_path(dataset)):
        run.artifact(path, "evaluation")
    for name in FIGURES:
        if (path := figure_path(dataset, name)).is_file():
            run.artifact(path, "figures")
    run.tags(data_tags({STAGE: version}))  # last: it says that the rest is there


@stage_asset(
    deps=[*FEATURE_STAGES, "tevad_model"],
    code_version=CODE_VERSION,
    group_name="model",
    kinds={"python", "scikitlearn", "mlflow", "dvc"},
)
def evaluation_metrics(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """How well the models find the abnormal frames of the test split."""
    dataset = dataset_of(context)
    with explained():
        report = evaluate(dataset, access(context).tracking())
    figures = files.read_json(metrics_path(dataset))
    link = run_link(access(context).tracking(), dataset)
    shown = {name: round(figures[name], 4) for name in SHOWN if name in figures}
    tables = {
        "what picking on test would have claimed": _flattery_table(figures),
        "events and alarms": explanation_table(
            files.read_json(dataset.stage(STAGE) / EXPLANATIONS)
        ),
        "all figures": _figure_table(figures),
    }
    pages = {name: dg.MetadataValue.md(table) for name, table in tables.items()}
    return committed(dataset, report, {**link, **shown, **pictures_of(dataset, FIGURES), **pages})


def _flattery_table(figures: Mapping[str, float]) -> str:
    """The frame AUC by how the checkpoint was picked; the last row is no result."""
    picks = (
        ("by validation", "frame_auc"),
        ("the last step", "last_frame_auc"),
        ("by test itself (no result)", "best_on_test_frame_auc"),
        ("flattery: by test, less by validation", "flattery_frame_auc"),
    )
    rows = [
        (said, f"{figures[name]:.4f} ± {figures[f'{name}_std']:.4f}")
        for said, name in picks
        if name in figures
    ]
    return markdown_table(("checkpoint picked", "frame AUC"), rows)


def _figure_table(figures: Mapping[str, float]) -> str:
    rows = [
        (name, f"{value:.4f}", f"{figures[f'{name}_std']:.4f}")
        for name, value in figures.items()
        if f"{name}_std" in figures
    ]
    return markdown_table(("figure", "mean over seeds", "deviation"), rows)
