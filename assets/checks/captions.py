"""What must hold of captions: one sentence a snippet, and not the same one everywhere."""

from collections import Counter

from assets.captions import STAGE, caption_path, read_caption_manifest
from assets.checks.encoded import FINGERPRINT, SNIPPETS, measure_videos
from assets.checks.expectations import Check, CheckOutcome, Table, Tables, between, validate
from assets.checks.faces import asset_checks
from assets.checks.measurements import Measurement
from assets.workspace import files
from assets.workspace.project import Dataset

CHECKS = (
    SNIPPETS,
    FINGERPRINT,
    Check(
        "no_caption_is_empty",
        "Every snippet's caption says something.",
        table="videos",
        expect=lambda _: between("empty_captions", 0, 0),
        blocking=True,
    ),
    Check(
        "captions_differ",
        "The commonest caption's share of the snippets is within checks.max_identical_captions; "
        "a captioner that collapses says the same everywhere.",
        table="dataset",
        expect=lambda limits: between("commonest_share", high=limits.max_identical_captions),
        is_error=False,
    ),
    Check(
        "captions_have_a_vocabulary",
        "The captions use at least checks.min_vocabulary distinct words.",
        table="dataset",
        expect=lambda limits: between("vocabulary", low=limits.min_vocabulary),
        is_error=False,
    ),
)


def check_captions(dataset: Dataset) -> list[CheckOutcome]:
    """Check the captions.

    Raises:
        InputError: if the stage or raw_videos has not run.
    """
    return validate(dataset, STAGE, CHECKS, measure_captions(dataset))


def measure_captions(dataset: Dataset) -> Tables:
    """Measure each video's captions, and over all of them how varied they are.

    Raises:
        InputError: if the stage or raw_videos has not run.
    """

    def measure(video: str) -> Measurement:
        captions = _captions(dataset, video)
        empty = sum(not caption.strip() for caption in captions)
        figures = {"snippets": len(captions), "empty_captions": empty}
        return Measurement(figures, captions=Counter(captions))

    videos, measured = measure_videos(dataset, STAGE, read_caption_manifest(dataset), measure)
    counts: Counter[str] = Counter()
    for found in measured:
        counts.update(found.captions)
    return {"videos": videos, "dataset": Table.of(_variety(dataset, counts), key=["dataset"])}


def _captions(dataset: Dataset, video: str) -> list[str]:
    """A video's captions; none if the file is not there or not whole."""
    content = files.read_lines(caption_path(dataset, video))
    return [str(line["caption"]) for line in content[1]] if content else []


def _variety(dataset: Dataset, counts: Counter[str]) -> list[dict[str, object]]:
    if not counts:
        return []
    [(commonest, times)] = counts.most_common(1)
    words = {word.strip(".,;:!?").lower() for caption in counts for word in caption.split()}
    return [
        {
            "dataset": dataset.name,
            "commonest_share": times / counts.total(),
            "commonest": commonest,
            "vocabulary": len(words - {""}),
        }
    ]


captions_checks = asset_checks(STAGE, CHECKS, check_captions)
