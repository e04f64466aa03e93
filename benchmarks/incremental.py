"""What a run costs that has nothing, or one more video, to do, as a dataset grows.

One project grows to each number of videos by turns. At each, ``tevad run`` (a process, by the wall
clock) runs once more with nothing to do, the same through Dagster (``--force``), and then with one
more video, which ``dvc push`` then takes to a remote; and all but the push again beside the process
that ``tevad up`` keeps ready. What each took of the processor is stated beside it (``…_cpu_…``): on a
machine that does other things as well, the clock says little.

``rerun_seconds_N`` is the run with nothing to do, ``forced_seconds_N`` the same through Dagster, and
``forced_over_rerun_N`` the ratio of what they took of the processor. ``one_more_seconds_N`` is the
run with one more video less the work it brings: that video's own (taking in, features, captions,
embeddings; by itself) and learning anew, which is of all videos and not of the one: training,
evaluation and the registration of the new model, each stated by itself. ``…_ready_…`` is the same
beside the process that is ready, and ``one_more_over_ready_N`` the ratio. ``pushed_objects_N`` are
what the push moved, and ``pushed_for_the_video_N`` those of them that are the video's own results;
the rest are manifests, DVC's listings of folders, and what was learned. ``growth_exponent`` is the
slope of log seconds over log videos, the largest of the four: 0 is constant, 1 is in proportion.

``python -m benchmarks.incremental`` prints a table, ``--json`` one object; ``--videos`` says the
numbers of videos.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML

from assets.workspace import files
from assets.workspace.params import FILE_NAME
from assets.workspace.project import CHAIN, FEATURE_STAGES, Dataset, Project
from benchmarks.clips import clips
from benchmarks.project import temporary_project
from orchestration.profiles import ready
from orchestration.serving import start, stop

NAME, PRESET, FRAMES = "many", "incremental", 24

SMALL = {
    "snippet_features": {"options": {"crops": 1, "side": 64}},
    "sentence_encoder": {"tune": "never"},
    "tevad_model": {
        "fusion": "add",
        "visual_projection": 16,
        "segments": 8,
        "batch_size": 4,
        "iterations": 20,
        "evaluate_every": 10,
        "selection": "holdout",
        "seeds": [0],
    },
    "evaluation_metrics": {"bootstrap": 100},
    "checks": {"min_auc": 0.0},
}
"""Small encoders and a short training: what is measured is everything else."""

LEARNED = CHAIN[len(FEATURE_STAGES) :]


def measure(numbers: Sequence[int]) -> dict[str, float]:
    """All figures; the names are those the module's docstring explains."""
    figures: dict[str, float] = {}
    with temporary_project() as project:
        _prepare(project)
        for number in numbers:
            found = _measure_at(project, number)
            figures |= {f"{name}_{number}": value for name, value in found.items()}
    if len(numbers) > 1:
        slopes = {
            kind: _slope(numbers, [figures[f"{kind}_seconds_{number}"] for number in numbers])
            for kind in ("rerun", "one_more", "rerun_ready", "one_more_ready")
        }
        figures |= {f"{kind}_growth_exponent": slope for kind, slope in slopes.items()}
        figures["growth_exponent"] = max(slopes.values())
    return figures


def _prepare(project: Project) -> None:
    yaml = YAML()
    path = project.root / FILE_NAME
    params = yaml.load(path)
    params["presets"][PRESET] = SMALL
    yaml.dump(params, path)
    remote = project.state / "remote"
    _command(project, "dvc", "remote", "add", "--default", "folder", str(remote))


def _measure_at(project: Project, number: int) -> dict[str, float]:
    clips(project, NAME, range(number), frames=FRAMES, preset=PRESET)
    _command(project, "tevad", "run", NAME)
    rerun = _command(project, "tevad", "run", NAME)
    forced = _command(project, "tevad", "run", "--force", NAME)
    _command(project, "dvc", "push")
    before = _objects(project)
    alone = _one_more(project, number)
    push = _command(project, "dvc", "push")
    pushed = _objects(project) - before
    with _ready(project):
        rerun_ready = _command(project, "tevad", "run", NAME)
        beside = _one_more(project, number + 1)
    return {
        "rerun_seconds": rerun.wall,
        "rerun_cpu_seconds": rerun.cpu,
        "rerun_ready_seconds": rerun_ready.wall,
        "forced_seconds": forced.wall,
        "forced_cpu_seconds": forced.cpu,
        "forced_over_rerun": forced.cpu / rerun.cpu,
        **{f"one_more_{name}": value for name, value in alone.items()},
        **{f"one_more_ready_{name}": value for name, value in beside.items()},
        "one_more_over_ready": alone["seconds"] / beside["seconds"],
        "push_seconds": push.wall,
        "pushed_objects": len(pushed),
        "pushed_for_the_video": len(pushed & _results(project.dataset(NAME), str(number))),
    }


