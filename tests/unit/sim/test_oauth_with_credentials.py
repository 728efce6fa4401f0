"""The product's own linking and credentials against the stand-ins' authorization servers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pilothouse_api.workerconfig import ConnectorConfig, OAuthConfig, SecretValue, TokenExchangeConfig
from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, SecretText
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.cache import UserCache
from pilothouse_dataplane.credentials.exchange import KeptToken, TokenExchange
from pilothouse_dataplane.credentials.linking import Linkable, LinkFailed, Linking, State
from pilothouse_dataplane.credentials.oauth import Held, UserOAuth
from pilothouse_dataplane.credentials.refresh import Refresher
from pilothouse_dataplane.credentials.secrets import client_of
from pilothouse_dataplane.credentials.tokens import TokenClient
from pilothouse_sim.jira.app import make_app as make_jira
from pilothouse_sim.oauth import JIRA, OKTA, SALESFORCE, SERVICENOW, OAuth, Profile
from pilothouse_sim.okta.app import make_app as make_okta
from pilothouse_testing.oauth import LOOPBACK, MemoryAccounts, MemorySecrets, MemoryStates

ERIN, MONA = "employee@acme.example", "manager@acme.example"
CALLBACK = "http://127.0.0.1:8443/oauth/callback"
BROWSER = hashlib.sha256(b"cookie").hexdigest()
ID, SECRET = SecretValue(secret="app", key="client-id"), SecretValue(secret="app", key="client-secret")
SCOPES = {"jira": ("read:jira-work", "read:jira-user"), "okta": ("openid", "okta.users.read"), "salesforce": ("api",)}
SYSTEMS = [JIRA, OKTA, SERVICENOW, SALESFORCE]


def application(profile: Profile, clock: list[float]) -> web.Application:
    """Jira and Okta whole; of the others the authorization server, with one path that asks for a token."""
    if profile is JIRA:
        return make_jira(clock=lambda: clock[0])
    if profile is OKTA:
        return make_okta(clock=lambda: clock[0])
    app = web.Application()
    oauth = OAuth(profile, people={ERIN: "Erin", MONA: "Mona"}, clock=lambda: clock[0])
    oauth.install(app)

    async def who(request: web.Request) -> web.Response:
        caller = oauth.caller(request)
        return web.json_response({"emailAddress": caller and caller.email}, status=200 if caller else 401)

    app.router.add_get("/who", who)
    return app


WHO = {"jira": "/rest/api/3/myself", "okta": "/api/v1/users/me"}


class World:
    """The product's parts, set up for one stand-in."""

    def __init__(self, profile: Profile, client: TestClient[Any, Any], clock: list[float]) -> None:
        self.profile, self.client, self.clock = profile, client, clock
        self.url = str(client.make_url("")).rstrip("/")
        secrets = MemorySecrets(
            {"app/client-id": "pilothouse", "app/client-secret": f"pilothouse-{profile.system}-secret"}
        )
        advice, held = Advice(profile.title, self_service=True), UserCache[Held]()
        self.tokens = TokenClient(
            profile.title,
            self.url + profile.token,
            LOOPBACK,
            lambda: clock[0],
            revocation_url=self.url + profile.revoke if profile.revoke else "",
        )
        accounts = MemoryAccounts()
        oauth = OAuthConfig(
            authorization_url=self.url + profile.authorize,
            token_url=self.url + profile.token,
            client_id=ID,
            client_secret=SECRET,
            scopes=SCOPES.get(profile.system, ()),
        )
        config = ConnectorConfig.model_validate(
            {"name": "c", "type": profile.system, "url": self.url, "auth_mode": "UserOAuth", "oauth": oauth}
        )

        def app() -> Any:
            return client_of(secrets, ID, SECRET, advice)

        refresher = Refresher("c", accounts, self.tokens, app, advice, lambda: clock[0])
        self.source = UserOAuth("c", oauth, secrets, accounts, refresher, held, advice, lambda: clock[0])
        linkable = Linkable(config, oauth, self.source, self.tokens, app, advice)
        self.linkable = linkable
        self.linking = Linking(
            "acme", "acme", {"c": linkable}, accounts, MemoryStates(), held, random=os.urandom, clock=lambda: clock[0]
        )

    async def link(self, user: str = ERIN, signs_in: str = ERIN, decision: str = "allow") -> Any:
        """What linking gives when ``user`` begins and ``signs_in`` decides on the page."""
        url = await self.linking.begin(user, "c", CALLBACK, BROWSER)
        path = url.removeprefix(self.url)
        async with self.client.get(path) as response:
            assert response.status == 200, await response.text()
        form = {"username": signs_in, "decision": decision}
        async with self.client.post(path, data=form, allow_redirects=False) as response:
            query = {name: v[0] for name, v in parse_qs(urlsplit(response.headers["Location"]).query).items()}
        return await self.linking.finish(
            query["state"], query.get("code", ""), BROWSER, CALLBACK, query.get("error", "")
        )

    async def token(self) -> str:
        credential = await self.source.get(CallContext(ERIN, "run/s1"))
        return credential.token.reveal()

    async def status(self, token: str) -> int:
        """What the API answers to the token."""
        path = WHO.get(self.profile.system, "/who")
        async with self.client.get(path, headers={"Authorization": f"Bearer {token}"}) as response:
            return response.status

    async def sim(self, **settings: Any) -> None:
        async with self.client.post("/__sim/oauth", json=settings) as response:
            assert response.status == 200


