"""Video files in and out: probe, decode, encode, and one decode shared by several consumers.

Everything that touches a codec or a container is here, and everything that judges whether a file is
a whole, sound video. What the pictures mean is not: snippets and seconds are
:mod:`tevad_model.timeline`'s, features and captions the encoders'.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import av
import numpy as np
from av.stream import Disposition

from tevad_model import timeline
from tevad_model.atomic import replacing
from tevad_model.dataset import PICTURE_SUFFIXES
from tevad_model.errors import InputError, VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from tevad_model.encoders.base import Frame

_REPAIR = "copy or export it again from the source"

_TS_PACKETS = (188, 192, 204)
"""Bytes of a packet of MPEG-TS: plain, with a time stamp (Blu-ray), with error correction (DVB)."""

_PLAYED = {
    "h264": ("mp4", "mov"),
    "vp8": ("webm",),
    "vp9": ("mp4", "webm"),
    "av1": ("mp4", "webm"),
    "libdav1d": ("mp4", "webm"),
}
"""Containers, by the names of FFmpeg, in which browsers play a codec."""

_PLAYED_PIXELS = ("yuv420p", "yuvj420p")
"""Pixel formats for which every browser has a decoder."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video really holds, found by decoding all of it.

    Attributes:
        frames: pictures that decode, which headers often misstate.
        fps: frames a second; the average where the frame rate varies.
        width: columns of an upright picture.
        height: rows of an upright picture.
    """

    frames: int
    fps: float
    width: int
    height: int

    @property
    def duration_s(self) -> float:
        """Length in seconds, the last frame's own time included."""
        return timeline.seconds(self.frames, self.fps)


def probe(path: Path) -> VideoInfo:
    """Decode a whole video and say what it holds.

    Raises:
        VideoError: if the file is missing, empty, no video, without a picture, damaged, or shorter
            than its header says; in one line, with the reason.
    """
    reader = _Reader(path)
    pictures = reader.pictures()
    first = next(pictures)
    for _ in pictures:
        pass
    width, height = _upright_size(first)
    return VideoInfo(reader.decoded, reader.fps(), width, height)


def stated(path: Path) -> VideoInfo:
    """What a video's header says of it, without decoding: quick, and at times wrong or 0.

    Raises:
        VideoError: if the file is missing or no video.
    """
    try:
        with av.open(f"file:{path}") as container:
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video; {_REPAIR}")
            stream = container.streams.video[0]
            size = stream.codec_context.width, stream.codec_context.height
            return VideoInfo(stream.frames, float(stream.average_rate or 0), *size)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be opened as a video ({error}); {_REPAIR}") from None


def frames(path: Path, *, max_side: int | None = None) -> Iterator[Frame]:
    """Decode a video's pictures one after another, in order of presentation.

    Rotation by metadata is applied, grey becomes RGB, and with a varying frame rate every decoded
    picture counts once. All pictures have the size of the first. Memory does not grow with the
    video's length.

    Args:
        path: the video.
        max_side: the longer side's limit in pixels. Larger pictures are scaled down by area as they
            are converted, keeping their aspect; smaller ones stay as they are.

    Yields:
        RGB pictures of shape (height, width, 3), uint8.

    Raises:
        VideoError: as :func:`probe` does. Damage is met where it lies, so the sound pictures before
            it have been yielded by then.
    """
    yield from upright(_Reader(path).pictures(), max_side)


def upright(pictures: Iterator[av.VideoFrame], max_side: int | None) -> Iterator[Frame]:
    """Decoded pictures as :func:`frames` yields them, all of the size of the first."""
    first = next(pictures, None)
    if first is None:
        return
    size, quarter_turns = _scaled(first.width, first.height, max_side), _quarter_turns(first)
    for picture in chain([first], pictures):
        yield _upright(picture, size, quarter_turns)


def frame_near(path: Path, second: float, *, max_side: int | None = None) -> Frame:
    """The picture that is shown at a time, found by way of the keyframe before it.

    Quick in a long video, for a thumbnail. Which picture it is depends on the container's index, so
    nothing that counts frames may rest on it; after the end it is the last one.

    Args:
        path: the video.
        second: from the first picture on.
        max_side: as in :func:`frames`.

    Raises:
        VideoError: if the file is missing, no video, or damaged there.
    """
    picture = _Reader(path).near(second)
    size = _scaled(picture.width, picture.height, max_side)
    return _upright(picture, size, _quarter_turns(picture))


