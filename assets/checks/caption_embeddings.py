"""What must hold of caption_embeddings: one array a video, finite, and a function of the caption."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from assets.caption_embeddings import ARRAY_NAME, STAGE, read_caption_embeddings
from assets.captions import STAGE as CAPTIONS
from assets.captions import load_captions, read_caption_manifest
from assets.checks.encoded import (
    FINGERPRINT,
    SHAPE,
    SNIPPETS,
    is_finite,
    measure_array,
    measure_videos,
    norms_within,
    read_whole,
    with_commonest_shape,
)
from assets.checks.expectations import Check, CheckOutcome, Table, Tables, between, validate
from assets.checks.faces import asset_checks
from assets.checks.measurements import Measurement
from assets.workspace.files import Array
from assets.workspace.project import Dataset

CHECKS = (
    SNIPPETS,
    SHAPE,
    FINGERPRINT,
    Check(
        "embeddings_are_finite",
        "No value is NaN or infinite: one would make every weight NaN in training.",
        table="videos",
        expect=is_finite,
        blocking=True,
    ),
    Check(
        "equal_captions_have_equal_embeddings",
        "A caption has one embedding wherever it is said.",
        table="captions",
        expect=lambda _: between("embeddings", 1, 1),
        blocking=True,
    ),
    Check(
        "embedding_norms_in_range",
        "Every caption embedding's norm is within checks.embedding_norm_range.",
        table="videos",
        expect=lambda limits: norms_within(limits.embedding_norm_range),
        is_error=False,
    ),
)


def check_caption_embeddings(dataset: Dataset) -> list[CheckOutcome]:
    """Check the embeddings.

    Raises:
        InputError: if the stage or one before it has not run.
    """
    return validate(dataset, STAGE, CHECKS, measure_caption_embeddings(dataset))


def measure_caption_embeddings(dataset: Dataset) -> Tables:
    """Measure each video's embeddings, and how many different ones each caption has.

    Raises:
        InputError: if the stage or one before it has not run.
    """
    captioned = read_caption_manifest(dataset).by_video()

    def measure(video: str) -> Measurement:
        array = read_whole(dataset, STAGE, video, ARRAY_NAME)
        if array is None or video not in captioned:
            return Measurement(measure_array(array))
        return Measurement(measure_array(array), _digests(load_captions(dataset, video), array))

    videos, measured = measure_videos(
        dataset, STAGE, read_caption_embeddings(dataset), measure, reads=[CAPTIONS]
    )
    digests: dict[str, set[str]] = defaultdict(set)
    for found in measured:
        for caption, embeddings in found.captions.items():
            digests[caption].update(embeddings)
    captions = [{"caption": text, "embeddings": len(found)} for text, found in digests.items()]
    return {
        "videos": with_commonest_shape(videos),
        "captions": Table.of(captions, key=["caption"]),
    }


def _digests(captions: Sequence[str], array: Array) -> dict[str, list[str]]:
    """The different embeddings of each of a video's captions, as digests."""
    found: dict[str, set[str]] = defaultdict(set)
    for caption, row in zip(captions, array, strict=False):
        found[caption].add(hashlib.blake2b(row.tobytes(), digest_size=12).hexdigest())
    return {caption: sorted(digests) for caption, digests in found.items()}


caption_embeddings_checks = asset_checks(STAGE, CHECKS, check_caption_embeddings)
