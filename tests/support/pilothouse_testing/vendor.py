"""A vendor's HTTP API as a script: each request is compared with what the vendor's documentation says it must be, and
gets the documented answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import CallContext, CallRecord, Connector, Credential, SecretText
from pilothouse_dataplane.connectors.factory import make_connector
from pilothouse_dataplane.core.messages import Tool, ToolResult

LOOPBACK = EgressRule(allow_networks=("127.0.0.0/8",))
TOKEN = "token-of-erin"


@dataclass
class Exchange:
    """One request that must come, and what is answered."""

    request: str
    """Method, a space, and the path as it stands on the wire."""
    status: int = 200
    answer: Any = None
    query: Mapping[str, str] | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the answer; ``{base}`` is the server's address."""
    links: tuple[str, ...] = ()
    """``Link`` headers of the answer, likewise."""


class Vendor:
    """Answers what it was told to, in this order, and keeps what it was asked otherwise."""

    def __init__(self) -> None:
        self.base = ""
        self.expected: list[Exchange] = []
        self.asked: list[str] = []
        self.wrong: list[str] = []

    def expect(self, request: str, status: int = 200, answer: Any = None, **more: Any) -> Vendor:
        self.expected.append(Exchange(request, status, answer, **more))
        return self

    async def handle(self, request: web.Request) -> web.Response:
        came = f"{request.method} {request.rel_url.raw_path}"
        self.asked.append(came)
        if not self.expected:
            self.wrong.append(f"{came} was not expected")
            return web.Response(status=599)
        due = self.expected.pop(0)
        body = await request.json() if request.can_read_body else None
        checks = {
            "request": (came, due.request),
            "query": (dict(request.query), dict(due.query or {})),
            "body": (body, due.body),
            "authorization": (request.headers.get("Authorization"), f"Bearer {TOKEN}"),
            "accept": (request.headers.get("Accept"), "application/json"),
        }
        self.wrong += [f"{what}: {got!r} is not {want!r}" for what, (got, want) in checks.items() if got != want]
        response = (
            web.json_response(due.answer, status=due.status)
            if due.answer is not None
            else web.Response(status=due.status)
        )
        for name, value in due.headers.items():
            response.headers[name] = value.replace("{base}", self.base)
        for link in due.links:
            response.headers.add("Link", link.replace("{base}", self.base))
        return response


class Caller:
    """Calls a connector's tools by their names without the connector's, as Erin."""

    def __init__(self, connector: Connector, name: str) -> None:
        self.connector = connector
        self.tools: dict[str, Tool] = {t.name.removeprefix(f"{name}."): t for t in connector.describe_tools()}
        self.record = CallRecord()
        self.instance_url = ""

    def context(self, token: str = TOKEN) -> CallContext:
        self.record = CallRecord()
        credential = Credential(SecretText(token), "employee@acme.example", self.instance_url)
        return CallContext("employee@acme.example", "run-7/s1", credential=credential, record=self.record)

    async def __call__(self, tool: str, **arguments: Any) -> ToolResult:
        return await self.connector.call(self.tools[tool], arguments, self.context())

    async def find(self, tool: str, **arguments: Any) -> ToolResult | None:
        return await self.connector.find_by_key(self.tools[tool], arguments, self.context())


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """The address of an application that is served on this machine."""
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def calling(vendor: Vendor, kind: Any, **options: Any) -> AsyncIterator[Caller]:
    """A connector of that type to the vendor's script, which must have been played to its end."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", vendor.handle)
    async with serving(app) as vendor.base:
        options = {"url": vendor.base, "auth_mode": "UserOAuth", "timeout_seconds": 2} | options
        config = ConnectorConfig(name=kind, type=kind, **options)
        connector = make_connector(config, {}, LOOPBACK)
        try:
            yield Caller(connector, kind)
        finally:
            await connector.aclose()
    assert vendor.wrong == []
    assert vendor.expected == []
