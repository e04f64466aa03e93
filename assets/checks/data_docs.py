"""Great Expectations at work: rows judged, and its data docs as a static site for each dataset.

The site is ``<reports>/data_docs``: an index, and below each stage a page and the result as JSON for
each table. It shows the latest result; how results went over time is Dagster's to show. The pages
are Great Expectations' own, made readable without a network: their style and scripts would come
from elsewhere, so they carry a small stylesheet instead and load nothing.
"""

from __future__ import annotations

import copy
import html
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.workspace import files
from assets.workspace.project import STAGES

if TYPE_CHECKING:
    import pandas as pd

    from assets.checks.expectations import SuiteItem, Table

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read when the library is imported

Rows = list[dict[str, object]]

SITE = "data_docs"
INDEX = "index.html"

_NUMBER = "number"
_LOAD_TIME = "%Y%m%dT%H%M%S.%f%z"

_FROM_ELSEWHERE = re.compile(
    r"""<script\b[^>]*\bsrc="https?:[^>]*>\s*</script>"""
    r"""|<link\b[^>]*>"""
    r"""|<img\b[^>]*\bsrc="https?:[^>]*>"""
    r"""|<footer\b.*?</footer>""",
    re.DOTALL,
)
_TO_INDEX = re.compile(r'href="[./]*/index\.html"')
_TO_SUITE = re.compile(r'<a href="[./]*/expectations/[^"]*" >(.*?)</a>')

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #2b2b2b; margin: 0 auto; max-width: 1100px;
  padding: 0 24px 48px; }
