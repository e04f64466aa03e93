"""The schema of ``params.yaml``, the only place of parameters.

DVC tracks the file; Dagster's assets and the command line read it through this schema, so that all
three see the same values and a mistake is named by its key before any work starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML

from assets.workspace.files import read_yaml, replace_text
from assets.workspace.locks import locked
from tevad_model.config import TrainingParams, TuningParams
from tevad_model.dataset import name_problem
from tevad_model.errors import InputError
from tevad_model.ready_made import EMBEDDINGS, FEATURES

FILE_NAME = "params.yaml"
_LOCK = Path(".tevad") / "params.lock"
DEFAULT_PRESET = "paper"
"""The preset of a dataset that names none; it departs in nothing."""

Unlisted = Literal["ignore", "score"]
"""What becomes of a video file that no row of videos.csv lists."""

_Model = TypeVar("_Model", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoParams(_Section):
    """How pixels are read, for every encoder."""

    max_side: int | None = Field(
        640, ge=64, description="Frames whose longer side is above this are scaled down to it."
    )


class EncoderParams(_Section):
    """Which backend encodes, and its own options."""

    backend: str = Field(description="A name from the registry in tevad_model/encoders.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="The backend's options; its file says which there are."
    )


class EvaluationParams(_Section):
    """How the test split is judged."""

    best_on_test: bool = Field(
        True,
        description="Also state what picking the checkpoint on test would have claimed; "
        "needs test scores at every checkpoint.",
    )
    bootstrap: int = Field(1000, ge=100, description="Resamples of the videos for intervals.")


class CheckParams(_Section):
    """Limits of the data checks."""

    max_quarantined_share: float = Field(
        0.2, ge=0, le=1, description="More quarantined videos than this share stop the chain."
    )
    max_dead_dimensions: float = Field(
        0.5, ge=0, le=1, description="Limit for the share of features that never vary."
    )
    feature_norm_range: tuple[float, float] = Field(
        (0.1, 1000.0), description="Every snippet's feature norm lies in this range."
    )
    max_identical_captions: float = Field(
        0.9, ge=0, le=1, description="Limit for the share of snippets with the commonest caption."
    )
    min_vocabulary: int = Field(5, ge=1, description="Least number of distinct caption words.")
    embedding_norm_range: tuple[float, float] = Field(
        (0.1, 100.0), description="Every caption embedding's norm lies in this range."
    )
    min_auc: float = Field(0.5, ge=0, le=1, description="The AUC to beat: chance.")


class ArrivalParams(_Section):
    """How what comes into a dataset's source is taken in."""

    settle_seconds: float = Field(
        60.0,
        ge=0,
        description="A file is taken in once it has been seen unchanged for so long: until then "
        "somebody may still be copying it.",
    )
    unlisted: Unlisted = Field(
        "ignore",
        description="Video files without a row in videos.csv: left out, or taken in without a "
        "label, to be scored and not trained on. A dataset may say otherwise.",
    )


class DriftParams(_Section):
    """When newer videos count as other than those the champion learned from."""

    features: float = Field(
        0.05, gt=0, description="Squared maximum mean discrepancy of visual features, 0 to 2."
    )
    captions: float = Field(0.05, gt=0, description="The same of the captions' embeddings.")
    scores: float = Field(
        0.25, gt=0, description="Population stability index of the champion's snippet scores."
    )
    significance: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="A measure over its threshold counts only if no more than this share of "
        "divisions of the same videos at random reaches it.",
    )
    permutations: int = Field(499, ge=99, description="Divisions at random.")
    min_videos: int = Field(
        10, ge=2, description="With fewer newer videos, or fewer to compare with, nothing is told."
    )
    reference: Literal["normal", "all"] = Field(
        "normal",
        description="Which labelled videos to compare with. What a camera sends is nearly all "
        "normal, so that a training split that is half abnormal would look like a drift.",
    )

    @model_validator(mode="after")
    def _can_be_significant(self) -> Self:
        if 1 / (self.permutations + 1) > self.significance:
            raise ValueError("permutations are too few for this significance: nothing can reach it")
        return self


