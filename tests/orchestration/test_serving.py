"""Starting and stopping servers: real ones, on free ports, and what goes wrong with them."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
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


def listener(port: int, before: str = "") -> Server:
    """A server, that does something before it listens."""
    address = f"http://{LOOPBACK}:{port}"
    code = f"{before}\n{LISTENER}"
    return Server("Listener", [sys.executable, "-c", code, str(port)], address, address)


def test_a_server_that_ends_at_once_is_named_and_the_others_stop(project_root: Path) -> None:
    port, other = free_ports(2)
    address = f"http://{LOOPBACK}:{other}"
    bad = Server(
        "Bad", [sys.executable, "-c", "raise SystemExit('no such file')"], address, address
    )
    with pytest.raises(
        InputError, match=r"Bad, just started, ended with exit code 1, see .*bad\.log: no such file"
    ):
        start(Project.at(project_root), [listener(port), bad])
    assert not answers(port)


def test_one_that_nobody_waits_for_may_end(project_root: Path) -> None:
    [port] = free_ports(1)
    servers = [listener(port), Server("Unneeded", [sys.executable, "-c", "pass"], "", "")]
    project = Project.at(project_root)
    running = start(project, servers)
    running[1].wait()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait, project, servers, running)
        try:
            assert not futures.wait([waiting], 1.5).done  # it looks every half second
        finally:
            stop(running[:1])
        with pytest.raises(InputError, match=r"Listener ended by signal 15, see .*listener\.log: "):
            waiting.result()


def test_one_that_ends_is_named_with_what_it_said_last(project_root: Path) -> None:
    [port] = free_ports(1)
    project = Project.at(project_root)
    dies = "import signal, sys; signal.signal(15, lambda *_: sys.exit('the disk is full'))"
    servers = [listener(port, dies)]
    running = start(project, servers)
    running[0].terminate()
    said = r"Listener ended with exit code 1, see .*listener\.log: .*the disk is full"
    with pytest.raises(InputError, match=said):
        wait(project, servers, running)
    stop(start(project, servers))
    kept = project.state / "logs" / "listener.previous.log"
    assert "the disk is full" in kept.read_text(), "another start does not write over why"
    assert len(list(kept.parent.iterdir())) == 2


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_terminal_that_closes_leaves_no_server(
    project_root: Path, number: signal.Signals
) -> None:
    """It says so more than once, here while the server is about to stop."""
    [port] = free_ports(1)
    project = Project.at(project_root)
    told, may_end = project_root / "told", project_root / "may_end"
    slow = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        f"    pathlib.Path({str(told)!r}).touch()\n"
        f"    while not pathlib.Path({str(may_end)!r}).exists(): time.sleep(0.05)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)"
    )
    script = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # nohup's heir is deaf
        "from assets.workspace.project import Project; "
        "from orchestration.cli.servers import _serve; from orchestration.serving import Server; "
        f"address = 'http://{LOOPBACK}:{port}'; "
        f"server = Server('Listener', [sys.executable, '-c', sys.argv[1], '{port}'], address, address); "
        f"_serve(Project.at({str(project.root)!r}), [[server]])"
    )
    command = [sys.executable, "-c", script, f"{slow}\n{LISTENER}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Ctrl-C stops them" in line for line in process.stdout)
        process.send_signal(number)
        wait_until(told.exists)
        process.send_signal(number)
        process.send_signal(signal.SIGHUP)
        may_end.touch()
    assert process.returncode == 0
    assert not answers(port)


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
