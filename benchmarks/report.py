"""Printing what a benchmark found: a line a figure, or one JSON object."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping

Figures = Mapping[str, float]


def print_figures(measure: Callable[[], Figures], about: str | None) -> None:
    """Measure, and print as the command line asks.

    Args:
        measure: gives the figures.
        about: the benchmark's docstring; its first line is what ``--help`` says.
    """
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object {figure: value}")
    as_json = parser.parse_args().json
    figures = measure()
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<34}{value:>10.3f}")