class RetrainingParams(_Section):
    """When the chain is run again by itself."""

    cron: str = Field("0 3 * * 1", description="When to ask whether there is need, as cron says.")
    timezone: str = Field("UTC", description="The time zone of `cron`, such as Europe/Berlin.")
    min_new_labels: int = Field(
        10, ge=1, description="So many new or changed labels are worth a retraining."
    )
    cooldown_hours: float = Field(
        24.0, ge=0, description="No retraining is asked for so long after the last was."
    )
    max_champion_age_days: float = Field(
        35.0, gt=0, description="After so long without a decision the champion shows as stale."
    )
    drift: DriftParams = DriftParams()

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError):
            raise ValueError("no such time zone; use a name such as UTC or Europe/Berlin") from None
        return name


class NotificationParams(_Section):
    """Who is told of what went wrong."""

    notifiers: tuple[str, ...] = Field(
        ("log",),
        description="`log`, `webhook` (the address is in $TEVAD_WEBHOOK_URL), or module:Class of "
        "your own; each is told everything, once.",
    )


class DatasetParams(_Section):
    """One dataset: where its data come from and how it departs from the other parameters.

    Files and folders are absolute, from the project's root, or s3://… (features and embeddings lie
    on this machine).
    """

    source: str | None = Field(
        None, description="The folder of the videos, or at least of videos.csv."
    )
    features: str | None = Field(
        None, description="A folder of ready-made features, <video>_i3d.npy or <video>.npy."
    )
    embeddings: str | None = Field(
        None, description="A folder of ready-made embeddings, <video>_emb.npy or <video>.npy."
    )
    captions: str | None = Field(None, description="Ready-made captions, a file of JSON lines.")
    lists: tuple[str, ...] = Field(
        (), description="Files that list the videos of a split, a path to a feature file a line."
    )
    labels: str | None = Field(
        None, description="A table video,label[,split][,class], where there is no videos.csv."
    )
    events: str | None = Field(None, description="An events.csv that lies elsewhere.")
    fps: float | None = Field(
        None,
        gt=0,
        description="Frames a second of frame folders and of videos without pixels, which do not "
        "say it themselves.",
    )
    unlisted: Unlisted | None = Field(
        None, description="What becomes of unlisted videos here; else as `arrivals` says."
    )
    preset: str = Field(DEFAULT_PRESET, description="A name from `presets`.")

    @property
    def is_ready_made(self) -> bool:
        """Whether anything of it was made elsewhere; then its videos need no pixels."""
        return any((self.features, self.embeddings, self.captions))

    @property
    def addresses(self) -> list[str]:
        """Where its videos, or what was made of them, come from."""
        return [
            each for each in (self.source, self.features, self.embeddings, self.captions) if each
        ]

    @model_validator(mode="after")
    def _says_which_videos(self) -> Self:
        if not (self.source or self.lists or self.labels):
            raise ValueError("needs a source, lists or labels: nothing else says which videos")
        if not (self.source or self.is_ready_made):
            raise ValueError("needs a source, or ready-made features, embeddings or captions")
        for name in (FEATURES, EMBEDDINGS):
            if str(getattr(self, name) or "").startswith("s3://"):
                raise ValueError(f"{name} must lie on this machine; copy them here first")
        return self


class StageParams(_Section):
    """The parameters of one dataset's stages, after its preset is applied."""

    video: VideoParams = VideoParams()
    snippet_features: EncoderParams
    captions: EncoderParams
    sentence_encoder: TuningParams = TuningParams()
    caption_embeddings: EncoderParams
    tevad_model: TrainingParams = TrainingParams()
    evaluation_metrics: EvaluationParams = EvaluationParams()
    checks: CheckParams = CheckParams()


