"""Taking secrets out of text that leaves the house.

Error messages quote addresses, headers and settings. Whatever is sent to people passes here first.
Nothing else belongs here.
"""

from __future__ import annotations

import os
import re

HIDDEN = "[hidden]"

_SECRET_NAMES = r"(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|signature)"  # noqa: S105 - a pattern

_PATTERNS = (
    # user:password@ of an address
    re.compile(r"(?<=://)[^\s/@'\"]+(?=@)"),
    # Authorization: Bearer …, also as part of a dictionary
    re.compile(r"(?i)(?<=\bbearer )[^\s'\",]+|(?<=\bbasic )[A-Za-z0-9+/=]{8,}"),
    # name=value and name: value, the name ending in a word for a secret
    re.compile(
        rf"(?i)({_SECRET_NAMES}(?:[_-]?id)?[\"']?\s*[=:]\s*[\"']?)"
        rf"(?!\s|{re.escape(HIDDEN)})[^\s\"',;&)}}\]]+"
    ),
    # keys that are known by their looks: AWS, GitHub, GitLab, Hugging Face, Slack, OpenAI, JWT
    re.compile(r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}\b"),
    re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-)[\w-]{10,}"),
    re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"),
)

_SECRET_VARIABLE = re.compile(rf"(?i)(?!(?:old)?pwd$).*(?:{_SECRET_NAMES}|webhook)s?(?![A-Za-z])")
"""A word of the name says so, but not of TOKENIZERS_…; the shell's PWD and OLDPWD are folders."""

_SHORTEST = 6
"""Of a variable's value that is looked for; a shorter one would take ordinary words out."""


def redacted(text: str) -> str:
    """The text without credentials of addresses, keys, tokens and passwords.

    Also without the value of any environment variable whose name says that it is secret, wherever
    it stands.
    """
    for value in _secret_values():
        text = text.replace(value, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(_hide, text)
    return text


def _hide(match: re.Match[str]) -> str:
    """Hidden, but for the name that a group keeps."""
    return f"{match[1] if match.re.groups else ''}{HIDDEN}"


def _secret_values() -> list[str]:
    """Longest first, so that no part of one remains because a shorter one stands in it."""
    values = {
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.match(name) and len(value) >= _SHORTEST
    }
    return sorted(values, key=lambda value: (-len(value), value))