a { color: #0072b2; text-decoration: none; }
a:hover { text-decoration: underline; }
h4, h5, h6, .h6 { font-size: 15px; font-weight: 600; margin: 8px 0 4px; }
h1, h4 { font-size: 20px; }
nav.navbar { height: auto !important; }
ol.breadcrumb { display: flex; list-style: none; padding: 0; margin: 12px 0; gap: 8px; }
.breadcrumb-item + .breadcrumb-item::before { content: "/ "; color: #767676; }
.alert { background: #f3f5f7; border-radius: 4px; padding: 8px 12px; margin-top: 16px; }
.card, .sticky, .collapse, .modal, [data-toggle="collapse"] { display: none !important; }
table { border-collapse: collapse; width: 100%; margin: 8px 0; }
th, td { border-bottom: 1px solid #e4e4e4; padding: 5px 8px; text-align: left;
  vertical-align: top; }
th { color: #767676; font-weight: 600; }
td table { width: auto; }
.badge { background: #f3f5f7; border-radius: 3px; padding: 1px 5px; }
i { font-style: normal; font-weight: 700; }
.fa-check-circle::before { content: "✓"; color: #009e73; }
.fa-times::before { content: "✗"; color: #d55e00; }
.fa-exclamation-triangle::before { content: "!"; color: #e69f00; }
"""


def judge(suite: str, table: Table, items: Sequence[SuiteItem]) -> Any:
    """Great Expectations' result of a table, with all rows that do not meet an expectation.

    Those rows are looked for only where there are some: it takes a quarter of the time.
    """
    import great_expectations as gx

    batch = _whole_table().get_batch({"dataframe": _with_columns(table, items)})
    expectations = [_built(item, number) for number, item in enumerate(items)]
    expected = gx.ExpectationSuite(suite, expectations=expectations)
    result = batch.validate(expected, result_format="BASIC")
    if result.success:
        return result
    with_rows = {"result_format": "COMPLETE", "unexpected_index_column_names": list(table.key)}
    return batch.validate(expected, result_format=with_rows)


@cache
def _whole_table() -> Any:
    """Great Expectations' definition of a batch that is one table; it takes as long as judging.

    It holds one table at a time: threads must not judge at once.
    """
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("tevad")
    return source.add_dataframe_asset("table").add_batch_definition_whole_dataframe("whole")


def unexpected_rows(result: Any, count: int) -> list[Rows]:
    """The rows that do not meet each of a result's expectations: key and measured columns.

    Args:
        result: of :func:`judge`.
        count: how many expectations there were. They come back in another order than they went.

    Raises:
        RuntimeError: if an expectation could not be judged at all.
    """
    by_number = {found.expectation_config.meta[_NUMBER]: found for found in result.results}
    return [_unexpected(by_number[number]) for number in range(count)]


def write_pages(reports: Path, stage: str, results: Mapping[str, Any]) -> dict[str, Path]:
    """Write a stage's pages in place of its earlier ones, and the index of all stages.

    Args:
        reports: the dataset's folder of reports.
        stage: whose pages.
        results: of :func:`judge`, by table.

    Returns:
        The page by table.
    """
    site = reports / SITE
    pages = {name: site / stage / f"{name}.html" for name in results}
    for name, page in pages.items():
        files.write_json(page.with_suffix(".json"), results[name].to_json_dict())
        files.write_text(page, _page(results[name]))
    kept = set(pages.values()) | {page.with_suffix(".json") for page in pages.values()}
    files.remove_others(site / stage, kept)
    files.write_text(site / INDEX, _index(site, reports.name))
    return pages


def _built(item: SuiteItem, number: int) -> Any:
    import great_expectations.expectations as gxe

    expectation: type[Any] = getattr(gxe, item.expectation.kind)
    return expectation(
        **item.expectation.arguments,
        severity="critical" if item.check.is_error else "warning",
        notes=f"{item.check.name}: {item.check.description}",
        meta={_NUMBER: number},
    )


def _with_columns(table: Table, items: Sequence[SuiteItem]) -> pd.DataFrame:
    """The rows; where there are none, with the columns that the expectations ask for."""
    import pandas as pd

    if len(table.rows):
        return table.rows
    asked = [column for item in items for column in item.expectation.columns]
    return pd.DataFrame(columns=list(dict.fromkeys((*table.key, *asked))))


def _unexpected(found: Any) -> Rows:
    rows: Rows = found.result.get("unexpected_index_list", [])
    if not found.success and not rows:
        raise RuntimeError(f"{found.expectation_config.type}: {found.exception_info}")
    return rows


def _page(result: Any) -> str:
    """Great Expectations' page of a result, without what it would load from elsewhere."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    shown = copy.deepcopy(result)
    for found in shown.results:
        found.result = _escaped(found.result)
    page: str = _view().render(ValidationResultsPageRenderer().render(shown))
    page = _FROM_ELSEWHERE.sub("", page)
    page = _TO_INDEX.sub(f'href="../{INDEX}"', page)
    page = _TO_SUITE.sub(r"\1", page).replace(" / __none__", "")
    return page.replace("</head>", f"<style>{STYLE}</style></head>", 1)


@cache
def _view() -> Any:
    """Great Expectations' page view; it compiles its templates once."""
    from great_expectations.render.view import DefaultJinjaPageView

    return DefaultJinjaPageView()


def _escaped(value: Any) -> Any:
    """Text of a result as HTML; Great Expectations would take a video's name for markup."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_escaped(inner) for inner in value)
    return value


def _index(site: Path, dataset: str) -> str:
    results = [path for stage in STAGES for path in sorted((site / stage).glob("*.json"))]
    rows = "".join(_index_row(path) for path in results)
    title = f"Data docs of {html.escape(dataset)}"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1><table>"
        "<tr><th></th><th>stage</th><th>table</th><th>expectations met</th><th>checked</th></tr>"
        f"{rows}</table></body></html>\n"
    )


def _index_row(path: Path) -> str:
    result = files.read_json(path)
    icon = "fa-check-circle" if result["success"] else "fa-times"
    numbers = result["statistics"]
    stage, table = path.parent.name, path.stem
    met = f"{numbers['successful_expectations']} of {numbers['evaluated_expectations']}"
    loaded = datetime.strptime(result["meta"]["batch_markers"]["ge_load_time"], _LOAD_TIME)
    checked = f"{loaded:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f'<tr><td><i class="{icon}"></i></td><td>{stage}</td>'
        f'<td><a href="{stage}/{table}.html">{table}</a></td><td>{met}</td><td>{checked}</td></tr>'
    )
