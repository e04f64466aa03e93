"""Telling people: what a notice is, and the notifiers that pass it on.

``notifications.notifiers`` in ``params.yaml`` names them: ``log``, ``webhook``, or ``module:Class``
of one's own, which needs no argument and a method ``tell``. What is worth a notice is
:mod:`orchestration.alerts`'s to say.
"""

from __future__ import annotations

import base64
import logging
import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, cast, runtime_checkable

from orchestration.redaction import redacted
from tevad_model.errors import InputError
from tevad_model.plugins import named_class

logger = logging.getLogger("tevad")

Kind = Literal["run failed", "check failed", "promotion refused", "stream alert", "stream failed"]

WEBHOOK = "TEVAD_WEBHOOK_URL"
"""The variable with the webhook's address, which is a secret and so in no file."""

_KEY = "notifications.notifiers"
_LONGEST_REASON = 1500
_TIMEOUTS = (3.05, 5.0)
"""Seconds to connect and to answer."""

_REFUSALS = (400, 413, 422)
"""Statuses that judge what was posted. Others of 4xx judge the address or the moment: one that is
wrong, such as 404, says so of every notice, until somebody sets it right."""


class NotToldError(Exception):
    """A notifier could not pass a notice on; it is to be tried again. The message holds no secret."""


class NoticeRefusedError(NotToldError):
    """The receiver will not take this notice however often; it is not to be tried again."""


@dataclass(frozen=True)
class Notice:
    """Something a person should hear of. Secrets in its texts are hidden as it is made.

    Attributes:
        kind: what happened.
        dataset: whose; empty where it is of none.
        subject: the job, the check, the model version or the stream.
        reason: why, as far as it is known; becomes one line of at most 1500 characters.
        run_id: of the run of Dagster it happened in; empty outside of one.
        at: when, ISO 8601 in UTC.
        details: more of it, as JSON values, for programs.
        clip: the video of it as MP4; empty where there is none.
    """

    kind: Kind
    dataset: str
    subject: str
    reason: str
    run_id: str
    at: str
    details: Mapping[str, Any] = field(default_factory=dict)
    clip: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        reason = redacted(" ".join(self.reason.split()))[:_LONGEST_REASON]
        object.__setattr__(self, "reason", reason)
        object.__setattr__(self, "subject", redacted(self.subject))
        object.__setattr__(self, "details", _without_secrets(self.details))

    @property
    def text(self) -> str:
        """All of it in a line."""
        about = f"{self.kind}: {self.subject}" + (f" [{self.dataset}]" if self.dataset else "")
        return f"{about}: {self.reason}" + (f" (run {self.run_id})" if self.run_id else "")


def _without_secrets(value: Any) -> Any:
    """A JSON value with no secret in its texts."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: _without_secrets(each) for name, each in value.items()}
    return [_without_secrets(each) for each in value] if isinstance(value, list) else value


@runtime_checkable
class Notifier(Protocol):
    """Passes notices on to people."""

    def tell(self, notice: Notice) -> None:
        """Pass one on, within seconds.

        Raises:
            NotToldError: if it did not arrive; it will be given again.
            NoticeRefusedError: if it never will arrive; it is dropped.
        """
        ...


def pass_on(notifier: Notifier, notice: Notice) -> None:
    """Tell a notifier, whose own mistakes count as not having told.

    Raises:
        NotToldError: whatever it is that the notifier raises.
        NoticeRefusedError: if that is what it raises.
    """
    try:
        notifier.tell(notice)
    except NotToldError:
        raise
    except Exception as error:  # others' code, whose mistakes must stop nothing else
        said = redacted(f"{type(error).__name__}: {error}")
        raise NotToldError(f"{type(notifier).__name__} failed ({said})") from error


class LogNotifier:
    """Into the log, as a warning."""

    def tell(self, notice: Notice) -> None:
        """Log the notice."""
        logger.warning("%s", notice.text)


class WebhookNotifier:
    """As JSON to ``$TEVAD_WEBHOOK_URL``: the notice's fields, and ``text``, which chat services show.

    A clip is in ``details``, as ``clip_mp4_base64``.

    Raises:
        InputError: if the variable is not set to an address.
    """

    def __init__(self) -> None:
        self._url = os.environ.get(WEBHOOK, "")
        self._host = urllib.parse.urlsplit(self._url).hostname or ""
        if not self._url.startswith(("http://", "https://")) or not self._host:
            raise InputError(
                f"{_KEY}: webhook needs its address in the environment; set {WEBHOOK} to "
                "https://… where Dagster runs"
            )

    def tell(self, notice: Notice) -> None:
        """Post the notice; once more if the first attempt fails for a reason that may pass."""
        payload = {"text": notice.text, **asdict(notice)}
        clip = payload.pop("clip")
        if clip:
            payload["details"]["clip_mp4_base64"] = base64.b64encode(clip).decode()
        problem = self._post(payload) and self._post(payload)
        if problem:
            raise NotToldError(f"the webhook at {self._host} {problem}")

    def _post(self, payload: Mapping[str, Any]) -> str:
        """What went wrong, or nothing. Messages of requests quote the address, so none is.

        Raises:
            NoticeRefusedError: if the status says that another attempt would go the same way.
        """
        import requests

        try:
            answer = requests.post(
                self._url, json=payload, timeout=_TIMEOUTS, allow_redirects=False
            )
        except requests.RequestException as error:
            return f"did not answer ({type(error).__name__})"
        if answer.status_code in _REFUSALS:
            raise NoticeRefusedError(f"the webhook at {self._host} answered {answer.status_code}")
        return "" if answer.ok and not answer.is_redirect else f"answered {answer.status_code}"


BUILT_IN: Mapping[str, type[Any]] = {"log": LogNotifier, "webhook": WebhookNotifier}


def build_notifier(name: str) -> Notifier:
    """The notifier that a name of ``notifications.notifiers`` means.

    Raises:
        InputError: if there is none, it cannot be imported, or it lacks what it needs.
    """
    if name in BUILT_IN:
        return cast("Notifier", BUILT_IN[name]())
    notifier = named_class(name, _KEY, BUILT_IN)()
    if not isinstance(notifier, Notifier):
        raise InputError(f"{_KEY}: {name!r} is no notifier; it needs a method tell(notice)")
    return notifier
