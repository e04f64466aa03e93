"""`make audit`: pip-audit against a database of advisories on loopback, and against none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from networking import free_ports, http_server

REPOSITORY = Path(__file__).parents[1]
ADVISORY = {
    "id": "PYSEC-0000-1",
    "summary": "runs what it is sent",
    "affected": [
        {
            "package": {"name": "sent", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
            "versions": ["1.0"],
        }
    ],
}


@pytest.fixture
def advisories() -> Iterator[str]:
    """The address of a database that knows one advisory, of ``sent`` 1.0."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = query["package"]["name"] == "sent" and query["version"] == "1.0"
            self._answer(200, {"vulns": [ADVISORY]} if known else {})

        def do_GET(self) -> None:
            self._answer(404, {})

        def _answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http_server(Handler) as address:
        yield f"{address}/v1/query"


def audit(database: str, pinned: str, folder: Path, *options: str) -> tuple[int, str]:
    requirements = folder / "requirements.txt"
    requirements.write_text(pinned)
    script = [sys.executable, str(REPOSITORY / ".ci" / "audit.py")]
    done = subprocess.run(
        [*script, "--database", database, "--requirements", str(requirements), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_an_advisory_fails_the_build_and_is_named(advisories: str, tmp_path: Path) -> None:
    code, said = audit(advisories, "sent==1.0\nharmless==1.0\n", tmp_path)
    assert code == 1
    assert "PYSEC-0000-1" in said
    assert "2.0" in said, "the version that has it repaired"


def test_packages_without_an_advisory_pass(advisories: str, tmp_path: Path) -> None:
    code, said = audit(advisories, "sent==2.0\nharmless==1.0\n", tmp_path)
    assert code == 0, said
    assert "No known vulnerabilities found" in said


@pytest.mark.parametrize(("options", "expected"), [((), 0), (("--strict",), 1)])
def test_without_a_network_it_says_that_nothing_was_looked_up(
    options: tuple[str, ...], expected: int, tmp_path: Path
) -> None:
    [nobody] = free_ports(1)
    code, said = audit(f"http://127.0.0.1:{nobody}/v1/query", "sent==1.0\n", tmp_path, *options)
    assert code == expected
    assert said.startswith("AUDIT SKIPPED")
    assert "Connection refused" in said


def test_all_of_the_lock_file_is_pinned_as_the_audit_needs() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert packages
    assert [line for line in packages if "==" not in line] == []