def _one_more(project: Project, number: int) -> dict[str, float]:
    """What the run takes that video ``number`` is new to, and what of it is which work's."""
    dataset = clips(project, NAME, range(number + 1), frames=FRAMES, preset=PRESET)
    whole = _command(project, "tevad", "run", NAME)
    reports = {stage: files.read_json(dataset.reports / f"{stage}.json") for stage in CHAIN}
    own = sum(sum(reports[stage]["video_seconds"].values()) for stage in FEATURE_STAGES)
    learned = {f"{stage}_seconds": float(reports[stage]["seconds"]) for stage in LEARNED}
    return {
        "seconds": whole.wall - own - sum(learned.values()),
        "run_seconds": whole.wall,
        "run_cpu_seconds": whole.cpu,
        "own_seconds": own,
        **learned,
    }


@contextmanager
def _ready(project: Project) -> Iterator[None]:
    """The process that ``tevad up`` keeps ready, once it is; every command has come from it."""
    log = project.state / "logs" / "ready.log"
    running = start(project, [ready()])
    try:
        while "ready for" not in log.read_text():
            if running[0].poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        yield
        if "by itself" in log.read_text():
            raise RuntimeError(log.read_text())
    finally:
        stop(running)


class Spent(NamedTuple):
    """Seconds of a process by the wall clock, and of the processor."""

    wall: float
    cpu: float


def _command(project: Project, program: str, *arguments: str) -> Spent:
    """Run a command in a process of its own."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        cwd=project.root,
        check=True,
        stdout=sys.stderr,
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    return Spent(time.perf_counter() - started, cpu - before.children_user - before.children_system)


def _objects(project: Project) -> set[str]:
    """The hashes of the objects that the remote holds."""
    root = project.state / "remote" / "files" / "md5"
    return {f"{path.parent.name}{path.name}" for path in root.glob("*/*")}


def _results(dataset: Dataset, video: str) -> set[str]:
    """The hashes of a video's results in the stages that make one file a video."""
    import hashlib

    found = [path for path in dataset.folder.rglob(f"{video}.*") if path.is_file()]
    return {hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in found}


def _slope(numbers: Sequence[int], seconds: Sequence[float]) -> float:
    """Of the line that fits log seconds over log numbers best."""
    x, y = [math.log(n) for n in numbers], [math.log(s) for s in seconds]
    middle, height = sum(x) / len(x), sum(y) / len(y)
    along = sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True))
    return along / sum((a - middle) ** 2 for a in x)


def main() -> None:
    """Print what :func:`measure` finds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one object {figure: value}")
    parser.add_argument("--videos", type=int, nargs="+", default=[100, 300, 1000], metavar="N")
    arguments = parser.parse_args()
    numbers = sorted(arguments.videos)
    figures = measure(numbers)
    if arguments.json:
        print(json.dumps(figures))
        return
    _print_table(numbers, figures)


def _print_table(numbers: Sequence[int], figures: dict[str, float]) -> None:
    names = [
        name.removesuffix(f"_{numbers[0]}") for name in figures if name.endswith(f"_{numbers[0]}")
    ]
    print(f"{'':<28}" + "".join(f"{f'{n} videos':>14}" for n in numbers) + f"{'ratio':>8}")
    for name in names:
        values = [figures[f"{name}_{number}"] for number in numbers]
        ratio = values[-1] / values[0] if values[0] else math.nan
        print(f"{name:<28}" + "".join(f"{value:>14.2f}" for value in values) + f"{ratio:>8.2f}")
    for name in (name for name in figures if name.endswith("growth_exponent")):
        print(f"{name:<28}{figures[name]:>14.3f}")


if __name__ == "__main__":
    main()
