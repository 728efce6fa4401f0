"""Linking, renewing, revoking at the stand-ins' authorization servers, which are strict about each vendor's ways."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pilothouse_api.workerconfig import WorkerConfig
from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, SecretText
from pilothouse_dataplane.credentials.backend import Backend, Credentials
from pilothouse_dataplane.credentials.linking import LinkFailed, Linking, State
from pilothouse_dataplane.credentials.vendors import userinfo_url, vendor_of
from pilothouse_sim.oauth import JIRA, OKTA, SALESFORCE, SERVICENOW, App, OAuth, Profile
from pilothouse_testing.oauth import MemoryAccounts, MemorySecrets, MemoryStates
from pilothouse_testing.runs import worker_config

ERIN, MONA = "employee@acme.example", "manager@acme.example"
CALLBACK = "https://pilothouse.example/oauth/callback"
BROWSER = hashlib.sha256(b"cookie").hexdigest()
SCOPES = {
    "jira": ["read:jira-work", "read:me"],
    "okta": ["openid", "email", "okta.users.read"],
    "servicenow": [],
    "salesforce": ["api", "openid", "email"],
}
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ALL = [JIRA, OKTA, SERVICENOW, SALESFORCE]


class World:
    """One vendor's server, and a worker whose connector is called after it."""

    def __init__(self, profile: Profile, oauth: OAuth, url: str, auth: dict[str, Any] | None = None) -> None:
        self.profile, self.oauth, self.url = profile, oauth, url
        name = profile.system
        app = {key: {"secret": name, "key": key.replace("_", "-")} for key in ("client_id", "client_secret")}
        auth = auth or {
            "auth_mode": "UserOAuth",
            "oauth": {
                **app, "authorization_url": url + profile.authorize, "token_url": url + profile.token,
                "revocation_url": url + profile.revoke if profile.revoke else "", "scopes": SCOPES[name],
            },
        }  # fmt: skip
        connector = {"name": name, "type": name, "url": url, **auth}
        self.config = WorkerConfig.model_validate(
            worker_config(connectors=[connector], egress={"allow_hosts": ["127.0.0.1"]})
        )
        pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        secrets = MemorySecrets(
            {
                f"{name}/client-id": "pilothouse",
                f"{name}/client-secret": f"pilothouse-{name}-secret",
                f"{name}/private-key": pem,
            }
        )
        self.now = time.time()
        self.store = MemoryAccounts()

        async def nothing() -> None:
            return None

        backend = Backend(
            self.config.credentials, "acme", secrets, self.store, error=lambda: "", work=list, close=nothing,
            clock=self.clock,
        )  # fmt: skip
        backend.users = 1
        self.credentials = Credentials(self.config, backend, MemoryStates())
        self.source = self.credentials.sources[name]

    def clock(self) -> float:
        return self.now

    @property
    def linking(self) -> Linking:
        assert self.credentials.linking is not None
        return self.credentials.linking

    async def consent(self, as_whom: str, decision: str = "allow") -> dict[str, str]:
        """What the browser brings to the call-back."""
        url = await self.linking.begin(ERIN, self.profile.system, CALLBACK, BROWSER)
        form = {"username": as_whom, "decision": decision}
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as page:
                assert page.status == 200, await page.text()
            async with session.post(url, data=form, allow_redirects=False) as answer:
                assert answer.status in (302, 303), await answer.text()
                location = answer.headers["Location"]
        assert location.startswith(CALLBACK)
        return {key: values[0] for key, values in parse_qs(urlsplit(location).query).items()}

    async def link(self, as_whom: str = ERIN, decision: str = "allow") -> Any:
        brought = await self.consent(as_whom, decision)
        return await self.linking.finish(
            brought["state"], brought.get("code", ""), BROWSER, CALLBACK, brought.get("error", ""),
            brought.get("error_description", ""),
        )  # fmt: skip


Start = Callable[..., AbstractAsyncContextManager[World]]


