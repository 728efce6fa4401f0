"""The ServiceNow connector: which function does what a tool says, and which one finds what it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.servicenow import documents, orders, tasks
from pilothouse_dataplane.connectors.servicenow.client import ServiceNowClient
from pilothouse_dataplane.connectors.servicenow.instance import Instance
from pilothouse_dataplane.connectors.servicenow.tools import servicenow_tools
from pilothouse_dataplane.core.messages import Tool, ToolResult

Call = Callable[[Instance, Mapping[str, Any], CallContext], Awaitable[ToolResult]]
Find = Callable[[Instance, Mapping[str, Any], CallContext], Awaitable[ToolResult | None]]

CALLS: Mapping[str, Call] = {
    "incident.search": tasks.search_incidents,
    "incident.get": tasks.get_incident,
    "incident.create": tasks.create_incident,
    "incident.update": tasks.update_incident,
    "incident.comment": tasks.comment,
    "incident.work_note": tasks.work_note,
    "incident.resolve": tasks.resolve_incident,
    "request.search": tasks.search_requests,
    "request.get": tasks.get_request,
    "change.search": tasks.search_changes,
    "change.get": tasks.get_change,
    "change.create": tasks.create_change,
    "ci.search": documents.search_cis,
    "ci.get": documents.get_ci,
    "catalog.search": orders.search_catalog,
    "catalog.get": orders.get_item,
    "catalog.order": orders.order,
    "approval.list": orders.list_approvals,
    "approval.decide": orders.decide,
    "knowledge.search": documents.search_knowledge,
    "knowledge.get": documents.get_article,
    "attachment.list": documents.list_attachments,
    "attachment.add": documents.add_attachment,
    "user.search": documents.search_users,
}
FINDS: Mapping[str, Find] = {
    "incident.create": tasks.find_incident,
    "incident.update": tasks.find_update,
    "incident.comment": tasks.find_comment,
    "incident.work_note": tasks.find_work_note,
    "incident.resolve": tasks.find_resolved,
    "change.create": tasks.find_change,
    "approval.decide": orders.find_decision,
    "attachment.add": documents.find_attachment,
}


class ServiceNowConnector:
    """One instance."""

    def __init__(self, name: str, http: JsonClient) -> None:
        self._prefix = f"{name}."
        self._client = ServiceNowClient(http)
        self._instance = Instance(self._client)
        self._tools = servicenow_tools(name)

    def describe_tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def aclose(self) -> None:
        await self._client.aclose()

    async def probe(self) -> None:
        await self._client.there()

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        call = CALLS.get(tool.name.removeprefix(self._prefix))
        if call is None:
            raise Refused(f"{tool.name} is not a tool of ServiceNow.", asked=False)
        return await call(self._instance, arguments, context)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        find = FINDS.get(tool.name.removeprefix(self._prefix))
        if find is None:
            raise Refused(f"ServiceNow can't be asked what became of {tool.name}.", asked=False)
        return await find(self._instance, arguments, context)
