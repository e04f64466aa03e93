"""What was said of a stage's data, kept so that the same data are not judged twice.

A verdict holds while all it depends on is the same: the data as they lie there, the versions of what
they were made from, the source's listing, the limits, and the code that measures and judges. Of what
is no stage of ``dvc.yaml``, such as drift, the report is judged. Who reads a verdict is told when it
was given. It is kept beside the data docs; without it, or without its pages, it is given anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path

from assets.checks.expectations import CheckOutcome
from assets.checks.measurements import FOLDER, measuring_code
from assets.workspace import files, listing, versions
from assets.workspace.project import STAGES, Dataset


@dataclass(frozen=True)
class Verdict:
    """What came of one check, as people are shown it.

    Attributes:
        check: its name.
        passed: whether nothing offends.
        summary: one line.
        figures: what was measured against which limit, as a Markdown table.
        offenders: the first offenders, as a Markdown table.
        offending: how many there are.
        page: of the data docs that shows it, from the dataset's folder of reports.
    """

    check: str
    passed: bool
    summary: str
    figures: str
    offenders: str
    offending: int
    page: str

    @classmethod
    def of(cls, outcome: CheckOutcome, reports: Path) -> Verdict:
        """What an outcome comes to."""
        return cls(
            outcome.check.name,
            outcome.passed,
            outcome.summary,
            outcome.figures_table,
            outcome.offenders_table,
            len(outcome.offenders),
            outcome.data_docs.relative_to(reports).as_posix(),
        )


@dataclass(frozen=True)
class Verdicts:
    """What came of a stage's checks.

    Attributes:
        key: identity of all that they depend on.
        judged: when, as ISO 8601.
        checks: one for each.
    """

    key: str
    judged: str
    checks: tuple[Verdict, ...]

    @classmethod
    def read(cls, path: Path, reports: Path) -> Verdicts | None:
        """What was kept; None if there is nothing, it is not whole, or its pages are gone."""
        try:
            kept = files.read_json(path)
            checks = tuple(Verdict(**verdict) for verdict in kept.pop("checks"))
            found = cls(**kept, checks=checks)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return found if all((reports / each.page).is_file() for each in checks) else None


def verdicts(
    dataset: Dataset, stage: str, judge: Callable[[Dataset], Sequence[CheckOutcome]]
) -> tuple[Verdicts, bool]:
    """The verdicts on a stage's data, and whether they were given before on just these.

    Args:
        dataset: whose data.
        stage: which.
        judge: judges them, if that has to be done.
    """
    reports, key = dataset.reports, _key(dataset, stage)
    if kept := _kept(dataset, stage, key):
        return kept, True
    outcomes = judge(dataset)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    given = Verdicts(key, now, tuple(Verdict.of(outcome, reports) for outcome in outcomes))
    files.write_json(_path(dataset, stage), asdict(given))
    return given, False


def standing_verdicts(dataset: Dataset, stage: str) -> Verdicts | None:
    """The verdicts that were given before on a stage's data as they are; None if there are none."""
    return _kept(dataset, stage, _key(dataset, stage))


def _kept(dataset: Dataset, stage: str, key: str) -> Verdicts | None:
    kept = Verdicts.read(_path(dataset, stage), dataset.reports)
    return kept if kept is not None and kept.key == key else None


def _path(dataset: Dataset, stage: str) -> Path:
    return dataset.reports / FOLDER / f"{stage}.json"


def _key(dataset: Dataset, stage: str) -> str:
    identity = {
        **(_data(dataset, stage) if stage in STAGES else {"report": _report(dataset, stage)}),
        "source": listing.digest(dataset),
        "limits": dataset.params.checks.model_dump(mode="json"),
        "code": measuring_code(),
        "great_expectations": installed_version("great_expectations"),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _data(dataset: Dataset, stage: str) -> dict[str, object]:
    return {
        "data": versions.current(dataset, stage),
        "made_from": versions.made_from(dataset, stage),
        "warnings": _report(dataset, stage).get("warnings", []),
    }


def _report(dataset: Dataset, stage: str) -> dict[str, object]:
    """What the last run said; nothing if there is none."""
    path = dataset.reports / f"{stage}.json"
    report: dict[str, object] = files.read_json(path) if path.is_file() else {}
    return report
