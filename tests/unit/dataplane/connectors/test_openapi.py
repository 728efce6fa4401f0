"""Tools out of an OpenAPI document, and the requests that they make."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import yaml
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse_api.egress import EgressRule
from pilothouse_api.workerconfig import ConnectorConfig, OpenAPIConfig, SecretValue, ServiceAccountConfig
from pilothouse_dataplane.connectors.base import (
    CallContext,
    ConnectorError,
    Credential,
    CredentialRefused,
    Refused,
    SecretText,
    SystemUnavailable,
)
from pilothouse_dataplane.connectors.factory import make_connector
from pilothouse_dataplane.connectors.openapi.connector import OpenAPIConnector, sentence
from pilothouse_dataplane.connectors.openapi.document import DocumentError, load, operations
from pilothouse_dataplane.core.messages import Effect, Outcome, Tool
from pilothouse_dataplane.core.schema import ArgumentsError, parse_arguments

LOCAL = EgressRule(allow_hosts=("127.0.0.1",))
ME = CallContext("e@acme.example", "run/s1", credential=Credential(SecretText("t0ken"), "e@acme.example"))
TICKET = {
    "type": "object",
    "required": ["subject", "id"],
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "subject": {"type": "string", "maxLength": 100},
        "parent": {"$ref": "#/components/schemas/Ticket"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"type": "string", "nullable": True},
    },
}
DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Desk", "version": "1"},
    "servers": [{"url": "https://evil.example"}],
    "paths": {
        "/tickets": {
            "parameters": [{"name": "X-Trace", "in": "header", "schema": {"type": "string"}}],
            "get": {
                "operationId": "listTickets",
                "summary": "List tickets",
                "tags": ["helpdesk"],
                "parameters": [
                    {"name": "status", "in": "query", "schema": {"type": "array", "items": {"enum": ["open", "done"]}}},
                    {"name": "mine", "in": "query", "schema": {"type": "boolean"}},
                    {"$ref": "#/components/parameters/Page"},
                ],
                "responses": {"200": {"content": {"application/json": {"schema": {"type": "array"}}}}},
            },
            "post": {
                "operationId": "createTicket",
                "description": "File a ticket.\nSecond line.",
                "parameters": [{"name": "Idempotency-Key", "in": "header", "required": True, "schema": {}}],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Ticket"}}},
                },
            },
        },
        "/tickets/{ticket_id}": {
            "parameters": [{"name": "ticket_id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {"operationId": "tickets.get"},
            "delete": {"operationId": "deleteTicket"},
            "put": {"requestBody": {"content": {"application/json": {"schema": {"type": "array"}}}}},
        },
        "/keys": {"get": {"operationId": "withKey", "security": [{"key": []}]}},
        "/upload": {"post": {"requestBody": {"required": True, "content": {"image/png": {}}}}},
        "/half/{missing}": {"get": {"operationId": "half"}},
        "/query-key": {"get": {"operationId": "queryKey", "security": [{"inQuery": []}]}},
        "not a path\r\nHost: x": {"get": {"operationId": "split"}},
    },
    "components": {
        "schemas": {"Ticket": TICKET, "Loop": {"$ref": "#/components/schemas/Loop"}},
        "parameters": {"Page": {"name": "page", "in": "query", "schema": {"type": "integer", "minimum": 1}}},
        "securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "inQuery": {"type": "apiKey", "in": "query", "name": "key"},
        },
    },
}


def config(**openapi: Any) -> ConnectorConfig:
    account = ServiceAccountConfig(token=SecretValue(secret="s", key="token"))
    return ConnectorConfig(
        name="desk",
        type="openapi",
        url=openapi.pop("url", "http://127.0.0.1:9/api"),
        auth_mode="ServiceAccount",
        service_account=account,
        openapi=OpenAPIConfig(**({"document_file": "doc"} | openapi)),
    )


def connector(document: Any = None, **openapi: Any) -> OpenAPIConnector:
    raw = document if isinstance(document, bytes) else json.dumps(document or DOCUMENT).encode()
    made = make_connector(config(**openapi), {"doc": raw}, LOCAL)
    assert isinstance(made, OpenAPIConnector)
    return made


def tools(made: OpenAPIConnector) -> dict[str, Tool]:
    return {tool.name.removeprefix("desk."): tool for tool in made.describe_tools()}


@asynccontextmanager
async def desk(**answers: Any) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server that notes what it is asked; ``answers``: status, body, kind, document."""
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        if request.path == "/doc":
            return web.Response(body=answers.get("document", json.dumps(DOCUMENT).encode()))
        body = answers.get("body", {"id": 7, "title": "VPN", "html_url": "https://desk.example/7"})
        return web.Response(
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
            status=answers.get("status", 200),
            content_type=answers.get("kind", "application/json"),
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


def test_each_operation_that_can_be_called_is_a_tool() -> None:
    made = tools(connector())
    assert set(made) == {
        "listTickets", "createTicket", "tickets_get", "deleteTicket", "put_tickets_ticket_id", "withKey",
    }  # fmt: skip
    assert [made[n].effect for n in ("listTickets", "createTicket", "deleteTicket", "put_tickets_ticket_id")] == [
        Effect.READ,
        Effect.WRITE,
        Effect.DESTRUCTIVE,
        Effect.WRITE,
    ]
    assert (made["createTicket"].key_by, made["createTicket"].idempotent) == ("Idempotency-Key", True)
    assert made["deleteTicket"].idempotent
    assert made["createTicket"].description == "File a ticket. Second line."
    assert made["listTickets"].keywords == ("helpdesk",)
    assert made["listTickets"].returns == {"type": "array"}


def test_arguments_are_checked_as_the_document_says() -> None:
    made = tools(connector())
    assert set(made["createTicket"].parameters["properties"]) == {"X-Trace", "subject", "parent", "tags", "note"}
    assert parse_arguments(made["createTicket"].parameters, '{"subject": "x", "parent": {"subject": "y"}}')
    for name, text in (
        ("createTicket", "{}"),
        ("createTicket", '{"subject": 1}'),
        ("createTicket", '{"subject": "x", "id": 3}'),
        ("createTicket", '{"subject": "x", "parent": {"subject": 4}}'),
        ("listTickets", '{"status": ["closed"]}'),
        ("listTickets", '{"page": 0}'),
        ("tickets_get", "{}"),
    ):
        with pytest.raises(ArgumentsError):
            parse_arguments(made[name].parameters, text)


@pytest.mark.parametrize(
    ("name", "arguments", "method", "path", "body"),
    [
        ("listTickets", {"status": ["open", "done"], "mine": True, "page": 2}, "GET",
         "/api/tickets?status=open&status=done&mine=true&page=2", b""),
        ("tickets_get", {"ticket_id": "a b?c#d"}, "GET", "/api/tickets/a%20b%3Fc%23d", b""),
        ("createTicket", {"subject": "x", "tags": ["a"]}, "POST", "/api/tickets", b'{"subject":"x","tags":["a"]}'),
        ("put_tickets_ticket_id", {"ticket_id": "1", "body": [1]}, "PUT", "/api/tickets/1", b"[1]"),
    ],
)  # fmt: skip
async def test_a_call_is_the_request_that_the_document_describes(
    name: str, arguments: dict[str, Any], method: str, path: str, body: bytes
) -> None:
    async with desk() as (url, seen):
        made = connector(url=f"{url}/api")
        result = await made.call(tools(made)[name], arguments, ME)
        await made.aclose()
    (got,) = seen
    assert (got[0], got[1], got[3]) == (method, path, body)
    assert got[2]["Authorization"] == "Bearer t0ken"
    assert got[2].get("Idempotency-Key") == ("run/s1" if name == "createTicket" else None)
    assert (result.outcome, result.citations[0].url) == (Outcome.SUCCEEDED, "https://desk.example/7")


async def test_an_api_key_goes_into_its_own_header_and_nowhere_else() -> None:
    async with desk() as (url, seen):
        made = connector(url=url)
        await made.call(tools(made)["withKey"], {}, ME)
        await made.aclose()
    assert (seen[0][2]["X-API-Key"], "Authorization" in seen[0][2], "t0ken" in seen[0][1]) == ("t0ken", False, False)


@pytest.mark.parametrize(
    "part", ["..", ".", "", "a/b", "a\\b", "a%2Fb", "../admin", "x\x00", "x\r\nHost: y", "a" * 1001, ["a"], {}, None]
)
async def test_a_part_of_an_address_can_not_leave_its_place(part: Any) -> None:
    async with desk() as (url, seen):
        made = connector(url=url)
        with pytest.raises(Refused) as refused:
            await made.call(tools(made)["tickets_get"], {"ticket_id": part}, ME)
        await made.aclose()
    assert (refused.value.asked, seen) == (False, [])


async def test_a_header_can_not_be_split() -> None:
    async with desk() as (url, seen):
        made = connector(url=url)
        with pytest.raises(Refused):
            await made.call(tools(made)["listTickets"], {"X-Trace": "a\r\nX-Admin: 1"}, ME)
        await made.aclose()
    assert seen == []


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (401, {"error": "invalid_token"}, CredentialRefused, "invalid_token"),
        (403, {"title": "Forbidden", "detail": "Agents only"}, Refused, "Forbidden. Agents only"),
        (422, {"errors": [{"message": "subject is too long"}]}, Refused, "subject is too long"),
        (404, b"<html>", Refused, "found nothing"),
        (429, {}, SystemUnavailable, "too many requests"),
        (500, {"error": {"message": "boom"}}, SystemUnavailable, "boom"),
        (302, {}, SystemUnavailable, "redirects"),
        (200, b"<html>", SystemUnavailable, "broken JSON"),
    ],
)
async def test_what_a_system_says_is_told(status: int, body: Any, error: type[ConnectorError], says: str) -> None:
    async with desk(status=status, body=body) as (url, _):
        made = connector(url=url)
        with pytest.raises(error) as raised:
            await made.call(tools(made)["listTickets"], {}, ME)
        await made.aclose()
    assert says in str(raised.value)
    assert "t0ken" not in str(raised.value)


