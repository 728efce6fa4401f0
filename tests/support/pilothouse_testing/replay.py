"""A model server that replays recorded bytes, cut wherever a test wants them cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
"""See its README.md."""


def recorded(protocol: str) -> dict[str, bytes]:
    """The streams of ``chat``, ``responses`` or ``messages``, by name."""
    return {path.stem: path.read_bytes() for path in sorted((RECORDED / protocol).glob("*.sse"))}


def recorded_errors(vendor: str) -> list[dict[str, Any]]:
    """The refusals of ``openai`` or ``anthropic``."""
    errors: list[dict[str, Any]] = json.loads((RECORDED / "errors.json").read_text())
    return [error for error in errors if error["vendor"] == vendor]


class Replay:
    """Answers every POST with ``status``, ``headers`` and ``body``; the body in pieces, cut at ``cuts``."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b""
        self.cuts: Sequence[int] = ()
        self.asked: list[dict[str, Any]] = []
        """The bodies of the requests."""
        self.asked_headers: list[dict[str, str]] = []
        self.connections = 0
        self.delay = 0.0
        """Seconds before an answer."""
        self.targets: list[str] = []
        """Path and query of the requests."""

    def stream(self, body: bytes, cuts: Sequence[int] = ()) -> None:
        """From now on answer with this stream."""
        self.status, self.headers, self.body = 200, {"Content-Type": "text/event-stream; charset=utf-8"}, body
        self.cuts = cuts

    def refuse(self, status: int, headers: dict[str, str], body: object) -> None:
        """From now on answer with this error: JSON, or a text as it is."""
        kind = "text/html" if isinstance(body, str) else "application/json"
        self.status, self.headers, self.cuts = status, {"Content-Type": kind, **headers}, ()
        self.body = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = head.split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                sent = await reader.readexactly(int(headers.get("content-length", "0")))
                self.targets.append(lines[0].split()[1])
                self.asked_headers.append(dict(line.split(": ", 1) for line in lines[1:] if line))
                self.asked.append(json.loads(sent or b"{}"))
                await asyncio.sleep(self.delay)
                fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                writer.write(f"HTTP/1.1 {self.status} X\r\n{fields}Transfer-Encoding: chunked\r\n\r\n".encode())
                for start, end in zip([0, *self.cuts], [*self.cuts, len(self.body)], strict=True):
                    if piece := self.body[start:end]:
                        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                        await writer.drain()
                        await asyncio.sleep(0)  # so that the reader sees the pieces apart
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            writer.close()


@asynccontextmanager
async def replaying() -> AsyncIterator[Replay]:
    """One on a free port."""
    replay = Replay()
    server = await asyncio.start_server(replay.handle, "127.0.0.1", 0)
    replay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield replay
    finally:
        server.close()
