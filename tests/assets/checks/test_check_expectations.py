import re
import subprocess
import sys

import pytest
from small_dataset import change_row

from assets.checks.captions import check_captions
from assets.checks.data_docs import INDEX, SITE
from assets.checks.expectations import (
    OFFENDERS_SHOWN,
    Check,
    CheckOutcome,
    Table,
    between,
    equal,
    markdown_table,
    one_of,
    validate,
)
from assets.checks.raw_videos import check_raw_videos
from assets.workspace.project import Dataset


def check_rows(
    dataset: Dataset, rows: list[dict[str, object]], *checks: Check
) -> list[CheckOutcome]:
    return validate(dataset, "captions", checks, {"rows": Table.of(rows, key=["name"])})


def a_check(name: str = "a_check", **changes: object) -> Check:
    settings = {"table": "rows", "expect": lambda _: between("value", 0, 1), **changes}
    return Check(name, "Values are shares.", **settings)


@pytest.mark.parametrize("value", [-0.5, 1.5, None, float("nan"), float("inf")])
def test_a_value_outside_or_missing_offends(dataset: Dataset, value: float | None) -> None:
    rows = [{"name": "good", "value": 0.5}, {"name": "bad", "value": value}]
    [outcome] = check_rows(dataset, rows, a_check())
    assert [row["name"] for row in outcome.offenders] == ["bad"]


@pytest.mark.parametrize(("strictly", "passes"), [(False, True), (True, False)])
def test_a_strict_limit_leaves_out_the_limit(
    dataset: Dataset, strictly: bool, passes: bool
) -> None:
    check = a_check(expect=lambda _: between("value", 0.5, strictly=strictly))
    [outcome] = check_rows(dataset, [{"name": "on it", "value": 0.5}], check)
    assert outcome.passed is passes


def test_columns_that_differ_or_are_missing_offend(dataset: Dataset) -> None:
    rows = [
        {"name": "same", "left": "a", "right": "a"},
        {"name": "other", "left": "a", "right": "b"},
        {"name": "none", "left": "a", "right": None},
    ]
    [outcome] = check_rows(dataset, rows, a_check(expect=lambda _: equal("left", "right")))
    assert [row["name"] for row in outcome.offenders] == ["other", "none"]
    assert outcome.offenders[0] == {"name": "other", "left": "a", "right": "b"}


def test_each_check_gets_its_own_result(dataset: Dataset) -> None:
    rows = [{"name": "row", "value": 2.0, "kind": "known"}]
    outcomes = check_rows(
        dataset,
        rows,
        a_check("first", expect=lambda _: one_of("kind", ["known"])),
        a_check("second"),
        a_check("third", expect=lambda _: between("value", 0)),
    )
    assert [outcome.check.name for outcome in outcomes] == ["first", "second", "third"]
    assert [outcome.passed for outcome in outcomes] == [True, False, True]


def test_a_row_that_offends_twice_is_told_once(dataset: Dataset) -> None:
    check = a_check(expect=lambda _: [*between("low", 1), *between("high", 1)])
    [outcome] = check_rows(dataset, [{"name": "row", "low": 0.0, "high": 0.5}], check)
    assert outcome.offenders == ({"name": "row", "low": 0.0, "high": 0.5},)


def test_nothing_measured_offends_nothing(dataset: Dataset) -> None:
    [outcome] = check_rows(dataset, [], a_check())
    assert outcome.passed
    assert "| value | nothing |" in outcome.figures_table


def test_a_column_that_was_not_measured_is_a_defect(dataset: Dataset) -> None:
    with pytest.raises(RuntimeError, match="value"):
        check_rows(dataset, [{"name": "row", "another": 1.0}], a_check())


def test_the_first_offenders_are_shown_with_the_number_of_the_others(dataset: Dataset) -> None:
    rows = [{"name": f"row {i:02d}", "value": 2.0} for i in range(OFFENDERS_SHOWN + 3)]
    [outcome] = check_rows(dataset, rows, a_check())
    assert len(outcome.offenders) == OFFENDERS_SHOWN + 3
    assert f"row {OFFENDERS_SHOWN - 1:02d}" in outcome.offenders_table
    assert f"row {OFFENDERS_SHOWN:02d}" not in outcome.offenders_table
    assert outcome.offenders_table.endswith("… and 3 more")


def test_figures_say_what_was_found_against_which_limit(dataset: Dataset) -> None:
    rows = [{"name": "a", "value": 0.25}, {"name": "b", "value": 2.0}]
    [outcome] = check_rows(dataset, rows, a_check())
    assert "| value | 0.25 to 2 | at least 0, at most 1 | 1 |" in outcome.figures_table


@pytest.mark.parametrize(
    ("values", "found"),
    [([1.0, 1.00000001], "1"), ([1, 3], "1 to 3"), (["a", "b"], "2 values"), (["a", "a"], "a")],
)
def test_found_values_are_summed_up(dataset: Dataset, values: list[object], found: str) -> None:
    rows = [{"name": str(number), "value": value} for number, value in enumerate(values)]
    check = a_check(expect=lambda _: one_of("value", ["a", "b"]))
    [outcome] = check_rows(dataset, rows, check)
    assert f"| value | {found} | a or b |" in outcome.figures_table


def test_a_cell_cannot_break_the_table() -> None:
    table = markdown_table([{"reason": "two\nlines | one cell", "empty": "", "none": None}])
    assert table.splitlines()[-1] == r"| two lines \| one cell | (empty) | (missing) |"


def test_data_docs_of_one_stage_leave_those_of_another(dataset: Dataset) -> None:
    for outcome in [*check_raw_videos(dataset), *check_captions(dataset)]:
        assert outcome.data_docs.is_file()
    check_captions(dataset)
    site = dataset.reports / SITE
    index = (site / INDEX).read_text()
    linked = re.findall(r'href="([^"]+)"', index)
    assert {link.split("/")[0] for link in linked} == {"raw_videos", "captions"}
    assert all((site / link).is_file() for link in linked)


def test_data_docs_name_the_offender_and_load_nothing(dataset: Dataset) -> None:
    change_row(dataset, "raw_videos", "train-normal-0", problem="<b>cut</b> off")
    outcomes = {outcome.check.name: outcome for outcome in check_raw_videos(dataset)}
    page = outcomes["no_video_is_quarantined"].data_docs.read_text()
    assert "train-normal-0" in page
    assert "&lt;b&gt;cut&lt;/b&gt; off" in page
    assert "<b>cut</b>" not in page
    assert not re.search(r"<(script|img|link)\b[^>]*\b(src|href)=", page)
    assert 'href="../index.html"' in page


def test_checks_are_defined_without_their_libraries() -> None:
    heavy = ("great_expectations", "pandas", "torch")
    code = f"import sys, assets.checks; sys.exit(str([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
