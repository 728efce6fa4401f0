"""Run events to the tenant's Redis stream, off the answer's path: a bounded queue and a task that sends batches.

An event that finds the queue full pushes out the oldest: the newest tell more. What was lost is counted and logged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pilothouse_api import names

_MAX_QUEUED = 5000
_MAX_BATCH = 200
_MAX_STREAM = 10_000
_CLOSE_SECONDS = 2.0
_LINGER_SECONDS = 0.02
"""Events that come within this share a command."""
_APPEND = """
for i = 2, #ARGV do redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[i]) end
"""
"""A batch in one command: a pipeline of as many costs this process three times the CPU."""
_log = structlog.get_logger()


class EventPublisher:
    """Appends serialized ``RunEvent`` messages to ``{tenant}:events``."""

    def __init__(self, client: Redis, tenant: str) -> None:
        self._append: Any = client.register_script(_APPEND)
        self._key = names.events_key(tenant)
        self._queue: deque[bytes] = deque(maxlen=_MAX_QUEUED)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.lost = 0
        """Events that were pushed out."""

    def publish(self, event: bytes) -> None:
        """Queue one event. Never waits and never raises."""
        if len(self._queue) == _MAX_QUEUED:
            self.lost += 1
        self._queue.append(event)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="events")

    async def aclose(self) -> None:
        """Send what is queued, for at most two seconds."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
            self._task.cancel()

    async def _run(self) -> None:
        delay = 0.0
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                if not self._closing:
                    await asyncio.sleep(_LINGER_SECONDS)
                continue
            batch = [self._queue.popleft() for _ in range(min(_MAX_BATCH, len(self._queue)))]
            try:
                await self._append(keys=(self._key,), args=(_MAX_STREAM, *batch))
                delay = 0.0
            except (RedisError, OSError, TimeoutError) as error:
                # a batch that broke midway is sent again: readers may see an event twice, never none
                room = _MAX_QUEUED - len(self._queue)
                self.lost += max(0, len(batch) - room)
                self._queue.extendleft(reversed(batch[-room:] if room else []))
                if delay == 0.0:
                    _log.warning("events wait for the store", error=type(error).__name__, queued=len(self._queue))
                delay = min(5.0, max(0.2, delay * 2))
                await asyncio.sleep(delay)
