"""A system's answer may hold anything anywhere: no field of it breaks a connector, or a tool's own schema.

The answers of the contract cases are kept, and each call is made again with one value of one answer exchanged.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import jira_cases
import pytest
import servicenow_cases
from aiohttp import web
from aiohttp.test_utils import TestServer

from pilothouse_dataplane.connectors.base import CallContext, ConnectorError
from pilothouse_dataplane.connectors.http import JsonClient, JsonResponse
from pilothouse_dataplane.connectors.jira.connector import JiraConnector
from pilothouse_dataplane.connectors.servicenow.connector import ServiceNowConnector
from pilothouse_dataplane.core.messages import Tool, ToolResult
from pilothouse_dataplane.core.schema import misfit
from pilothouse_sim.jira.app import make_app as make_jira
from pilothouse_sim.servicenow.app import make_app as make_servicenow
from pilothouse_testing.contract import PEOPLE, Cases, Place, World

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 1e300, "", "<img src=x onerror=alert(1)>\x00\ud800", "x" * 200_000, [], {}, [[[]]], [None, 7, "x"],
    {"value": {"value": []}, "display_value": 5, "key": [], "content": [[]], "name": {}, "displayName": []},
)  # fmt: skip
_MAX_PLACES = 25
_MAX_RESULT = 300_000
"""Characters of a result, whatever the answer holds."""


@dataclass(frozen=True)
class Taped:
    """One call of a tool, or one look-up of it, and what the system answered."""

    tool: Tool
    arguments: dict[str, Any]
    context: CallContext
    lookup: bool
    answers: tuple[JsonResponse, ...]


class Replay(JsonClient):
    """Gives the answers again; what was not asked before is answered with an empty object."""

    def __init__(self, answers: list[JsonResponse]) -> None:
        super().__init__("The system", "https://system.example", 5)
        self._answers = answers

    async def request(self, *_args: Any, **_options: Any) -> JsonResponse:
        return self._answers.pop(0) if self._answers else JsonResponse(200, {}, None)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:2]):
            yield from places(inner, (*path, index))


def exchanged(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(body)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    async with TestServer(app) as server:
        yield str(server.make_url("/")).rstrip("/")


async def tape(cases: Cases, place: Place, monkeypatch: pytest.MonkeyPatch) -> list[Taped]:
    """A call and a look-up of every tool in the cases that go through."""
    answers: list[JsonResponse] = []
    taped: dict[tuple[str, bool], list[Taped]] = {}
    world = World(cases.system, place)
    real, call, find = JsonClient.request, world.connector.call, world.connector.find_by_key

    async def request(self: JsonClient, *args: Any, **options: Any) -> JsonResponse:
        answer = await real(self, *args, **options)
        answers.append(answer)
        return answer

    def kept(tool: Tool, arguments: Any, context: CallContext, *, lookup: bool) -> None:
        some = taped.setdefault((tool.name, lookup), [])
        if not some:
            some.append(Taped(tool, dict(arguments), context, lookup, tuple(answers)))
        answers.clear()

    async def taping_call(tool: Tool, arguments: Any, context: CallContext) -> ToolResult:
        answers.clear()
        result = await call(tool, arguments, context)
        kept(tool, arguments, context, lookup=False)
        return result

    async def taping_find(tool: Tool, arguments: Any, context: CallContext) -> ToolResult | None:
        answers.clear()
        result = await find(tool, arguments, context)
        kept(tool, arguments, context, lookup=True)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(JsonClient, "request", request)
        patch.setattr(world.connector, "call", taping_call)
        patch.setattr(world.connector, "find_by_key", taping_find)
        try:
            for case in dict.fromkeys(case for some in cases.of_allowed.values() for case in some):
                await case(world)
        finally:
            await world.aclose()
    return [one for some in taped.values() for one in some]


async def made_again(kind: Any, system: str, one: Taped, answers: list[JsonResponse]) -> None:
    connector = kind(system, Replay(answers))
    again = connector.find_by_key if one.lookup else connector.call
    try:
        result = await again(one.tool, one.arguments, one.context)
    except ConnectorError as error:
        told = str(error)
        result = None
    else:
        told = result.summary if result is not None else "not found"
    assert 0 < len(told) < 3_000
    if result is None:
        return
    assert one.tool.returns is not None
    text = json.dumps(result.data)
    assert len(text) < _MAX_RESULT
    assert misfit(one.tool.returns, json.loads(text.replace("\\ud800", ""))) == ""
    for citation in result.citations:
        assert citation.url.startswith("http")


@pytest.mark.parametrize(
    ("cases", "app", "kind"),
    [
        (jira_cases.CASES, make_jira, JiraConnector),
        (servicenow_cases.CASES, make_servicenow, ServiceNowConnector),
    ],
    ids=["jira", "servicenow"],
)
async def test_no_answer_breaks_a_connector(cases: Cases, app: Any, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"project": "IT", "hidden": "HR-1", "group": "Network", "item": "Standard Laptop", "ci": "vpn-gw-01"}
    async with serving(app()) as url:
        place = Place(
            url,
            {who: f"{cases.system}-token-{who}" for who in PEOPLE},
            {who: f"{who}@acme.example" for who in PEOPLE},
            {**facts, "article": "VPN"},
        )
        taped = await tape(cases, place, monkeypatch)
    assert {one.tool.name.partition(".")[2] for one in taped} == set(cases.of_allowed)
    made = 0
    for one in taped:
        await made_again(kind, cases.system, one, list(one.answers))
        for number, answer in enumerate(one.answers):
            for path in list(places(answer.body))[:_MAX_PLACES]:
                for value in HOSTILE:
                    answers = list(one.answers)
                    answers[number] = replace(answer, body=exchanged(answer.body, path, value))
                    try:
                        await made_again(kind, cases.system, one, answers)
                    except Exception as error:
                        note = f"{one.tool.name} (look-up: {one.lookup}), answer {number}, {path} = {str(value)[:60]!r}"
                        raise AssertionError(note) from error
                    made += 1
    assert made > 3_000
