"""One file over HTTP: resumed where it was cut, checked while it streams, bounded in every wait.

It knows nothing of datasets and archives. A file appears under its name only when it is whole and
is what was expected; until then it is ``NAME.part``, beside ``NAME.part.json`` that says what it is
a part of.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from assets.workspace import files
from tevad_model.errors import InputError
from tevad_model.fingerprint import sha256_file

logger = logging.getLogger("tevad")

Advance = Callable[[int], object]
"""Told of every piece of bytes that came."""

_CHUNK = 1 << 18
_LOG_EVERY_SECONDS = 30.0
_SPARE_BYTES = 64 << 20
"""Left free on the disk, for whatever else writes to it."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which asking again may help."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to come back.

    Attributes:
        connect_seconds: for a connection.
        read_seconds: for the next bytes.
        attempts: in a row; one that gets further than all before it starts the count anew.
        backoff_seconds: before the second attempt, doubled before each later one, at most a minute.
    """

    connect_seconds: float = 15.0
    read_seconds: float = 60.0
    attempts: int = 6
    backoff_seconds: float = 1.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return float(min(60.0, self.backoff_seconds * 2 ** (failures - 1)))


@dataclass(frozen=True)
class Content:
    """What a file holds; None where it is not known."""

    bytes: int | None = None
    sha256: str | None = None

    def check(self, actual: Content, shown: str) -> None:
        """Compare with what came, as far as it is known what should.

        Raises:
            InputError: naming the file as ``shown``, what was expected and what came.
        """
        for what, wanted, got in (
            ("bytes", self.bytes, actual.bytes),
            ("sha256", self.sha256, actual.sha256),
        ):
            if wanted is not None and wanted != got:
                raise InputError(
                    f"{shown}: not what was expected: {what} {got}, expected {wanted}; it was cut, "
                    "changed or tampered with. Download it again, or from another address (--url)"
                )


UNKNOWN = Content()
DEFAULT_PATIENCE = Patience()


def measure(path: Path) -> Content:
    """What a file on this machine holds."""
    return Content(path.stat().st_size, sha256_file(path))


def download(
    url: str, to: Path, expected: Content = UNKNOWN, patience: Patience = DEFAULT_PATIENCE
) -> Content:
    """Bring a file from an address, going on where an earlier call was cut.

    A part is added to only if the server says that the file is still the same (``If-Range`` with
    its ETag or modification time); otherwise the file is fetched from its start.

    Args:
        url: an http or https address. Redirects are followed to such addresses only, and never
            from https to http.
        to: the file to write.
        expected: what the file must hold.
        patience: see there.

    Raises:
        InputError: if the server refuses or stays silent, the disk is too small, or the file is not
            the expected one.
    """
    return _Transfer(url, to, expected, patience).run()


class _InterruptedError(Exception):
    """What came so far is sound; asking again may bring the rest."""


@dataclass(frozen=True)
class _PartOf:
    """What a part file is a part of: an address, and a validator that changes with the content."""

    url: str
    validator: str


class _Transfer:
    def __init__(self, url: str, to: Path, expected: Content, patience: Patience) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"{url}: not an http or https address")
        self._url = url
        self._to = to
        self._shown = f"{to.name} from {url}"
        self._expected = expected
        self._patience = patience
        self._part = to.with_name(f"{to.name}.part")
        self._note = to.with_name(f"{to.name}.part.json")
        self._digest = _Digest()

    def run(self) -> Content:
        self._to.parent.mkdir(parents=True, exist_ok=True)
        with requests.Session() as session:
            self._persist(session)
        content = self._digest.content_of(self._part)
        try:
            self._expected.check(content, self._shown)
        except InputError:
            self._forget()
            raise
        self._part.replace(self._to)
        self._note.unlink()
        return content

    def _persist(self, session: requests.Session) -> None:
        """Ask until the whole file is there, as long as asking helps."""
        failures, furthest = 0, _size(self._part)
        while True:
            try:
                self._ask(session)
                return
            except _InterruptedError as interruption:
                failures = 1 if _size(self._part) > furthest else failures + 1
                furthest = max(furthest, _size(self._part))
                if failures >= self._patience.attempts:
                    raise InputError(
                        f"{self._url}: {interruption}; gave up after {failures} attempts. Run the "
                        "same command again to go on where it stopped"
                    ) from None
                pause = self._patience.pause(failures)
                logger.warning("%s: %s; again in %.0f s", self._to.name, interruption, pause)
                time.sleep(pause)

    def _ask(self, session: requests.Session) -> None:
        with self._response(session) as response:
            if response.status_code == 416:  # nothing is left to send, or the part is no part of it
                if _total(response) != _size(self._part):
                    self._forget()
                    raise _InterruptedError("the file became shorter")
                return
            _require_success(response)
            start = self._continued_at(response)
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            self._require_fit(total, start)
            if not start:
                self._note_down(response)
            self._receive(response, start, total)

    @contextmanager
    def _response(self, session: requests.Session) -> Iterator[requests.Response]:
        # The bytes as they lie on the server: some send .tar.gz as a .tar in gzip encoding.
        headers = {"Accept-Encoding": "identity"}
        if (have := _size(self._part)) and (validator := self._validator()):
            headers |= {"Range": f"bytes={have}-", "If-Range": validator}
        timeout = (self._patience.connect_seconds, self._patience.read_seconds)
        try:
            with session.get(self._url, headers=headers, timeout=timeout, stream=True) as response:
                _refuse_downgrade(response)
                yield response
        except requests.exceptions.SSLError as error:
            raise InputError(
                f"{self._url}: the server's certificate cannot be verified ({error}); fetch the "
                "file by hand and give it by --archive, or set REQUESTS_CA_BUNDLE to a bundle that "
                "holds the missing certificate"
            ) from None
        except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
            raise InputError(
                f"{self._url}: leads to an address that is not http or https ({error})"
            ) from None
        except requests.exceptions.TooManyRedirects:
            raise InputError(f"{self._url}: redirects in circles") from None
        except requests.exceptions.Timeout:
            raise _InterruptedError("the server does not answer in time") from None
        except requests.exceptions.ConnectionError as error:
            raise _InterruptedError(f"cannot be reached ({error})") from None

    def _validator(self) -> str:
        """What tells the part's file from a later one; empty if there is no sound part."""
        try:
            note = _PartOf(**files.read_json(self._note))
        except (FileNotFoundError, ValueError, TypeError):
            return ""
        return note.validator if note.url == self._url else ""

    def _note_down(self, response: requests.Response) -> None:
        """Say what the part is a part of, before the first byte of it is written."""
        etag = response.headers.get("ETag", "")
        strong = "" if etag.startswith("W/") else etag  # a weak one promises no equal bytes
        validator = strong or response.headers.get("Last-Modified", "")
        files.write_json(self._note, asdict(_PartOf(self._url, validator)))

    def _continued_at(self, response: requests.Response) -> int:
        """The byte the response starts with: where the part ends, or 0 for all of the file."""
        if response.status_code != 206:
            self._forget()
            return 0
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if not start or int(start[1]) != _size(self._part):
            self._forget()
            raise _InterruptedError("the server sent another part than asked for")
        return int(start[1])

    def _require_fit(self, total: int | None, start: int) -> None:
        if total is None:
            return
        Content(self._expected.bytes).check(Content(total), self._shown)
        free = shutil.disk_usage(self._to.parent).free - _SPARE_BYTES
        if total - start > free:
            raise InputError(
                f"{self._to.parent}: {_gigabytes(total - start)} are needed for {self._to.name}, "
                f"{_gigabytes(max(free, 0))} are free; make room or choose another disk"
            )

    def _receive(self, response: requests.Response, start: int, total: int | None) -> None:
        self._digest.reach(self._part, start)
        stream = response.raw.stream(_CHUNK, decode_content=False)
        with self._part.open("ab") as file, _progress(self._to.name, start, total) as advance:
            try:
                for chunk in stream:
                    file.write(chunk)
                    self._digest.add(chunk)
                    advance(len(chunk))
            except urllib3.exceptions.ReadTimeoutError:
                raise _InterruptedError("the server fell silent") from None
            except urllib3.exceptions.HTTPError:
                raise _InterruptedError("the connection was cut") from None
            except OSError as error:
                raise InputError(f"{self._part}: cannot be written ({error})") from None

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


