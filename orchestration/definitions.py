"""What ``dagster dev -m orchestration.definitions`` and ``dg`` load."""

from orchestration.build import build_defs

defs = build_defs()
