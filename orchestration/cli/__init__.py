"""The command line, ``tevad``. Parses, calls, prints; what is done is done elsewhere.

One file a family of commands; here they are put together. A command imports what it needs when it
is called, so that ``tevad --help`` is quick.
"""

from __future__ import annotations

import atexit
import gc as garbage_collection
import logging
import signal

import click

from orchestration.cli.chain import ablate, demo, run, stage, sync
from orchestration.cli.datasets import dataset
from orchestration.cli.encoders import encoders
from orchestration.cli.garbage import gc
from orchestration.cli.models import lineage, reproduce, score
from orchestration.cli.promotion import promote, rollback
from orchestration.cli.serve import serve
from orchestration.cli.servers import up
from orchestration.cli.storage import storage
from orchestration.cli.watch import watch

_ALLOCATIONS = 100_000
"""Objects made between two looks for unreachable ones, instead of Python's 700."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tevad")
def main() -> None:
    """Which frames of a video are abnormal, learned from one label a video."""
    collect_garbage_rarely()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as orderly as by Ctrl-C
    # A handler of the project's own, which comes before those that Dagster adds and that rewrite
    # the message; the root's is for others' warnings.
    own, others = logging.StreamHandler(), logging.StreamHandler()
    others.addFilter(_is_a_warning_of_others)
    logging.basicConfig(format="%(message)s", handlers=[others])
    logging.getLogger("tevad").setLevel(logging.INFO)
    logging.getLogger("tevad").addHandler(own)


def collect_garbage_rarely() -> None:
    """Spend less on looking for unreachable objects: libraries make a million, which all stay.

    Python would look through them over and over while it imports, and once more at its end, where
    what is frozen is left out.
    """
    garbage_collection.set_threshold(_ALLOCATIONS)
    atexit.register(garbage_collection.freeze)


def _is_a_warning_of_others(record: logging.LogRecord) -> bool:
    """Some libraries log INFO whatever level they are told."""
    return not record.name.startswith("tevad") and record.levelno >= logging.WARNING


for _command in (
    ablate,
    dataset,
    demo,
    encoders,
    gc,
    lineage,
    promote,
    reproduce,
    rollback,
    run,
    score,
    serve,
    stage,
    storage,
    sync,
    up,
    watch,
):
    main.add_command(_command)
