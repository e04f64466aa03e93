"""Python imports this at its start wherever ``faults/aim.py`` put its folder on ``PYTHONPATH``.

It watches what the process does to files and databases, by Python's audit events and SQLite's own
trace of statements, as lines such as ``write /a/file``, ``rename /a/file`` (its new name) and ``sql /a/database
INSERT …``. At the line that is aimed at it does what it was told. No code of the project knows of it.
"""

import atexit
import json
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR
_NEW_NAMES = {"os.rename": "rename", "os.link": "link"}


class _Moment:
    """The moment that is aimed at: function calls after the n-th line that a pattern finds."""

    def __init__(self, aim):
        self._aim = aim
        self._pattern = re.compile(aim["pattern"])
        self._lines_left = aim["nth"]
        self._calls_left = aim["calls"]
        self._lock = threading.Lock()

    def see(self, line):
        if not self._pattern.search(line):
            return
        with self._lock:
            self._lines_left -= 1
            is_it = self._lines_left == 0
        if is_it and self._calls_left:
            sys.setprofile(self._count)
        elif is_it:
            self._act()

    def _count(self, frame, event, arg):
        if event in ("call", "c_call"):
            self._calls_left -= 1
            if self._calls_left == 0:
                sys.setprofile(None)
                self._act()

    def _act(self):
        if self._aim["action"] == "kill":
            # The run has a session of its own; never take down whoever aims.
            if os.getpgid(0) != self._aim["spared_group"]:
                os.killpg(0, signal.SIGKILL)
        elif self._aim["action"] == "pause":
            Path(self._aim["reached"]).touch()
            while not Path(self._aim["released"]).exists():
                time.sleep(0.02)
        else:
            os.kill(os.getpid(), signal.Signals[self._aim["action"]])


class _Census:
    """Notes when which patterns found a line, and writes that down when the process ends."""

    def __init__(self, aim):
        self._patterns = {name: re.compile(text) for name, text in aim["patterns"].items()}
        self._lines = []
        self._process = os.getpid()
        atexit.register(self._write, Path(aim["lines"]))

    def see(self, line):
        if found := [name for name, p in self._patterns.items() if p.search(line)]:
            self._lines.append((time.monotonic_ns(), found))  # one clock for all processes

    def _write(self, path):
        if self._lines and os.getpid() == self._process:  # a fork's are its parent's too
            path.with_name(f"{path.name}.{os.getpid()}").write_text(json.dumps(self._lines))


def _watch(watcher):
    def listen(event, arguments):
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str) and flags & _WRITING:
                watcher.see(f"write {path}")
        elif event in _NEW_NAMES:
            watcher.see(f"{_NEW_NAMES[event]} {os.fsdecode(arguments[1])}")

    connect = sqlite3.connect

    def connect_and_trace(database, *arguments, **options):
        connection = connect(database, *arguments, **options)
        connection.set_trace_callback(lambda said: watcher.see(f"sql {database} {said}"))
        return connection

    sqlite3.connect = sqlite3.dbapi2.connect = connect_and_trace
    sys.addaudithook(listen)


if _aim := json.loads(os.environ.get("TEVAD_TEST_AIM", "null")):
    _watch(_Census(_aim) if "patterns" in _aim else _Moment(_aim))