async def test_a_document_behind_a_url_is_fetched_and_its_tools_change_with_it() -> None:
    async with desk() as (url, seen):
        made = connector(url=url, document_file="", document_url=f"{url}/doc")
        assert made.describe_tools() == ()
        assert await made.discover(None)
        assert len(made.describe_tools()) == 6
        assert not await made.discover(None)
        assert all("Authorization" not in headers for _, _, headers, _ in seen)
        await made.discover(ME)
        assert seen[-1][2]["Authorization"] == "Bearer t0ken"  # the document lies with the system itself
        await made.aclose()


async def test_a_credential_never_goes_to_where_a_document_lies() -> None:
    async with desk() as (elsewhere, seen):
        made = connector(url="http://127.0.0.1:9", document_file="", document_url=f"{elsewhere}/doc")
        await made.discover(ME)
        await made.aclose()
    assert "Authorization" not in seen[0][2]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "no paths"),
        (b"{", "can't be read"),
        (b"[]", "no paths"),
        (b'{"paths": {}}', "OpenAPI 3"),
        (b'{"swagger": "2.0", "paths": {}}', "Swagger 2"),
        (b'{"openapi": "3.1.0", "paths": {}}', "no operation"),
        (b"openapi: 3.0.0\npaths: &a\n  x: *a\n", "anchors"),
        (b"a: b: c", "can't be read"),
        (b"[" * 100_000, "can't be read"),
    ],
)
async def test_a_document_that_is_none_is_the_connectors_own_problem(raw: bytes, says: str) -> None:
    made = connector(raw)
    assert made.describe_tools() == ()
    with pytest.raises(ConnectorError, match=says):
        await made.discover(None)


