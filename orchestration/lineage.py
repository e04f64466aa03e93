"""From a model to the bytes it was made of, and from a video or data version to the models.

Everything is read where the chain wrote it: the tags of the registered version and its run in
MLflow, ``dvc.lock`` and DVC's cache, Dagster's latest materializations. Nothing is kept here, and
nothing is changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from assets.scoring import address, find_version
from assets.workspace import versions
from assets.workspace.manifest import FILE_NAME as MANIFEST
from assets.workspace.manifest import RawVideoRow, read_manifest_file
from assets.workspace.objects import Objects
from assets.workspace.project import STAGES, Dataset, Project
from assets.workspace.tracking import (
    DATA_TAG,
    Tracking,
    data_tags,
    registered_name,
)
from tevad_model.errors import InputError

if TYPE_CHECKING:
    import dagster as dg
    from mlflow.entities.model_registry import ModelVersion

_SCHEME = "models:/"
_MD5 = re.compile(r"[0-9a-f]{32}\.dir")
"""A version of a stage's output, as DVC writes it."""

_MODELS = "tevad_model"
"""The stage whose version a model and its runs are known by."""

_ENCODER_TAG = "tevad.encoder."
_METRIC_TAG = "tevad.metric."
_PLACES = {
    "workspace": "data",
    "cache": "DVC's cache",
    "remote": "DVC's remote",
    "nowhere": "neither DVC's cache nor a remote that answers",
}


@dataclass(frozen=True)
class DataVersion:
    """One stage's output that a model was made of.

    Attributes:
        stage: the stage.
        md5: its version.
        place: ``workspace`` if it is what lies in the project's data now, ``cache`` or ``remote``
            if DVC's cache or its default remote has it, else ``nowhere``.
    """

    stage: str
    md5: str
    place: str


