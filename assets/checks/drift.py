"""What should hold of drift: newer videos are like those the champion learned from.

Drift is no defect of the data, so the check only warns; who reads the warning labels some of what
arrived, and a retraining follows.
"""

from dataclasses import asdict

from assets.checks.expectations import Check, CheckOutcome, Table, Tables, one_of, validate
from assets.checks.faces import asset_checks
from assets.drift import REPORT, STAGE, read_drift
from assets.workspace.project import Dataset
from tevad_model.errors import InputError

CHECKS = (
    Check(
        "nothing_has_drifted",
        "Features, captions and scores of newer videos are like those of the champion's training, "
        "or there are too few to tell.",
        table="kinds",
        expect=lambda _: one_of("finding", ["alike", "not enough to tell"]),
        is_error=False,
    ),
)


def check_drift(dataset: Dataset) -> list[CheckOutcome]:
    """Check the report.

    Raises:
        InputError: if there is none.
    """
    return validate(dataset, STAGE, CHECKS, measure_report(dataset))


def measure_report(dataset: Dataset) -> Tables:
    """What was found, a row a kind.

    Raises:
        InputError: if there is no report.
    """
    report = read_drift(dataset)
    if report is None:
        raise InputError(f"{dataset.reports / REPORT}: not there; materialize {STAGE} first")
    return {"kinds": Table.of([asdict(each) for each in report.kinds], key=["kind"])}


drift_checks = asset_checks(STAGE, CHECKS, check_drift)
