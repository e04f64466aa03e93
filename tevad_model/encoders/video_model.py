"""Visual features by the video models of transformers: VideoMAE, TimeSformer, ViViT, V-JEPA 2 and others.

A snippet's features are what the model's classifier would read: its pooled and normalised last
layer. A checkpoint that was never given a classifier has no trained pooling; then they are the mean
of the last layer over all places and times.

Belongs here: which frames the model sees, batching, precision, the export to ONNX. Doesn't: how
pictures are made (:mod:`tevad_model.encoders.pixels`), where the files come from
(:mod:`tevad_model.encoders.hub`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tevad_model.encoders import hub
from tevad_model.encoders.base import Features, Frame, snippets
from tevad_model.encoders.batching import Batches
from tevad_model.encoders.once import built_once
from tevad_model.encoders.onnx import cached_network, quiet_exporter, session
from tevad_model.encoders.pixels import PixelFormat
from tevad_model.encoders.pretrained import ModelOptions, quiet_loading, read_config
from tevad_model.errors import InputError, VideoError
from tevad_model.fingerprint import Fingerprint
from tevad_model.timeline import SNIPPET_FRAMES

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

BACKEND: Final = "transformers"
SECTION: Final = "snippet_features"
CODE_VERSION: Final = 1
"""Raise it when a change of this file changes what :meth:`VideoModelEncoder.encode` yields."""

PARITY: Final = 1e-3
"""Largest difference between exported and original features, in deviations of the features."""

Clips = npt.NDArray[np.float32]
"""What a model reads, shape (clips, frames, channels, height, width)."""


class VideoModelOptions(ModelOptions):
    """Which video model reads the snippets, and how."""

    crops: Literal[1, 5, 10] = Field(
        1, description="1: the centre. 5: four corners and the centre. 10: these, mirrored too."
    )
    batch_size: int = Field(
        8, ge=1, le=1024, description="Clips (snippets times crops) at once; halved out of memory."
    )
    runtime: Literal["torch", "onnx"] = Field(
        "torch", description="onnx: exported once and run by ONNX Runtime on the CPU."
    )


class VideoModelEncoder:
    """A video model of transformers as a :class:`~tevad_model.encoders.base.VisualEncoder`.

    Args:
        options: which model and how.
        cache: folder for the exported network.

    Raises:
        InputError: if the model is not on this machine, or is no video model.
    """

    Options = VideoModelOptions

    def __init__(self, options: VideoModelOptions, cache: Path) -> None:
        self.options = options
        self._cache = cache
        self._folder = hub.resolve(options.model, options.revision, SECTION)
        self._config = _video_config(self._folder, options)
        self._pixels = PixelFormat.of(self._folder, f"{SECTION}.options.model")
        self._batches = Batches(options.batch_size, f"{SECTION}.options.batch_size")

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Backend, weights, code version, crops, precision and runtime."""
        return Fingerprint(
            {
                "backend": BACKEND,
                "weights": hub.weights_hash(self._folder),
                "code": CODE_VERSION,
                "crops": self.options.crops,
                "dtype": "float32" if self.options.runtime == "onnx" else self.options.precision,
                "runtime": self.options.runtime,
            }
        )

    @property
    def crops(self) -> int:
        """Crops of each snippet."""
        return self.options.crops

    @property
    def dim(self) -> int:
        """Features of each crop."""
        return int(self._config.hidden_size)

    @property
    def frames(self) -> int:
        """Frames of a clip: what the model was made for."""
        for name in ("num_frames", "frames_per_clip"):
            if frames := getattr(self._config, name, None):
                return int(frames)
        return SNIPPET_FRAMES

    def encode(self, frames: Iterable[Frame]) -> Iterator[Features]:
        """Yield features of shape (snippets, crops, dim), about ``batch_size`` clips a time.

        Raises:
            VideoError: if there is no frame.
            InputError: if not even one clip fits the memory.
        """
        clips_of_snippets = self._clips(frames)
        at_once = max(1, self.options.batch_size // self.crops)
        found = False
        while group := list(islice(clips_of_snippets, at_once)):
            found = True
            clips = [clip for snippet in group for clip in snippet]
            features = np.stack(self._batches.run(clips, self._features))
            yield features.reshape(len(group), self.crops, -1)
        if not found:
            raise VideoError("no frame to encode: the video is empty; remove or replace it")

    def _clips(self, frames: Iterable[Frame]) -> Iterator[list[Clips]]:
        """Each snippet's clips, one a crop: (frames, channels, height, width)."""
        # The middles of equal parts: every other frame of 8, each four times of 64.
        taken = ((np.arange(self.frames) + 0.5) * SNIPPET_FRAMES / self.frames).astype(int)
        for snippet in snippets(frames):
            made = {index: self._pixels.crops(snippet[index], self.crops) for index in set(taken)}
            yield [np.stack([made[index][crop] for index in taken]) for crop in range(self.crops)]

    def _features(self, clips: Sequence[Clips]) -> list[Features]:
        """Features of each clip, (dim,). A batch is always full: products of other sizes round otherwise."""
        filled = [*clips, *[clips[0]] * (self._batches.size - len(clips))]
        features = self._run(np.stack(filled))
        return list(features[: len(clips)])

    def _run(self, clips: Clips) -> Features:
        if self.options.runtime == "onnx":
            (exported,) = self._session.run(None, {"clips": clips})
            return np.asarray(exported, dtype=np.float32)
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(clips).to(self._network.device, self._network.dtype)
            features: Features = self._network(batch).float().cpu().numpy()
        return features

    @built_once
    def _network(self) -> Any:
        network = _load(self._folder, self._config, self.options)
        return network.to(self.options.torch_device, self.options.torch_dtype).eval()

    @built_once
    def _session(self) -> Any:
        identity = f"{hub.weights_hash(self._folder)} {CODE_VERSION}"
        return session(cached_network(self._cache, "video-model", identity, self._export))

    def _export(self) -> bytes:
        """The network as ONNX for any number of clips, compared with the original.

        Raises:
            InputError: if the model cannot be exported, or the export gives other features.
        """
        import torch

        network = _load(self._folder, self._config, self.options).eval()
        shape = (2, self.frames, 3, self._pixels.height, self._pixels.width)
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        remedy = f"set {SECTION}.options.runtime to torch"
        try:
            with quiet_exporter(), torch.inference_mode():
                program = torch.onnx.export(
                    network,
                    (example,),
                    input_names=["clips"],
                    output_names=["features"],
                    dynamic_shapes=({0: torch.export.Dim("clips", min=1, max=1024)},),
                    dynamo=True,
                    verbose=False,
                )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{self.options.model}: cannot be exported to ONNX ({reason}); {remedy}"
            ) from error
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        content: bytes = program.model_proto.SerializeToString()
        with torch.inference_mode():
            expected = network(example).numpy()
        (found,) = session(content).run(None, {"clips": example.numpy()})
        difference = float(np.abs(found - expected).max() / max(float(expected.std()), 1e-12))
        if difference > PARITY:
            raise InputError(
                f"{self.options.model}: its ONNX export gives other features (by {difference:.2g} "
                f"deviations); {remedy}"
            )
        return content