def plays_in_browsers(path: Path) -> bool:
    """Whether today's browsers play a file as it is, by its container, codec and pixel format.

    Raises:
        VideoError: if the file is missing or no video.
    """
    with _Reader(path).opened() as (container, stream):
        kinds = _PLAYED.get(stream.codec_context.name, ())
        return (
            any(kind in container.format.name.split(",") for kind in kinds)
            and stream.codec_context.pix_fmt in _PLAYED_PIXELS
        )


def encode(path: Path, frames: Iterable[Frame], fps: float, *, crf: int = 18) -> None:
    """Write pictures as an H.264 video (MP4, yuv420p), the same bytes for the same pictures.

    The file appears whole or not at all. 4:2:0 colour needs even sides, so an odd one is padded by
    repeating its last column or row.

    Args:
        path: the file to write.
        frames: RGB pictures of shape (height, width, 3), uint8, all of one size.
        fps: frames a second.
        crf: H.264 constant rate factor, 0 (lossless) to 51.

    Raises:
        InputError: if there is no picture, or one differs in shape or type from the first.
    """
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise InputError(f"{path}: no pictures to encode; give at least one")
    rate = Fraction(fps).limit_denominator(1001)  # 1001 is the denominator of the NTSC rates
    with replacing(path) as part, av.open(f"file:{part}", "w", format="mp4") as container:
        # One thread: the bytes must not depend on the machine's cores. And no macroblock tree: with
        # it about one encode in thirty of the same pictures came out differently.
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate, options)
        stream.codec_context.thread_count = 1
        stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
        stream.pix_fmt = "yuv420p"
        for index, picture in enumerate(chain([first], pictures)):
            if picture.shape != first.shape or picture.dtype != np.uint8:
                raise InputError(
                    f"{path}: picture {index} is {picture.dtype} {picture.shape}, the first is "
                    f"{first.shape}; give uint8 RGB pictures of one size"
                )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(picture))))
        container.mux(stream.encode())


def encode_folder(folder: Path, path: Path, fps: float, *, crf: int = 18) -> None:
    """Write a folder of pictures (``NAME/0001.jpg …``) as a video, in natural order of their names.

    Raises:
        InputError: if the folder holds no picture, or the pictures differ in size.
        VideoError: if a picture cannot be read.
    """
    pictures = sorted(
        (
            entry
            for entry in folder.iterdir()
            # macOS leaves "._NAME" files beside pictures; they are none.
            if entry.suffix.lower() in PICTURE_SUFFIXES and not entry.name.startswith(".")
        ),
        key=_natural,
    )
    if not pictures:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise InputError(f"{folder}: holds no picture; a frame folder holds files of type {known}")
    encode(path, map(_read_picture, pictures), fps, crf=crf)


def broadcast(frames: Iterable[Frame], consumers: int, depth: int = 32) -> tuple[FrameStream, ...]:
    """Feed several consumers, each in a thread of its own, from one pass over the pictures.

    A thread takes the pictures and puts each one (the same array: do not write to it) into every
    consumer's queue, so decoding overlaps with the consumers' work. The slowest open consumer sets
    the pace; consumers must therefore run at the same time, not one after another. What the
    pictures' source raises, every consumer raises, after the pictures before it.

    A consumer that stops early closes its stream, by ``with``, by ``close()`` or by dropping it, and
    holds nobody up from then on. When all are closed the source is closed and the thread ends.

    Args:
        frames: the source.
        consumers: how many streams to return.
        depth: pictures that may wait in each stream.
    """
    if consumers < 1 or depth < 1:
        raise ValueError(f"cannot feed {consumers} consumers through queues of {depth}")
    shared = _Shared(consumers, depth)
    threading.Thread(target=shared.feed, args=(frames,), name="frames", daemon=True).start()
    return tuple(FrameStream(shared, consumer) for consumer in range(consumers))


def prefetch(frames: Iterable[Frame], depth: int = 32) -> FrameStream:
    """Take the pictures in a thread while the consumer works: :func:`broadcast` to one."""
    return broadcast(frames, 1, depth)[0]


