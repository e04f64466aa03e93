"""A real HTTP server on loopback that serves bytes with ranges, and fails as it is told to."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from networking import http_server


@dataclass
class Fault:
    """What goes wrong with one request; each is used once.

    Attributes:
        status: answer with it and nothing else.
        cut_after: close the connection after so many bytes of the body.
        silent: answer nothing until the server is stopped.
        location: redirect there.
        length: state this length instead of the true one.
    """

    status: int = 0
    cut_after: int | None = None
    silent: bool = False
    location: str = ""
    length: int | None = None


@dataclass
class FileServer:
    """Files by path, faults by path, and what was asked for.

    Attributes:
        validator: what tells one content from another: "strong" or "weak" (an ETag), "date" (of
            the last change; it stands while the content does), or "none".
        ranges: whether to answer ranges.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    validator: str = "strong"
    ranges: bool = True
    stopped: threading.Event = field(default_factory=threading.Event)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def serve(self, name: str, content: bytes, *faults: Fault) -> str:
        self.files[f"/{name}"] = content
        self.faults[f"/{name}"] = list(faults)
        return self.url(name)

    def asked_ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


@contextmanager
def running_server(certificate: Path | None = None) -> Iterator[FileServer]:
    """Serve until the block ends; over TLS if a file with a certificate and its key is given."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            state.requests.append((self.path, dict(self.headers)))
            faults = state.faults.get(self.path)
            fault = faults.pop(0) if faults else Fault()
            if fault.silent:
                state.stopped.wait()
                self.close_connection = True
            elif fault.location:
                self._only_header(302, Location=fault.location)
            elif fault.status or self.path not in state.files:
                self._only_header(fault.status or 404)
            else:
                self._send(state.files[self.path], fault)

        def _only_header(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, content: bytes, fault: Fault) -> None:
            header, validator = self._validator(content)
            start = self._start(validator)
            if start >= len(content) and start:
                self._only_header(416, Content_Range=f"bytes */{len(content)}")
                return
            body = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            if header == "ETag" or (header and not start):  # RFC 9110, section 15.3.7
                self.send_header(header, validator)
            self.send_header("Content-Length", str(fault.length or len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # the client may refuse what the header says
                self.wfile.write(body if fault.cut_after is None else body[: fault.cut_after])
            if fault.cut_after is not None or fault.length:
                self.close_connection = True

        def _validator(self, content: bytes) -> tuple[str, str]:
            number = int(hashlib.sha256(content).hexdigest()[:7], 16)
            return {
                "strong": ("ETag", f'"{number}"'),
                "weak": ("ETag", f'W/"{number}"'),
                "date": ("Last-Modified", formatdate(number, usegmt=True)),
                "none": ("", ""),
            }[state.validator]

        def _start(self, validator: str) -> int:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", validator) == validator
            return int(asked[1]) if asked and same and state.ranges else 0

    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    with http_server(Handler, tls) as state.address:
        try:
            yield state
        finally:
            state.stopped.set()
