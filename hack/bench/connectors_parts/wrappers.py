"""What all wrappers together add to a call: CPU of this process, against the bare connector.

All of them are on: audit to a sink that keeps nothing, allow and deny lists, approval rules, validation both ways, a
cache that misses, retries, a rate limit, the bulkhead, the breaker, credentials from a source in memory. The connector
costs nothing itself. ``python hack/bench/connectors_parts/wrappers.py`` prints the figures (milliseconds) alone.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pilothouse_api.workerconfig import ApprovalRule, ConnectorConfig, EffectRule
from pilothouse_dataplane.connectors.base import CallContext, Credential, SecretText
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.connectors.wrappers.audit import AuditRecord
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Effect, Outcome, Tool, ToolResult

CALLS = 5_000
_WARM_UP = 500
_TEXT = {"type": "string", "minLength": 1, "maxLength": 255}
TOOL = Tool(
    "bench.issue.search",
    "Find issues by text, project, assignee and state.",
    {
        "type": "object",
        "properties": {
            "text": _TEXT,
            "project": {**_TEXT, "pattern": "^[A-Z][A-Z0-9_]+$"},
            "mine": {"type": "boolean"},
            "labels": {"type": "array", "items": _TEXT, "maxItems": 10},
            "max_results": {"type": "integer", "minimum": 1, "maximum": 50},
        },
        "required": ["text"],
        "additionalProperties": False,
    },
    Effect.READ,
    returns={
        "type": "object",
        "properties": {
            "issues": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"key": _TEXT, "summary": _TEXT, "status": _TEXT, "url": _TEXT},
                    "required": ["key", "summary"],
                },
            },
            "more": {"type": "boolean"},
        },
        "required": ["issues"],
    },
)
_ISSUE = {"key": "IT-1", "summary": "The VPN token is broken", "status": "To Do", "url": "https://x.example/IT-1"}
RESULT = ToolResult(Outcome.SUCCEEDED, "Found 10 issues.", {"issues": [_ISSUE] * 10, "more": False})


class _Free:
    """A connector that costs nothing."""

    def describe_tools(self) -> tuple[Tool, ...]:
        return (TOOL,)

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        return RESULT

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        return None

    async def probe(self) -> None:
        """Always there."""

    async def aclose(self) -> None:
        """Nothing is open."""


class _Source:
    def __init__(self) -> None:
        self._held: dict[str, Credential] = {}

    async def get(self, context: CallContext) -> Credential:
        held = self._held.get(context.user_email)
        if held is None:
            held = self._held[context.user_email] = Credential(SecretText("token"), context.user_email)
        return held

    async def renew(self, context: CallContext, refused: Credential) -> Credential | None:
        return None


class _Nowhere:
    def record(self, entry: AuditRecord) -> None:
        """Keeps nothing."""


def _toolset(connector: _Free) -> Toolset:
    config = ConnectorConfig(
        name="bench",
        type="openapi",
        url="https://bench.example",
        auth_mode="UserOAuth",
        allow=("issue.*", "project.*"),
        deny=("*.delete",),
        approvals=(ApprovalRule(match="*.transition", by="Manager"), ApprovalRule(match="*.create")),
        effects=(EffectRule(match="*.get", effect="Read"),),
        cache_seconds=60,
        requests_per_minute=60_000_000,  # on, and never in the way
    )
    return Toolset(
        {"bench": (config, connector)},
        GuardRegistry(time.monotonic),
        clock=time.monotonic,
        random=lambda: 0.5,
        sources={"bench": _Source()},
        audit=_Nowhere(),
        tenant="acme",
    )


async def _measured(work: Callable[[int], Awaitable[object]], calls: int) -> list[float]:
    """CPU seconds of each call."""
    taken = []
    for number in range(calls):
        began = time.process_time_ns()
        await work(number)
        taken.append((time.process_time_ns() - began) / 1e9)
    return taken


async def _run(calls: int) -> dict[str, float]:
    connector = _Free()
    toolset = _toolset(connector)
    (tool,) = toolset.tools

    def arguments(number: int) -> dict[str, Any]:  # never the same twice, so that the cache misses
        return {"text": f"vpn token {number}", "project": "IT", "mine": True, "labels": ["a", "b"], "max_results": 10}

    def context(number: int) -> CallContext:
        return CallContext(f"user{number % 100}@acme.example", f"run/s{number}", time.monotonic() + 30)

    async def bare(number: int) -> object:
        return await connector.call(tool, arguments(number), context(number))

    async def wrapped(number: int) -> object:
        report = await toolset.call(tool, arguments(number), context(number))
        assert report.result.outcome is Outcome.SUCCEEDED
        assert not report.cached
        return report

    await _measured(wrapped, _WARM_UP)
    alone = await _measured(bare, calls)
    together = await _measured(lambda number: wrapped(number + _WARM_UP), calls)
    await toolset.aclose()
    base = statistics.median(alone)
    return {
        "wrappers_cpu_p50": (statistics.median(together) - base) * 1000,
        "wrappers_cpu_p95": (statistics.quantiles(together, n=20)[18] - base) * 1000,
        "bare_cpu_p50": base * 1000,
        "calls": calls,
    }


def measure(calls: int = CALLS) -> dict[str, float]:
    """``wrappers_cpu_p50`` is the figure: milliseconds of CPU that all wrappers add to a call, the median."""
    return asyncio.run(_run(calls))


if __name__ == "__main__":
    print(json.dumps(measure()))
