"""What every wrapper begins as: a connector that passes all on to the one within."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Connector
from pilothouse_dataplane.core.messages import Tool, ToolResult

Clock = Callable[[], float]
"""Monotonic seconds, the same as a call's deadline is on."""


class Wrapper:
    """Passes everything on; a wrapper overrides what it is for."""

    def __init__(self, inner: Connector) -> None:
        self._inner = inner

    def describe_tools(self) -> tuple[Tool, ...]:
        return self._inner.describe_tools()

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        return await self._inner.call(tool, arguments, context)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        return await self._inner.find_by_key(tool, arguments, context)

    async def probe(self) -> None:
        await self._inner.probe()

    async def aclose(self) -> None:
        await self._inner.aclose()


def time_left(context: CallContext, clock: Clock) -> AbstractAsyncContextManager[object]:
    """Raises TimeoutError in the block when the call's deadline comes."""
    return asyncio.timeout(None if context.deadline == math.inf else max(0.0, context.deadline - clock()))
