"""The dataset that the checks are tried on."""

from pathlib import Path

import pytest
import small_dataset
from dvc.repo import Repo

from assets.workspace.project import Dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A sound dataset, to be corrupted; which of its data are the same is told by DVC."""
    Repo.init(str(tmp_path), no_scm=True).close()
    return small_dataset.build(tmp_path)