class FrameStream(Iterator["Frame"]):
    """One consumer's end of a :func:`broadcast`."""

    def __init__(self, shared: _Shared, consumer: int) -> None:
        self._shared = shared
        self._consumer = consumer

    def __next__(self) -> Frame:
        return self._shared.take(self._consumer)

    def close(self) -> None:
        """Want no more pictures; iteration ends here."""
        self._shared.close(self._consumer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _Shared:
    """The state between the feeding thread and the streams, all of it guarded by one condition.

    It knows the streams by number only: a stream that nobody holds any more must be collected, and
    so closed, while the thread still runs.
    """

    def __init__(self, consumers: int, depth: int) -> None:
        self._depth = depth
        self._queues: dict[int, deque[Frame]] = {i: deque() for i in range(consumers)}
        self._finished = False
        self._error: BaseException | None = None
        # Re-entrant, as Condition's default lock is: the collector may run __del__ at any point.
        self._changed = threading.Condition()

    def feed(self, frames: Iterable[Frame]) -> None:
        """Run in the thread: put every picture into every open queue."""
        error = None
        try:
            for frame in frames:
                if not self._put(frame):
                    break
            if isinstance(frames, Generator | FrameStream):
                frames.close()  # here, where it runs: a decoder must not wait for the collector
        except BaseException as caught:  # noqa: BLE001 - handed to the consumers, which raise it
            error = caught
        with self._changed:
            self._error, self._finished = error, True
            self._changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        """Queue a picture when every open queue has room; False if no queue is open."""
        with self._changed:
            self._changed.wait_for(
                lambda: all(len(queue) < self._depth for queue in self._queues.values())
            )
            for queue in self._queues.values():
                queue.append(frame)
            self._changed.notify_all()
            return bool(self._queues)

    def take(self, consumer: int) -> Frame:
        """The consumer's next picture.

        Raises:
            StopIteration: after the last picture, or if the consumer's queue is closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._queues.get(consumer, True) or self._finished
            )  # a closed queue does not wait
            if queue := self._queues.get(consumer):
                self._changed.notify_all()
                return queue.popleft()
            if self._error is not None and consumer in self._queues:
                raise self._error
            raise StopIteration

    def close(self, consumer: int) -> None:
        """Drop the consumer's queue, so that nobody waits for room in it."""
        with self._changed:
            self._queues.pop(consumer, None)
            self._changed.notify_all()


class _Reader:
    """One pass over a video that notices damage and keeps count of what it saw.

    A cut file must not pass for a short video. Decoders conceal a lot, so each of these ends the
    pass: a packet or picture flagged as corrupt, fewer packets than the file's index lists, an end
    before the one that the header states, and a part of a transport stream packet. What cannot be
    noticed is a stream without a stated length cut between two of its units: MPEG-TS, raw H.264, and
    MP4 in fragments, cut at one's end or in the next one's header. The list of fragments (``mfra``)
    is no proof, as many recorders write none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header_rate: Fraction | None = None
        self._first_s: float | None = None
        self._last_s = 0.0
        self._end_s = 0.0
        self.decoded = 0

    def pictures(self) -> Iterator[av.VideoFrame]:
        """Yield at least one picture, or raise VideoError."""
        with self.opened() as (container, stream):
            self._header_rate = stream.average_rate or stream.guessed_rate
            # With threads the H.264 decoder flags a damaged picture by chance, or never.
            stream.codec_context.thread_type = "NONE"
            packets = 0
            for packet in container.demux(stream):
                packets += packet.size > 0
                if packet.is_corrupt:
                    raise self._cut()
                for picture in packet.decode():
                    if picture.is_corrupt:
                        raise self._cut()
                    self._count(picture)
                    yield picture
            self._check_whole(container, stream, packets)

    def near(self, second: float) -> av.VideoFrame:
        """The picture shown at a time, or the last one before it that there is."""
        found = None
        with self.opened() as (container, stream):
            begin = stream.start_time or 0
            if stream.time_base is not None:
                container.seek(begin + int(second / stream.time_base), stream=stream)
            for picture in container.decode(stream):
                is_after = found is not None and self._since(begin, picture) > second
                if is_after:
                    break
                found = picture
        if found is None:
            raise self._cut()
        return found

    @staticmethod
    def _since(begin: int, picture: av.VideoFrame) -> float:
        if picture.pts is None or picture.time_base is None:
            return 0.0
        return float((picture.pts - begin) * picture.time_base)

    def fps(self) -> float:
        """The header's frame rate, or the time stamps' where they tell another.

        The header's is exact, time stamps can be rounded (to milliseconds in Matroska); but of a
        varying frame rate some headers state only a part's.
        """
        span = self._last_s - (self._first_s or 0.0)
        measured = (self.decoded - 1) / span if self.decoded > 1 and span > 0 else None
        stated = float(self._header_rate) if self._header_rate else None
        if measured is not None and (stated is None or abs(measured / stated - 1) > 0.02):
            return measured
        if stated is None:
            raise VideoError(f"{self._path}: states no frame rate; {_REPAIR}")
        return stated

    @contextmanager
    def opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The file and its pictures' stream; what goes wrong with either is a VideoError."""
        if not self._path.is_file():
            raise VideoError(f"{self._path}: there is no such file; check the path in videos.csv")
        if self._path.stat().st_size == 0:
            raise VideoError(f"{self._path}: the file is empty; {_REPAIR}")
        try:
            # "file:" keeps a name such as "a:b.mp4" from being read as a protocol.
            container = av.open(f"file:{self._path}", metadata_errors="replace")
        except av.FFmpegError as error:
            reason = _why_unopened(self._path, error)
            raise VideoError(f"{self._path}: {reason}; {_REPAIR}") from error
        with container:
            try:
                yield container, self._video_stream(container)
            except av.FFmpegError as error:
                raise self._cut() from error

    def _video_stream(self, container: InputContainer) -> VideoStream:
        for stream in container.streams.video:
            if not stream.disposition & Disposition.attached_pic:  # the cover of a song
                return stream
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(f"{self._path}: holds no video, only {kinds}; give a file with pictures")

    def _count(self, picture: av.VideoFrame) -> None:
        self.decoded += 1
        if picture.pts is None or picture.time_base is None:
            return
        self._last_s = float(picture.pts * picture.time_base)
        self._end_s = float((picture.pts + picture.duration) * picture.time_base)
        if self._first_s is None:
            self._first_s = self._last_s

    def _check_whole(self, container: InputContainer, stream: VideoStream, packets: int) -> None:
        if packets < len(stream.index_entries):
            raise self._cut()
        if container.format.name == "mpegts" and all(container.size % n for n in _TS_PACKETS):
            raise self._cut("the last packet of the transport stream is incomplete")
        if self.decoded == 0:
            raise VideoError(f"{self._path}: holds no picture that can be decoded; {_REPAIR}")
        stated_s = _stated_end(container, stream)
        interval_s = 1 / self.fps()
        end_s = max(self._end_s, self._last_s + interval_s)
        # Headers differ by up to a frame in how they count the first and the last one's time.
        if self._first_s is not None and stated_s - end_s > 1.5 * interval_s:
            raise self._cut(f"it ends at {end_s:.2f} s of {stated_s:.2f} s")

    def _cut(self, detail: str = "") -> VideoError:
        after = detail or f"the data is bad after {self.decoded} frames"
        return VideoError(f"{self._path}: cut short or damaged, {after}; {_REPAIR}")


def _stated_end(container: InputContainer, stream: VideoStream) -> float:
    """When the header says that the pictures end, in seconds; 0 if it does not say."""
    if container.format.name == "avi":
        # Of a cut AVI file the duration is a guess from the file's size; the count is the header's.
        return float(stream.frames / stream.average_rate) if stream.average_rate else 0.0
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):  # Matroska, "00:00:10.000000000"
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if container.duration is not None and len(container.streams) == 1:  # sound may run on longer
        return container.duration / av.time_base
    return 0.0


