"""The promotion policy: the schema of ``mlflow/promotion.yaml``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from assets.workspace.files import read_yaml
from assets.workspace.params import validated
from assets.workspace.project import Project

POLICY_FILE = "promotion.yaml"
"""Lies in the project's folder ``mlflow``."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DropPolicy(_Section):
    """What the challenger may lose to the champion on a part of the test videos."""

    class_: float = Field(alias="class", ge=0, le=1, description="In the AUC of any class.")
    source: float = Field(ge=0, le=1, description="In the AUC of any folder of videos.")


class SmokePolicy(_Section):
    """The videos that are scored again through the served model."""

    videos: int = Field(ge=1, description="How many are kept with each version.")
    tolerance: float = Field(gt=0, description="Largest difference of a snippet's score.")


class Policy(_Section):
    """When a challenger becomes the champion."""

    metric: Literal["frame_auc", "video_auc"] = Field(description="What is compared.")
    confidence: float = Field(ge=0.5, lt=1, description="Of each one-sided interval.")
    resamples: int = Field(ge=100, description="Draws of the test videos.")
    seed: int = Field(ge=0, description="Of the draws.")
    floor: float = Field(ge=0, le=1, description="The first model's interval lies above it.")
    largest_drop: DropPolicy
    smoke: SmokePolicy
    approval: Literal["none", "person"] = Field(description="Who moves the alias.")


def read_policy(project: Project) -> Policy:
    """Read and check a project's policy.

    Raises:
        InputError: naming the file, the key and what is wrong with its value.
    """
    path = project.mlflow_file(POLICY_FILE)
    return validated(Policy, read_yaml(path) or {}, str(path))
