"""Hedged calls: where a target has no first token after a while, a second one is asked beside it.

The first that answers is taken, the other is cancelled (and charged). How many calls may be hedged is bounded by a
token bucket: each call of a worker pays a share of one hedge in, so a slow provider does not double the load of others.

Source: J. Dean, L. A. Barroso, "The Tail at Scale", CACM 56 (2), 2013.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing

from pilothouse_api.workerconfig import HedgeConfig
from pilothouse_dataplane.models.base import ModelError, ModelEvent

_SAVED = 10.0
"""Hedges that a quiet time may save up."""


class HedgeBudget:
    """At most ``budget_percent`` of all calls, over any long time; at most ten at once."""

    def __init__(self, config: HedgeConfig) -> None:
        self.after_seconds = config.after_seconds
        self._share = config.budget_percent / 100
        self._saved = 0.0

    def called(self) -> None:
        """One call begins."""
        self._saved = min(_SAVED, self._saved + self._share)

    def take(self) -> bool:
        """Whether one may be hedged; it is paid then."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


Stream = AsyncGenerator[ModelEvent, None]


async def hedged(first: Stream, second: Callable[[], Stream | None], after_seconds: float) -> Stream:
    """The events of whichever answers first. ``second`` is asked for only if ``first`` is slow; None: there is none.

    Raises ModelError where both failed: the first one's, which was the better target. Both are closed at the end.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(aclosing(first))
        lead = asyncio.create_task(_next(first))
        tasks = {lead: first}
        try:
            await asyncio.wait({lead}, timeout=after_seconds)
            if not lead.done() and (other := second()) is not None:
                await stack.enter_async_context(aclosing(other))
                tasks[asyncio.create_task(_next(other))] = other
            winner, event = await _winner(tasks)
        finally:
            late = [task for task in tasks if not task.done()]
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # the other's is not needed, so not missed
        for stream in tasks.values():
            if stream is not winner:
                await stream.aclose()  # where both came at once, the other has not noticed yet
        yield event
        async for event in winner:
            yield event


async def _next(stream: Stream) -> ModelEvent:
    return await anext(stream)


async def _winner(tasks: dict[asyncio.Task[ModelEvent], Stream]) -> tuple[Stream, ModelEvent]:
    """Raises ModelError where all have failed: the error of the first one."""
    left = set(tasks)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:  # where both came at once, the better target
            if task in done and not isinstance(task.exception(), ModelError):
                return tasks[task], task.result()
    raise next(iter(tasks)).exception() or AssertionError("a stream ended without an event")