@dataclass(frozen=True)
class ModelLineage:
    """What a registered version was made from.

    Attributes:
        model: its address, ``models:/NAME/VERSION``.
        aliases: the aliases it has now.
        dataset: the dataset.
        run: MLflow's id of its training run.
        dagster_run: Dagster's id of the run that trained it; empty if another program called.
        commit: of the code; empty outside of git.
        dirty: whether tracked files differed from the commit.
        data: what it was made of, upstream first.
        encoders: fingerprints by kind.
        params: of the run, by dotted name.
        metrics: on the test split.
    """

    model: str
    aliases: tuple[str, ...]
    dataset: str
    run: str
    dagster_run: str
    commit: str
    dirty: bool
    data: tuple[DataVersion, ...]
    encoders: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]

    def __str__(self) -> str:
        lines = [
            self.model + "".join(f"  @{alias}" for alias in self.aliases),
            *(f"  {name:<28}{value:.4g}" for name, value in self.metrics.items()),
            f"trained by MLflow run {self.run}",
            *([f"  in Dagster run {self.dagster_run}"] if self.dagster_run else []),
            f"code {self.commit or 'outside of git'}{' with changes' if self.dirty else ''}",
            *(f"{kind} encoder {digest}" for kind, digest in self.encoders.items()),
            f"data of {self.dataset}",
            *(f"  {each.stage:<20}{each.md5:<38}{_PLACES[each.place]}" for each in self.data),
            "parameters",
            *(f"  {name} = {value}" for name, value in self.params.items()),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class StageVersions:
    """What DVC, Dagster and MLflow say of one stage's output.

    Attributes:
        stage: the stage.
        dvc: the md5 in ``dvc.lock``; None if it has none.
        dagster: the data version of its latest materialization.
        mlflow: the tag of the run that made the models ``dvc.lock`` has; None if that read no
            such stage, or there is no such run.
    """

    stage: str
    dvc: str | None
    dagster: str | None
    mlflow: str | None

    @property
    def agree(self) -> bool:
        """Whether all of them name one version."""
        return self.dvc is not None and self.dvc == self.dagster == self.mlflow


@dataclass(frozen=True)
class Lineage:
    """The lineage of a project's datasets and models.

    Attributes:
        project: the project.
        tracking: where its runs and models are.
    """

    project: Project
    tracking: Tracking

    def of_model(self, uri: str) -> ModelLineage:
        """What a registered version was made from.

        Args:
            uri: ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``.

        Raises:
            InputError: if there is no such version, or it is not of this project's chain.
        """
        return self._of_version(self._find(uri))

    def of_dataset(self, dataset: Dataset, instance: dg.DagsterInstance) -> list[StageVersions]:
        """What DVC, Dagster and MLflow say of each stage of a dataset."""
        import dagster as dg

        from orchestration.agreement import latest_version

        recorded = {
            stage: version
            for (stage, name), version in versions.recorded(self.project).items()
            if name == dataset.name
        }
        tagged = self._run_tags(dataset.name, recorded)
        return [
            StageVersions(
                stage,
                recorded.get(stage),
                latest_version(instance, dg.AssetKey(stage), dataset.name),
                tagged.get(stage),
            )
            for stage in STAGES
        ]

    def _run_tags(self, dataset: str, recorded: Mapping[str, str]) -> dict[str, str]:
        """The versions that the run of the recorded models names, by stage.

        The same models may have come of several runs, on data that differ in what training does
        not read; it is the one that fits best.
        """
        if _MODELS not in recorded:
            return {}
        found = self._tags_of_runs(dataset, recorded[_MODELS])
        return max(found, key=lambda tags: len(tags.items() & recorded.items()), default={})

    def _tags_of_runs(self, dataset: str, models: str) -> list[dict[str, str]]:
        """The versions, by stage, that each run which made these models names."""
        runs = self.tracking.find_runs(dataset, data_tags({_MODELS: models}))
        return [_tagged(run.data.tags, DATA_TAG) for run in runs]

    def models_of_data(self, md5: str) -> list[ModelLineage]:
        """The registered versions that a stage's output with this version went into."""
        return [
            self._of_version(version)
            for version in self._all_versions()
            if any(md5 in tags.values() for tags in self._all_data(version))
        ]

    def _all_data(self, version: ModelVersion) -> Iterator[dict[str, str]]:
        """The versions, by stage, that a version's models came of: lately, and before."""
        tags = _data_tags(version)
        yield tags
        yield from self._tags_of_runs(version.tags["tevad.dataset"], tags[_MODELS])

    def models_of_video(self, dataset: Dataset, video: str) -> Iterator[tuple[ModelLineage, str]]:
        """The registered versions that a video went into, newest first, and by which split.

        Raises:
            InputError: if neither DVC's cache nor its remote has the manifest of a version's
                videos.
        """
        for version in self._versions(registered_name(dataset.name)):
            rows = _videos(self._objects, _data_tags(version)["raw_videos"])
            split = next((row.split for row in rows if row.video == video and not row.problem), "")
            if split:
                yield self._of_version(version), split

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self.project)

    def _place(self, md5: str) -> str:
        if self._objects.in_cache(md5):
            return "cache"
        try:
            return "remote" if self._objects.in_remote(md5) else "nowhere"
        except InputError:
            return "nowhere"  # that can be reached from here

    def _find(self, uri: str) -> ModelVersion:
        found = find_version(self.tracking.client, uri)
        if not _data_tags(found):
            raise InputError(f"{uri}: its tags name no data; it was not registered by this chain")
        return found

    def _versions(self, name: str) -> Sequence[ModelVersion]:
        """The versions of a registered model, newest first."""
        found: Sequence[ModelVersion] = self.tracking.client.search_model_versions(
            f"name = '{name}'", order_by=["version_number DESC"]
        )
        return [version for version in found if _data_tags(version)]

    def _all_versions(self) -> Iterator[ModelVersion]:
        for model in self.tracking.registered_models():
            yield from self._versions(model.name)

    def _of_version(self, version: ModelVersion) -> ModelLineage:
        client, tags = self.tracking.client, version.tags
        run = client.get_run(tags["tevad.run_id"])
        dataset = tags["tevad.dataset"]
        recorded = versions.recorded(self.project)

        def place(stage: str, md5: str) -> str:
            there = Dataset(self.project, dataset).stage(stage).is_dir()
            if there and recorded.get((stage, dataset)) == md5:
                return "workspace"
            return self._place(md5)

        data = _data_tags(version)
        return ModelLineage(
            model=address(version),
            # A search does not say the aliases; the version itself does.
            aliases=tuple(client.get_model_version(version.name, version.version).aliases),
            dataset=dataset,
            run=run.info.run_id,
            dagster_run=run.data.tags.get("dagster.run_id", ""),
            commit=tags.get("tevad.git.commit", ""),
            dirty=tags.get("tevad.git.dirty") == "true",
            data=tuple(
                DataVersion(stage, data[stage], place(stage, data[stage]))
                for stage in STAGES
                if stage in data
            ),
            encoders=_tagged(tags, _ENCODER_TAG),
            params=dict(sorted(run.data.params.items())),
            metrics={name: float(value) for name, value in _tagged(tags, _METRIC_TAG).items()},
        )


