"""The checks of the assets' data, one file a stage.

Each file measures what its stage wrote into small tables, says what must hold of them, and gives
the result to Dagster. How expectations are judged and shown is :mod:`assets.checks.expectations`'s
and :mod:`assets.checks.data_docs`'s; the limits are in ``params.yaml`` below ``checks``. Nothing
here changes data.
"""

from assets.checks.caption_embeddings import caption_embeddings_checks
from assets.checks.captions import captions_checks
from assets.checks.drift import drift_checks
from assets.checks.evaluation_metrics import evaluation_metrics_checks
from assets.checks.raw_videos import raw_videos_checks
from assets.checks.sentence_encoder import sentence_encoder_checks
from assets.checks.snippet_features import snippet_features_checks
from assets.checks.tevad_model import tevad_model_checks

ALL_CHECKS = [
    raw_videos_checks,
    snippet_features_checks,
    captions_checks,
    sentence_encoder_checks,
    caption_embeddings_checks,
    tevad_model_checks,
    evaluation_metrics_checks,
    drift_checks,
]
"""For the definitions, in the order of the chain."""
