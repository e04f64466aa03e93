"""A real RTSP server on loopback: plays a video file over RTP, and fails as it is told to."""

from __future__ import annotations

import base64
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av


@dataclass
class Session:
    """What happens to one connection that plays; the next takes the next session.

    Attributes:
        drop_after: RTP packets after which the connection breaks.
        stall_after: RTP packets after which nothing more comes, though the connection stays.
        garble: RTP packets whose payload arrives as noise, by number.
    """

    drop_after: int | None = None
    stall_after: int | None = None
    garble: frozenset[int] = frozenset()


@dataclass
class RtspServer:
    """Plays one file to whoever asks for ``/live``; the sessions are used up one by one.

    Attributes:
        played: connections so far that asked to play.
    """

    video: Path
    sessions: list[Session] = field(default_factory=list)
    played: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"

    def next_session(self) -> Session:
        session = self.sessions[self.played] if self.played < len(self.sessions) else Session()
        self.played += 1
        return session


@contextmanager
def rtsp_server(video: Path, *sessions: Session) -> Iterator[RtspServer]:
    """Serve a file until the block ends."""
    state = RtspServer(video, list(sessions))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            _converse(self, state)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.closing.set()
            server.shutdown()
            thread.join()


def _converse(handler: socketserver.StreamRequestHandler, server: RtspServer) -> None:
    while line := handler.rfile.readline().decode():
        method = line.split(" ", 1)[0]
        headers = dict(_headers(handler))
        answer = [f"CSeq: {headers.get('cseq', '0')}"]
        body = b""
        if method == "OPTIONS":
            answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            body = _description(server.video).encode()
            answer += ["Content-Type: application/sdp", f"Content-Base: {server.address}/"]
        elif method == "SETUP":
            answer += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
        elif method == "PLAY":
            answer.append("Session: 1")
        answer.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(["RTSP/1.0 200 OK", *answer]) + "\r\n\r\n"
        handler.wfile.write(head.encode() + body)
        if method == "PLAY":
            _play(handler, server)
            return
        if method == "TEARDOWN":
            return


def _headers(handler: socketserver.StreamRequestHandler) -> Iterator[tuple[str, str]]:
    while (line := handler.rfile.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


def _play(handler: socketserver.StreamRequestHandler, server: RtspServer) -> None:
    session = server.next_session()
    for number, packet in enumerate(_rtp_packets(server.video)):
        if number == session.drop_after:
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if number == session.stall_after:
            server.closing.wait()
            return
        if number in session.garble:
            packet = packet[:14] + bytes(byte ^ 0xA5 for byte in packet[14:])
        try:
            handler.wfile.write(b"$\x00" + struct.pack(">H", len(packet)) + packet)
        except OSError:  # whoever watched has gone
            return


def _rtp_packets(video: Path) -> list[bytes]:
    written = _Writes()
    with (
        av.open(str(video)) as source,
        av.open(written, "w", format="rtp", options={"packetsize": "1400"}) as sink,
    ):
        stream = source.streams.video[0]
        copy = sink.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                sink.mux(packet)
    return [packet for packet in written.packets if packet[1] & 0x7F != 72]  # no RTCP reports


class _Writes:
    """What FFmpeg writes, packet by packet."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.packets.append(bytes(data))
        return len(data)


def _description(video: Path) -> str:
    """The file's SDP; the parameter sets come from its avcC box."""
    with av.open(str(video)) as source:
        stream = source.streams.video[0]
        box = bytes(stream.codec_context.extradata)
        rate = float(stream.average_rate)
    length = struct.unpack(">H", box[6:8])[0]
    sequence = box[8 : 8 + length]
    start = 8 + length + 1
    length = struct.unpack(">H", box[start : start + 2])[0]
    picture = box[start + 2 : start + 2 + length]
    sets = ",".join(base64.b64encode(each).decode() for each in (sequence, picture))
    lines = [
        "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=live", "c=IN IP4 127.0.0.1", "t=0 0",
        "m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000",
        f"a=fmtp:96 packetization-mode=1; sprop-parameter-sets={sets}",
        f"a=framerate:{rate}", "a=control:track",
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n"
