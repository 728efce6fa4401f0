from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_api.workerconfig import ConnectorConfig
from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, Connector, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.factory import ConnectorConfigError, make_connector
from pilothouse_dataplane.connectors.jira import adf, jql
from pilothouse_dataplane.connectors.jira.tools import jira_tools
from pilothouse_dataplane.core.messages import Effect, Lookup, ToolResult

ERIN = CallContext("Erin@acme.example", "run/s1")


class Site:
    """A Jira that answers with what a test puts in and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, Any, str]] = []
        self.headers: dict[str, str] = {}
        self.content_type = "application/json"

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path, body, request.headers.get("Authorization", "")))
        status, answer = self.answers.pop(0)
        if isinstance(answer, str):
            return web.Response(status=status, text=answer, content_type=self.content_type)
        return web.json_response(answer, status=status, headers=self.headers)


class Caller:
    """Calls a connector's tools by their verbs."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._tools = {tool.name.rpartition(".")[2]: tool for tool in connector.describe_tools()}

    async def __call__(self, verb: str, context: CallContext = ERIN, **arguments: Any) -> ToolResult:
        return await self._connector.call(self._tools[verb], arguments, context)

    async def find(self, verb: str, **arguments: Any) -> ToolResult | None:
        return await self._connector.find_by_key(self._tools[verb], arguments, ERIN)


@asynccontextmanager
async def jira(site: Site, **options: Any) -> AsyncIterator[Any]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", site.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = ConnectorConfig(
        name="jira",
        type="jira",
        url=f"http://127.0.0.1:{runner.addresses[0][1]}",
        auth_mode="UserOAuth",
        accounts_file="accounts",
        **options,
    )
    connector = make_connector(config, {"accounts": b'{"erin@acme.example": "t0"}'})
    try:
        yield Caller(connector)
    finally:
        await connector.aclose()
        await runner.cleanup()


async def test_create_carries_the_key_and_the_next_search_names_the_new_issue() -> None:
    site = Site()
    site.answers = [(201, {"id": "10042", "key": "IT-42"}), (200, {"issues": []})]
    async with jira(site) as call:
        result = await call("create", project="it", summary="a\nb", description="one\n\ntwo")
        await call("search", mine=True, open=True)
    method, path, body, authorization = site.asked[0]
    assert (method, path, authorization) == ("POST", "/rest/api/3/issue", "Bearer t0")
    assert body["properties"] == [{"key": "pilothouse", "value": {"idempotencyKey": "run/s1"}}]
    assert body["fields"]["summary"] == "a b"
    assert len(body["fields"]["description"]["content"]) == 2
    assert result.summary == "Created IT-42 in Jira."
    assert result.citations[0].url.endswith("/browse/IT-42")
    assert site.asked[1][2]["reconcileIssues"] == [10042]


async def test_search_pages_by_token() -> None:
    site = Site()
    issue = {"id": "1", "key": "IT-1", "fields": {"summary": "s", "status": {"name": "To Do"}}}
    site.answers = [(200, {"issues": [issue], "nextPageToken": "n"}), (200, {"issues": [issue]})]
    async with jira(site) as call:
        result = await call("search", text="vpn")
    assert site.asked[1][2]["nextPageToken"] == "n"
    assert result.summary == "Found 2 issues in Jira."


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (401, AccountNotLinked, "Link your Jira account again"),
        (403, Refused, "“Not yours”. It takes the permission “Create Issues”"),
        (404, Refused, "lack the permission “Create Issues”"),
        (400, Refused, "Jira did not accept this: “Not yours”"),
        (429, SystemUnavailable, "too many requests"),
        (500, SystemUnavailable, "Jira failed (500)"),
        (302, SystemUnavailable, "redirects"),
    ],
)
async def test_refusals_carry_jiras_own_sentence(status: int, error: type[Exception], said: str) -> None:
    site = Site()
    site.headers = {"Retry-After": "2", "Location": "http://127.0.0.1:1/"}
    site.answers = [(status, {"errorMessages": ["Not yours."], "errors": {}})]
    async with jira(site) as call:
        with pytest.raises(error) as raised:
            await call("create", project="IT", summary="s")
    assert said in str(raised.value)
    if isinstance(raised.value, SystemUnavailable):
        assert raised.value.may_have_acted is (status == 500)


