"""Great Expectations' data docs of a dataset: one static site, readable without a network.

Runs the validations and builds the pages. The site shows the latest result of every stage; how
results went over time is Dagster's to show. Great Expectations' own pages load their style and
scripts from elsewhere; these carry a small stylesheet instead and load nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from assets.workspace.files import replace_text

if TYPE_CHECKING:
    import pandas as pd

    from assets.checks.expectations import SuiteItem, Table

Rows = list[dict[str, object]]

SITE = "data_docs"
INDEX = "index.html"

_STATE = "great_expectations"
_STYLES = Path("gx/plugins/custom_data_docs/styles/data_docs_custom_styles.css")
_SITE_NAME = "local_site"
_SOURCE = "tevad"
_NUMBER = "number"
_SITE_CONFIG = {
    "class_name": "SiteBuilder",
    "show_how_to_buttons": False,
    "store_backend": {
        "class_name": "TupleFilesystemStoreBackend",
        "base_directory": f"../../{SITE}",  # from the context's folder, so that a project may move
    },
    "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
}
_FROM_ELSEWHERE = re.compile(
    r"""<script\b[^>]*\bsrc="https?:[^>]*>\s*</script>"""
    r"""|<link\b[^>]*\bhref="https?:[^>]*>"""
    r"""|<img\b[^>]*\bsrc="https?:[^>]*>"""
    r"""|<footer\b.*?</footer>""",
    re.DOTALL,
)

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #2b2b2b; margin: 0 auto; max-width: 1100px;
  padding: 0 24px 48px; }
a { color: #0072b2; text-decoration: none; }
a:hover { text-decoration: underline; }
h4, h5, h6, .h6 { font-size: 15px; font-weight: 600; margin: 8px 0 4px; }
h4 { font-size: 20px; }
nav.navbar { height: auto !important; }
ol.breadcrumb { display: flex; list-style: none; padding: 0; margin: 12px 0; gap: 8px; }
.breadcrumb-item + .breadcrumb-item::before { content: "/ "; color: #767676; }
.alert { background: #f3f5f7; border-radius: 4px; padding: 8px 12px; margin-top: 16px; }
.card:not(.card-body), .sticky, .ge-walkthrough-modal, .modal { display: none !important; }
.collapse, .carousel, [data-toggle="collapse"] { display: none; }
table { border-collapse: collapse; width: 100%; margin: 8px 0; }
th, td { border-bottom: 1px solid #e4e4e4; padding: 5px 8px; text-align: left;
  vertical-align: top; }
th { color: #767676; font-weight: 600; }
td table { width: auto; }
pre { white-space: pre-wrap; background: #f3f5f7; padding: 8px; }
.badge { background: #f3f5f7; border-radius: 3px; padding: 1px 5px; }
.popover, .cooltip .top { display: none !important; }
.fa-check-circle::before { content: "✓"; color: #009e73; font-weight: 700; }
.fa-times::before { content: "✗"; color: #d55e00; font-weight: 700; }
.fa-exclamation-triangle::before { content: "!"; color: #e69f00; font-weight: 700; }
i { font-style: normal; }
"""


class DataDocs:
    """The data docs of one dataset, locked while open: stages of one dataset may be checked at once.

    Attributes:
        site: the folder of the static pages.
    """

    def __init__(self, folder: Path) -> None:
        self.site = folder / SITE
        self._state = folder / _STATE
        self._lock = FileLock(folder / f"{_STATE}.lock")
        self._started = datetime.now(UTC)
        self._suites: list[str] = []

    @classmethod
    def of(cls, folder: Path) -> DataDocs:
        """The data docs below a folder, made if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def __enter__(self) -> Self:
        self._lock.acquire()
        try:
            self._context = self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _open(self) -> Any:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        import great_expectations as gx

        context = gx.get_context(mode="file", project_root_dir=self._state)
        context.variables.progress_bars = {"globally": False}
        context.update_data_docs_site(_SITE_NAME, _SITE_CONFIG)
        with replace_text(self._state / _STYLES) as file:
            file.write(STYLE)
        return context

    def validate(self, suite: str, table: Table, items: Sequence[SuiteItem]) -> list[Rows]:
        """Judge a table and keep the result for the pages.

        Returns:
            For each item, in their order, the rows that do not meet it: key and measured columns.

        Raises:
            RuntimeError: if an expectation could not be judged at all.
        """
        import great_expectations as gx

        batch = (
            self._context.data_sources.add_or_update_pandas(_SOURCE)
            .add_dataframe_asset(suite)
            .add_batch_definition_whole_dataframe("whole")
        )
        expectations = [_built(item, number) for number, item in enumerate(items)]
        definition = gx.ValidationDefinition(
            name=suite,
            data=batch,
            suite=self._context.suites.add_or_update(
                gx.ExpectationSuite(suite, expectations=expectations)
            ),
        )
        result = self._context.validation_definitions.add_or_update(definition).run(
            batch_parameters={"dataframe": _with_columns(table, items)},
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": list(table.key),
            },
            run_id=gx.RunIdentifier(run_time=self._started),
        )
        self._suites.append(suite)
        by_number = {found.expectation_config.meta[_NUMBER]: found for found in result.results}
        return [_unexpected(by_number[number]) for number in range(len(items))]

    def build(self) -> dict[str, Path]:
        """Write the pages of what was validated, and the index; the page by suite."""
        from great_expectations.data_context.types.resource_identifiers import (
            ExpectationSuiteIdentifier,
        )

        store = self._context.validation_results_store
        latest = {}
        for key in store.list_keys():
            suite = key.expectation_suite_identifier.name
            if suite not in self._suites:
                continue
            if key.run_id.run_time == self._started:
                latest[suite] = key
            else:
                store.remove_key(key)
        suites = [ExpectationSuiteIdentifier(suite) for suite in self._suites]
        self._context.build_data_docs(resource_identifiers=[*latest.values(), *suites])
        pages = {suite: self._page(key) for suite, key in latest.items()}
        expectations = [self._page(suite) for suite in suites]
        for page in (self.site / INDEX, *pages.values(), *expectations):
            _make_self_contained(page)
        return pages

    def _page(self, resource: Any) -> Path:
        (site,) = self._context.get_docs_sites_urls(resource_identifier=resource)
        return Path(url2pathname(urlsplit(site["site_url"]).path)).resolve()


def _built(item: SuiteItem, number: int) -> Any:
    """Great Expectations' own object, numbered: results come back in another order."""
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


def _make_self_contained(page: Path) -> None:
    """Leave out what a page would load from elsewhere: its style, scripts, logo and footer."""
    text = page.read_text(encoding="utf-8")
    with replace_text(page) as file:
        file.write(_FROM_ELSEWHERE.sub("", text))
