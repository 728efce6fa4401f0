"""Linking accounts in a real browser: the page, the consent pages, the call-back, and what the agent does after it.

Headless Chromium, the product's gateway and worker as processes, the stand-ins' own authorization servers. Given /
when / then. One stack serves the module; each test begins with nobody's account linked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, expect

from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_testing import browser as browsers
from pilothouse_testing.browser import Watched, chromium, watched
from pilothouse_testing.estate import ERIN, MONA, Estate, estate, outcomes
from pilothouse_testing.stack import TENANT, Demonstrated
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.data.tokens import make_token

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        not browsers.find(), reason="there is no Chromium on the path, and PILOTHOUSE_CHROMIUM names none"
    ),
]
GET = '\nCALL jira.issue.get {"key": "IT-1"}'
LINKABLE = ("jira", "okta", "servicenow")
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Estate]:
    async with estate(tmp_path_factory.mktemp("browser")) as here:
        await here.start_worker("worker-1", here.config(), here.files())
        yield here


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chrome() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def here(stack: Estate) -> AsyncIterator[Estate]:
    yield stack
    for tap in stack.taps.values():
        tap.answer = None
    (worker,) = stack.workers.values()
    async with worker.stub() as stub:  # not through the gateway, which lets a person do so only so often
        for system in LINKABLE:
            await stack.operate(system, "/__sim/oauth", {"access_token_seconds": 3600, "token_endpoint_status": 0})
            for user in (ERIN, MONA):
                who = agent.User(subject="1", email=user)
                await stub.Unlink(agent.UnlinkRequest(tenant="acme", user=who, connector=system))


@pytest_asyncio.fixture(loop_scope="module")
async def context(chrome: Browser) -> AsyncIterator[BrowserContext]:
    made = await chrome.new_context()
    yield made
    await made.close()


async def signed_in(here: Estate, context: BrowserContext, user: str = ERIN, query: str = "") -> Watched:
    """The accounts page, after the user has put her token in."""
    shown = await watched(context)
    await shown.page.goto(f"{here.gateway}/accounts{query}")
    await shown.page.get_by_label("Your token").fill(here.sign_in(user))
    await shown.page.get_by_role("button", name="Sign in").click()
    await expect(shown.page.get_by_role("status").first).to_contain_text(user)
    return shown


async def consent(shown: Watched, as_whom: str = ERIN, decision: str = "Allow") -> None:
    """What the person does at the authorization server."""
    await shown.page.get_by_role("radio", name=as_whom).check()
    await shown.page.get_by_role("button", name=decision, exact=True).click()


async def link(shown: Watched, system: str, as_whom: str = ERIN, decision: str = "Allow") -> str:
    """From the accounts page to the end of a link; the sentence that is shown."""
    await shown.page.get_by_role("button", name=f"Link {system}").click()
    await consent(shown, as_whom, decision)
    result = shown.page.locator("#result")
    await expect(result).to_be_visible()
    return await result.inner_text()


def row(shown: Watched, connector: str) -> Any:
    return shown.page.locator(f'section[data-connector="{connector}"]')


async def test_an_account_is_linked_and_the_agent_acts_as_that_user(here: Estate, context: BrowserContext) -> None:
    # given Erin, signed in, and no account of hers
    shown = await signed_in(here, context)
    await expect(row(shown, "jira")).to_contain_text("Not linked")
    assert "not linked" in (await here.ask("look" + GET))[-1]["text"]
    # when she links Jira at Atlassian's own page
    said = await link(shown, "Jira")
    # then she is told as whom, her accounts page shows it, and her question is answered with her own token
    assert f"the agent acts there as {ERIN}" in said
    await shown.page.get_by_role("link", name="Your linked accounts").click()
    await expect(row(shown, "jira")).to_contain_text(f"The agent acts there as {ERIN}")
    await expect(row(shown, "jira")).to_contain_text("Linked")
    await expect(row(shown, "okta")).to_contain_text("Not linked")
    here.taps["jira"].calls.clear()
    events = await here.ask("look" + GET)
    assert outcomes(events) == {"jira.issue.get": "SUCCEEDED"}
    assert {e["account"] for e in events if e.get("tool") == "jira.issue.get" and "account" in e} == {ERIN}
    (token,) = here.taps["jira"].tokens("GET", "/rest/api/3/issue/IT-1")
    assert token.encode() in here.planted.of("jira access token")
    # and the page has kept to its policy, told nobody else her token, and left the address clean
    assert shown.console == []
    assert shown.dialogs == []
    assert shown.sent_tokens == {urlsplit(here.gateway).netloc}
    assert shown.hosts == {urlsplit(here.gateway).netloc, urlsplit(here.urls["jira"]).netloc}
    cookies = {cookie["name"]: cookie for cookie in await context.cookies()}
    assert not cookies.get("pilothouse-link", {}).get("value")


async def test_the_cookie_and_the_token_are_out_of_a_scripts_reach(here: Estate, context: BrowserContext) -> None:
    # given a link that is begun from an address with the token in its fragment
    shown = await watched(context)
    await shown.page.goto(f"{here.gateway}/accounts?connect=jira#token={here.sign_in(ERIN)}")
    await expect(row(shown, "jira").get_by_role("button")).to_be_focused()
    assert "token" not in shown.page.url
    await shown.page.get_by_role("button", name="Link Jira").click()
    await expect(shown.page.get_by_role("heading", level=1)).to_contain_text("asks for access")
    # then the cookie is for the server alone, and what went to Atlassian holds no token of ours
    (cookie,) = await context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    assert await shown.page.evaluate("document.cookie") == ""
    query = parse_qs(urlsplit(shown.page.url).query)
    assert query["code_challenge_method"] == ["S256"]
    assert not any(token.decode() in shown.page.url for token in here.planted.of("sign-in token"))
    assert shown.violations == []


async def test_who_denies_is_told_so_and_nothing_is_linked(here: Estate, context: BrowserContext) -> None:
    shown = await signed_in(here, context)
    said = await link(shown, "Okta", decision="Deny")
    assert "You did not agree at Okta. Nothing was linked." in said
    await shown.page.goto(f"{here.gateway}/accounts")
    await expect(row(shown, "okta")).to_contain_text("Not linked")
    assert shown.violations == []


@pytest.mark.parametrize(("connector", "system"), [("okta", "Okta"), ("servicenow", "ServiceNow"), ("jira", "Jira")])
async def test_unlinking_revokes_where_it_can_and_the_next_question_says_to_link(
    here: Estate, context: BrowserContext, connector: str, system: str
) -> None:
    calls = {"okta": "CALL okta.user.me {}", "servicenow": 'CALL servicenow.incident.search {"mine": true}'}
    call = "\n" + calls.get(connector, GET.strip())
    # given a linked account that works
    shown = await signed_in(here, context, MONA)
    await link(shown, system, MONA)
    assert set(outcomes(await here.ask("look" + call, MONA)).values()) == {"SUCCEEDED"}
    token = here.taps[connector].calls[-1][3]
    # when it is unlinked on the page
    await shown.page.goto(f"{here.gateway}/accounts")
    await shown.page.get_by_role("button", name=f"Unlink {system}").click()
    # then the page says what became of the tokens, and the authorization server agrees
    told = shown.page.locator("#told")
    await expect(told).to_contain_text(f"Your {system} account is unlinked")
    await expect(row(shown, connector)).to_contain_text("Not linked")
    state = await sim_state(here, connector)
    if connector == "jira":  # Atlassian has no way to revoke: the person is told to do it there
        await expect(told).to_contain_text("could not be revoked at Jira")
    else:
        await expect(told).to_contain_text("its tokens are revoked")
        assert not [grant for grant in state["grants"] if grant["email"] == MONA and grant["refreshable"]]
        assert token in [t for _, path, _, t in here.taps[connector].calls if "revoke" not in path]
    # and the next question says where to link it
    last = (await here.ask("look" + call, MONA))[-1]["text"]
    assert f"Your {system} account is not linked" in last
    assert f"{here.gateway}/accounts?connect={connector}" in last


async def test_a_token_that_expires_in_mid_run_is_renewed_and_nobody_notices(
    here: Estate, context: BrowserContext
) -> None:
    # given access tokens of two seconds at Okta
    await here.operate("okta", "/__sim/oauth", {"access_token_seconds": 2})
    await here.operate("okta", "/__sim/reset", {})
    shown = await signed_in(here, context)
    await link(shown, "Okta")
    here.taps["okta"].calls.clear()
    # when a run waits for her yes for longer than that
    began = time.monotonic()
    asking = asyncio.create_task(
        here.ask('CALL okta.user.me {}\nTHEN\nCALL okta.factor.reset {"type": "push"}', approve=None)
    )
    events = await asking
    wanted = next(e for e in events if e["type"] == "approval_required")
    await asyncio.sleep(max(0.0, 3 - (time.monotonic() - began)))
    await decide(here, wanted["approval_id"])
    # then the reset was made with a newer token, after one renewal, and told as done
    tokens = {token for method, path, status, token in here.taps["okta"].calls if "/api/v1/" in path and status < 400}
    assert len(tokens) == 2
    assert "push" not in [f["factorType"] for f in await factors(here)]
    assert not [status for _, path, status, _ in here.taps["okta"].calls if status == 401]


async def test_a_refresh_token_that_was_revoked_means_to_link_again_and_the_rest_is_done(
    here: Estate, context: BrowserContext
) -> None:
    # given two linked accounts, one of whose grants ends at its own server
    await here.operate("okta", "/__sim/oauth", {"access_token_seconds": 1})
    shown = await signed_in(here, context)
    await link(shown, "Okta")
    await shown.page.goto(f"{here.gateway}/accounts")
    await link(shown, "Jira")
    await here.operate("okta", "/__sim/oauth", {"end_grants": ERIN})
    await asyncio.sleep(1.1)
    # when she asks both
    events = await here.ask("look\nCALL okta.user.me {}" + GET)
    # then the one is done, and the other says to link it again, and where
    assert outcomes(events) == {"okta.user.me": "REFUSED", "jira.issue.get": "SUCCEEDED"}
    text = events[-1]["text"]
    assert "Okta no longer accepts your linked account" in text
    assert f"{here.gateway}/accounts?connect=okta" in text
    # and the page says so, and mends it
    await shown.page.goto(f"{here.gateway}/accounts?connect=okta")
    await expect(row(shown, "okta")).to_contain_text("Has to be linked again")
    await here.operate("okta", "/__sim/oauth", {"access_token_seconds": 3600})
    await shown.page.get_by_role("button", name="Link again Okta").click()
    await consent(shown)
    await expect(shown.page.locator("#result")).to_contain_text("account is linked")
    assert outcomes(await here.ask("look\nCALL okta.user.me {}")) == {"okta.user.me": "SUCCEEDED"}


async def test_a_call_back_in_another_browser_is_refused_and_spends_the_link(
    here: Estate, context: BrowserContext, chrome: Browser
) -> None:
    # given a consent of Erin's whose call-back somebody opens elsewhere, with and without a link of his own
    shown = await signed_in(here, context)
    caught: list[str] = []

    async def catch(route: Any) -> None:
        if route.request.method != "POST":
            await route.continue_()
            return
        answer = await route.fetch(max_redirects=0)
        caught.append(answer.headers["location"])
        await route.fulfill(body="The way back was lost.")

    await context.route("**/authorize*", catch)
    await shown.page.get_by_role("button", name="Link Jira").click()
    await consent(shown)
    await expect(shown.page.locator("body")).to_contain_text("lost")
    other = await chrome.new_context()
    stranger = await watched(other)
    await stranger.page.goto(caught[0])
    # then it is refused, with no cookie …
    await expect(stranger.page.locator("#result")).to_contain_text("begun in another browser")
    theirs = await signed_in(here, other, MONA)
    await theirs.page.get_by_role("button", name="Link Jira").click()
    await expect(theirs.page.get_by_role("heading", level=1)).to_contain_text("asks for access")
    # … and with another's
    await theirs.page.goto(caught[0])
    await expect(theirs.page.locator("#result")).to_contain_text("begun in another browser, or under another address")
    # and then not even Erin's own browser can use it: nobody's account is linked
    await context.unroute("**/authorize*")
    await shown.page.goto(caught[0])
    await expect(shown.page.locator("#result")).to_contain_text("Nothing was linked")
    for user in (ERIN, MONA):
        accounts = (await here.post("/v1/accounts", user, method="GET"))["accounts"]
        assert {a["state"] for a in accounts if a["connector"] == "jira"} == {"LINK_STATE_NOT_LINKED"}
    assert stranger.violations == theirs.violations == []
    await other.close()


async def test_anothers_account_is_not_linked(here: Estate, context: BrowserContext) -> None:
    # given Erin's page in a browser in which Mona is signed in at Jira
    shown = await signed_in(here, context)
    # when she agrees as Mona
    said = await link(shown, "Jira", as_whom=MONA)
    # then nothing is linked, for either of them
    assert f"At Jira you were signed in as {MONA}, and here as {ERIN}" in said
    assert "Nothing was linked" in said
    for user in (ERIN, MONA):
        assert "not linked" in (await here.ask("look" + GET, user))[-1]["text"]


async def test_what_an_authorization_server_writes_is_shown_as_text(here: Estate, context: BrowserContext) -> None:
    shown = await signed_in(here, context, MONA)

    # given one that refuses with markup: in its redirect …
    def redirects(request: web.Request, _: bytes) -> web.StreamResponse | None:
        if request.method != "POST" or request.path != "/authorize":
            return None
        back = f"{here.gateway}/oauth/callback?state={quote(request.query['state'])}"
        return web.Response(status=302, headers={"Location": f"{back}&error=oops&error_description={quote(HOSTILE)}"})

    # … in its token endpoint's answer …
    def refuses(request: web.Request, _: bytes) -> web.StreamResponse | None:
        if request.path != "/oauth/token":
            return None
        return web.json_response({"error": "invalid_grant", "error_description": HOSTILE}, status=400)

    # … and in whose account it is
    def names(request: web.Request, _: bytes) -> web.StreamResponse | None:
        if request.path != "/me":
            return None
        return web.json_response({"email": f'"{HOSTILE}"@acme.example'})

    for answer, words in ((redirects, "<img src=x"), (refuses, "<img src=x"), (names, "you were signed in as")):
        here.taps["jira"].answer = answer
        await shown.page.goto(f"{here.gateway}/accounts")
        await shown.page.get_by_role("button", name="Link Jira").click()
        await consent(shown, MONA)
        result = shown.page.locator("#result")
        await expect(result).to_contain_text(words)
        assert await result.locator("img, script").count() == 0
    await asyncio.sleep(0.2)
    assert shown.dialogs == []
    assert shown.violations == []
    # then the accounts page shows a hostile name as text, too
    row_of = {
        "connector": "x",
        "system": HOSTILE,
        "state": "LINK_STATE_LINKED",
        "account": HOSTILE,
        "scopes": [HOSTILE],
    }
    answered = json.dumps({"user": HOSTILE, "tenant": "acme", "accounts": [row_of]})
    await context.route("**/v1/accounts", lambda route: route.fulfill(body=answered, content_type="application/json"))
    await shown.page.goto(f"{here.gateway}/accounts")
    await expect(shown.page.locator("#list")).to_contain_text("<img src=x")
    assert await shown.page.locator("#list img, #list script, header img").count() == 0
    assert shown.dialogs == []


async def test_an_injected_script_would_not_run(here: Estate, context: BrowserContext) -> None:
    # given the accounts page, into which markup has come by some way that nobody thought of
    shown = await signed_in(here, context)
    await shown.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')")
    await shown.page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'alert(3)'; document.body.append(s); }"
    )
    await asyncio.sleep(0.3)
    # then its policy stops it (which also shows that violations are seen here)
    assert shown.dialogs == []
    assert shown.violations
    # and no other site can frame the page
    response = await shown.page.goto(f"{here.gateway}/accounts")
    assert response is not None
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


async def test_the_page_is_used_with_the_keyboard_alone(here: Estate, context: BrowserContext) -> None:
    # given the page, where the token's field has the focus
    shown = await watched(context)
    page = shown.page
    await page.goto(f"{here.gateway}/accounts")
    await expect(page.get_by_label("Your token")).to_be_focused()
    await page.keyboard.insert_text(here.sign_in(ERIN))
    await page.keyboard.press("Enter")
    await expect(page.locator("#list section").first).to_be_visible()
    # when she moves by Tab to each button, each is shown as focused and has a name of its own
    seen: list[str] = []
    for _ in range(10):
        await page.keyboard.press("Tab")
        name = await page.evaluate("document.activeElement.getAttribute('aria-label') || ''")
        if name:
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            seen.append(name)
    assert {"Link Jira", "Link Okta", "Link ServiceNow"} <= set(seen)
    # then Enter begins the link, the consent is given by keyboard, and she is back with one more
    while await page.evaluate("document.activeElement.getAttribute('aria-label') || ''") != "Link Jira":
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("asks for access")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    while await page.evaluate("document.activeElement.value") != "allow":
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#result")).to_contain_text("account is linked")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(row(shown, "jira")).to_contain_text("Linked")
    assert shown.console == []


async def test_a_wrong_token_signs_nobody_in(here: Estate, context: BrowserContext) -> None:
    shown = await watched(context)
    await shown.page.goto(f"{here.gateway}/accounts")
    for bad in ("not a token", here.sign_in(ERIN)[:-4] + "AAAA", here.sign_in(ERIN, exp=int(time.time()) - 60)):
        await shown.page.get_by_label("Your token").fill(bad)
        await shown.page.get_by_role("button", name="Sign in").click()
        await expect(shown.page.locator("#told .problem")).to_be_visible()
        await expect(shown.page.get_by_label("Your token")).to_be_visible()
        assert await shown.page.evaluate("sessionStorage.getItem('token')") is None
    assert shown.violations == []


# --- on the local cluster, with its own addresses -------------------------------------------------------------------
async def test_an_account_is_linked_on_the_local_cluster(demonstrated: Demonstrated, chrome: Browser) -> None:
    # given the demo's cluster, in which Mona has linked nothing
    cluster, _ = demonstrated
    async with KubeClient.from_environment(str(cluster.kubeconfig)) as kube:
        url, key = await kube.find_chat_url(), await kube.read_signing_key()
    gateway = url.replace("ws://", "http://").removesuffix("/v1/chat")
    context = await chrome.new_context()
    shown = await watched(context)
    token = make_token(key, tenant=TENANT, user=MONA)
    await shown.page.goto(f"{gateway}/accounts#token={token}")
    await expect(row(shown, "jira")).to_contain_text("Not linked")
    # when she links Jira, whose consent page is at a name below .localhost
    said = await link(shown, "Jira", as_whom=MONA)
    # then it is linked, and can be unlinked again
    assert f"the agent acts there as {MONA}" in said
    await shown.page.goto(f"{gateway}/accounts")
    await expect(row(shown, "jira")).to_contain_text(MONA)
    await shown.page.get_by_role("button", name="Unlink Jira").click()
    await expect(row(shown, "jira")).to_contain_text("Not linked")
    assert shown.console == []
    await context.close()


# --- looks into the systems -----------------------------------------------------------------------------------------
async def sim_state(here: Estate, system: str) -> dict[str, Any]:
    """The authorization server's grants."""
    async with aiohttp.ClientSession() as http, http.get(f"{here.urls[system]}/__sim/oauth") as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def factors(here: Estate) -> list[dict[str, Any]]:
    headers = {"Authorization": "Bearer okta-token-employee"}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{here.urls['okta']}/api/v1/users/me/factors", headers=headers) as answer,
    ):
        found: list[dict[str, Any]] = await answer.json()
        return found


async def decide(here: Estate, approval_id: str) -> None:
    """Her yes, and the run's end."""
    (worker,) = here.workers.values()
    async with worker.stub() as stub:
        request = agent.DecideRequest(
            tenant="acme", approval_id=approval_id, approved=True, decider=agent.User(subject="1", email=ERIN)
        )
        decided = await stub.Decide(request)
        call = stub.Converse()
        resume = agent.Resume(tenant="acme", session_id=decided.session_id, run_id=decided.run_id)
        await call.write(agent.ConverseRequest(resume=resume))
        told = [event async for event in call]
    assert told[-1].WhichOneof("event") == "final", told[-1]
    steps = [event.step_finished for event in told if event.WhichOneof("event") == "step_finished"]
    assert [step.outcome for step in steps] == [agent.STEP_OUTCOME_SUCCEEDED], steps