@dataclass(frozen=True)
class Report:
    """An answer, for people and for programs."""

    text: str
    data: Any

    @property
    def as_json(self) -> str:
        """As JSON, indented."""
        return json.dumps(self.data, indent=2, ensure_ascii=False)


def report(lineage: Lineage, what: str, video: str | None = None) -> Report:
    """Answer what is asked.

    Args:
        lineage: the project's.
        what: a model's address, a dataset, or a data version.
        video: of the dataset; asks for the models it went into.

    Raises:
        InputError: if there is no such model, dataset or data version.
    """
    if what.startswith(_SCHEME):
        model = lineage.of_model(what)
        return Report(str(model), asdict(model))
    if _MD5.fullmatch(what):
        models = lineage.models_of_data(what)
        return Report(_models_text(f"data {what}", models), [asdict(model) for model in models])
    dataset = lineage.project.dataset(what)
    return _agreement(lineage, dataset) if video is None else _of_video(lineage, dataset, video)


def _of_video(lineage: Lineage, dataset: Dataset, video: str) -> Report:
    found = list(lineage.models_of_video(dataset, video))
    lines = [f"{model.model}{_aliases(model)}  {split}" for model, split in found]
    return Report(
        "\n".join([f"video {video} of {dataset.name} went into", *_or_none(lines)]),
        [{"model": model.model, "split": split} for model, split in found],
    )


def _agreement(lineage: Lineage, dataset: Dataset) -> Report:
    from orchestration.instance import open_instance

    with open_instance() as instance:
        stages = lineage.of_dataset(dataset, instance)
    lines = [f"{'stage':<20}{'dvc.lock':<38}{'Dagster':<10}MLflow"]
    for each in stages:
        dagster, mlflow = (_against(each.dvc, other) for other in (each.dagster, each.mlflow))
        lines.append(f"{each.stage:<20}{each.dvc or 'nothing':<38}{dagster:<10}{mlflow}")
    data = [{**asdict(each), "agree": each.agree} for each in stages]
    return Report("\n".join(lines), data)


def _against(dvc: str | None, other: str | None) -> str:
    if other is None:
        return "nothing"
    return "same" if other == dvc else other[:8]


def _models_text(title: str, models: Sequence[ModelLineage]) -> str:
    lines = [f"{model.model}{_aliases(model)}" for model in models]
    return "\n".join([f"{title} went into", *_or_none(lines)])


def _aliases(model: ModelLineage) -> str:
    return "".join(f"  @{alias}" for alias in model.aliases)


def _or_none(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines] or ["  no registered model"]


def _videos(objects: Objects, md5: str) -> tuple[RawVideoRow, ...]:
    """The rows of a version of raw_videos."""
    oid = objects.files(md5)[MANIFEST]
    objects.fetch([oid])
    return read_manifest_file(objects.path(oid), RawVideoRow).rows


def _data_tags(version: ModelVersion) -> dict[str, str]:
    return _tagged(version.tags, DATA_TAG)


def _tagged(tags: dict[str, str], prefix: str) -> dict[str, str]:
    """What tags of a prefix hold, by the rest of their names."""
    return {
        key.removeprefix(prefix): value
        for key, value in sorted(tags.items())
        if key.startswith(prefix)
    }