@asynccontextmanager
async def running(profile: Profile) -> AsyncIterator[World]:
    clock = [1_792_000_000.0]
    async with TestClient(TestServer(application(profile, clock))) as client:
        world = World(profile, client, clock)
        try:
            yield world
        finally:
            await world.tokens.aclose()


@pytest.mark.parametrize("profile", SYSTEMS, ids=lambda p: p.system)
async def test_an_account_is_linked_used_refreshed_and_unlinked(profile: Profile) -> None:
    async with running(profile) as world:
        view = await world.link()
        assert (view.state, view.account) == (State.LINKED, ERIN)
        first = await world.token()
        assert await world.status(first) == 200
        await world.sim(expire_all=True)
        assert await world.status(first) == 401
        world.clock[0] += profile.access_token_seconds + 60
        if not profile.tells_expiry:  # only a refusal tells that the token is over
            context = CallContext(ERIN, "run/s1")
            fresh = await world.source.renew(context, await world.source.get(context))
            assert fresh is not None
        second = await world.token()
        assert second != first
        assert await world.status(second) == 200
        said = await world.linking.unlink(ERIN, "c")
        assert ERIN not in said
        with pytest.raises(AccountNotLinked):
            await world.token()
        # Where the vendor can revoke, what was forgotten here is worth nothing there either.
        assert await world.status(second) == (401 if profile.revoke else 200)


@pytest.mark.parametrize("profile", SYSTEMS, ids=lambda p: p.system)
async def test_an_app_revoked_at_the_vendor_must_be_linked_again(profile: Profile) -> None:
    async with running(profile) as world:
        await world.link()
        context = CallContext(ERIN, "run/s1")
        before = await world.source.get(context)
        await world.sim(end_grants=ERIN)
        world.clock[0] += profile.access_token_seconds + 600
        with pytest.raises(AccountNotLinked):
            await world.source.renew(context, before)
        assert (await world.linking.linked(ERIN, world.linkable)).state is State.EXPIRED


@pytest.mark.parametrize("profile", SYSTEMS, ids=lambda p: p.system)
async def test_a_refusal_on_the_page_links_nothing(profile: Profile) -> None:
    async with running(profile) as world:
        with pytest.raises(LinkFailed):
            await world.link(decision="deny")
        with pytest.raises(AccountNotLinked):
            await world.token()


async def test_who_signs_in_as_another_links_nothing() -> None:
    async with running(OKTA) as world:
        with pytest.raises(LinkFailed, match=r"manager@acme\.example"):
            await world.link(user=ERIN, signs_in=MONA)
        async with world.client.get("/__sim/oauth") as response:
            grants = (await response.json())["grants"]
        assert not any(grant["access_tokens"] or grant["refreshable"] for grant in grants)  # and they were revoked


@pytest.mark.parametrize("grant", ["RFC8693", "EntraOnBehalfOf"])
async def test_a_sign_in_token_is_exchanged(grant: str) -> None:
    async with running(OKTA) as world:
        path = "/idp/oauth2/token" if grant == "RFC8693" else "/idp/oauth2/v2.0/token"
        config = TokenExchangeConfig.model_validate(
            {
                "token_url": world.url + path,
                "audience": "api://okta",
                "grant": grant,
                "client_id": ID,
                "client_secret": SECRET,
                "scopes": ("okta.users.read",) if grant == "RFC8693" else ("api://okta/.default",),
            }
        )
        secrets = MemorySecrets({"app/client-id": "pilothouse", "app/client-secret": "pilothouse-okta-secret"})
        tokens = TokenClient("Okta", config.token_url, LOOPBACK, lambda: world.clock[0])
        advice = Advice("Okta", self_service=False)
        source = TokenExchange("c", config, secrets, tokens, UserCache[KeptToken](), advice, lambda: world.clock[0])
        signed_in = _development_token(email=ERIN, aud="pilothouse", exp=world.clock[0] + 600)
        context = CallContext(ERIN, "run/s1", user_token=SecretText(signed_in))
        try:
            credential = await source.get(context)
            assert await world.status(credential.token.reveal()) == 200
            unknown = _development_token(email="nobody@acme.example", aud="pilothouse", exp=world.clock[0] + 600)
            other = replace(context, user_email="nobody@acme.example", user_token=SecretText(unknown))
            with pytest.raises(AccountNotLinked):
                await source.get(other)
        finally:
            await tokens.aclose()


def _development_token(**claims: Any) -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    content = f"{part(json.dumps({'alg': 'HS256'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{content}.{part(hmac.new(b'k', content.encode(), hashlib.sha256).digest())}"
