"""Training examples: the features of a video with its one label, and the bags cut from them.

A bag is a video cut into 32 segments, each the mean of its snippets (RTFM section 4.1). Bags are
cut once into memory-mapped arrays in the caller's work folder, keyed by what they were cut from; a
training step never reads the raw features again. Which bags a step takes, and which videos are held
out, is decided here too, from seeds alone. Nothing here knows the network.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tevad_model.atomic import replacing
from tevad_model.config import Modality
from tevad_model.errors import InputError, MismatchError, VideoError
from tevad_model.timeline import segment_bounds

BAGS_FORMAT = 1
"""Changes when the same features would be cut to other bags."""

FloatFeatures = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video.

    Attributes:
        visual: (snippets, crops, dim), or None for a model that reads text alone.
        text: (snippets, dim), or None for a model that reads pixels alone.
    """

    visual: FloatFeatures | None = None
    text: FloatFeatures | None = None

    def check(self, video: str, modality: Modality) -> None:
        """See that the modality can be trained on or scored from these features.

        Raises:
            VideoError: if a part is missing, has a wrong number of axes, has no snippet, differs
                in length from the other, or has values that are not finite.
        """
        for name, axes in _parts(modality):
            array = getattr(self, name)
            if array is None:
                raise VideoError(
                    f"{video}: has no {name} features, which modality {modality!r} reads"
                )
            if array.ndim != axes or 0 in array.shape:
                raise VideoError(
                    f"{video}: {name} features have shape {array.shape}; expected {axes} axes, "
                    f"none empty"
                )
            if not np.isfinite(array).all():
                bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
                raise VideoError(
                    f"{video}: {name} features hold NaN or infinity in {len(bad)} snippets, "
                    f"the first {bad[0]}; extract them anew"
                )
        lengths = {name: len(getattr(self, name)) for name, _ in _parts(modality)}
        if len(set(lengths.values())) > 1:
            raise VideoError(
                f"{video}: {lengths['visual']} snippets of visual features but "
                f"{lengths['text']} of text; extract both from the same video"
            )

    @property
    def snippets(self) -> int:
        """Length of the features that are there.

        Raises:
            ValueError: if there are none.
        """
        array = self.text if self.visual is None else self.visual
        if array is None:
            raise ValueError("neither visual nor text features")
        return len(array)

    @property
    def crops(self) -> int:
        """Crops of a snippet; 1 for text alone."""
        return 1 if self.visual is None else self.visual.shape[1]


@dataclass(frozen=True)
class VideoExample:
    """A training video: its name, its label, and how to get its features.

    Attributes:
        video: name, unique among the examples.
        label: true for abnormal. The only label training sees.
        load: reads the features; called once, when bags are cut.
        digest: changes with what ``load`` returns, such as a hash of the feature files.
        source: the recording the video is cut from, by default the video itself. Videos of one
            source never lie on both sides of a validation split.
    """

    video: str
    label: bool
    load: Callable[[], VideoFeatures] = field(repr=False, compare=False)
    digest: str
    source: str = ""

    @classmethod
    def from_arrays(
        cls,
        video: str,
        label: bool,
        visual: FloatFeatures | None = None,
        text: FloatFeatures | None = None,
        source: str = "",
    ) -> VideoExample:
        """An example of features in memory; the digest is that of their bytes."""
        digest = hashlib.sha256()
        for array in (visual, text):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        features = VideoFeatures(visual, text)
        return cls(video, label, lambda: features, digest.hexdigest(), source)


@dataclass(frozen=True)
class Bags:
    """All training bags, memory-mapped.

    Attributes:
        key: digest of everything the bags were cut from.
        videos: B names.
        sources: B sources.
        labels: (B,) bool, true for abnormal.
        visual: (B, crops, segments, dim) in the features' own precision, or None.
        text: (B, segments, dim), or None.
    """

    key: str
    videos: tuple[str, ...]
    sources: tuple[str, ...]
    labels: BoolArray
    visual: FloatFeatures | None
    text: FloatFeatures | None


def cut_bags(
    examples: Sequence[VideoExample], modality: Modality, segments: int, work_dir: Path
) -> Bags:
    """Cut each video into a bag, or take the bags that were cut from the same features before.

    Examples are put in order of their names, so that their order never matters. One video's
    features are in memory at a time. An interrupted cut leaves nothing that a later one would
    take for whole.

    Args:
        examples: the training videos.
        modality: which features to cut; the others are not read.
        segments: segments of a bag.
        work_dir: folder for the arrays, made if absent; safe to delete when training is done.

    Raises:
        InputError: if there is no example, a name occurs twice, or a class is missing.
        VideoError: if the features of a video cannot be used.
        MismatchError: if crops or dimensions differ between videos.
    """
    examples = sorted(examples, key=lambda example: example.video)
    _check_examples(examples)
    key = _key(examples, modality, segments)
    folder = work_dir / f"bags-{key}"
    if not (folder / "bags.json").is_file():
        _write_bags(examples, modality, segments, folder)
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        for name, _ in _parts(modality)
    }
    return Bags(
        key=key,
        videos=tuple(example.video for example in examples),
        sources=tuple(example.source or example.video for example in examples),
        labels=np.array([example.label for example in examples]),
        visual=arrays.get("visual"),
        text=arrays.get("text"),
    )


