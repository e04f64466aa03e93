"""The dataset that the checks are tried on."""

from pathlib import Path

import pytest
import small_dataset

from assets.workspace.project import Dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A sound dataset, to be corrupted."""
    return small_dataset.build(tmp_path)
