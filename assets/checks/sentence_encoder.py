"""What must hold of sentence_encoder: it embeds captions by weights that lie there whole."""

from assets.checks.expectations import Check, CheckOutcome, Table, Tables, between, equal, validate
from assets.checks.faces import asset_checks
from assets.sentence_encoder import STAGE, TUNING, TuningRecord, tuned_model
from assets.workspace import files
from assets.workspace.project import Dataset
from tevad_model.encoders import hub
from tevad_model.errors import InputError

CHECKS = (
    Check(
        "a_kept_encoder_is_whole",
        "The tuned encoder that lies there is the one that was measured; without one, captions are "
        "embedded by the encoder of params.yaml.",
        table="dataset",
        expect=lambda _: equal("weights", "weights_measured"),
        blocking=True,
    ),
    Check(
        "a_kept_encoder_improves",
        "Tuning that is kept made alignment and uniformity lower.",
        table="dataset",
        expect=lambda _: [
            *between("alignment_change", high=0),
            *between("uniformity_change", high=0),
        ],
        blocking=True,
    ),
)


def check_sentence_encoder(dataset: Dataset) -> list[CheckOutcome]:
    """Check the encoder.

    Raises:
        InputError: if the stage has not run.
    """
    return validate(dataset, STAGE, CHECKS, measure_sentence_encoder(dataset))


def measure_sentence_encoder(dataset: Dataset) -> Tables:
    """Measure what lies there against what was written of it.

    Raises:
        InputError: if the stage has not run.
    """
    path = dataset.stage(STAGE) / TUNING
    if not path.is_file():
        raise InputError(f"{path}: not there; materialize {STAGE} first")
    record = TuningRecord(**files.read_json(path))
    row = {
        "dataset": dataset.name,
        "weights": hub.weights_hash(tuned_model(dataset)) if record.kept else "none",
        "weights_measured": record.weights if record.kept else "none",
        **{
            f"{measure}_change": _change(record, measure) for measure in ("alignment", "uniformity")
        },
    }
    return {"dataset": Table.of([row], key=["dataset"])}


def _change(record: TuningRecord, measure: str) -> float | None:
    """What tuning that was kept changed in a measure; None, which fails, if nobody measured it."""
    if not record.kept:
        return 0.0
    if record.figures is None:
        return None
    return float(record.figures["after"][measure] - record.figures["before"][measure])


sentence_encoder_checks = asset_checks(STAGE, CHECKS, check_sentence_encoder)