def cut(features: FloatFeatures, segments: int) -> npt.NDArray[np.float32]:
    """Means of the snippets of each segment: (snippets, …) to (segments, …)."""
    start, end = segment_bounds(len(features), segments).T
    # reduceat gives the snippet itself where a segment would be empty, as segment_bounds does.
    sums = np.add.reduceat(features, start, axis=0, dtype=np.float32)
    counts = (end - start).astype(np.float32)
    means: npt.NDArray[np.float32] = sums / counts.reshape(-1, *[1] * (features.ndim - 1))
    return means


def batch_indices(
    labels: BoolArray, batch_size: int, seed: int, step: int
) -> tuple[IntArray, IntArray]:
    """The bags of a training step: ``batch_size`` normal and ``batch_size`` abnormal ones.

    Each class is gone through in an order shuffled anew each time round, without the incomplete
    batch at its end. The answer depends on the arguments alone, so training can go on anywhere.
    A class with fewer bags than ``batch_size`` gives all of them.

    Returns:
        Indices of the normal and of the abnormal bags.
    """
    chosen = []
    for label in (False, True):
        bags = np.flatnonzero(labels == label)
        size = min(batch_size, len(bags))
        epoch, position = divmod(step, len(bags) // size)
        order = np.random.default_rng([seed, int(label), epoch]).permutation(bags)
        chosen.append(order[position * size : (position + 1) * size])
    return chosen[0], chosen[1]


def hold_out(labels: BoolArray, sources: Sequence[str], share: float, seed: int) -> IntArray:
    """Indices of a held-out part: ``share`` of each class's sources, rounded, drawn by the seed."""
    held_out: set[str] = set()
    for of_class in _shuffled_sources(labels, sources, seed):
        held_out.update(of_class[: round(share * len(of_class))])
    return np.flatnonzero(np.isin(sources, list(held_out)))


def split_folds(labels: BoolArray, sources: Sequence[str], folds: int, seed: int) -> list[IntArray]:
    """Indices of each fold: sources dealt out in turn, class by class, shuffled by the seed."""
    dealt = [source for of_class in _shuffled_sources(labels, sources, seed) for source in of_class]
    return [np.flatnonzero(np.isin(sources, dealt[fold::folds])) for fold in range(folds)]


def class_sources(labels: BoolArray, sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the normal and of the abnormal sources; one abnormal video makes its source so."""
    names = np.array(sources)
    abnormal = set(names[labels].tolist())
    return sorted(set(names.tolist()) - abnormal), sorted(abnormal)


def _shuffled_sources(labels: BoolArray, sources: Sequence[str], seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [list(rng.permutation(of_class)) for of_class in class_sources(labels, sources)]


def _parts(modality: Modality) -> Iterator[tuple[str, int]]:
    """Names of the arrays a modality reads, with their number of axes."""
    if modality != "text":
        yield "visual", 3
    if modality != "visual":
        yield "text", 2


def _check_examples(examples: Sequence[VideoExample]) -> None:
    if not examples:
        raise InputError("training: there is no video to train on; see the dataset's quarantine")
    counts = Counter(example.video for example in examples)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise InputError(f"training: videos named more than once: {', '.join(twice)}")
    labels = {example.label for example in examples}
    if len(labels) == 1:
        only, other = ("abnormal", "normal") if labels == {True} else ("normal", "abnormal")
        raise InputError(
            f"training: all {len(examples)} videos are {only}; add {other} ones to the training "
            f"split (column label of videos.csv)"
        )


def _key(examples: Sequence[VideoExample], modality: Modality, segments: int) -> str:
    rows = [(example.video, bool(example.label), example.digest) for example in examples]
    content = json.dumps([BAGS_FORMAT, modality, segments, rows])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _write_bags(
    examples: Sequence[VideoExample], modality: Modality, segments: int, folder: Path
) -> None:
    """Write the arrays, and last the index that says that they are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.memmap[Any, Any]] = {}
    for row, example in enumerate(examples):
        features = example.load()
        features.check(example.video, modality)
        for name, _ in _parts(modality):
            bag = _bag(getattr(features, name), segments)
            if name not in arrays:
                shape = (len(examples), *bag.shape)
                dtype = getattr(features, name).dtype
                arrays[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape
                )
            _check_shape(example.video, name, bag, arrays[name], examples[0].video)
            arrays[name][row] = bag
    for array in arrays.values():
        array.flush()
    index = {"format": BAGS_FORMAT, "videos": [example.video for example in examples]}
    with replacing(folder / "bags.json") as temporary:
        temporary.write_text(json.dumps(index), encoding="utf-8")


def _bag(array: FloatFeatures, segments: int) -> npt.NDArray[np.float32]:
    """(snippets, crops, dim) to (crops, segments, dim); (snippets, dim) to (segments, dim)."""
    means = cut(array, segments)
    return means if means.ndim == 2 else means.transpose(1, 0, 2)


def _check_shape(
    video: str, name: str, bag: FloatFeatures, array: FloatFeatures, first: str
) -> None:
    if bag.shape != array.shape[1:]:
        axes = ("crops", "segments", "dim")[-bag.ndim :]
        differences = [
            f"{name} {axis}: {first} has {a}, {video} has {b}"
            for axis, a, b in zip(axes, array.shape[1:], bag.shape, strict=True)
            if a != b
        ]
        raise MismatchError(
            "cutting bags", differences, "Extract the features of all videos with one encoder."
        )
