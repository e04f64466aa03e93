"""Commands of ``tevad`` in forks of a process that has loaded the libraries, which takes half a minute.

Such a command is a process like any other, with exit code, session and standard error of its own, and
is killed like one; while ``tevad up`` runs every command is a fork of this kind. What a command does
before anything is loaded is not to be seen here.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn


def tevad(
    *arguments: str,
    root: Path,
    environment: Mapping[str, str],
    scripts: Sequence[Path] = (),
    largest_file: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it says on stdout is nobody's.

    Args:
        root: the working folder.
        environment: all of it.
        scripts: Python files that are run first, as Python runs ``sitecustomize``.
        largest_file: the bytes that no file it writes may exceed.
    """
    with NamedTemporaryFile("r") as said:
        request = {
            "arguments": arguments,
            "folder": str(root),
            "environment": dict(environment),
            "scripts": [str(script) for script in scripts],
            "largest_file": largest_file,
            "stderr": said.name,
        }
        process = _loaded()
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(request), file=process.stdin, flush=True)
        try:
            code = int(process.stdout.readline())
        except BaseException:  # a test's time is up; who is asked next must not give this answer
            process.kill()
            _loaded.cache_clear()
            raise
        return subprocess.CompletedProcess(("tevad", *arguments), code, stderr=said.read())


@cache
def _loaded() -> subprocess.Popen[str]:
    """The process that forks: this file run as a program, which ends when nobody can write to it.

    Without ``tests`` on its path (``-P``), where ``assets`` is another package.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)
    return process


def main() -> None:
    """Load the libraries, and fork for each request; in a fork, be the command."""
    from orchestration.ready.server import load

    load()
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            _be(json.loads(line))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _be(request: Mapping[str, Any]) -> NoReturn:
    from orchestration.cli import main as command_line

    os.setsid()
    nowhere, said = os.open(os.devnull, os.O_RDWR), os.open(request["stderr"], os.O_WRONLY)
    for number, stream in enumerate((nowhere, nowhere, said)):
        os.dup2(stream, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if limit := request["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for script in request["scripts"]:
        runpy.run_path(script)
    sys.argv = ["tevad", *request["arguments"]]
    sys.exit(command_line(prog_name="tevad"))


if __name__ == "__main__":
    main()