def _video_config(folder: Path, options: VideoModelOptions) -> PretrainedConfig:
    """The model's configuration.

    Raises:
        InputError: if it is of no known kind of video model.
    """
    from transformers import MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING

    config = read_config(folder, options, SECTION)
    if type(config) not in MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING and not options.trust_remote_code:
        raise InputError(
            f"{SECTION}.options.model: {folder} is a {config.model_type} model, which reads no "
            "video; give a video classifier, such as VideoMAE, TimeSformer or V-JEPA 2"
        )
    return config


def _load(folder: Path, config: PretrainedConfig, options: VideoModelOptions) -> torch.nn.Module:
    """The network from clips to features, float32 on the CPU."""
    import torch
    from transformers import AutoModel, AutoModelForVideoClassification

    settings: dict[str, Any] = {
        "config": config,
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": options.trust_remote_code,
        "dtype": torch.float32,
    }
    with quiet_loading():
        model, report = AutoModelForVideoClassification.from_pretrained(
            folder, output_loading_info=True, **settings
        )
        pooled = all(name.startswith("classifier.") for name in report["missing_keys"])
        if pooled:
            model.classifier = torch.nn.Identity()  # what it would read comes out, not logits
        else:
            model = AutoModel.from_pretrained(folder, **settings)
    return _clip_network(model, pooled=pooled)


def _clip_network(model: Any, *, pooled: bool) -> torch.nn.Module:
    import torch

    class ClipsToFeatures(torch.nn.Module):
        """(clips, frames, channels, height, width) to (clips, dim)."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.reads = model.main_input_name

        @property
        def device(self) -> torch.device:
            return next(self.parameters()).device

        @property
        def dtype(self) -> torch.dtype:
            return next(self.parameters()).dtype

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            if pooled:
                features: torch.Tensor = self.model(**{self.reads: clips}).logits
                return features
            if hasattr(self.model, "get_vision_features"):  # spares V-JEPA 2 its predictor
                hidden = self.model.get_vision_features(clips)
            else:
                hidden = self.model(**{self.reads: clips}).last_hidden_state
            mean: torch.Tensor = hidden.mean(dim=1)
            return mean

    return ClipsToFeatures()
