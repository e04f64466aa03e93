"""Going through a dataset's videos one by one: reuse, resume, quarantine, progress, report.

The one loop behind every stage that makes one file a video. A stage killed anywhere goes on where
it was, because every result says itself what it was made from; adding one video costs one video.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from assets.workspace import files, versions
from assets.workspace.manifest import FILE_NAME, Manifest, StageRow, read_manifest
from assets.workspace.progress import Progress
from assets.workspace.project import Dataset
from tevad_model.encoders.card import EncoderCard
from tevad_model.errors import VideoError

logger = logging.getLogger("tevad")

ENCODER = "encoder.json"


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did.

    Attributes:
        done: videos that were worked on.
        reused: videos whose result was there and fitted.
        quarantined: reason by video.
        seconds: wall time of the run.
        frames: frames of the videos that were worked on.
        video_seconds: wall time by video that was worked on.
        warnings: what a person should look at though nothing stops for it.
    """

    stage: str
    dataset: str
    done: int
    reused: int
    quarantined: dict[str, str]
    seconds: float
    frames: int = 0
    video_seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_whole(
        cls,
        stage: str,
        dataset: Dataset,
        parts: int,
        *,
        is_new: bool,
        seconds: float,
        warnings: tuple[str, ...] = (),
    ) -> StageReport:
        """The report of a stage whose result is one: all of its parts are made anew, or none."""
        return cls(
            stage=stage,
            dataset=dataset.name,
            done=parts if is_new else 0,
            reused=0 if is_new else parts,
            quarantined={},
            seconds=seconds,
            warnings=warnings,
        )

    @property
    def frames_per_second(self) -> float | None:
        """Frames a second over the videos worked on; None if there were none."""
        spent = sum(self.video_seconds.values())
        return self.frames / spent if self.frames and spent else None

    def publish(self, dataset: Dataset, outcome: str = "") -> None:
        """Keep the report beside those of the other stages, and log it with what came of it."""
        data = asdict(self) | {"frames_per_second": self.frames_per_second}
        files.write_json(dataset.reports / f"{self.stage}.json", data)
        logger.info("%s%s", self, f": {outcome}" if outcome else "")

    def __str__(self) -> str:
        speed = self.frames_per_second
        return (
            f"{self.dataset}/{self.stage}: {self.done} done, {self.reused} reused, "
            f"{len(self.quarantined)} quarantined in {self.seconds:.1f} s"
            + (f", {speed:.0f} frames/s" if speed else "")
        )


@dataclass(frozen=True)
class Item:
    """One video's turn in a stage.

    Attributes:
        video: its name.
        source: hash of what the result is made from.
        snippets: rows the result must have.
        frames: frames that are decoded for it; 0 in a stage that reads no pixels.
    """

    video: str
    source: str
    snippets: int
    frames: int = 0


@dataclass(frozen=True)
class ResultFile:
    """How a stage keeps one video's result.

    Attributes:
        suffix: of the file's name.
        header: reads a file's header; None if the file is not there or not whole.
    """

    suffix: str
    header: Callable[[Path], dict[str, object] | None]

    def path(self, folder: Path, video: str) -> Path:
        """Where a video's result lies in a stage's folder."""
        return folder / f"{video}{self.suffix}"


ARRAY = ResultFile(".safetensors", files.read_array_header)
LINES = ResultFile(".jsonl", lambda path: result[0] if (result := files.read_lines(path)) else None)


@dataclass(frozen=True)
class Turn:
    """An item, where its result is to be written, and the header that result must have."""

    item: Item
    path: Path
    header: dict[str, object]

    @classmethod
    def of(cls, item: Item, folder: Path, fingerprint: str, result: ResultFile) -> Turn:
        """The turn of an item in a stage's folder."""
        header: dict[str, object] = {
            "video": item.video,
            "source": item.source,
            "fingerprint": fingerprint,
            "snippets": item.snippets,
        }
        return cls(item, result.path(folder, item.video), header)

    def row(self, problem: str) -> StageRow:
        """Its row in the manifest."""
        fingerprint = str(self.header["fingerprint"])
        snippets = 0 if problem else self.item.snippets
        return StageRow(self.item.video, self.item.source, fingerprint, snippets, problem)