class Params(StageParams):
    """All of ``params.yaml``: the stages' parameters and, of no stage, those of the operation."""

    arrivals: ArrivalParams = ArrivalParams()
    retraining: RetrainingParams = RetrainingParams()
    notifications: NotificationParams = NotificationParams()
    presets: dict[str, dict[str, dict[str, Any]]] = Field(
        default_factory=dict, description="Named departures, section by section."
    )
    datasets: dict[str, DatasetParams] = Field(default_factory=dict)

    @field_validator("datasets")
    @classmethod
    def _have_names_for_folders(
        cls, datasets: dict[str, DatasetParams]
    ) -> dict[str, DatasetParams]:
        for problem in map(dataset_name_problem, datasets):
            if problem:
                raise ValueError(problem)
        return datasets

    def dataset(self, name: str) -> DatasetParams:
        """A dataset's own entry.

        Raises:
            InputError: if there is none.
        """
        try:
            return self.datasets[name]
        except KeyError:
            known = ", ".join(sorted(self.datasets)) or "none"
            raise InputError(
                f"{FILE_NAME}: datasets.{name} is not there (known: {known}); "
                f"add it by `tevad dataset add {name} --from FOLDER`"
            ) from None

    def for_dataset(self, name: str) -> StageParams:
        """The stages' parameters with the dataset's preset laid over them.

        Raises:
            InputError: if the dataset or its preset is not there, or the preset is wrong.
        """
        preset = self.dataset(name).preset
        base: dict[str, Any] = self.model_dump(include=set(StageParams.model_fields))
        if preset not in self.presets:
            raise InputError(
                f"{FILE_NAME}: datasets.{name}.preset: {preset!r} is not one of "
                f"{', '.join(sorted(self.presets)) or 'no presets'}"
            )
        merged = _merge(base, self.presets[preset])
        return validated(StageParams, merged, f"{FILE_NAME} with presets.{preset}")


def load_params(root: Path) -> Params:
    """Read and check ``params.yaml`` of a project.

    Raises:
        InputError: naming the file, the key and what is wrong with its value.
    """
    path = root / FILE_NAME
    try:
        data = read_yaml(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not there; run inside a project that has one") from None
    return validated(Params, data or {}, str(path))


def write_dataset(root: Path, name: str, entry: DatasetParams) -> None:
    """Set ``datasets.<name>`` in ``params.yaml``, leaving all else, comments included, as it is.

    Raises:
        InputError: if the name cannot be a folder's, or the file is wrong.
    """
    if problem := dataset_name_problem(name):
        raise InputError(problem)
    if load_params(root).datasets.get(name) == entry:
        return
    with _edited(root) as data:
        if not data.get("datasets"):
            data["datasets"] = {}
        # dvc.yaml reads the preset's name from here, so it is written even where it is the default.
        data["datasets"][name] = {
            **entry.model_dump(mode="json", exclude_defaults=True),
            "preset": entry.preset,
        }


def remove_dataset(root: Path, name: str) -> None:
    """Remove ``datasets.<name>`` from ``params.yaml``. Its data stay."""
    with _edited(root) as data:
        data["datasets"].pop(name, None)


@contextmanager
def _edited(root: Path) -> Iterator[Any]:
    """The file's content, to be changed; nobody else changes it meanwhile."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    path = root / FILE_NAME
    with locked(root / _LOCK, FILE_NAME):
        data = yaml.load(path)
        yield data
        with replace_text(path) as file:
            yaml.dump(data, file)


def dataset_name_problem(name: str) -> str:
    """Why a name cannot be a dataset's, or empty.

    It becomes a folder, a DVC stage, a Dagster partition and part of a registered model's name.
    """
    if name_problem(name) or not all(char.isalnum() or char in "-_" for char in name):
        return f"dataset name {name!r}: use letters, digits, '-' and '_' only"
    return ""


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping) and key != "options"
        merged[key] = _merge(dict(old or {}), value) if both else value
    return merged


def validated(model: type[_Model], data: object, source: str) -> _Model:
    """Data of a file, checked by its schema.

    Raises:
        InputError: naming the file, and each key with what is wrong with its value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = "\n".join(
            f"  - {'.'.join(map(str, detail['loc'])) or '(the file)'}: {detail['msg']}"
            f" (got {detail['input']!r:.80})"
            for detail in error.errors()
        )
        raise InputError(f"{source}: {error.error_count()} wrong:\n{problems}") from None
