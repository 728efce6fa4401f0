"""A system that answers with what a test puts in, keeps what it was asked, and the connector that asks it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import ConnectorConfig, ConnectorTypeName, OAuthConfig
from pilothouse_dataplane.connectors.base import CallContext, Connector, Credential, SecretText
from pilothouse_dataplane.connectors.factory import make_connector
from pilothouse_dataplane.core.messages import ToolResult


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: Mapping[str, str]


@dataclass
class Answering:
    """Answers in the order of ``answers``: (status, JSON, or a text as it is). An unexpected request fails the test."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        raw = await request.read()
        is_json = request.content_type == "application/json" and raw
        body = json.loads(raw) if is_json else raw or None
        path = request.rel_url.raw_path  # as it was sent: an escaped slash stays one
        self.asked.append(Asked(request.method, path, dict(request.query), body, request.headers))
        status, answer = self.answers.pop(0)
        if isinstance(answer, str):
            return web.Response(status=status, text=answer, content_type=self.content_type, headers=self.headers)
        return web.json_response(answer, status=status, headers=self.headers)


def acting_as(email: str, key: str = "run/s1", token: str = "t0") -> CallContext:
    """A call for a user with a token; "" is none."""
    credential = Credential(SecretText(token), email) if token else None
    return CallContext(email, key, credential=credential)


class Caller:
    """Calls a connector's tools by their names without the connector's."""

    def __init__(self, connector: Connector, context: CallContext) -> None:
        self.connector = connector
        self.context = context
        self.tools = {tool.name.partition(".")[2]: tool for tool in connector.describe_tools()}

    async def __call__(self, name: str, context: CallContext | None = None, **arguments: Any) -> ToolResult:
        return await self.connector.call(self.tools[name], arguments, context or self.context)

    async def find(self, name: str, context: CallContext | None = None, **arguments: Any) -> ToolResult | None:
        return await self.connector.find_by_key(self.tools[name], arguments, context or self.context)


@asynccontextmanager
async def calling(
    system: ConnectorTypeName, site: Answering, email: str = "erin@acme.example", path: str = "", **options: Any
) -> AsyncIterator[Caller]:
    """A connector of that type whose system is ``site``."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", site.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    config = ConnectorConfig(name=system, type=system, url=url, auth_mode="UserOAuth", oauth=OAuthConfig(), **options)
    connector = make_connector(config, {}, EgressRule(allow_hosts=("127.0.0.1",)))
    try:
        yield Caller(connector, acting_as(email))
    finally:
        await connector.aclose()
        await runner.cleanup()
