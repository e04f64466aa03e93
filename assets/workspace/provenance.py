"""Refusing inputs that do not fit each other, every mismatch in one error.

The folders a stage reads may come of several runs, checkouts and hands: a listing that was looked
at again, features of videos that have changed since, embeddings of another encoder. Each result
says what it was made from; here that is held against what lies there now, before any work starts.
Whether a model fits the features is :func:`tevad_model.artifact.check_fits`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from assets.workspace import listing
from assets.workspace.manifest import Manifest, RawVideoRow, StageRow, read_manifest
from assets.workspace.project import STAGES, Dataset
from assets.workspace.stage import LINES, read_encoder_card
from tevad_model.encoders.card import EncoderCard
from tevad_model.errors import MismatchError
from tevad_model.fingerprint import sha256_file
from tevad_model.timeline import SNIPPET_FRAMES, snippet_count

RAW_VIDEOS, CAPTIONS, EMBEDDINGS = "raw_videos", "captions", "caption_embeddings"

ENCODED_BY = {"visual": "snippet_features", "caption": CAPTIONS, "sentence": EMBEDDINGS}
"""The stage whose card names the encoder of a kind."""

_NAMED = 10
"""Videos of one mismatch that are named before the rest are counted."""


def check_fit(
    dataset: Dataset, what: str, reads: Sequence[str] = (), found: Iterable[str] = ()
) -> None:
    """See that the results of stages fit the videos, the listing and each other.

    Args:
        dataset: whose results.
        what: what they are wanted for, such as ``"training ped2"``.
        reads: the stages with a result a video that are read; raw_videos always is.
        found: mismatches that the caller found itself, to be told with the others.

    Raises:
        InputError: if a stage has not run.
        MismatchError: listing every mismatch.
    """
    raw = read_manifest(dataset.stage(RAW_VIDEOS), RawVideoRow)
    differences = [*_against_listing(dataset, raw)]
    for stage in reads:
        differences += _against_videos(dataset, stage, raw)
    differences += found
    if differences:
        first = next((s for s in STAGES if any(d.startswith(s) for d in differences)), RAW_VIDEOS)
        raise MismatchError(
            what,
            differences,
            f"Materialize {first} and what follows it (`tevad run {dataset.name}`).",
        )


def _against_listing(dataset: Dataset, raw: Manifest[RawVideoRow]) -> Iterator[str]:
    """What the source listed since the videos were taken in."""
    if not (dataset.source / listing.VIDEOS).is_file():
        return
    listed = listing.read(dataset)
    rows = {row.video: row for row in listed.rows}
    taken = {row.video: row for row in raw.rows}
    yield from _videos("raw_videos: not taken in, though listed", rows.keys() - taken.keys())
    yield from _videos("raw_videos: taken in, but listed no more", taken.keys() - rows.keys())
    both = [(rows[video], taken[video]) for video in sorted(rows.keys() & taken.keys())]
    for name in ("label", "split", "category", "source"):
        others = [row.video for row, was in both if getattr(row, name) != getattr(was, name)]
        yield from _videos(f"raw_videos: {name} listed otherwise", others)
    changed = [
        was.video
        for row, was in both
        if (file := listed.files.get(row.path))
        and PurePosixPath(row.path).suffix.lower() == PurePosixPath(was.path).suffix.lower()
        and file.bytes != was.bytes  # a folder of frames is not as large as the video it becomes
    ]
    yield from _videos("raw_videos: the file's size listed otherwise", changed)


def _against_videos(dataset: Dataset, stage: str, raw: Manifest[RawVideoRow]) -> Iterator[str]:
    """What of a stage's results was not made of the videos that lie there, or by another encoder."""
    folder = dataset.stage(stage)
    rows = {row.video: row for row in read_manifest(folder, StageRow).rows}
    card = read_encoder_card(folder)
    due = _due(dataset, stage, raw, card)
    known = {row.video for row in raw.rows}
    yield from _videos(f"{stage}: nothing of", due.keys() - rows.keys())
    yield from _videos(f"{stage}: results of videos that raw_videos lacks", rows.keys() - known)
    usable = {video: row for video, row in rows.items() if not row.problem and video in due}
    others = [video for video, row in usable.items() if due[video] not in ("", row.source)]
    yield from _videos(f"{stage}: made of other content", others)
    frames = {row.video: row.frames for row in raw.usable}
    lengths = [v for v, row in usable.items() if row.snippets != snippet_count(frames.get(v, 0))]
    yield from _videos(f"{stage}: snippets other than {SNIPPET_FRAMES} frames each", lengths)
    mixed = [v for v, row in usable.items() if row.encoder != card.fingerprint.digest]
    yield from _videos(f"{stage}: made by another encoder than encoder.json says", mixed)
    said = card.fingerprint.parts.get("snippet_frames", SNIPPET_FRAMES)
    if said != SNIPPET_FRAMES:
        yield f"{stage}: snippets of {said} frames by encoder.json, of {SNIPPET_FRAMES} here"


def _due(
    dataset: Dataset, stage: str, raw: Manifest[RawVideoRow], card: EncoderCard
) -> Mapping[str, str]:
    """The videos a stage must have a result of, and the hash of what it is made from, if known."""
    if card.is_ready_made:
        return {row.video: "" for row in raw.usable}
    if stage != EMBEDDINGS:
        return {row.video: row.sha256 for row in raw.usable if row.path}
    captions = dataset.stage(CAPTIONS)
    return {
        row.video: sha256_file(path) if (path := LINES.path(captions, row.video)).is_file() else ""
        for row in read_manifest(captions, StageRow).usable
    }


def _videos(mismatch: str, videos: Iterable[str]) -> Iterator[str]:
    """One line for all videos of a mismatch, if there are any."""
    if names := sorted(videos):
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{mismatch}: {', '.join(names[:_NAMED])}{more}"
