"""What the command line prints at the end of a run: a short table and where to look next."""

from __future__ import annotations

from assets.promotion.decision import Decision, last_decision
from assets.workspace import files
from assets.workspace.project import CHAIN, Dataset
from assets.workspace.tracking import CHALLENGER, CHAMPION, Tracking, registered_name
from orchestration.standing import Standing


def summary(dataset: Dataset, model: str, seconds: float) -> str:
    """What a run of the chain did: stages, figures, the model, and what to try next.

    Args:
        dataset: the dataset.
        model: the registered version, such as ``tevad-ped2/3``.
        seconds: wall time of the whole run.
    """
    reports = {
        stage: files.read_json(path)
        for stage in CHAIN
        if (path := dataset.reports / f"{stage}.json").is_file()
    }
    lines = [
        f"{'stage':<20}{'done':>6}{'reused':>8}{'quarantined':>13}{'seconds':>9}{'frames/s':>10}"
    ]
    for stage, report in reports.items():
        speed = report.get("frames_per_second")
        lines.append(
            f"{stage:<20}{report['done']:>6}{report['reused']:>8}"
            f"{len(report['quarantined']):>13}{report['seconds']:>9.1f}"
            f"{f'{speed:.0f}' if speed else '':>10}"
        )
    spent = sum(report["seconds"] for report in reports.values())
    lines += [
        f"{'whole run':<20}{'':>27}{seconds:>9.1f}",
        f"{'  of it not in stages':<47}{seconds - spent:>9.1f}",
    ]
    decision = last_decision(dataset, Tracking.of(dataset.project))
    return "\n".join([*lines, *_what_there_is(dataset, model, decision)])


def standing_summary(dataset: Dataset, standing: Standing, seconds: float) -> str:
    """What there is where a run would have had nothing to do: the version of every asset.

    Args:
        dataset: the dataset.
        standing: how it stands.
        seconds: wall time of looking.
    """
    versions = standing.versions
    decision = last_decision(dataset, Tracking.of(dataset.project))
    return "\n".join(
        [
            f"{dataset.name}: nothing to do; looked at in {seconds:.1f} s "
            "(--force starts a run all the same)",
            f"{'stage':<20}version",
            *(f"{asset:<20}{version}" for asset, version in versions.items()),
            *_what_there_is(dataset, versions["registered_model"], decision),
        ]
    )


def _what_there_is(dataset: Dataset, model: str, decision: Decision | None) -> list[str]:
    figures = {**_figures(dataset), "model version": model}
    if decision:
        figures["decision"] = f"{decision.outcome}: {decision.why}"
    lines = [f"{name:<24}{text}" for name, text in figures.items()]
    return ["", *lines, "", *_next_steps(dataset, decision)]


def decision_summary(decision: Decision) -> str:
    """A decision on a model's version, with all that it rests on."""
    marks = {True: "met", False: "NOT MET", None: "-"}
    against = f"version {decision.champion}" if decision.champion else "no champion"
    return "\n".join(
        [
            f"{decision.name} version {decision.version} against {against}: {decision.outcome}, "
            f"by {decision.by} on {decision.moment}",
            *(f"  {reason}" for reason in decision.reasons),
            "",
            *(f"{marks[c.passed]:<9}{c.name}: {c.says}" for c in decision.conditions),
        ]
    )


def _figures(dataset: Dataset) -> dict[str, str]:
    metrics = files.read_json(dataset.folder / "metrics.json")
    figures = {}
    for name, key in (
        ("frame AUC (test)", "frame_auc"),
        ("frame AP (test)", "frame_ap"),
        ("video AUC (test)", "video_auc"),
        ("frame AUC, last step", "last_frame_auc"),
        ("frame AUC, best on test", "best_on_test_frame_auc"),
    ):
        if key in metrics:
            figures[name] = f"{metrics[key]:.3f} ± {metrics[f'{key}_std']:.3f} over seeds"
    return figures


def _next_steps(dataset: Dataset, decision: Decision | None) -> list[str]:
    is_champion = decision is not None and decision.outcome == "promoted"
    alias = f"models:/{registered_name(dataset.name)}@{CHAMPION if is_champion else CHALLENGER}"
    quarantine = dataset.reports / "raw_videos.json"
    return [
        "next:",
        "  tevad up                      the Dagster and MLflow pages",
        f"  tevad score VIDEO --model {alias}",
        f"  dvc metrics show              ({dataset.folder.relative_to(dataset.project.root)} holds the data)",
        *(
            [f"  quarantined videos: {quarantine}"]
            if files.read_json(quarantine)["quarantined"]
            else []
        ),
    ]