async def test_a_missing_link_reaches_nobody() -> None:
    site = Site()
    async with jira(site) as call:
        with pytest.raises(AccountNotLinked, match="Link your Jira account"):
            await call("search", CallContext("carl@acme.example", "k"))
        with pytest.raises(Refused):
            await call("get", key="../../admin-1?x=1")
    assert site.asked == []


async def test_bodies_are_bounded_and_typed() -> None:
    site = Site()
    site.answers = [(200, "x" * 1_100_000), (200, "<html>"), (200, "{")]
    async with jira(site) as call:
        with pytest.raises(SystemUnavailable, match="more than 1 MB"):
            await call("get", key="IT-1")
        with pytest.raises(SystemUnavailable, match="broken JSON"):
            await call("get", key="IT-1")
        site.content_type = "text/html"
        with pytest.raises(SystemUnavailable, match="text/html instead of JSON"):
            await call("get", key="IT-1")


async def test_transition_by_name() -> None:
    site = Site()
    listed = {"transitions": [{"id": "31", "name": "Close", "to": {"name": "Done"}}]}
    site.answers = [(200, listed), (204, ""), (200, listed)]
    async with jira(site) as call:
        result = await call("transition", key="IT-1", status="done")
        assert result.summary == "Moved IT-1 to Done."
        with pytest.raises(Refused, match="Possible: Done"):
            await call("transition", key="IT-1", status="Nowhere")
    assert site.asked[1][2] == {"transition": {"id": "31"}}


@given(st.text())
def test_no_text_leaves_its_quotes(text: str) -> None:
    quoted = jql.quote(text)
    inner = quoted[1:-1]
    assert '"' not in inner.replace("\\\\", "").replace('\\"', "")
    assert "\n" not in quoted
    query = jql.search(text=text, project=text, mine=False, open_only=True)
    assert query.endswith("statusCategory != Done ORDER BY updated DESC")


def test_an_empty_query_is_restricted() -> None:
    assert jql.search(text="", project="", mine=False, open_only=False).startswith("updated >= ")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_adf_has_no_empty_text(text: str) -> None:
    for paragraph in adf.from_text(text)["content"]:
        assert all(node["type"] != "text" or node["text"] for node in paragraph["content"])
    assert adf.to_text(adf.from_text("one\ntwo\n\nthree")) == "one\ntwo\nthree"


def test_what_this_worker_does_not_serve_is_refused_at_load() -> None:
    config = ConnectorConfig(name="okta", type="okta", url="https://x.example", auth_mode="UserOAuth")
    with pytest.raises(ConnectorConfigError, match="type okta is not served"):
        make_connector(config, {})


async def test_a_lookup_that_cant_tell_does_not_say_no() -> None:
    site = Site()
    hidden = {"comments": [{"id": "1", "body": "x"}]}
    site.answers = [(200, {"nonsense": True}), (200, hidden), (200, {"comments": []}), (404, {})]
    async with jira(site) as call:
        for said in ("can't be read", "does not tell"):
            with pytest.raises(SystemUnavailable, match=said):
                await call.find("comment", key="IT-1", body="b")
        assert await call.find("comment", key="IT-1", body="b") is None
        with pytest.raises(Refused):
            await call.find("comment", key="IT-1", body="b")
        with pytest.raises(Refused):
            await call.find("comment", key="IT-1\n", body="b")


async def test_a_transition_that_was_named_is_found_by_the_status_it_leads_to() -> None:
    site = Site()
    done, todo = ({"key": "IT-1", "fields": {"status": {"name": name}}} for name in ("Done", "To Do"))
    listed = {"transitions": [{"id": "31", "name": "Close", "to": {"name": "Done"}}]}
    site.answers = [
        (200, done),
        (200, done),
        (200, listed),
        (200, todo),
        (200, listed),
        (200, done),
        (200, {"transitions": []}),
    ]
    async with jira(site) as call:
        assert await call.find("transition", key="IT-1", status="done")
        assert await call.find("transition", key="IT-1", status="close")
        assert await call.find("transition", key="IT-1", status="Close") is None
        with pytest.raises(SystemUnavailable, match="does not tell"):  # not offered: it may have been carried out
            await call.find("transition", key="IT-1", status="Close")


def test_what_absence_proves() -> None:
    tools = {tool.name: tool.lookup for tool in jira_tools("jira") if tool.effect is not Effect.READ}
    assert tools == {
        "jira.issue.create": Lookup.EVENTUAL,
        "jira.issue.comment": Lookup.AUTHORITATIVE,
        "jira.issue.transition": Lookup.AUTHORITATIVE,
    }
