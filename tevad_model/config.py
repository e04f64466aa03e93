"""The parameters of the library, validated: what ``params.yaml`` may say and within which bounds.

One schema for every caller (Dagster config, the command line, DVC, a test). Values only: nothing
here reads a file or looks at data.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Modality = Literal["both", "visual", "text"]
Fusion = Literal["concat", "add", "product"]
Selection = Literal["auto", "holdout", "cross_validation", "last"]


class TuningParams(BaseModel):
    """How a sentence encoder is tuned on captions. The defaults are unsupervised SimCSE's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tune: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether to tune; auto: where there are at least auto_captions distinct ones.",
    )
    auto_captions: int = Field(
        1000, ge=3, description="Distinct captions of the training split from which auto tunes."
    )
    max_captions: int = Field(
        10_000, ge=3, description="Captions to tune on, at most; drawn at random from more."
    )
    max_tokens: int = Field(
        32, ge=4, description="Tokens of a caption that tuning reads; embedding reads all."
    )
    epochs: int = Field(1, ge=1, description="Times each caption is seen.")
    batch_size: int = Field(64, ge=2, description="Captions that are told apart at once.")
    learning_rate: float = Field(3e-5, gt=0, description="AdamW's, falling linearly to 0.")
    temperature: float = Field(0.05, gt=0, description="Of the contrastive loss.")
    seed: int = Field(0, ge=0, description="Of drawing captions, their order and dropout.")


class TrainingParams(BaseModel):
    """How a TEVAD model is built and trained. The defaults are the paper's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Modality = Field("both", description="The features the model reads.")
    fusion: Fusion = Field(
        "concat",
        description="How visual and text features are joined (TEVAD section 3.3); "
        "read only when modality is both.",
    )
    text_temporal: bool = Field(
        True, description="Whether text passes a temporal network of its own (TEVAD table 5)."
    )
    visual_projection: int | None = Field(
        None,
        ge=4,
        description="Project visual features to so many dimensions before the temporal network, "
        "by the principal components of the training bags. For large features and few videos; "
        "the paper has none.",
    )
    standardize: bool = Field(
        False,
        description="Bring each feature to mean 0 and deviation 1 by the training bags' "
        "statistics, which are kept in the model. The paper does not.",
    )
    segments: int = Field(
        32,
        ge=2,
        description="Segments a video is cut into for training. Where videos have fewer snippets, "
        "snippets are repeated, and training sees time slower than scoring does: take about as "
        "many as a short video has snippets.",
    )
    top_k: int = Field(3, ge=1, description="Snippets of a bag, by magnitude, that train the head.")
    margin: float = Field(100.0, gt=0, description="m of the feature magnitude loss.")
    alpha: float = Field(1e-4, ge=0, description="Weight of the feature magnitude loss.")
    smoothness: float = Field(8e-4, ge=0, description="Weight of temporal smoothness.")
    sparsity: float = Field(8e-3, ge=0, description="Weight of sparsity.")
    dropout: float = Field(0.7, ge=0, lt=1, description="Dropout in network and top-k selection.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate.")
    weight_decay: float = Field(5e-3, ge=0, description="Adam's L2 weight decay.")
    weight_averaging: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Keep and evaluate a moving average of the weights with this decay instead of "
        "the weights of one step, which swing with every batch; 0: those of the step, as the "
        "paper has it.",
    )
    batch_size: int = Field(32, ge=1, description="Bags of each class in a batch.")
    iterations: int = Field(1000, ge=1, description="Training steps, one batch each.")
    selection: Selection = Field(
        "auto",
        description="How the kept step is chosen, never by test: on a held-out part of the "
        "training videos (holdout), by cross-validation over them followed by training on all "
        "(cross_validation), or not at all (last). auto: holdout where the held-out part has at "
        "least 20 videos of each class, else cross_validation.",
    )
    validation_share: float = Field(
        0.2, gt=0, le=0.5, description="Share of the training videos held out, of each class."
    )
    folds: int = Field(4, ge=2, description="Folds of the cross-validation, at most.")
    evaluate_every: int = Field(
        20, ge=1, description="Steps between evaluations on validation and checkpoints."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after so many evaluations without a better one; null: never stop early.",
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2, 3, 4), min_length=1, description="One model is trained for each seed."
    )
    paper_compat: bool = Field(
        False,
        description="The published runs' form of the losses: smoothness and sparsity over the "
        "flattened batch, magnitude loss over bags paired by position. Excludes standardize, "
        "visual_projection and weight_averaging.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to compute; auto takes CUDA, then MPS, then the CPU."
    )
    mixed_precision: bool = Field(
        False,
        description="bfloat16 products in training steps; weights, losses and scores stay float32.",
    )
    compile: bool = Field(False, description="Run the network through torch.compile.")

    @model_validator(mode="after")
    def _paper_has_no_more(self) -> Self:
        own = ("standardize", "visual_projection", "weight_averaging")
        if self.paper_compat and any(getattr(self, name) for name in own):
            raise ValueError(f"paper_compat excludes {', '.join(own)}: the published runs had none")
        return self