class _Digest:
    """The hash of a file that grows, taken as the bytes come; what came before is read once."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._bytes = 0

    def add(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._bytes += len(chunk)

    def reach(self, path: Path, size: int) -> None:
        """Stand at the end of the file, which has this size."""
        if self._bytes == size:
            return
        self._hash, self._bytes = hashlib.sha256(), 0
        if size:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    self.add(chunk)

    def content_of(self, path: Path) -> Content:
        """What the whole file holds."""
        self.reach(path, _size(path))
        return Content(self._bytes, self._hash.hexdigest())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _total(response: requests.Response) -> int | None:
    """The file's size that a 416 states (RFC 9110, section 14.4)."""
    stated = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    return int(stated[1]) if stated else None


def _require_success(response: requests.Response) -> None:
    if response.status_code in _PASSING:
        raise _InterruptedError(f"the server answered {response.status_code} {response.reason}")
    if response.status_code not in (200, 206):
        raise InputError(
            f"{response.url}: the server answered {response.status_code} {response.reason}; see the "
            "dataset's home page for where the file is now, and give it by --url or --archive"
        )


def _refuse_downgrade(response: requests.Response) -> None:
    hops = [hop.url for hop in (*response.history, response)]
    for before, after in pairwise(hops):
        if before.startswith("https://") and not after.startswith("https://"):
            raise InputError(f"{before}: redirects from https to {after}; refused")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


@contextmanager
def _progress(name: str, start: int, total: int | None) -> Iterator[Advance]:
    """A bar on a terminal, log lines elsewhere."""
    with tqdm(
        desc=name, initial=start, total=total, unit="B", unit_scale=True,
        disable=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        yield bar.update if sys.stderr.isatty() else _Logged(name, start, total)


class _Logged:
    def __init__(self, name: str, start: int, total: int | None) -> None:
        self._name, self._done, self._total = name, start, total
        self._last = time.monotonic()

    def __call__(self, count: int) -> None:
        self._done += count
        if (now := time.monotonic()) - self._last > _LOG_EVERY_SECONDS:
            of = f" of {_gigabytes(self._total)}" if self._total else ""
            logger.info("%s: %s%s", self._name, _gigabytes(self._done), of)
            self._last = now
