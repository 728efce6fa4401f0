"""The Jira connector: which function does what a tool says, and which one finds what it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.jira import changes, directory, issues
from pilothouse_dataplane.connectors.jira.client import JiraClient
from pilothouse_dataplane.connectors.jira.site import Site
from pilothouse_dataplane.connectors.jira.tools import jira_tools
from pilothouse_dataplane.core.messages import Tool, ToolResult

Call = Callable[[Site, Mapping[str, Any], CallContext], Awaitable[ToolResult]]
Find = Callable[[Site, Mapping[str, Any], CallContext], Awaitable[ToolResult | None]]

CALLS: Mapping[str, Call] = {
    "issue.search": issues.search,
    "issue.get": issues.get,
    "issue.create": changes.create,
    "issue.edit": changes.edit,
    "issue.assign": changes.assign,
    "issue.comment": changes.comment,
    "issue.transition": changes.transition,
    "issue.link": changes.link,
    "issue.delete": changes.delete,
    "project.search": directory.search_projects,
    "project.issue_types": directory.issue_types,
    "field.search": directory.search_fields,
    "user.search": directory.search_users,
    "user.me": directory.me,
}
FINDS: Mapping[str, Find] = {
    "issue.create": changes.find_created,
    "issue.edit": changes.find_edited,
    "issue.assign": changes.find_assigned,
    "issue.comment": changes.find_comment,
    "issue.transition": changes.find_transition,
    "issue.link": changes.find_link,
    "issue.delete": changes.find_deleted,
}


class JiraConnector:
    """One Jira Cloud site."""

    def __init__(self, name: str, http: JsonClient) -> None:
        self._prefix = f"{name}."
        self._client = JiraClient(http)
        self._site = Site(self._client)
        self._tools = jira_tools(name)

    def describe_tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def aclose(self) -> None:
        await self._client.aclose()

    async def probe(self) -> None:
        await self._client.there()

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        call = CALLS.get(tool.name.removeprefix(self._prefix))
        if call is None:
            raise Refused(f"{tool.name} is not a tool of Jira.", asked=False)
        await self._site.learn_address(context)
        return await call(self._site, arguments, context)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        find = FINDS.get(tool.name.removeprefix(self._prefix))
        if find is None:
            raise Refused(f"Jira can't be asked what became of {tool.name}.", asked=False)
        await self._site.learn_address(context)
        return await find(self._site, arguments, context)
