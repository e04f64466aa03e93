"""As much of the Hugging Face hub as fetching a model takes: a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from networking import http_server

MODEL, COMMIT = "someone/tiny-videomae", "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A server that speaks as much of the hub's language as fetching a model takes."""

    folder: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)

    def file(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def info(self) -> dict[str, object]:
        names = sorted(path.name for path in self.folder.iterdir())
        return {
            "_id": "1",
            "id": MODEL,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "downloads": 0,
            "siblings": [{"rfilename": name} for name in names],
        }

    def tree(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "oid": sha256(path.read_bytes()).hexdigest()[:40],
                "size": path.stat().st_size,
                "path": path.name,
            }
            for path in sorted(self.folder.iterdir())
        ]


def handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.asked.append(self.path)
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{MODEL}/tree/"):
                self._send(json.dumps(served.tree()).encode(), "application/json")
            elif path in (f"/api/models/{MODEL}", f"/api/models/{MODEL}/revision/{COMMIT}"):
                self._send(json.dumps(served.info()).encode(), "application/json")
            elif path.startswith(f"/{MODEL}/resolve/{COMMIT}/"):
                self._send(served.file(path.rpartition("/")[2]), "application/octet-stream")
            else:
                self._send(b'{"error": "not found"}', "application/json", 404)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server asks for

        def _send(self, content: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{sha256(content).hexdigest()[:40]}"')
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """Serve the files of a folder as :data:`MODEL` at :data:`COMMIT`."""
    hub = Hub(folder)
    with http_server(handler(hub)) as hub.address:
        yield hub
