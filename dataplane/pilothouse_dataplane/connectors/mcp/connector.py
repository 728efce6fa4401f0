"""Calls the tools of one MCP server, each call as the asking user.

What a server says of its own tools lowers no guard: every tool counts as destructive, and so waits for a person's yes,
until the Connector's ``tools.effects`` says otherwise. Descriptions are cut to one line; that a server may still try to
lead a model astray with them is why its tools need an administrator's allow list.

Each call is a client of its own (the protocol has no sessions since 2026-07-28; older servers are greeted first). What
the server may ask back (sampling, elicitation, roots) is not offered.

Source: https://modelcontextprotocol.io/specification
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import structlog
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import RequestParamsMeta
from pydantic import ValidationError

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import CallContext, ConnectorError, Refused, SecretText, SystemUnavailable
from pilothouse_dataplane.connectors.dialect import error_of
from pilothouse_dataplane.connectors.foreign_schema import SchemaReader, line
from pilothouse_dataplane.connectors.http import JsonClient, JsonResponse, hidden
from pilothouse_dataplane.connectors.mcp.transport import GuardedTransport, TooLarge
from pilothouse_dataplane.connectors.shape import text
from pilothouse_dataplane.core.messages import Citation, Effect, Outcome, Tool, ToolResult

_MAX_PAGES = 20
_MAX_TOOLS = 500
_MAX_TEXT = 32_000
_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_KEY = "pilothouse.dev/idempotency-key"
_BAD_ARGUMENTS = (-32602, -32601)
"""JSON-RPC: invalid params, and a method (here: a tool) that is not there."""
_log = structlog.get_logger(__name__)


class MCPConnector:
    """One MCP server."""

    def __init__(self, config: ConnectorConfig, http: JsonClient) -> None:
        self._name = config.name
        self._http = http
        self._timeout = config.timeout_seconds
        self._tools: tuple[Tool, ...] = ()
        self._names: Mapping[str, str] = {}
        """The server's own names, by ours."""

    def describe_tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def discover(self, context: CallContext | None) -> bool:
        """See ``Discovering``: at most 500 tools, of 20 pages."""
        tools: dict[str, tuple[Tool, str]] = {}
        token = context.token if context is not None else None
        async with self._client(token, may_act=False) as client:
            cursor = None
            for _ in range(_MAX_PAGES):
                page = await client.list_tools(cursor=cursor, cache_mode="bypass")
                for listed in page.tools:
                    if len(tools) < _MAX_TOOLS:
                        said = [listed.title, listed.description, listed.input_schema]
                        title, description, schema = hidden(said, token)
                        tool = self._tool(listed.name, title, description, schema)
                        tools.setdefault(tool.name, (tool, listed.name))
                cursor = page.next_cursor
                if not cursor:
                    break
        known = tuple(tool for tool, _ in tools.values() if len(tool.model_name) <= 64)
        changed = known != self._tools
        if changed and self._tools:
            _log.warning("the tools of an MCP server have changed", connector=self._name, tools=len(known))
        self._tools = known
        self._names = {name: theirs for name, (_, theirs) in tools.items()}
        return changed

    def _tool(self, name: str, title: str | None, description: str | None, schema: Mapping[str, Any]) -> Tool:
        reader = SchemaReader(schema)
        parameters = reader.schema(schema, 0)
        parameters["type"] = "object"
        parameters.setdefault("properties", {})
        parameters.setdefault("additionalProperties", False)
        said = line(description or title or name)
        return Tool(f"{self._name}.{_NAME.sub('_', name).strip('_') or 'tool'}", said, parameters, Effect.DESTRUCTIVE)

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        name = self._names.get(tool.name)
        if name is None:
            raise Refused(f"{self._http.system} has no tool {tool.name} any more.", asked=False)
        async with self._client(context.token, may_act=True) as client:
            result = await client.call_tool(name, dict(arguments), meta=cast(RequestParamsMeta, {_KEY: context.key}))
        content = result.structured_content if result.structured_content is not None else _text_of(result.content)
        content = hidden(content, context.token)
        if result.is_error:
            said = content if isinstance(content, str) else hidden(_text_of(result.content), context.token)
            raise Refused(f"{self._http.system} refused this: “{line(said)}”.")
        return ToolResult(
            Outcome.SUCCEEDED,
            f"{self._http.system}: {line(tool.description)[:120].rstrip('.')} — done.",
            content,
            _links(result.content, context.token),
        )

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        """MCP knows no way to ask; such tools have no look-up."""
        raise SystemUnavailable(f"{self._http.system} can't tell what became of it.", may_have_acted=False)

    async def probe(self) -> None:
        """Any answer but a server's own failure shows that it is there: without a credential most refuse."""
        answer = await self._http.request("GET", "", token=None, raw=True)
        if answer.status >= 500 and answer.status != 501:
            raise error_of(answer, self._http.system)

    async def aclose(self) -> None:
        await self._http.aclose()

    @asynccontextmanager
    async def _client(self, token: SecretText | None, *, may_act: bool) -> AsyncIterator[Client]:
        """A client for one call. Raises ConnectorError for all that goes wrong inside."""
        transport = GuardedTransport(self._http, token)
        try:
            async with (
                asyncio.timeout(self._timeout),
                httpx2.AsyncClient(transport=transport, trust_env=False, timeout=None) as http,
                Client(streamable_http_client(self._http.base_url, http_client=http), cache=None) as client,
            ):
                yield client
        except BaseException as raised:
            error = _first(raised)
            if isinstance(error, ConnectorError):
                raise error from None
            if not isinstance(error, (MCPError, httpx2.HTTPError, TimeoutError, ValidationError, RuntimeError)):
                raise
            raise self._told(error, transport, token, may_act) from error

    def _told(
        self, error: BaseException, transport: GuardedTransport, token: SecretText | None, may_act: bool
    ) -> ConnectorError:
        system, acted = self._http.system, may_act and transport.sent
        if transport.refused:
            said = JsonResponse(transport.refused, None, transport.retry_after)
            return error_of(said, system)
        if isinstance(error, TimeoutError):
            return SystemUnavailable(f"{system} did not answer within {self._timeout:g} s.", may_have_acted=acted)
        if isinstance(error, TooLarge):
            return SystemUnavailable(f"{system} sent more than is read.", may_have_acted=acted, lasting=True)
        if isinstance(error, MCPError):
            words = line(hidden(error.message, token))
            if error.code in _BAD_ARGUMENTS:
                return Refused(f"{system} did not accept this: “{words}”.")
            return SystemUnavailable(f"{system} failed: “{words}”.", may_have_acted=acted)
        if isinstance(error, httpx2.ConnectError):
            return SystemUnavailable(f"{system} can't be reached.", may_have_acted=False)
        return SystemUnavailable(f"{system} sent an answer that can't be read.", may_have_acted=acted)


def _first(error: BaseException) -> BaseException:
    """The cause in a task group's wrapping."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) >= 1:
        error = error.exceptions[0]
    return error


def _text_of(content: object) -> str:
    """The text blocks, one after the other; other kinds are named only."""
    parts = []
    for block in content if isinstance(content, list) else ():
        kind = getattr(block, "type", "")
        if kind == "text":
            parts.append(str(block.text))
        elif kind == "resource":
            parts.append(str(getattr(block.resource, "text", "(a file)")))
        else:
            parts.append(f"({kind or 'something'} that is not shown)")
    return "\n".join(parts)[:_MAX_TEXT]


def _links(content: object, token: SecretText | None) -> tuple[Citation, ...]:
    found = []
    for block in content if isinstance(content, list) else ():
        if getattr(block, "type", "") == "resource_link":
            uri = hidden(str(block.uri), token)
            if uri.startswith(("https://", "http://")) and len(uri) < 2000:
                title = hidden(getattr(block, "title", "") or getattr(block, "name", "") or uri, token)
                found.append(Citation(text(title, 120), uri))
    return tuple(found[:5])
