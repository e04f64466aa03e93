"""What the backends on transformers share: options, precision, reading a model's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from tevad_model.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class ModelOptions(BaseModel):
    """Which model of transformers, and where and how it runs: the options such backends share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        description="A folder that save_pretrained wrote, or a name of the Hugging Face hub."
    )
    revision: str | None = Field(
        None,
        description="Full commit hash of a model of the hub (`tevad encoders pull` prints it).",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to compute; auto takes CUDA, then MPS, then the CPU."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Precision; auto is float16 on a GPU and float32 on the CPU."
    )
    trust_remote_code: bool = Field(
        False, description="Whether code that comes with the model may run on this machine."
    )

    @property
    def torch_device(self) -> torch.device:
        """The device.

        Raises:
            InputError: if it is not there.
        """
        from tevad_model.devices import resolve_device

        return resolve_device(self.device)

    @property
    def precision(self) -> str:
        """The precision, resolved."""
        if self.dtype != "auto":
            return self.dtype
        from tevad_model.devices import device_kind

        return "float32" if device_kind(self.device) == "cpu" else "float16"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The precision as PyTorch has it."""
        import torch

        found: torch.dtype = getattr(torch, self.precision)
        return found


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without progress bars and tables of the weights that a head not used here would have."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def read_config(folder: Path, options: ModelOptions, section: str) -> PretrainedConfig:
    """A model's configuration.

    Args:
        folder: the model's.
        options: whether its own code may run.
        section: of ``params.yaml``, for messages.

    Raises:
        InputError: if it is of no kind that the installed transformers knows.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=options.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{section}.options.model: {folder} is no model that the installed transformers can "
            f"load ({reason}); give another, or trust_remote_code: true if it brings its own code"
        ) from None
