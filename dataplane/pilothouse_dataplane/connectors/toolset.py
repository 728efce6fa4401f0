"""All tools that a tenant's agent has, behind one call: allow list, breaker, retries of safe calls, settled writes.

A read is tried ``attempts`` times. A write is sent once; where its outcome is unknown it is looked up by its key, and
never sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import CallContext, Connector, ConnectorError, Refused, SystemUnavailable
from pilothouse_dataplane.core.breaker import BreakerSettings
from pilothouse_dataplane.core.guard import Guard, GuardRegistry
from pilothouse_dataplane.core.messages import Effect, Outcome, Tool, ToolResult
from pilothouse_dataplane.core.retry import Backoff, wait_before_retry

_SETTLE_WAITS = (0.3, 1.0)
"""Seconds before each look for a write whose outcome is unknown; search may lag behind."""


@dataclass(frozen=True, slots=True)
class _Entry:
    connector: Connector
    guard: Guard
    backoff: Backoff


class Toolset:
    """The tools of one loaded configuration."""

    def __init__(
        self,
        connectors: Mapping[str, tuple[ConnectorConfig, Connector]],
        guards: GuardRegistry,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._random = random
        self._connectors = [connector for _, connector in connectors.values()]
        self._entries: dict[str, _Entry] = {}
        tools: list[Tool] = []
        for name, (config, connector) in connectors.items():
            breaker = BreakerSettings(
                window=config.breaker.window,
                minimum_calls=config.breaker.minimum_calls,
                failure_rate_percent=config.breaker.failure_rate_percent,
                open_seconds=config.breaker.open_seconds,
                half_open_calls=config.breaker.half_open_calls,
            )
            entry = _Entry(connector, guards.get(f"connector/{name}", breaker), Backoff(attempts=config.attempts))
            for tool in connector.describe_tools():
                short = tool.name.removeprefix(f"{name}.")
                if not any(fnmatchcase(short, pattern) for pattern in config.allow):
                    continue
                if tool.effect is not Effect.READ and not config.writes_allowed:
                    continue
                tools.append(tool)
                self._entries[tool.name] = entry
        self.tools = tuple(tools)

    async def aclose(self) -> None:
        for connector in self._connectors:
            await connector.aclose()

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext, deadline: float) -> ToolResult:
        """Call a tool; every failure is a result. ``deadline`` is on the toolset's clock. Raises nothing of its own."""
        entry = self._entries[tool.name]
        attempt = 0
        while True:
            attempt += 1
            permit = entry.guard.try_acquire()
            if permit is None:
                system = tool.name.partition(".")[0]
                message = (
                    f"{system} is down at the moment and was not asked; it is tried again in "
                    f"{max(1.0, entry.guard.retry_in()):.0f} s."
                )
                return ToolResult(Outcome.FAILED, message)
            verdict = False
            try:
                result = await entry.connector.call(tool, arguments, context)
                verdict = True
                entry.guard.succeeded(permit)
                return result
            except Refused as error:
                verdict = True
                entry.guard.succeeded(permit)  # the system works: it knows how to say no
                return ToolResult(Outcome.REFUSED, str(error))
            except SystemUnavailable as error:
                verdict = True
                entry.guard.failed(permit, str(error))
                if tool.effect is not Effect.READ and error.may_have_acted:
                    return await self._settle(entry, tool, arguments, context, error)
                wait = wait_before_retry(
                    entry.backoff,
                    attempt=attempt,
                    random=self._random(),
                    retry_after=error.retry_after,
                    remaining=deadline - self._clock(),
                )
                if wait is None:
                    return ToolResult(Outcome.FAILED, str(error))
            finally:
                if not verdict:
                    entry.guard.ignored(permit)
            await asyncio.sleep(wait)

    async def _settle(
        self,
        entry: _Entry,
        tool: Tool,
        arguments: Mapping[str, Any],
        context: CallContext,
        error: SystemUnavailable,
    ) -> ToolResult:
        """Find out whether a write happened."""
        for wait in _SETTLE_WAITS:
            await asyncio.sleep(wait)
            try:
                found = await entry.connector.find_by_key(tool, arguments, context)
            except ConnectorError:
                continue
            if found is not None:
                return replace(found, outcome=Outcome.SUCCEEDED)
        message = f"{error} Whether the change was made is not known; please check before you ask again."
        return ToolResult(Outcome.UNKNOWN, message)
