"""Live streams: opened with time limits, read past damage, and given up when they stall.

A stream is named by its address, ``rtsp://…``, ``http://…`` and so on, or by a file, which is read
as if it came in live. Unlike :mod:`tevad_model.video`, which refuses a file that is not whole, a
stream goes on after what it lost.

Belongs here: connections and what can happen to them. Doesn't: when to connect again, which is for
whoever watches.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import av

from tevad_model.errors import InputError
from tevad_model.video import upright

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from tevad_model.encoders.base import Frame

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "tcp")
"""Protocols that a stream may come by. Others, such as ``concat:``, reach what they should not."""

OPEN_S = 10.0
"""Seconds within which a connection has to be made and to have said what it brings."""

STALL_S = 10.0
"""Seconds without a packet after which a connection counts as stalled."""

BEHIND_S = 10.0
"""Seconds by which pictures may be older than when they would have been on time."""

_MINUTES = 15
"""For which a stream's clock is compared with ours: one that goes wrong by less than 1 % is not taken
for pictures that come later and later."""

_PARTS = re.compile(r"([^/?#]*://)([^/?#]*)([^?#]*)([^#]*)")
"""Scheme, host, path and query. :func:`urllib.parse.urlsplit` refuses passwords with a bracket."""

_HOST = re.compile(r"([^:\[\]]*|\[[^\[\]]*\])(:\d*)?")

_WHICH_PICTURE = re.compile(
    r"(?i)(?<![^?/&;_])(?:channel|chn?|camera|cam|stream|subtype|profile|track)"
    r"_?(?:id|no|num|type)?=\d{1,4}(?![^\W_])"
)
"""What may be said of the values that an address gives by name: a channel's or a stream's number."""


class StreamLostError(InputError):
    """A connection could not be made, broke, stalled, or its pictures come too late to be of use."""


@dataclass(frozen=True)
class Stream:
    """Where pictures come from, and for how long one waits for them.

    Attributes:
        address: a URL, or the path of a file.
        max_side: limit of the pictures' longer side in pixels; None for none.
        fps: frames a second, where the stream does not say; else None.
        open_s: see :data:`OPEN_S`.
        stall_s: see :data:`STALL_S`.
        behind_s: see :data:`BEHIND_S`.
    """

    address: str
    max_side: int | None = None
    fps: float | None = None
    open_s: float = OPEN_S
    stall_s: float = STALL_S
    behind_s: float = BEHIND_S

    @property
    def is_live(self) -> bool:
        """Whether it comes over a network, in its own time; a file waits."""
        return "://" in self.address

    @property
    def name(self) -> str:
        """The address without what lets somebody in."""
        return without_credentials(self.address)

    @contextmanager
    def connect(self, stop: threading.Event | None = None) -> Iterator[Connection]:
        """Open the stream; it is closed with the block.

        Args:
            stop: once set, the pictures end.

        Raises:
            StreamLostError: if it cannot be reached or opened in time.
            InputError: if there is no such file, the protocol is none of :data:`SCHEMES`, or
                nobody says the frame rate.
        """
        location = self._location()
        options = {"rtsp_transport": "tcp"} if self.address.startswith("rtsp") else {}
        try:
            container = av.open(
                location,
                options=options,
                timeout=(self.open_s, self.stall_s),
                metadata_errors="replace",
            )
        except (av.FFmpegError, OSError) as error:
            raise StreamLostError(f"{self.name}: cannot be opened: {_reason(error)}") from None
        with container:
            if not container.streams.video:
                raise InputError(f"{self.name}: holds no video")
            stream = container.streams.video[0]
            yield Connection(self, container, stream, self._rate(stream), stop or threading.Event())

    def _location(self) -> str:
        if not self.is_live:
            if not Path(self.address).is_file():
                raise InputError(f"{self.address}: no such file; give a file or a URL")
            return f"file:{self.address}"  # or "a:b.mp4" would be read as a protocol
        scheme = self.address.partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise InputError(
                f"{self.name}: streams come by {', '.join(SCHEMES)}, not by {scheme or 'nothing'}"
            )
        return self.address

    def _rate(self, stream: VideoStream) -> float:
        stated = stream.average_rate or stream.guessed_rate
        if self.fps or stated:
            return self.fps or float(stated or 0)
        raise InputError(f"{self.name}: states no frame rate; give it by --fps")


@dataclass
class Connection:
    """An open stream.

    Attributes:
        stream: which one.
        fps: frames a second.
        damaged: packets so far that could not be decoded and were passed over.
    """

    stream: Stream
    container: InputContainer
    video: VideoStream
    fps: float
    stop: threading.Event
    damaged: int = 0
    _clock: _Clock = field(default_factory=lambda: _Clock())

    def frames(self) -> Iterator[Frame]:
        """Pictures as :func:`tevad_model.video.frames` yields them; ends when the stream does.

        Raises:
            StreamLostError: if it breaks or stalls, or pictures come later than ``behind_s``:
                whoever takes them cannot keep up.
        """
        yield from upright(self._pictures(), self.stream.max_side)

    def _pictures(self) -> Iterator[av.VideoFrame]:
        packets = self.container.demux(self.video)
        while not self.stop.is_set():
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                raise StreamLostError(f"{self.stream.name}: {_reason(error)}") from None
            if packet is None:
                return
            for picture in self._decoded(packet):
                self._keep_up(picture)
                yield picture

    def _decoded(self, packet: av.Packet[VideoStream]) -> list[av.VideoFrame]:
        """The pictures of a packet; none if it is damaged."""
        try:
            pictures = packet.decode()
        except av.FFmpegError:
            self.damaged += 1
            return []
        whole = [picture for picture in pictures if not picture.is_corrupt]
        self.damaged += len(pictures) > len(whole)
        return whole

    def _keep_up(self, picture: av.VideoFrame) -> None:
        if not self.stream.is_live or picture.time is None:
            return
        behind = self._clock.behind(picture.time, time.monotonic())
        if behind > self.stream.behind_s:
            raise StreamLostError(
                f"{self.stream.name}: {behind:.0f} s behind; this machine cannot keep up with it: "
                "watch fewer streams, or ones of fewer or smaller pictures"
            )


class _Clock:
    """How late pictures come, against the earliest that one came in the last minutes.

    Not in all of the connection: a camera's clock that is slow by 100 parts in a million is nine
    seconds behind ours after a day.
    """

    def __init__(self) -> None:
        self._earliest: deque[tuple[int, float]] = deque()

    def behind(self, presented_s: float, now_s: float) -> float:
        """Seconds that a picture is late which has this time stamp and came now."""
        minute, offset = int(now_s // 60), now_s - presented_s
        while self._earliest and self._earliest[0][0] <= minute - _MINUTES:
            self._earliest.popleft()
        earliest = offset
        if self._earliest and self._earliest[-1][0] == minute:
            earliest = min(offset, self._earliest.pop()[1])
        self._earliest.append((minute, earliest))
        return offset - min(each for _, each in self._earliest)


def without_credentials(address: str) -> str:
    """A URL without what lets somebody in; anything else as it is.

    Cameras are given user and password before the host, in the query, or as ``name=value`` in the
    path, by names that differ from maker to maker. So of all values with a name those alone stay
    that are known to say which picture is meant, such as ``channel=1``.
    """
    parts = _PARTS.match(address)
    if parts is None:
        return address
    scheme, host, path, query = parts.groups()
    host = host.rpartition("@")[2]
    if not _HOST.fullmatch(host) and "@" in address:  # a "/", "?" or "#" in a password cut it off
        return without_credentials(scheme + address.rpartition("@")[2])
    path = "/".join(
        _which_picture(each) if "=" in unquote(each) else each for each in path.split("/")
    )
    which = _which_picture(query)
    return f"{scheme}{host}{path}{f'?{which}' if which else ''}"


def _which_picture(text: str) -> str:
    return "&".join(_WHICH_PICTURE.findall(text))


def _reason(error: av.FFmpegError | OSError) -> str:
    """Why a connection broke, without FFmpeg's repetition of the address, password and all."""
    if isinstance(error, av.error.ExitError):
        return "nothing came for too long"
    return error.strerror or type(error).__name__
