"""What reading each frame once saves a video captioner whose windows overlap by three quarters.

The ordinary way captions window by window, as a loader of clips does: seek to the window, decode it,
make pixels of the frames that are seen, and give them to the model; ``ratio`` is against that.
``ratio_decoded_once`` is against the same with the whole video decoded once and kept in memory, which
long videos do not allow. Same model, same frames, same number of windows in a batch, and the same
captions, which is checked. The model is a GIT of six frames with random weights and small layers; of
its caption it says one word, as saying is the same work either way. ``python -m benchmarks.captions``
prints a table, ``--json`` one object.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av

from benchmarks.report import print_figures
from tevad_model import render, timeline, video
from tevad_model.encoders.captioner import CaptionerOptions, TransformersCaptioner

SIDE, RUNS, FRAMES_OF_GIT, BATCH = 96, 5, 6, 8
GENERATION = {"max_new_tokens": 1}


def measure() -> dict[str, float]:
    """Time both ways on a rendered video, in alternation.

    Returns:
        ``ratio`` and ``ratio_decoded_once`` (window by window over ours), times in seconds, frames
        and snippets.

    Raises:
        RuntimeError: if the captions differ.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = _video(folder)
        model = _save_git(folder / "git")
        captioner = TransformersCaptioner(
            CaptionerOptions(model=str(model), generation=GENERATION, batch_size=BATCH)
        )
        by_window = _WindowByWindow(model, captioner.offsets)

        def ours() -> list[str]:
            return list(captioner.caption(video.frames(path), fps=25))

        def ordinary() -> list[str]:
            return list(by_window.caption(path, decoded_once=False))

        def decoded_once() -> list[str]:
            return list(by_window.caption(path, decoded_once=True))

        ways = {"ours": ours, "ordinary": ordinary, "decoded_once": decoded_once}
        if len({tuple(way()) for way in ways.values()}) != 1:
            raise RuntimeError("the ways give other captions")
        times = _alternate(ways)
        frames = video.probe(path).frames
    return {
        "ratio": times["ordinary"] / times["ours"],
        "ratio_decoded_once": times["decoded_once"] / times["ours"],
        "ours_seconds": times["ours"],
        "window_by_window_seconds": times["ordinary"],
        "frames": frames,
        "snippets": timeline.snippet_count(frames),
    }


class _WindowByWindow:
    """Captions each window by itself, by the library."""

    def __init__(self, folder: Path, offsets: tuple[int, ...]) -> None:
        from transformers import AutoProcessor, GitForCausalLM

        self._processor = AutoProcessor.from_pretrained(folder)
        self._model: Any = GitForCausalLM.from_pretrained(folder).eval()
        self._offsets = offsets

    def caption(self, path: Path, *, decoded_once: bool) -> Iterator[str]:
        """See and say every window."""
        info = video.probe(path)
        decoded = list(video.frames(path)) if decoded_once else None
        count = timeline.snippet_count(info.frames)
        windows = []
        for snippet in range(count):
            numbers = timeline.window_frames(snippet, info.frames)[list(self._offsets)]
            shown = (
                _clip(path, numbers.tolist(), info.fps)
                if decoded is None
                else [decoded[n] for n in numbers]
            )
            windows.append(shown)
            if len(windows) == BATCH or snippet == count - 1:
                yield from self._say(windows)
                windows = []

    def _say(self, windows: list[list[Any]]) -> list[str]:
        import torch

        made = [
            self._processor.image_processor(images=shown, return_tensors="pt")["pixel_values"]
            for shown in windows
        ]
        tokens = self._model.generate(
            pixel_values=torch.stack(made), **GENERATION, min_new_tokens=1
        )
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


def _clip(path: Path, numbers: Sequence[int], fps: float) -> list[Any]:
    """Some frames of a video, decoded from the keyframe before the first to the last of them."""
    wanted, found = set(map(int, numbers)), {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        base = float(stream.time_base or 0)
        start = stream.start_time or 0
        container.seek(start + int(min(wanted) / fps / base), stream=stream)
        for frame in container.decode(stream):
            number = round(((frame.pts or 0) - start) * base * fps)
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
            if number >= max(wanted):
                break
    return [found[int(number)] for number in numbers]


def _alternate(ways: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """The median time of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, run in ways.items():
            begun = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in times.items()}


def _video(folder: Path) -> Path:
    """The longest of a few rendered videos."""
    render.render(folder / "rendered", train=2, test=2, seed=0)
    found = (folder / "rendered").rglob("*.mp4")
    return max(found, key=lambda path: video.probe(path).frames)


def _save_git(folder: Path) -> Path:
    """A GIT of six frames with random weights, as the hub would have it."""
    import torch
    from transformers import (
        BertTokenizerFast,
        CLIPImageProcessorPil,
        GitConfig,
        GitForCausalLM,
        GitProcessor,
    )

    torch.manual_seed(0)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ".",
        "a",
        "man",
        "woman",
        "walks",
        "runs",
        "falls",
        "in",
        "the",
        "street",
    ]
    tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    config = GitConfig(
        vision_config={"image_size": SIDE, "patch_size": 16, "hidden_size": 64, **layers},
        vocab_size=len(words),
        num_image_with_embedding=FRAMES_OF_GIT,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=64,
        **layers,
    )
    GitForCausalLM(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    GitProcessor(images, tokenizer).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print_figures(measure, __doc__)
