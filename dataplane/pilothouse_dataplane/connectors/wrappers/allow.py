"""Only tools that the Connector's lists let through are seen and called.

Guarantees: what ``allow`` does not name, or ``deny`` names, is neither described nor called; with an account that may
only read, the same holds for everything that writes. A call is checked again, as a run may hold an older description.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import CallContext, Connector, Refused
from pilothouse_dataplane.connectors.wrappers.base import Wrapper
from pilothouse_dataplane.core.messages import Effect, Tool, ToolResult


class WithAllowList(Wrapper):
    """``tools.allow``, ``tools.deny``, and ``writes`` of a service account."""

    def __init__(self, inner: Connector, config: ConnectorConfig) -> None:
        super().__init__(inner)
        self._config = config
        self._named: dict[str, bool] = {}

    def describe_tools(self) -> tuple[Tool, ...]:
        return tuple(tool for tool in self._inner.describe_tools() if not self._why_not(tool))

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        if why := self._why_not(tool):
            raise Refused(
                f"{tool.name} was not called: {why}. An administrator of this agent can change that.", asked=False
            )
        return await self._inner.call(tool, arguments, context)

    def _why_not(self, tool: Tool) -> str:
        if not self._is_named(tool.name):
            return "this agent's list of tools does not allow it"
        if tool.effect is not Effect.READ and not self._config.writes_allowed:
            return "this agent's account may only read here"
        return ""

    def _is_named(self, name: str) -> bool:
        named = self._named.get(name)
        if named is None:
            short = name.removeprefix(f"{self._config.name}.")
            named = any(fnmatchcase(short, glob) for glob in self._config.allow) and not any(
                fnmatchcase(short, glob) for glob in self._config.deny
            )
            if len(self._named) < 4096:  # names come from this connector, and once in a while from an older run
                self._named[name] = named
        return named
