"""A real PostgreSQL on loopback, of Debian's packages, that tests can stop, kill and start again.

It runs as whoever runs the tests; for root, whom PostgreSQL refuses, as somebody with fewer rights.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from networking import free_ports

ADMIN, TEAM = "postgres", "te am"
PASSWORD = "p@ss/w%rd:#1"
"""Of both; it says what it can to be taken for other parts of an address."""


def programs() -> Path | None:
    """The folder of the newest PostgreSQL server that is installed."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(found, key=lambda path: int(path.parts[-3]), default=None)
    return newest.parent if newest else None


class PostgresServer:
    """One server; what was committed to it is there again after :meth:`kill` and :meth:`start`."""

    def __init__(self, bin_folder: Path) -> None:
        self._programs = bin_folder
        self._user = _unprivileged()
        self.folder = Path(tempfile.mkdtemp(prefix="tevad-postgres-"))
        [self.port] = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        password = self.folder / "password"
        password.write_text(PASSWORD)
        for path in (self.folder, password):
            shutil.chown(path, self._user)
        self._run(
            "initdb", "--no-sync", "--auth=scram-sha-256", f"--username={ADMIN}",
            f"--pwfile={password}", "--encoding=UTF8", "--locale=C", f"--pgdata={self.folder / 'data'}",
        )  # fmt: skip

    def address(self, database: str, user: str = TEAM, password: str = PASSWORD) -> str:
        """What ``TEVAD_DATABASE_URL`` says of a database."""
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make a database of the team's own and return its name."""
        name = f"team-{uuid.uuid4().hex[:8]}"
        self.execute(f'CREATE DATABASE "{name}" OWNER "{TEAM}"')
        return name

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the server's owner."""
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=ADMIN, password=PASSWORD, dbname=database
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",  # it is killed here, the machine is not
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", *options],
                cwd=self.folder, user=self._user, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._wait_until_ready()

    def stop(self) -> None:
        """End it in order; whoever is connected is cut off."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, as a crash would: nothing is written any more, the next start recovers."""
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        """End it and leave nothing behind."""
        self.kill()
        shutil.rmtree(self.folder)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, user=self._user, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _wait_until_ready(self) -> None:
        import psycopg2

        deadline = time.monotonic() + 60
        while True:
            try:
                self.execute("SELECT 1")
                break
            except psycopg2.OperationalError:
                assert self._process is not None
                log = (self.folder / "log").read_text(errors="replace")[-2000:]
                assert self._process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.1)
        if (TEAM,) not in self.execute("SELECT rolname FROM pg_roles"):
            self.execute(f"CREATE ROLE \"{TEAM}\" LOGIN PASSWORD '{PASSWORD}'")


def _unprivileged() -> str:
    """Who the server runs as."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
