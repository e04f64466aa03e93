"""A real HTTP proxy on loopback before the real S3 server: it passes all on, and fails as it is told to."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from networking import http_server

_BLOCK = 64 * 1024
_ERROR = "<?xml version='1.0'?><Error><Code>InternalError</Code><Message>told to</Message></Error>"


@dataclass
class Fault:
    """What goes wrong with requests of a method whose path holds a text.

    Attributes:
        method: of the requests.
        path: what their path holds.
        times: for how many of them; the others pass.
        status: answer with it and nothing else.
        silent: answer nothing until the proxy is stopped.
        cut_after: end the connection after so many bytes of the body, sent or received.
        flip: change one bit of the body's byte at this place.
        then: called when the connection is cut, before it ends.
    """

    method: str
    path: str
    times: int = 1
    status: int = 0
    silent: bool = False
    cut_after: int | None = None
    flip: int | None = None
    then: Callable[[], object] | None = None


@dataclass
class Proxy:
    """Faults to come, and what was asked for: method, path and headers of each request."""

    address: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ranges(self, path: str) -> list[str]:
        """The ranges asked for of what a path holds, in order."""
        return [
            headers["Range"]
            for method, asked, headers in self.requests
            if method == "GET" and path in asked and "Range" in headers
        ]

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault
        return None


class _CutError(Exception):
    """The connection is to end here."""


@contextmanager
def running_proxy(server: str) -> Iterator[Proxy]:
    """Pass on to the server at an address until the block ends."""
    state = Proxy()
    host = urlsplit(server).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _pass(self) -> None:
            path = unquote(self.path)
            state.requests.append((self.command, path, dict(self.headers)))
            fault = state.fault_of(self.command, path) or Fault("", "")
            if fault.silent:
                state.stopped.wait()
                self.close_connection = True
            elif fault.status:
                self._fail(fault.status)
            else:
                upstream = http.client.HTTPConnection(host)
                with suppress(ConnectionError, _CutError, http.client.HTTPException):
                    self._exchange(upstream, fault)
                    upstream.close()
                    return
                self.close_connection = True
                upstream.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 - http.server's names

        def _fail(self, status: int) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(_ERROR)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(_ERROR.encode())

        def _exchange(self, upstream: http.client.HTTPConnection, fault: Fault) -> None:
            # The headers as they came, Host too: the client has signed them.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    upstream.putheader(name, value)
            upstream.endheaders()
            length = int(self.headers.get("Content-Length", 0))
            self._copy(self.rfile.read, upstream.send, length, fault)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("date", "server", "transfer-encoding"):
                    self.send_header(name, value)
            body = b"" if answer.length is not None else answer.read()
            if answer.length is None or "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
                self._copy(answer.read, self.wfile.write, answer.length or 0, fault)

        def _copy(
            self,
            read: Callable[[int], bytes],
            write: Callable[[bytes], object],
            length: int,
            fault: Fault,
        ) -> None:
            done = 0
            while done < length:
                limit = length if fault.cut_after is None else min(length, fault.cut_after)
                block = bytearray(read(min(_BLOCK, limit - done)))
                if not block and done < limit:
                    raise ConnectionResetError
                if fault.flip is not None and done <= fault.flip < done + len(block):
                    block[fault.flip - done] ^= 1
                write(bytes(block))
                done += len(block)
                if done == fault.cut_after:
                    if fault.then:
                        fault.then()
                    raise _CutError

    with http_server(Handler) as state.address:
        try:
            yield state
        finally:
            state.stopped.set()
