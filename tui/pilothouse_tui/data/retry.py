"""Waiting longer after each failure, and joining bursts. Clock, sleep and chance come in as arguments."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Backoff:
    """Seconds to wait: doubles from ``first`` to ``limit``, with up to a quarter off so that clients spread."""

    def __init__(self, first: float = 0.5, limit: float = 15.0, chance: Callable[[], float] = random.random) -> None:
        self._first, self._limit, self._chance = first, limit, chance
        self._failures = 0

    def failed(self) -> float:
        """Count a failure and return how many seconds to wait."""
        wait = min(self._limit, self._first * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return float(wait * (1 - 0.25 * self._chance()))

    def succeeded(self) -> None:
        """Start from the shortest wait again."""
        self._failures = 0


async def batches(source: AsyncIterator[T], interval: float) -> AsyncGenerator[list[T], None]:
    """Join what ``source`` yields within ``interval`` seconds, so that at most 1/interval lists a second come out."""
    queue: asyncio.Queue[T | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for item in source:
                queue.put_nowait(item)
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(pump())
    try:
        ended = False
        while not ended:
            batch: list[T] = []
            item = await queue.get()
            # The first update after a quiet spell is not delayed by more than one interval.
            await asyncio.sleep(interval if item is not None else 0)
            while True:
                if item is None:
                    ended = True
                    break
                batch.append(item)
                if queue.empty():
                    break
                item = queue.get_nowait()
            if batch:
                yield batch
        await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
