"""A small client of the scoring server, ``tevad serve`` or ``mlflow models serve``.

Needs pandas and requests, and nothing of the model: it may run on another machine. What the server
answers is told as it is; nothing is tried again here.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import requests

from tevad_model.errors import InputError

_VERSION_HEADER = "x-tevad-model"


class ScoringRefusedError(InputError):
    """The server did not score.

    Attributes:
        status: of HTTP; 4xx where the request is at fault.
    """

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(f"the scoring server answered {status}: {reason}")


@dataclass(frozen=True)
class Scored:
    """What a server says of videos.

    Attributes:
        model: the version that scored them, ``models:/<name>/<version>``; empty if the server
            does not say, as MLflow's own.
        snippets: a row a snippet: ``video, snippet, start_frame, end_frame, score, caption``.
    """

    model: str
    snippets: pd.DataFrame


@dataclass(frozen=True)
class ScoringClient:
    """Asks one server.

    Attributes:
        address: its own, such as ``http://127.0.0.1:5001``.
        timeout_s: for an answer, in seconds.
    """

    address: str
    timeout_s: float = 300.0

    def upload(self, path: Path) -> Scored:
        """Score a file of this machine.

        Raises:
            ScoringRefusedError: with the server's reason.
        """
        content = base64.b64encode(path.read_bytes()).decode()
        return self.score([{"video": f"data:video/{path.suffix[1:]};base64,{content}"}])

    def score_there(self, *paths: str) -> Scored:
        """Score files of the server's machine, in folders that it reads.

        Raises:
            ScoringRefusedError: with the server's reason.
        """
        return self.score([{"video": path} for path in paths])

    def score(self, rows: list[dict[str, Any]]) -> Scored:
        """Score what rows of the model's input say.

        Raises:
            ScoringRefusedError: with the server's reason.
        """
        try:
            answer = requests.post(
                f"{self.address.rstrip('/')}/invocations",
                json={"dataframe_records": rows},
                timeout=self.timeout_s,
            )
        except requests.ConnectionError as error:
            raise InputError(f"{self.address}: does not answer ({type(error).__name__})") from None
        if not answer.ok:
            raise ScoringRefusedError(answer.status_code, _reason(answer))
        found = pd.DataFrame(answer.json()["predictions"])
        return Scored(answer.headers.get(_VERSION_HEADER, ""), found)


def _reason(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:500] or answer.reason
