"""The page of a decision: one HTML file that needs no other, kept with the version."""

from __future__ import annotations

import base64
from html import escape
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from assets.promotion.decision import Decision

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.outcome { font-weight: 700; }
.promoted { color: #00724f; } .refused { color: #b34700; } .awaiting { color: #00629c; }
@media (prefers-color-scheme: dark) {
  .promoted { color: #3ecf9a; } .refused { color: #ff9a57; } .awaiting { color: #6cc0f5; }
}
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #8886; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
</style>
<main>
<h1>$title: <span class="outcome $style">$outcome</span></h1>
<ul>$reasons</ul>
<p>Decided by $by on <time datetime="$moment">$moment</time>, against $champion.</p>
$picture
<h2>What the policy asks for</h2>
$conditions
<h2>Figures</h2>
$figures
$parts
<h2>Where it comes from</h2>
$origin
</main>
</html>
""")

_MARKS = {True: "met", False: "not met", None: "not looked at"}


def decision_page(decision: Decision) -> str:
    """The page as HTML text."""
    picture = interval_picture(decision)
    shown = (
        f'<img alt="{escape(_said(decision))}" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        if picture
        else ""
    )
    parts = [
        (part.kind, part.name, _number(part.champion), _number(part.challenger))
        for part in decision.parts
    ]
    origin = (
        ("training run in MLflow", decision.run_id),
        ("run in Dagster", decision.dagster_run or "none"),
        ("identity of what was decided on", decision.key),
        *((f"policy: {name}", value) for name, value in decision.policy.items()),
    )
    return _PAGE.substitute(
        title=escape(f"{decision.name} version {decision.version}"),
        outcome=escape(decision.outcome),
        style=decision.outcome.split(maxsplit=1)[0],
        reasons="".join(f"<li>{escape(reason)}</li>" for reason in decision.reasons),
        by=escape(decision.by),
        moment=escape(decision.moment),
        champion=escape(f"version {decision.champion}" if decision.champion else "no champion"),
        picture=shown,
        conditions=_table(
            ("condition", "", "found"),
            ((each.name, _MARKS[each.passed], each.says) for each in decision.conditions),
        ),
        figures=_table(
            ("figure", "value"),
            ((name, _number(value)) for name, value in decision.figures.items()),
        ),
        parts="<h2>By class and source</h2>"
        + _table(("part", "name", "champion's AUC", "challenger's AUC"), parts)
        if parts
        else "",
        origin=_table(("", ""), origin),
    )


def interval_picture(decision: Decision) -> bytes | None:
    """The interval of the difference to the champion, or of the first model's AUC, as PNG."""
    from tevad_model import figures

    found = decision.figures
    if "low" not in found:
        return None
    if "difference" in found:
        return figures.interval(
            found["difference"],
            (found["low"], found["high"]),
            limit=0.0,
            label="challenger's AUC less the champion's",
            title=_said(decision),
        )
    return figures.interval(
        found["challenger"],
        (found["low"], found["high"]),
        limit=float(decision.policy["floor"]),
        label="the first model's AUC",
        title=_said(decision),
    )


def _said(decision: Decision) -> str:
    against = f" against version {decision.champion}" if decision.champion else ""
    return f"{decision.name} version {decision.version}{against}: {decision.outcome}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    ]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
