"""A registered version's lineage as a picture: data versions → MLflow run → models → version.

Drawn as SVG from the version's tags alone, since Dagster's UI shows pictures and no diagram
language. `tevad lineage` says the same as text and JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from assets.workspace.project import FEATURE_STAGES, STAGES
from assets.workspace.tracking import DATA_TAG

_WIDTH, _HEIGHT, _GAP, _BETWEEN = 200, 44, 12, 70
_SHOWN = 12
"""Digits of a hash that are shown."""


@dataclass(frozen=True)
class _Box:
    title: str
    text: str
    x: int
    y: int

    def __str__(self) -> str:
        title, text = escape(self.title), escape(self.text)
        return (
            f'<rect x="{self.x}" y="{self.y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
            'fill="#f6f8fa" stroke="#0072B2"/>'
            f'<text x="{self.x + 10}" y="{self.y + 18}" font-weight="bold">{title}</text>'
            f'<text x="{self.x + 10}" y="{self.y + 35}" fill="#767676">{text}</text>'
        )

    def arrow_to(self, other: _Box) -> str:
        """A curve from the right side of this box to the left side of the other."""
        x0, x1 = self.x + _WIDTH, other.x
        y0, y1 = self.y + _HEIGHT // 2, other.y + _HEIGHT // 2
        middle = (x0 + x1) // 2
        return (
            f'<path d="M{x0},{y0} C{middle},{y0} {middle},{y1} {x1},{y1}" fill="none" '
            'stroke="#767676" marker-end="url(#tip)"/>'
        )


def lineage_svg(version: str, tags: Mapping[str, str]) -> str:
    """The picture of a registered version.

    Args:
        version: its address, ``models:/NAME/VERSION``.
        tags: its tags.
    """
    data = {s: tags[f"{DATA_TAG}{s}"] for s in STAGES if f"{DATA_TAG}{s}" in tags}
    commit = tags.get("tevad.git.commit", "")[:_SHOWN] or "outside of git"
    changed = " with changes" if tags.get("tevad.git.dirty") == "true" else ""
    made_of = [(stage, md5[:_SHOWN]) for stage, md5 in data.items() if stage in FEATURE_STAGES]
    made = [(stage, md5[:_SHOWN]) for stage, md5 in data.items() if stage not in FEATURE_STAGES]
    run = [(f"run {tags['tevad.run_id'][:_SHOWN]}", f"code {commit}{changed}")]
    columns = [made_of, run, made, [(version, f"frame AUC {_auc(tags)}")]]
    height = max(len(column) for column in columns) * (_HEIGHT + _GAP) + _GAP
    boxes = [_placed(column, number, height) for number, column in enumerate(columns)]
    arrows = [a.arrow_to(b) for left, right in pairwise(boxes) for a in left for b in right]
    width = len(columns) * (_WIDTH + _BETWEEN) - _BETWEEN + 2 * _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#2b2b2b">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#767676"/></marker></defs>'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f"{''.join(arrows)}{''.join(str(box) for column in boxes for box in column)}</svg>"
    )


def lineage_picture(version: str, tags: Mapping[str, str]) -> str:
    """The same as Markdown with the picture in it."""
    encoded = base64.b64encode(lineage_svg(version, tags).encode()).decode()
    return f"![lineage of {version}](data:image/svg+xml;base64,{encoded})"


def _auc(tags: Mapping[str, str]) -> str:
    figure = tags.get("tevad.metric.frame_auc")
    return f"{float(figure):.4f}" if figure else "not evaluated"


def _placed(column: Sequence[tuple[str, str]], number: int, height: int) -> list[_Box]:
    """The boxes of a column, one below the other around the middle."""
    top = (height - len(column) * (_HEIGHT + _GAP) + _GAP) // 2
    x = _GAP + number * (_WIDTH + _BETWEEN)
    return [
        _Box(title, text, x, top + row * (_HEIGHT + _GAP))
        for row, (title, text) in enumerate(column)
    ]
