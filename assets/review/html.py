"""One self-contained page from its parts in ``page/`` and the data it shows.

Nothing is loaded from elsewhere but the videos: the page's own content security policy forbids it,
and forbids any script but the one that is built in.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PARTS = Path(__file__).parent / "page"
_SCRIPTS = ("data.js", "figures.js", "timeline.js", "list.js", "app.js")
"""In the order in which they build on each other."""


def page(title: str, content: Mapping[str, Any]) -> str:
    """The page as HTML, the same text for the same content.

    Args:
        title: of the document.
        content: what :func:`assets.review.content.gather` found.
    """
    style = _part("style.css")
    script = '"use strict";\n' + "\n".join(_part(name) for name in _SCRIPTS)
    filled = _part("index.html")
    for name, text in (
        ("policy", _policy(style, script)),
        ("title", html.escape(title)),
        ("style", style),
        ("script", script),
        ("data", _embedded(content)),  # last: what is in it must not be taken for a place
    ):
        filled = filled.replace("{{" + name + "}}", text)
    return filled


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _embedded(content: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in, whatever names and captions say."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "img-src data:",
            "media-src http: https: file:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