def _why_unopened(path: Path, error: av.FFmpegError) -> str:
    """Why a file does not open, in one line of plain words."""
    with path.open("rb") as file:
        is_mp4 = file.read(8)[4:] == b"ftyp"
    if is_mp4 and isinstance(error, av.InvalidDataError):
        return "cut short or damaged, an MP4 file whose index is missing or cannot be read"
    return f"not a readable video, or only the beginning of one ({error.strerror})"


def _quarter_turns(picture: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that put a picture upright, 0 to 3."""
    return round(picture.rotation / 90) % 4


def _upright(picture: av.VideoFrame, size: tuple[int, int], quarter_turns: int) -> Frame:
    """A picture as RGB, scaled to (width, height), and then turned."""
    # One thread: swscale's own threads cost more than they bring at the sizes encoders use.
    rgb = picture.reformat(*size, "rgb24", interpolation="AREA", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns))


def _upright_size(picture: av.VideoFrame) -> tuple[int, int]:
    width, height = picture.width, picture.height
    return (height, width) if _quarter_turns(picture) % 2 else (width, height)


def _scaled(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    if max_side is None or max(width, height) <= max_side:
        return width, height
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _even(picture: Frame) -> Frame:
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts ``2.jpg`` before ``10.jpg``."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", path.name)
    ]


def _read_picture(path: Path) -> Frame:
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise VideoError(f"{path}: not a readable picture; {_REPAIR}")
    return np.asarray(picture, dtype=np.uint8)
