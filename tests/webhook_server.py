"""A real HTTP server on loopback that takes in what a webhook sends, and fails as it is told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from networking import http_server


@dataclass
class Received:
    """What came in.

    Attributes:
        url: the address to send to, with a secret in its path as such services have it.
        bodies: the JSON of each accepted request, in order.
        answers: statuses of the next answers; 200 when there are none.
        requests: how many there were, accepted or not.
    """

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    requests: int = 0


@contextmanager
def webhook_server() -> Iterator[Received]:
    """Take in until the block ends."""
    state = Received()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            state.requests += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = state.answers.pop(0) if state.answers else 200
            if status == 200:
                state.bodies.append(body)
            self.send_response(status)
            self.send_header("Location", state.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with http_server(Handler) as address:
        state.url = f"{address}/services/T000/B000/hooksecret42"
        yield state
