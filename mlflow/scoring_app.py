"""The scoring server that ``tevad serve`` runs: MLflow's own, with a limit on what a request may hold.

An ASGI application for uvicorn (``scoring_app:app``, with this folder as ``--app-dir``).
``TEVAD_SERVE_MODEL`` is the version it serves, ``TEVAD_SERVE_REQUEST_MB`` the largest request.
Every answer names the version, because an alias may have moved since. What a request asks for is
the model's to judge (``tevad_pyfunc.py``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import mlflow
from mlflow.pyfunc import scoring_server

MODEL = "TEVAD_SERVE_MODEL"
REQUEST_MEGABYTES = "TEVAD_SERVE_REQUEST_MB"
VERSION_HEADER = b"x-tevad-model"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Limited:
    """An application that sees no request larger than a limit: those get 413 and the reason.

    A request is read here as far as the limit and no further, whatever length it states.
    """

    def __init__(self, app: App, model: str, megabytes: int) -> None:
        self._app = app
        self._model = model
        self._megabytes = megabytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (VERSION_HEADER, self._model.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        body = await self._body(scope, receive)
        if body is None:
            await self._refuse(named)
            return
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, named)

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes | None:
        """The request's body, or None if it is too large."""
        limit = self._megabytes * 2**20
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if int(stated) > limit:
            return None
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > limit:
                return None
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _refuse(self, send: Send) -> None:
        reason = {
            "error_code": "REQUEST_LIMIT_EXCEEDED",
            "message": f"the request is larger than {self._megabytes} MB; put the video into a "
            "folder that the server reads and give its path",
        }
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(reason).encode()})


app = Limited(
    scoring_server.init(mlflow.pyfunc.load_model(os.environ[MODEL])),
    os.environ[MODEL],
    int(os.environ[REQUEST_MEGABYTES]),
)
