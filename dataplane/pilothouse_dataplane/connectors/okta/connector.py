"""The Okta connector: from a tool's name to the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.okta import access, factors, users
from pilothouse_dataplane.connectors.okta.call import Call, Finder, Handler
from pilothouse_dataplane.connectors.okta.client import OktaClient
from pilothouse_dataplane.connectors.okta.tools import okta_tools
from pilothouse_dataplane.core.messages import Tool, ToolResult

_CALLS: Mapping[str, Handler] = {**users.CALLS, **factors.CALLS, **access.CALLS}
_FINDS: Mapping[str, Finder] = {**users.FINDS, **factors.FINDS, **access.FINDS}


class OktaConnector:
    """One Okta organization."""

    def __init__(self, name: str, http: JsonClient, clock: Callable[[], float]) -> None:
        """``clock`` gives Unix seconds."""
        self._name = name
        self._client = OktaClient(http, clock)
        self._tools = okta_tools(name)

    def describe_tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def aclose(self) -> None:
        await self._client.aclose()

    async def probe(self) -> None:
        await self._client.probe()

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        handler = _CALLS.get(tool.name.removeprefix(f"{self._name}."))
        if handler is None:
            raise Refused(f"There is no {tool.name}, so nothing was asked.", asked=False)
        return await handler(Call(self._client, arguments, context))

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        finder = _FINDS.get(tool.name.removeprefix(f"{self._name}."))
        if finder is None:
            raise Refused(f"What {tool.name} did can't be looked up.", asked=False)
        return await finder(Call(self._client, arguments, context))
