"""The Salesforce connector: from a tool's name to the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.salesforce import composite, reading, records
from pilothouse_dataplane.connectors.salesforce.call import Call, Finder, Handler
from pilothouse_dataplane.connectors.salesforce.client import SalesforceClient
from pilothouse_dataplane.connectors.salesforce.keys import KeyFields
from pilothouse_dataplane.connectors.salesforce.tools import salesforce_tools
from pilothouse_dataplane.core.messages import Tool, ToolResult

_CALLS: Mapping[str, Handler] = {**reading.CALLS, **records.CALLS, **composite.CALLS}
_FINDS: Mapping[str, Finder] = records.FINDS


class SalesforceConnector:
    """One Salesforce organization."""

    def __init__(self, name: str, http: JsonClient, version: str, clock: Callable[[], float]) -> None:
        """``version`` such as v67.0; ``clock``: monotonic seconds."""
        self._name = name
        self._client = SalesforceClient(http, version)
        self._keys = KeyFields(clock)
        self._tools = salesforce_tools(name)

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
        return await handler(Call(self._client, self._keys, arguments, context))

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        finder = _FINDS.get(tool.name.removeprefix(f"{self._name}."))
        if finder is None:
            raise Refused(f"What {tool.name} did can't be looked up.", asked=False)
        return await finder(Call(self._client, self._keys, arguments, context))
