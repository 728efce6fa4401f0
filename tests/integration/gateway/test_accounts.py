"""Linking accounts through the gateway: who may, from which browser, and what is passed on to the tenant's worker."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from yarl import URL

from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_testing.gateway_fakes import token

Start = Callable[..., Awaitable[Any]]
STATE = f"acme.acme.{'s' * 43}"
SIGNED_IN = {"authorization": f"Bearer {token()}"}
PUBLIC = "http://pilothouse.example"


def callback(gateway: Any, **query: str) -> URL:
    return URL(gateway.base) / "oauth/callback" % {"state": STATE, "code": "good", **query}


async def begin(http: aiohttp.ClientSession, gateway: Any, connector: str = "jira") -> aiohttp.ClientResponse:
    return await http.post(f"{gateway.base}/v1/accounts/{connector}/link", headers=SIGNED_IN)


async def test_an_account_is_linked_in_the_browser_that_began_it(start: Start) -> None:
    gateway = await start(public_url=PUBLIC)
    agent = await gateway.add_worker("w1")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        listed = await (await http.get(f"{gateway.base}/v1/accounts", headers=SIGNED_IN)).json()
        assert (listed["user"], [a["state"] for a in listed["accounts"]]) == (
            "ana@acme.example",
            ["LINK_STATE_NOT_LINKED"],
        )
        begun = await begin(http, gateway)
        assert (await begun.json())["authorization_url"] == "https://jira.example/authorize?state=x"
        cookie = begun.cookies["pilothouse-link"]
        assert cookie["httponly"]
        assert cookie["samesite"] == "lax"
        assert cookie["max-age"] == "600"
        finished = await http.get(callback(gateway))
        page = await finished.text()
        assert finished.status == 200
        assert "Your Jira account is linked: the agent acts there as ana@acme.example." in page
        again = await http.get(callback(gateway))  # the cookie is gone with the first use
        assert again.status == 400
        assert "another browser" in await again.text()
    begin_, finish = agent.calls[1:]
    assert (begin_.tenant, begin_.user.email, begin_.connector) == ("acme", "ana@acme.example", "jira")
    assert begin_.redirect_uri == finish.redirect_uri == f"{PUBLIC}/oauth/callback"
    assert begin_.browser == finish.browser == hashlib.sha256(cookie.value.encode()).hexdigest()
    assert (finish.tenant, finish.state, finish.code) == ("acme", STATE, "good")


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ({"state": ""}, 400, "belongs to no link"),
        ({"state": f"globex.acme.{'s' * 43}"}, 400, "belongs to no link"),
        ({"state": f"acme.nobody.{'s' * 43}"}, 400, "belongs to no link"),
        ({"state": "acme.acme.short"}, 400, "belongs to no link"),
        ({"code": ""}, 400, "no usable answer"),
        ({"code": "c" * 9000}, 400, "no usable answer"),
        ({"code": "bad"}, 400, "The code is not good."),
        ({"code": "", "error": "access_denied", "error_description": "<script>x</script>"}, 400, "&lt;script&gt;x"),
    ],
)
async def test_a_call_back_that_is_not_good_links_nothing(
    start: Start, query: dict[str, str], status: int, says: str
) -> None:
    gateway = await start(public_url=PUBLIC)
    await gateway.add_worker("w1")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        await begin(http, gateway)
        answer = await http.get(callback(gateway, **query))
        page = await answer.text()
    assert (answer.status, says in page, "<script" in page) == (status, True, False)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'none'")


async def test_a_call_back_in_another_browser_never_reaches_the_worker(start: Start) -> None:
    gateway = await start(public_url=PUBLIC)
    agent = await gateway.add_worker("w1")
    async with aiohttp.ClientSession() as mine, aiohttp.ClientSession() as theirs:
        await begin(mine, gateway)
        answer = await theirs.get(callback(gateway))
    assert answer.status == 400
    assert [type(call) for call in agent.calls] == [pb.BeginLinkRequest]


async def test_only_a_signed_in_user_links_and_only_her_own(start: Start) -> None:
    gateway = await start(public_url=PUBLIC)
    agent = await gateway.add_worker("w1")
    async with aiohttp.ClientSession() as http:
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {token(exp=1)}"}):
            for method, path in (("GET", ""), ("POST", "/jira/link"), ("POST", "/jira/unlink")):
                answer = await http.request(method, f"{gateway.base}/v1/accounts{path}", headers=headers)
                assert answer.status == 401
        assert not agent.calls
        other = {"authorization": f"Bearer {token(user='bo')}"}
        done = await http.post(f"{gateway.base}/v1/accounts/jira/unlink", headers=other)
        assert (await done.json()) == {"message": "Forgotten."}
        bad = await http.post(f"{gateway.base}/v1/accounts/..%2Fjira/link", headers=other)
        assert bad.status in {400, 404}
    assert [(type(call), call.user.email) for call in agent.calls] == [(pb.UnlinkRequest, "bo@acme.example")]


async def test_what_a_worker_says_of_a_link_is_told_and_odd_addresses_go_nowhere(start: Start) -> None:
    gateway = await start(public_url=PUBLIC)
    await gateway.add_worker("w1")
    async with aiohttp.ClientSession() as http:
        unknown = await begin(http, gateway, "unknown")
        assert (unknown.status, (await unknown.json())["message"]) == (400, "There is no connector unknown.")
        odd = await begin(http, gateway, "odd")
        assert odd.status == 502
        assert "javascript" not in await odd.text()


async def test_links_are_bounded_by_user_and_need_a_public_address(start: Start) -> None:
    gateway = await start(public_url=PUBLIC)
    await gateway.add_worker("w1")
    async with aiohttp.ClientSession() as http:
        statuses = [(await begin(http, gateway)).status for _ in range(21)]
        assert statuses == [200] * 20 + [429]
        other = {"authorization": f"Bearer {token(user='bo')}"}
        assert (await http.post(f"{gateway.base}/v1/accounts/jira/link", headers=other)).status == 200
    unnamed = await start()
    await unnamed.add_worker("w2")
    async with aiohttp.ClientSession() as http:
        answer = await begin(http, unnamed)
        assert (answer.status, "public address" in (await answer.json())["message"]) == (502, True)


async def test_behind_tls_the_cookie_is_bound_to_this_very_host(start: Start) -> None:
    gateway = await start(public_url="https://pilothouse.example")
    await gateway.add_worker("w1")
    async with aiohttp.ClientSession() as http:
        cookie = (await begin(http, gateway)).cookies["__Host-pilothouse-link"]
    assert (cookie["secure"], cookie["path"], cookie["domain"]) == (True, "/", "")


async def test_the_page_allows_its_own_script_and_nothing_else(start: Start) -> None:
    gateway = await start(public_url=PUBLIC)
    async with aiohttp.ClientSession() as http:
        answer = await http.get(f"{gateway.base}/accounts?connect=jira")
        policy = answer.headers["content-security-policy"]
        page = await answer.text()
    assert "unsafe" not in policy
    assert "script-src 'sha256-" in policy
    assert " style=" not in page
    assert " onclick=" not in page


async def test_the_sign_in_token_goes_with_the_question(start: Start) -> None:
    from pilothouse_testing.gateway_fakes import Chat

    gateway = await start(public_url=PUBLIC)
    agent = await gateway.add_worker("w1")
    mine = token()
    async with Chat.open(gateway.base) as chat:
        await chat.hello(mine)
        events = await chat.ask("hello")
    assert agent.asks[0].user_token == mine
    assert mine not in str(events)
