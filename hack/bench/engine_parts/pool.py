"""Workers to be killed: a few stand by at any time, forked from the zygote, and the gateway's directory knows them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from engine_parts.processes import free_port
from pilothouse_dataplane.gateway.workers import Directory, TenantRef, Worker

_STILL_LISTED_SECONDS = 1.0
"""A cluster needs about this long to see that a killed Pod is not ready."""


class Pool:
    """Keeps ``size`` workers of one tenant; use as an async context manager."""

    def __init__(self, root: Path, config: Path, tenant: str, size: int) -> None:
        self.directory = Directory()
        self.directory.table.put_tenant(TenantRef(tenant, tenant, tenant, ""))
        self._root = root
        self._config = config
        self._tenant = tenant
        self._size = size
        self._alive: dict[str, int] = {}
        self._forking = asyncio.Lock()
        self._zygote: asyncio.subprocess.Process | None = None
        self._starting: set[asyncio.Task[None]] = set()
        self._started = 0

    async def __aenter__(self) -> Pool:
        script = str(Path(__file__).parent / "zygote.py")
        self._zygote = await asyncio.create_subprocess_exec(
            sys.executable, script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(self._size):
            self._spawn()
        await asyncio.gather(*self._starting)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for pid in self._alive.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        await self._zygote.wait()

    def kill(self, name: str) -> bool:
        """``kill -9``; another one is started in its place. False where it is dead already."""
        pid = self._alive.pop(name, None)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        asyncio.get_running_loop().call_later(_STILL_LISTED_SECONDS, self._list, name, None)
        self._spawn()
        return True

    def _list(self, name: str, worker: Worker | None) -> None:
        self.directory.table.put_worker((self._tenant, name), worker)
        self.directory.announce()

    def _spawn(self) -> None:
        self._started += 1
        task = asyncio.create_task(self._start(f"worker-{self._started}"))
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
            self._alive[name] = int(await self._zygote.stdout.readline())
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.02)
        self._list(name, Worker(self._tenant, self._tenant, name, name, "127.0.0.1", "bench", ready=True, port=port))