Compute = Callable[[Turn, Progress], None]
"""Make and write the result of a turn. Frames that are read may be counted as progress."""


def run_per_video(
    dataset: Dataset,
    stage: str,
    items: Sequence[Item],
    *,
    encoder: EncoderCard,
    code_version: str,
    result: ResultFile,
    compute: Compute,
    quarantined: dict[str, str],
    prepare: Callable[[list[Item]], None] | None = None,
) -> StageReport:
    """Make what is missing, keep what fits, write the manifest, remove what nobody lists.

    Args:
        items: the usable videos.
        encoder: what makes the results; its card is written beside them.
        code_version: of the stage; results of another one are made again.
        compute: makes one result; a VideoError puts the video in quarantine.
        quarantined: videos that an earlier stage put there, with the reason, carried on.
        prepare: is given the items that need work, once, before the first of them.
    """
    started = time.perf_counter()
    folder = dataset.stage(stage)
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = _made_by(encoder, code_version)
    turns = [Turn.of(item, folder, fingerprint, result) for item in items]
    due = [turn for turn in turns if result.header(turn.path) != turn.header]
    if due:  # a manifest never stands beside results it does not describe
        (folder / FILE_NAME).unlink(missing_ok=True)
    if prepare and due:
        prepare([turn.item for turn in due])
    problems: dict[str, str] = {}
    video_seconds: dict[str, float] = {}
    frames = sum(turn.item.frames for turn in due)
    done = 0
    unit = "frame" if frames else "video"
    with Progress(f"{dataset.name}/{stage}", frames or len(due), unit) as progress:
        for turn in due:
            begun = time.perf_counter()
            try:
                compute(turn, progress)
            except VideoError as error:
                problems[turn.item.video] = str(error)
            video_seconds[turn.item.video] = time.perf_counter() - begun
            done += turn.item.frames if frames else 1
            progress.reach(done)
    rows = [StageRow(video, "", "", 0, problem) for video, problem in quarantined.items()]
    rows += [turn.row(problems.get(turn.item.video, "")) for turn in turns]
    manifest = Manifest.of(rows)
    kept = {turn.path for turn in turns if turn.item.video not in problems}
    files.remove_others(folder, kept | {folder / FILE_NAME, folder / ENCODER})
    files.write_json(folder / ENCODER, encoder.to_json())
    manifest.write(folder, StageRow)
    report = StageReport(
        stage=stage,
        dataset=dataset.name,
        done=len(due),
        reused=len(turns) - len(due),
        quarantined=manifest.quarantined,
        seconds=time.perf_counter() - started,
        frames=frames,
        video_seconds=video_seconds,
    )
    report.publish(dataset)
    return report


def is_current(
    dataset: Dataset,
    stage: str,
    items: Sequence[Item],
    *,
    encoder: EncoderCard,
    code_version: str,
) -> bool:
    """Whether a stage's results lie there as they were committed, made as they would be made now.

    That they were committed with inputs which are the same does not say that they were made of
    those: the inputs may have changed after the stage and before the commit.

    Args:
        items: the usable videos, as of :func:`run_per_video`; so are encoder and code_version.
    """
    if not versions.is_up_to_date(dataset, stage):
        return False
    folder, made_by = dataset.stage(stage), _made_by(encoder, code_version)
    if _made_by(read_encoder_card(folder), code_version) != made_by:
        return False
    due = {item.video: item for item in items}
    rows = [row for row in read_manifest(folder, StageRow).rows if row.source]
    return due.keys() == {row.video for row in rows} and all(
        _is_of(row, due[row.video], made_by) for row in rows
    )


def _is_of(row: StageRow, item: Item, made_by: str) -> bool:
    """Whether a row of the manifest is what would come of an item, or of an attempt at it."""
    made = (row.snippets, row.fingerprint) == (item.snippets, made_by)
    return row.source == item.source and (made or bool(row.problem))


def _made_by(encoder: EncoderCard, code_version: str) -> str:
    return f"{encoder.fingerprint.digest}.{code_version}"


def read_encoder_card(folder: Path) -> EncoderCard:
    """What made the results in a stage's folder."""
    return EncoderCard.from_json(files.read_json(folder / ENCODER))
