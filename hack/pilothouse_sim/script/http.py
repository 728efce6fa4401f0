"""HTTP/1.1 for one handler, straight over asyncio's transports: keep-alive, bodies with a length, streamed responses.

A framework costs more than the bench's model server may: 2 ms of CPU for a run of two model calls and three tool calls.
Clients are the bench's own and the product's, on loopback: no chunked request bodies, no pipelining, no TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_HEAD = 64 << 10
MAX_BODY = 8 << 20
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_REASONS = {200: b"OK", 201: b"Created", 204: b"No Content", 400: b"Bad Request", 404: b"Not Found"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``path`` is without the query."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Whole:
    """A response of JSON at once, ``delay`` seconds after the request."""

    body: bytes
    status: int = 200
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A response of server-sent events. ``frames`` are ``framed``; ``times`` are seconds after the request, rising, one
    a frame; empty: as fast as they can be sent, each on its own."""

    frames: Sequence[bytes]
    times: Sequence[float] = ()


Answer = Whole | Stream
Handle = Callable[[Request], Answer]


def framed(data: bytes) -> bytes:
    """One server-sent event as a chunk of a chunked body."""
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._pending += data
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            if len(self._pending) > MAX_HEAD:
                self._close()
            return
        length = _content_length(self._pending[:end])
        if length > MAX_BODY:
            self._close()
            return
        if len(self._pending) < end + 4 + length:
            return
        method, target, _ = bytes(self._pending[: self._pending.index(b"\r\n")]).split(b" ", 2)
        body = bytes(self._pending[end + 4 : end + 4 + length])
        del self._pending[: end + 4 + length]
        self._answer(self._handle(Request(method.decode(), target.partition(b"?")[0].decode(), body)))

    def _answer(self, answer: Answer) -> None:
        if isinstance(answer, Stream):
            self._send(_STREAM_HEAD)
            began = self._loop.time()
            times = [began + at for at in answer.times]
            self._go_on(answer.frames, times, 0)
        elif answer.delay > 0:
            self._timer = self._loop.call_later(answer.delay, self._whole, answer)
        else:
            self._whole(answer)

    def _whole(self, answer: Whole) -> None:
        reason = _REASONS.get(answer.status, b"Error")
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._send(head % (answer.status, reason, len(answer.body)) + answer.body)

    def _go_on(self, frames: Sequence[bytes], times: Sequence[float], index: int) -> None:
        """Sends what is due; the rest by a timer, or after the loop has looked at others."""
        if self._transport is None:
            return
        if not times:
            self._send(frames[index] if index + 1 < len(frames) else frames[index] + b"0\r\n\r\n")
            if index + 1 < len(frames):
                self._timer = self._loop.call_soon(self._go_on, frames, times, index + 1)
            return
        now = self._loop.time()
        due = index
        while due < len(frames) and times[due] <= now:
            due += 1
        if due > index:
            self._send(b"".join(frames[index:due]) + (b"0\r\n\r\n" if due == len(frames) else b""))
        if due < len(frames):
            self._timer = self._loop.call_at(times[due], self._go_on, frames, times, due)

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytearray) -> int:
    """The body's length; 0 where the head does not say one."""
    lower = bytes(head).lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    value = lower[at + 17 :].partition(b"\r\n")[0].strip()
    return int(value) if value.isdigit() else 0
