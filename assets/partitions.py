"""How the assets are partitioned: one partition a dataset."""

import dagster as dg

DATASETS = dg.DynamicPartitionsDefinition(name="datasets")
"""Datasets come and go; each is materialized whole, and its videos are the stages' own business."""
