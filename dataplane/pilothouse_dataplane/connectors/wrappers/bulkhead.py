"""So many calls of a connector at a time, and no more.

Guarantees: a system that is slow holds at most ``concurrent_calls`` of this worker's calls; the next waits, no longer
than its run lasts, and is then told that nothing was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Connector, SystemUnavailable
from pilothouse_dataplane.connectors.wrappers.base import Clock, Wrapper, time_left
from pilothouse_dataplane.core.messages import Tool, ToolResult


class WithBulkhead(Wrapper):
    """Calls and look-ups take a place each."""

    def __init__(self, inner: Connector, places: int, system: str, clock: Clock) -> None:
        super().__init__(inner)
        self._places = asyncio.Semaphore(places)
        self._system = system
        self._clock = clock

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        async with self._place(context):
            return await self._inner.call(tool, arguments, context)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        async with self._place(context):
            return await self._inner.find_by_key(tool, arguments, context)

    @asynccontextmanager
    async def _place(self, context: CallContext) -> AsyncIterator[None]:
        if not self._places.locked():
            await self._places.acquire()
        else:
            try:
                async with time_left(context, self._clock):
                    await self._places.acquire()
            except TimeoutError:
                raise SystemUnavailable(
                    f"{self._system} has too many calls under way and was not asked; ask again in a moment.",
                    may_have_acted=False,
                    lasting=True,
                ) from None
        try:
            yield
        finally:
            self._places.release()