@asynccontextmanager
async def start(profile: Profile, auth: Callable[[str], dict[str, Any]] | None = None) -> AsyncIterator[World]:
    times: list[World] = []
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    oauth = OAuth(
        profile,
        people={ERIN: "Erin Employee", MONA: "Mona Manager"},
        apps=(App("pilothouse", f"pilothouse-{profile.system}-secret", public_key=public, approved=frozenset({ERIN})),),
        clock=lambda: times[0].now if times else time.time(),
    )
    app = web.Application()
    oauth.install(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    world = World(profile, oauth, url, auth(url) if auth else None)
    times.append(world)
    try:
        yield world
    finally:
        await world.credentials.aclose()
        await runner.cleanup()


@pytest.mark.parametrize("profile", ALL, ids=lambda profile: profile.system)
async def test_an_account_is_linked_used_renewed_and_unlinked(profile: Profile) -> None:
    async with start(profile) as world:
        view = await world.link()
        assert (view.state, view.account) == (State.LINKED, ERIN)
        context = CallContext(ERIN, "key")
        first = await world.source.get(context)
        caller = world.oauth.user_of(first.token.reveal())
        assert caller is not None
        assert caller.email == ERIN
        world.now += 30
        renewed = await world.source.renew(context, first)  # as after a 401
        assert renewed is not None
        assert renewed.token != first.token
        world.now += profile.access_token_seconds + 60
        if profile.tells_expiry:
            fresh = await world.source.get(context)
        else:  # Salesforce does not tell: the refusal is what shows that it has ended
            fresh = await world.source.renew(context, await world.source.get(context))  # type: ignore[assignment]
        caller = world.oauth.user_of(fresh.token.reveal())
        assert caller is not None
        assert caller.email == ERIN
        said = await world.linking.unlink(ERIN, profile.system)
        if profile.revoke:
            assert "its tokens are revoked" in said
            assert world.oauth.user_of(fresh.token.reveal()) is None
        else:
            assert "it has no way to revoke them" in said
        with pytest.raises(AccountNotLinked):
            await world.source.get(context)


@pytest.mark.parametrize("profile", [JIRA, OKTA, SALESFORCE], ids=lambda profile: profile.system)
async def test_another_persons_account_is_not_linked(profile: Profile) -> None:
    async with start(profile) as world:
        with pytest.raises(LinkFailed, match=f"signed in as {MONA}, and here as {ERIN}"):
            await world.link(as_whom=MONA)
        assert world.store.entries == {}


@pytest.mark.parametrize("profile", ALL, ids=lambda profile: profile.system)
async def test_who_denies_is_told_that_nothing_was_linked(profile: Profile) -> None:
    async with start(profile) as world:
        with pytest.raises(LinkFailed, match=r"You did not agree at .*Nothing was linked"):
            await world.link(decision="deny")


@pytest.mark.parametrize("profile", ALL, ids=lambda profile: profile.system)
async def test_a_grant_that_ended_at_the_vendor_means_to_link_again(profile: Profile) -> None:
    async with start(profile) as world:
        await world.link()
        context = CallContext(ERIN, "key")
        first = await world.source.get(context)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{world.url}/__sim/oauth", json={"end_grants": True}) as answer,
        ):
            assert answer.status == 200
        world.now += profile.access_token_seconds + 60
        with pytest.raises(AccountNotLinked, match="again"):
            await world.source.renew(context, first)
        (shown,) = [await world.linking.linked(ERIN, world.credentials.linkable[profile.system])]
        assert shown.state is State.EXPIRED or not profile.tells_expiry


async def test_salesforces_signed_user_is_let_in_and_one_without_approval_is_not() -> None:
    def auth(url: str) -> dict[str, Any]:
        bearer = {
            "token_url": url + SALESFORCE.token, "issuer": "pilothouse", "audience": "https://login.salesforce.com",
            "private_key": {"secret": "salesforce", "key": "private-key"},
        }  # fmt: skip
        return {"auth_mode": "JWTBearer", "jwt_bearer": bearer}

    async with start(SALESFORCE, auth) as world:
        got = await world.source.get(CallContext(ERIN, "key"))
        caller = world.oauth.user_of(got.token.reveal())
        assert caller is not None
        assert caller.email == ERIN
        with pytest.raises(AccountNotLinked, match=f"act as {MONA}"):
            await world.source.get(CallContext(MONA, "key"))


@pytest.mark.parametrize(("grant", "path"), [("RFC8693", "token"), ("EntraOnBehalfOf", "v2.0/token")])
async def test_a_sign_in_is_exchanged_at_a_strict_server(grant: str, path: str) -> None:
    def auth(url: str) -> dict[str, Any]:
        exchange = {
            "token_url": f"{url}/idp/oauth2/{path}", "audience": "api://okta", "grant": grant,
            "client_id": {"secret": "okta", "key": "client-id"},
            "client_secret": {"secret": "okta", "key": "client-secret"},
        }  # fmt: skip
        return {"auth_mode": "TokenExchange", "token_exchange": exchange}

    from joserfc import jwt
    from joserfc.jwk import OctKey

    async with start(OKTA, auth) as world:
        now = int(world.now)
        claims = {"sub": "1", "email": ERIN, "aud": "pilothouse", "iat": now, "exp": now + 600}
        token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key("k" * 32))
        got = await world.source.get(CallContext(ERIN, "key", user_token=SecretText(token)))
        caller = world.oauth.user_of(got.token.reveal())
        assert caller is not None
        assert caller.email == ERIN


def test_where_a_user_is_asked_for_is_the_vendors_own_address() -> None:
    token = "https://auth.atlassian.com/oauth/token"
    assert userinfo_url(vendor_of("jira"), token, ("read:me",)) == "https://api.atlassian.com/me"
    assert userinfo_url(vendor_of("jira"), token, ("read:jira-work",)) == ""
    assert userinfo_url(vendor_of("openapi"), token, ("openid",)) == ""
