"""The resources that assets and checks require. How to reach things, never what to do with them."""

import dagster as dg

from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking


class ProjectResource(dg.ConfigurableResource[Project]):
    """The project the assets work in."""

    root: str

    def project(self) -> Project:
        """The project."""
        return Project.at(self.root)

    def dataset(self, name: str) -> Dataset:
        """One of its datasets."""
        return self.project().dataset(name)

    def tracking(self) -> Tracking:
        """Where its runs are logged."""
        return Tracking.of(self.project())