def test_yaml_is_read_as_json_is() -> None:
    assert operations(load(yaml.safe_dump(DOCUMENT, sort_keys=False).encode())) == operations(
        load(json.dumps(DOCUMENT).encode())
    )


def test_operations_are_filtered_by_their_ids() -> None:
    assert set(tools(connector(operations=("*Ticket", "tickets_*")))) == {
        "createTicket", "tickets_get", "deleteTicket",
    }  # fmt: skip
    with pytest.raises(DocumentError, match="No operation"):
        connector(operations=("nothing",))._read(json.dumps(DOCUMENT).encode())


def test_a_document_that_refers_to_itself_ends() -> None:
    wide = {f"f{i}": {"$ref": "#/components/schemas/Wide"} for i in range(50)}
    document = {
        "openapi": "3.1.0",
        "paths": {
            "/a": {
                "post": {
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Wide"}}}}
                }
            }
        },
        "components": {"schemas": {"Wide": {"type": "object", "properties": wide}}},
    }
    (operation,) = operations(load(json.dumps(document).encode()))
    assert len(json.dumps(operation.schema)) < 200_000


_WORDS = (
    "$ref type properties items allOf parameters in name schema requestBody content application/json responses "
    "required security"
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("#/components")


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        _LEAVES,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS.split()), inner, max_size=5),
        max_leaves=25,
    )
)
def test_no_document_brings_the_reader_down(part: Any) -> None:
    document = {"openapi": "3.0.0", "paths": {"/a": {"get": part, "post": {"requestBody": part}}}, "components": part}
    try:
        for operation in operations(load(json.dumps(document).encode())):
            parse_arguments(operation.schema, "{}")
    except (DocumentError, ArgumentsError):
        pass


def test_an_errors_own_words_are_found_in_any_shape() -> None:
    assert sentence([{"message": "a"}]) == "a"
    assert sentence({"error": {"message": "b", "detail": "c"}}) == "c. b"
    assert sentence({"errors": [[[]]]}) == ""
    assert sentence(None) == ""
