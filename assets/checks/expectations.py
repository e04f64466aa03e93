"""Checks as data: what each expects of a measured table, and what came of it.

A check is measure → expect → result. The stage's file measures its data into small tables, Great
Expectations judges the rows, and the outcome names the offenders. Nothing here knows a stage or
Dagster. Great Expectations takes seconds to import, so it is imported when a check runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.checks import data_docs
from assets.workspace.params import CheckParams
from assets.workspace.project import Dataset

if TYPE_CHECKING:
    import pandas as pd

OFFENDERS_SHOWN = 20
PRESENT = "a value"
"""The limit of an expectation that only asks for a value to be there."""


@dataclass(frozen=True)
class Table:
    """What was measured, one row for each thing that can offend.

    Attributes:
        rows: the measurements.
        key: columns that name a row, such as ``("video",)``.
    """

    rows: pd.DataFrame
    key: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, object]], key: Sequence[str]) -> Table:
        """A table of dictionaries; an empty one has no columns and nothing to offend.

        An infinite measurement is none: it is set to missing, as JSON has no word for it.
        """
        import pandas as pd

        return cls(pd.DataFrame(list(rows)).replace([math.inf, -math.inf], math.nan), tuple(key))


Tables = Mapping[str, Table]
"""The tables of a stage by name, such as ``videos``."""


@dataclass(frozen=True)
class Expectation:
    """One of Great Expectations', not built yet.

    Attributes:
        kind: name of its class.
        columns: the measurements it is about.
        arguments: what it is built with besides.
        limit: what is expected, in words.
    """

    kind: str
    columns: tuple[str, ...]
    arguments: Mapping[str, Any]
    limit: str


@dataclass(frozen=True)
class Check:
    """Something that must hold of a stage's output.

    Attributes:
        name: such as ``features_are_finite``.
        description: what must hold, and why.
        table: the measured table that its expectations are about.
        expect: the expectations, given the limits in ``params.yaml``.
        is_error: whether a failure is wrong (an error) or only suspicious (a warning).
        blocking: whether a failure stops the assets behind it.
    """

    name: str
    description: str
    table: str
    expect: Callable[[CheckParams], Sequence[Expectation]]
    is_error: bool = True
    blocking: bool = False


@dataclass(frozen=True)
class SuiteItem:
    """An expectation and the check it belongs to."""

    check: Check
    expectation: Expectation


@dataclass(frozen=True)
class Judgement:
    """What came of one expectation.

    Attributes:
        measured: the column or columns, in words.
        limit: what was expected.
        found: the values over all rows, in words.
        offenders: key columns and measured columns of each row that does not meet it.
    """

    measured: str
    limit: str
    found: str
    offenders: tuple[Mapping[str, object], ...]


@dataclass(frozen=True)
class CheckOutcome:
    """What came of a check.

    Attributes:
        check: the check.
        key: columns that name an offender.
        judgements: one for each of its expectations.
        data_docs: the page of Great Expectations' data docs that shows it.
    """

    check: Check
    key: tuple[str, ...]
    judgements: tuple[Judgement, ...]
    data_docs: Path

    @property
    def passed(self) -> bool:
        """Whether nothing offends."""
        return not self.offenders

    @property
    def offenders(self) -> tuple[Mapping[str, object], ...]:
        """The rows that do not meet an expectation, each once, with all that offends in it."""
        merged: dict[tuple[object, ...], dict[str, object]] = {}
        for row in (row for judgement in self.judgements for row in judgement.offenders):
            merged.setdefault(tuple(row[column] for column in self.key), {}).update(row)
        return tuple(merged.values())

    @property
    def figures_table(self) -> str:
        """What was measured against which limit, as a Markdown table."""
        return markdown_table(
            [
                {
                    "measured": j.measured,
                    "found": j.found,
                    "expected": j.limit,
                    "offenders": len(j.offenders),
                }
                for j in self.judgements
                if j.limit != PRESENT or j.offenders
            ]
        )

    @property
    def offenders_table(self) -> str:
        """The first offenders as a Markdown table, with how many more there are."""
        shown = markdown_table(self.offenders[:OFFENDERS_SHOWN])
        more = len(self.offenders) - OFFENDERS_SHOWN
        return f"{shown}\n\n… and {more} more" if more > 0 else shown

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.passed:
            return self.check.description
        return f"{len(self.offenders)} do not meet this: {self.check.description}"


def between(
    column: str, low: float | None = None, high: float | None = None, *, strictly: bool = False
) -> list[Expectation]:
    """Every value lies between the limits and none is missing.

    Great Expectations passes over missing values; a figure that is not there keeps no limit.

    Args:
        column: the measurement.
        low: the least it may be; None is no limit.
        high: the most it may be.
        strictly: whether it must lie above ``low``, not on it.
    """
    arguments = {"column": column, "min_value": low, "max_value": high, "strict_min": strictly}
    at_least = "" if low is None else f"{'above' if strictly else 'at least'} {low:g}"
    at_most = "" if high is None else f"at most {high:g}"
    limit = f"{low:g}" if low == high else ", ".join(filter(None, (at_least, at_most)))
    return [
        Expectation("ExpectColumnValuesToNotBeNull", (column,), {"column": column}, PRESENT),
        Expectation("ExpectColumnValuesToBeBetween", (column,), arguments, limit),
    ]


def one_of(column: str, values: Sequence[str]) -> list[Expectation]:
    """Every value is one of those given."""
    limit = " or ".join(value for value in values if value) or "nothing"
    arguments = {"column": column, "value_set": list(values)}
    return [Expectation("ExpectColumnValuesToBeInSet", (column,), arguments, limit)]


def equal(column: str, other: str) -> list[Expectation]:
    """In every row two columns say the same."""
    arguments = {"column_A": column, "column_B": other, "ignore_row_if": "neither"}
    limit = f"equal to {_words(other)}"
    return [Expectation("ExpectColumnPairValuesToBeEqual", (column, other), arguments, limit)]


def validate(
    dataset: Dataset, stage: str, checks: Sequence[Check], tables: Tables
) -> list[CheckOutcome]:
    """Judge a stage's measurements and show the result in the dataset's data docs.

    Args:
        dataset: whose limits and data docs to use.
        stage: what was measured.
        checks: what to expect.
        tables: what was measured.

    Returns:
        An outcome for each check, in their order.
    """
    limits = dataset.params.checks
    suites = {
        name: [SuiteItem(c, e) for c in checks if c.table == name for e in c.expect(limits)]
        for name in tables
    }
    results = {
        name: data_docs.judge(f"{stage}.{name}", tables[name], suites[name]) for name in tables
    }
    unexpected = {
        name: data_docs.unexpected_rows(results[name], len(suites[name])) for name in tables
    }
    pages = data_docs.write_pages(dataset.reports, stage, results)
    return [
        CheckOutcome(
            check=check,
            key=tables[check.table].key,
            judgements=tuple(
                _judge(item.expectation, tables[check.table], rows)
                for item, rows in zip(suites[check.table], unexpected[check.table], strict=True)
                if item.check is check
            ),
            data_docs=pages[check.table],
        )
        for check in checks
    ]


def _judge(
    expectation: Expectation, table: Table, unexpected: Sequence[Mapping[str, object]]
) -> Judgement:
    shown = (*table.key, *expectation.columns)
    return Judgement(
        measured=_words(expectation.columns[0]),
        limit=expectation.limit,
        found=_found(table, expectation.columns[0]),
        offenders=tuple({column: row[column] for column in shown} for row in unexpected),
    )


def _found(table: Table, column: str) -> str:
    """The values of a column over all rows: the one there is, a range, or how many there are."""
    import pandas as pd

    values = table.rows[column].dropna() if column in table.rows else pd.Series(dtype=float)
    distinct = values.unique()
    if len(distinct) == 0:
        return "nothing"
    if len(distinct) > 1 and not pd.api.types.is_numeric_dtype(values):
        return f"{len(distinct)} values"
    least, largest = _cell(values.min()), _cell(values.max())
    return least if least == largest else f"{least} to {largest}"


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a Markdown table; the columns are those of all rows."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [[_words(c) for c in columns], ["---"] * len(columns)]
    lines += [[_cell(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _words(column: str) -> str:
    return column.replace("_", " ")


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return "(missing)"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split()) or "(empty)"
