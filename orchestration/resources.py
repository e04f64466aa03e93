"""The resources that assets and checks require. How to reach things, never what to do with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from assets.workspace.project import Dataset, Project
from assets.workspace.tracking import Tracking
from orchestration.instance import PARTITION


class ProjectResource(dg.ConfigurableResource[Project]):
    """The project the assets work in."""

    root: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Any]:
        """Keep other runs from the run's dataset for as long as it goes on.

        Dagster's queue does so among the runs it starts itself, but knows no command line.
        """
        name = context.run.tags.get(PARTITION, "") if context.run else ""
        if name not in self.project().params.datasets:
            yield self  # what asks for that dataset is told that there is none
            return
        with self.dataset(name).run_held():
            yield self

    def project(self) -> Project:
        """The project."""
        return Project.at(self.root)

    def dataset(self, name: str) -> Dataset:
        """One of its datasets."""
        return self.project().dataset(name)

    def tracking(self) -> Tracking:
        """Where its runs are logged."""
        return Tracking.of(self.project())
