"""The jobs: which assets a person or a schedule runs together."""

import dagster as dg

from assets.workspace.project import CHAIN, FEATURE_STAGES
from orchestration.promotion import rollback

FEATURES = dg.define_asset_job(
    "features",
    dg.AssetSelection.assets(*FEATURE_STAGES),
    description="Videos to snippet features and caption embeddings; trains nothing.",
)

TRAIN = dg.define_asset_job(
    "train",
    dg.AssetSelection.assets(*CHAIN[len(FEATURE_STAGES) :]),
    description="Train, evaluate, register and decide, on the features that are there.",
)

EVERYTHING = dg.define_asset_job(
    "everything",
    dg.AssetSelection.assets(*CHAIN),
    description="The whole chain, from videos to the decision on a registered model.",
)

SCORE = dg.define_asset_job(
    "score",
    dg.AssetSelection.assets("scored_videos", "review_page"),
    description="Score the videos that are there, labelled or not, with the champion, for review.",
)

ARRIVALS = dg.define_asset_job(
    "arrivals",
    dg.AssetSelection.assets(*FEATURE_STAGES, "scored_videos", "drift"),
    description="Take in what arrived, score it with the champion, and look for drift; trains "
    "nothing.",
)

JOBS = (FEATURES, TRAIN, EVERYTHING, SCORE, ARRIVALS, rollback)
