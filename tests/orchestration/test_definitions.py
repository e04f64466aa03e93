"""The definitions as a contract: what people, schedules and dashboards rely on by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from projects import TrainedProject

from assets.workspace.face import RESOURCE
from assets.workspace.project import STAGES, Dataset, Project
from assets.workspace.tracking import Tracking
from orchestration.build import ASSETS, SPECS, build_defs
from orchestration.jobs import CHAIN

ASSET_GRAPH = {
    "raw_videos": ("data", set()),
    "snippet_features": ("features", {"raw_videos"}),
    "captions": ("features", {"raw_videos"}),
    "caption_embeddings": ("features", {"captions"}),
    "tevad_model": ("model", {"raw_videos", "snippet_features", "caption_embeddings"}),
    "evaluation_metrics": (
        "model",
        {"raw_videos", "snippet_features", "captions", "caption_embeddings", "tevad_model"},
    ),
    "registered_model": ("model", {"tevad_model", "evaluation_metrics"}),
}
"""By asset: its group and what it is made from."""
