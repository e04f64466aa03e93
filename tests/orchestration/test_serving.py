"""Starting and stopping servers: real ones, on free ports, and what goes wrong with them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from networking import answers, free_ports, wait_until

from assets.workspace.project import Project
from orchestration.serving import LOOPBACK, Server, start, stop, wait
from tevad_model.errors import InputError

LISTENER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def listener(port: int) -> Server:
    address = f"http://{LOOPBACK}:{port}"
    return Server("Listener", [sys.executable, "-c", LISTENER, str(port)], address, address)


def test_a_server_that_ends_at_once_is_named_and_the_others_stop(project_root: Path) -> None:
    port, other = free_ports(2)
    address = f"http://{LOOPBACK}:{other}"
    bad = Server(
        "Bad", [sys.executable, "-c", "raise SystemExit('no such file')"], address, address
    )
    with pytest.raises(InputError, match=r"Bad ended at once, see .*bad\.log: no such file"):
        start(Project.at(project_root), [listener(port), bad])
    assert not answers(port)


def test_one_that_nobody_waits_for_may_end(project_root: Path) -> None:
    [port] = free_ports(1)
    servers = [listener(port), Server("Unneeded", [sys.executable, "-c", "pass"], "", "")]
    running = start(Project.at(project_root), servers)
    running[1].wait()
    waiting = threading.Thread(target=wait, args=(servers, running))
    waiting.start()
    waiting.join(1.5)  # it looks every half second
    assert waiting.is_alive()
    stop(running[:1])
    waiting.join()


def test_a_group_waits_for_the_one_before_it(project_root: Path) -> None:
    first, second = free_ports(2)
    code = f"import urllib.request as r; r.urlopen('http://{LOOPBACK}:{first}')"
    asks_first = [
        sys.executable,
        "-c",
        f"{code}\nimport sys; sys.argv[1:] = ['{second}']\n{LISTENER}",
    ]
    address = f"http://{LOOPBACK}:{second}"
    running = start(
        Project.at(project_root), [listener(first)], [Server("Asks", asks_first, address, address)]
    )
    stop(running)
    assert not answers(first)
    assert not answers(second)


def test_a_command_tells_that_a_server_is_ready(project_root: Path) -> None:
    there = project_root / "there"
    touch = f"open({str(there)!r}, 'w'); import time; time.sleep(600)"
    check = [
        sys.executable,
        "-c",
        f"import pathlib; exit(not pathlib.Path({str(there)!r}).exists())",
    ]
    silent = Server("Silent", [sys.executable, "-c", touch], "", check)
    running = start(Project.at(project_root), [silent])
    assert there.exists()
    stop(running)
    assert running[0].poll() is not None


def test_a_process_becomes_a_server_and_ends_with_it(project_root: Path) -> None:
    [port] = free_ports(1)
    script = (
        "import sys; from pathlib import Path; from assets.workspace.project import Project; "
        "from orchestration.serving import Server, become; "
        f"server = Server('Listener', [sys.executable, '-c', sys.argv[1], '{port}'], '', ''); "
        f"become(Project.at({str(project_root)!r}), server)"
    )
    with subprocess.Popen([sys.executable, "-c", script, LISTENER]) as process:
        wait_until(lambda: answers(port))
        process.terminate()
    assert not answers(port)


def test_another_server_at_the_address_is_not_taken_for_ours(project_root: Path) -> None:
    [port] = free_ports(1)
    project = Project.at(project_root)
    first = start(project, [listener(port)])
    try:
        with pytest.raises(InputError, match=f"something listens on http://{LOOPBACK}:{port}"):
            start(project, [listener(port)])
    finally:
        stop(first)
    assert not answers(port)
