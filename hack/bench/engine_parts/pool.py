"""Workers to be killed: a few stand by at any time, forked from the zygote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from engine_parts import client
from engine_parts.processes import free_port

_START_SECONDS = 30.0


@dataclass(frozen=True)
class Victim:
    """A worker of its own process."""

    name: str
    pid: int
    channel: grpc.aio.Channel
    stub: Any

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Pool:
    """Keeps ``size`` workers ready; use as an async context manager."""

    def __init__(self, root: Path, config: Path, size: int) -> None:
        self._root = root
        self._config = config
        self._size = size
        self._ready: asyncio.Queue[Victim] = asyncio.Queue()
        self._alive: dict[str, Victim] = {}
        self._forking = asyncio.Lock()
        self._zygote: asyncio.subprocess.Process | None = None
        self._starting: set[asyncio.Task[None]] = set()
        self.started = 0

    async def __aenter__(self) -> Pool:
        script = str(Path(__file__).parent / "zygote.py")
        self._zygote = await asyncio.create_subprocess_exec(
            sys.executable, script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(self._size):
            self._spawn()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for victim in list(self._alive.values()):
            await self.kill(victim, replace=False)
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        await self._zygote.wait()

    async def take(self) -> Victim:
        """A worker that listens. Raises RuntimeError where none comes up."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                return await self._ready.get()
        except TimeoutError as error:
            raise RuntimeError(f"no worker came up; its log is below {self._root}") from error

    def give_back(self, victim: Victim) -> None:
        self._ready.put_nowait(victim)

    async def kill(self, victim: Victim, *, replace: bool = True) -> None:
        """``kill -9``, and another one is started in its place."""
        victim.kill()
        self._alive.pop(victim.name, None)
        if replace:
            self._spawn()

    async def forget(self, victim: Victim) -> None:
        """Close the channel to a dead worker, once nobody reads from it."""
        await victim.channel.close()

    def _spawn(self) -> None:
        self.started += 1
        task = asyncio.create_task(self._start(f"worker-{self.started}"))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, name: str) -> None:
        port = free_port()
        wanted = {"name": name, "port": port, "config": str(self._config), "log": str(self._root / "workers.log")}
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        async with self._forking:
            self._zygote.stdin.write(json.dumps(wanted).encode() + b"\n")
            await self._zygote.stdin.drain()
            pid = int(await self._zygote.stdout.readline())
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        victim = Victim(name, pid, channel, client.stub_of(channel))
        self._alive[name] = victim
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.01)
        self._ready.put_nowait(victim)
