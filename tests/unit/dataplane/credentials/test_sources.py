"""As whom a call is made, for each authorization mode, against an authorization server in this process."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from pilothouse_api.workerconfig import (
    JWTBearerConfig,
    OAuthConfig,
    SecretValue,
    ServiceAccountConfig,
    TokenExchangeConfig,
)
from pilothouse_dataplane.connectors.base import (
    AccountNotLinked,
    CallContext,
    Credential,
    CredentialUnavailable,
    SecretText,
)
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import LinkedAccount
from pilothouse_dataplane.credentials.cache import UserCache
from pilothouse_dataplane.credentials.exchange import TokenExchange
from pilothouse_dataplane.credentials.jwt_bearer import JWTBearer
from pilothouse_dataplane.credentials.oauth import UserOAuth
from pilothouse_dataplane.credentials.refresh import Refresher
from pilothouse_dataplane.credentials.secrets import client_of
from pilothouse_dataplane.credentials.service_account import ServiceAccount
from pilothouse_dataplane.credentials.tokens import TokenClient
from pilothouse_testing.oauth import LOOPBACK, AuthServer, MemoryAccounts, MemorySecrets, auth_server

ANA = "Ana@acme.example"
KEY = "ana@acme.example"
ID, SECRET = SecretValue(secret="app", key="client-id"), SecretValue(secret="app", key="client-secret")
ADVICE = Advice("Jira", self_service=True)


class World:
    """One worker's sources over stores in memory; time stands until it is moved."""

    def __init__(self, server: AuthServer) -> None:
        self.server = server
        self.now = time.time()
        server.grants.clock = self.clock
        self.store = MemoryAccounts()
        self.secrets = MemorySecrets({"app/client-id": server.client[0], "app/client-secret": server.client[1]})
        self.tokens = TokenClient(
            "Jira", f"{server.url}/token", LOOPBACK, self.clock, revocation_url=f"{server.url}/revoke"
        )

    def clock(self) -> float:
        return self.now

    def oauth(self, accounts: str | None = None) -> UserOAuth:
        where = None
        if accounts is not None:
            self.secrets.texts["linked/accounts.json"] = accounts
            where = SecretValue(secret="linked", key="accounts.json")
        config = OAuthConfig(accounts=where)
        refresher = Refresher(
            "jira", self.store, self.tokens, lambda: client_of(self.secrets, ID, SECRET, ADVICE), ADVICE, self.clock
        )
        return UserOAuth("jira", config, self.secrets, self.store, refresher, UserCache(), ADVICE, self.clock)

    async def link(self, user: str = KEY, *, refresh: bool = True) -> LinkedAccount:
        family = self.server.grants.begin(user)
        account = LinkedAccount(
            SecretText(list(family.access)[-1]),
            SecretText(family.refresh) if refresh else None,
            self.now + self.server.grants.lifetime,
            f"{user} there",
            linked_at=self.now,
            extra={"issued": repr(self.now)},
        )
        assert await self.store.put(user, "jira", account)
        return account

    def refreshes(self) -> int:
        return sum(form.get("grant_type") == "refresh_token" for form in self.server.requests)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with auth_server() as server:
        made = World(server)
        yield made
        await made.tokens.aclose()


def context(user: str = ANA, token: str | None = None) -> CallContext:
    return CallContext(user, "key", user_token=SecretText(token) if token else None)


# --- linked accounts --------------------------------------------------------------------------------------------------
async def test_a_linked_account_is_used_by_its_user_alone_whatever_case_the_email_has(world: World) -> None:
    account = await world.link()
    source = world.oauth()
    assert await source.get(context()) == Credential(account.access_token, "ana@acme.example there")
    with pytest.raises(AccountNotLinked, match=r"not linked, so nothing was done there\. Link it on"):
        await source.get(context("ben@acme.example"))


async def test_a_token_is_renewed_before_it_ends_once_for_all_who_wait(world: World) -> None:
    await world.link()
    source = world.oauth()
    world.now += world.server.grants.lifetime - 30
    got = await asyncio.gather(*(source.get(context()) for _ in range(20)))
    assert len(set(got)) == 1
    assert world.server.grants.user_of(got[0].token.reveal()) == KEY
    assert world.refreshes() == 1
    stored = await world.store.get(KEY, "jira")
    assert stored is not None
    assert stored.access_token == got[0].token
    assert "refreshing" not in stored.extra


async def test_a_caller_who_goes_away_does_not_lose_the_rotated_token(world: World) -> None:
    await world.link()
    source = world.oauth()
    world.now += world.server.grants.lifetime + 1
    asking = asyncio.create_task(source.get(context()))
    await world.server.asked.wait()
    asking.cancel()
    await source.land(5)
    stored = await world.store.get(KEY, "jira")
    assert stored is not None
    assert world.server.grants.user_of(stored.access_token.reveal()) == KEY


async def test_what_the_server_no_longer_takes_is_marked_and_its_tokens_are_forgotten(world: World) -> None:
    account = await world.link()
    assert account.refresh_token is not None
    world.server.grants.revoke(account.refresh_token.reveal())
    world.now += world.server.grants.lifetime + 1
    source = world.oauth()
    with pytest.raises(AccountNotLinked, match="no longer accepts your linked account") as caught:
        await source.get(context())
    assert account.refresh_token.reveal() not in str(caught.value)  # the server has quoted it
    stored = await world.store.get(KEY, "jira")
    assert stored is not None
    assert stored.extra["refused"] == "invalid_grant"
    assert not stored.access_token.reveal()
    assert stored.refresh_token is None
    with pytest.raises(AccountNotLinked, match="Link it again"):
        await world.oauth().get(context())
    assert world.refreshes() == 1


@pytest.mark.parametrize("fault", [(503, {}), (429, {}), (401, {"error": "invalid_client"})])
async def test_a_server_that_fails_leaves_the_token_in_use_until_its_end_and_the_link_intact(
    world: World, fault: tuple[int, dict[str, str]]
) -> None:
    account = await world.link()
    source = world.oauth()
    world.now += world.server.grants.lifetime - 20
    world.server.faults = [fault] * 20
    assert (await source.get(context())).token == account.access_token
    world.now += 21
    with pytest.raises(CredentialUnavailable, match="nothing was sent") as caught:
        await source.get(context())
    assert not caught.value.may_have_acted
    world.server.faults = []
    assert world.server.grants.user_of((await source.get(context())).token.reveal()) == KEY


async def test_a_refusal_that_may_be_the_applications_fault_loses_no_link(world: World) -> None:
    # ServiceNow says the same of a refresh token and of a client secret that it does not know
    await world.link()
    source = world.oauth()
    world.now += world.server.grants.lifetime + 1
    world.server.faults = [(401, {"error": "server_error", "error_description": "access_denied"})] * 2
    with pytest.raises(AccountNotLinked, match=r"did not renew .*access_denied.*client id or secret"):
        await source.get(context())
    assert world.server.grants.user_of((await source.get(context())).token.reveal()) == KEY


async def test_the_stores_absence_is_bridged_by_memory_until_the_token_ends(world: World) -> None:
    account = await world.link()
    source = world.oauth()
    await source.get(context())
    world.store.down = True
    world.now += 100
    assert (await source.get(context())).token == account.access_token
    with pytest.raises(CredentialUnavailable, match="can't be looked up"):
        await source.get(context("ben@acme.example"))
    world.now += world.server.grants.lifetime
    with pytest.raises(CredentialUnavailable):
        await source.get(context())
    assert world.refreshes() == 0  # a token that can't be stored must not be rotated


async def test_tokens_renewed_as_the_store_went_away_are_stored_later(world: World) -> None:
    await world.link()
    source = world.oauth()
    world.now += world.server.grants.lifetime + 1
    asking = asyncio.create_task(source.get(context()))
    await world.server.asked.wait()
    world.store.down = True
    got = await asking
    world.store.down = False
    assert await source.get(context()) == got
    stored = await world.store.get(KEY, "jira")
    assert stored is not None
    assert stored.access_token == got.token


async def test_unlinking_elsewhere_is_noticed_within_seconds(world: World) -> None:
    await world.link()
    source = world.oauth()
    await source.get(context())
    await world.store.delete(KEY, "jira")
    world.now += 3.1
    with pytest.raises(AccountNotLinked):
        await source.get(context())


async def test_a_refused_token_is_renewed_once_and_not_again_and_again(world: World) -> None:
    await world.link()
    source = world.oauth()
    world.now += 60
    first = await source.get(context())
    fresh = await source.renew(context(), first)
    assert fresh is not None
    assert fresh.token != first.token
    assert await source.renew(context(), first) == fresh  # another call that was refused with the old one
    assert await source.renew(context(), fresh) is None
    assert world.refreshes() == 1


async def test_without_a_refresh_token_the_link_lasts_as_long_as_its_token(world: World) -> None:
    account = await world.link(refresh=False)
    source = world.oauth()
    world.now += world.server.grants.lifetime - 5
    assert (await source.get(context())).token == account.access_token
    assert await source.renew(context(), await source.get(context())) is None
    world.now += 6
    with pytest.raises(AccountNotLinked, match="Link it again"):
        await source.get(context())


async def test_a_server_that_wants_the_client_in_a_header_gets_it_there(world: World) -> None:
    world.server.only_basic = True
    world.server.client = ("client", "sec ret:/?")
    world.secrets.texts["app/client-secret"] = "sec ret:/?"
    await world.link()
    world.now += world.server.grants.lifetime + 1
    assert world.server.grants.user_of((await world.oauth().get(context())).token.reveal()) == KEY
    assert "client_secret" not in world.server.requests[-1]


# --- linked by an administrator ---------------------------------------------------------------------------------------
async def test_an_administrators_accounts_serve_until_the_user_links_her_own(world: World) -> None:
    source = world.oauth(json.dumps({"ANA@acme.example": " admin-token \n"}))
    assert (await source.get(context())).token.reveal() == "admin-token"
    old = await source.get(context())
    assert await source.renew(context(), old) is None
    world.secrets.texts["linked/accounts.json"] = json.dumps({KEY: "rotated"})
    assert await source.renew(context(), old) == Credential(SecretText("rotated"), ANA)
    own = await world.link()
    assert (await source.get(context())).token == own.access_token


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is not JSON"),
        ("[]", "not an object"),
        ('{"ana@acme.example": 7}', "entry 1 holds no token"),
        ('{"ana@acme.example": "planted\\nX-Injected: 1"}', "entry 1 holds no token"),
        ('{"ana@acme.example": "plan ted"}', "entry 1"),
        ('{"ana@acme.example": "plänted"}', "entry 1"),
    ],
)
async def test_an_unusable_accounts_file_is_named_and_not_quoted(world: World, text: str, why: str) -> None:
    with pytest.raises(CredentialUnavailable, match=why) as caught:
        await world.oauth(text).get(context())
    assert caught.value.lasting
    assert "plan" not in str(caught.value)
    assert "linked (key accounts.json)" in str(caught.value)


# --- token exchange ---------------------------------------------------------------------------------------------------
def exchange(world: World, grant: str = "RFC8693") -> TokenExchange:
    config = TokenExchangeConfig.model_validate(
        {
            "token_url": f"{world.server.url}/token", "audience": "api://jira", "grant": grant,
            "client_id": ID, "client_secret": SECRET, "scopes": ("read",),
        }
    )  # fmt: skip
    return TokenExchange("jira", config, world.secrets, world.tokens, UserCache(), Advice("Jira"), world.clock)


async def test_a_sign_in_is_exchanged_once_for_its_tokens_lifetime(world: World) -> None:
    source = exchange(world)
    got = await asyncio.gather(*(source.get(context(token=f"sign-in-of-{KEY}")) for _ in range(10)))
    assert len(set(got)) == 1
    form = world.server.requests[-1]
    assert len(world.server.requests) == 1
    assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert (form["audience"], form["scope"]) == ("api://jira", "read")
    assert world.server.grants.owner(got[0].token.reveal()) == KEY
    assert await source.get(context()) == got[0]  # the run goes on without her, for as long
    world.now += world.server.grants.lifetime
    with pytest.raises(AccountNotLinked, match="Sign in again and ask again"):
        await source.get(context())


async def test_nobody_gets_what_anothers_sign_in_gave(world: World) -> None:
    source = exchange(world)
    await source.get(context(token=f"sign-in-of-{KEY}"))
    with pytest.raises(AccountNotLinked):
        await source.get(context("ben@acme.example"))


async def test_entras_on_behalf_of_carries_its_own_parameters(world: World) -> None:
    world.server.faults = [
        (400, {"error": "interaction_required", "error_description": "AADSTS50076: MFA " + "x" * 64})
    ]
    source = exchange(world, "EntraOnBehalfOf")
    with pytest.raises(AccountNotLinked, match=r"AADSTS50076: MFA.*Sign in again") as caught:
        await source.get(context(token="sign-in-planted"))
    assert "xxxx" not in str(caught.value)
    form = world.server.requests[-1]
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert form["requested_token_use"] == "on_behalf_of"
    assert form["assertion"] == "sign-in-planted"


async def test_a_refused_exchanged_token_is_exchanged_anew(world: World) -> None:
    source = exchange(world)
    signed_in = context(token=f"sign-in-of-{KEY}")
    first = await source.get(signed_in)
    fresh = await source.renew(signed_in, first)
    assert fresh is not None
    assert fresh.token != first.token
    with pytest.raises(AccountNotLinked, match="Sign in again"):
        await source.renew(context(), fresh)


# --- JWT bearer -------------------------------------------------------------------------------------------------------
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


def bearer(world: World, pem: str = PEM) -> JWTBearer:
    world.secrets.texts["sf/private-key"] = pem
    config = JWTBearerConfig(
        token_url=f"{world.server.url}/token", issuer="pilothouse", audience="https://login.salesforce.com",
        private_key=SecretValue(secret="sf", key="private-key"),
    )  # fmt: skip
    return JWTBearer("sf", config, world.secrets, world.tokens, UserCache(), Advice("Salesforce"), world.clock)


async def test_the_application_signs_who_the_user_is_for_three_minutes(world: World) -> None:
    world.server.more = {"instance_url": "https://acme.my.salesforce.example"}
    got = await bearer(world).get(context())
    assert got.instance_url == "https://acme.my.salesforce.example"
    assert got.account == ANA
    token = jwt.decode(world.server.requests[-1]["assertion"], RSAKey.import_key(PEM), algorithms=["RS256"])
    claims = token.claims
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("pilothouse", ANA, "https://login.salesforce.com")
    assert claims["exp"] - world.now <= 180


async def test_a_user_whom_the_system_does_not_let_in_is_told_whom_to_ask(world: World) -> None:
    world.server.faults = [(400, {"error": "invalid_grant", "error_description": "user hasn't approved this consumer"})]
    with pytest.raises(AccountNotLinked, match=r"act as Ana@acme.example.*hasn't approved.*administrator"):
        await bearer(world).get(context())


async def test_a_key_that_is_none_is_named_and_not_quoted(world: World) -> None:
    public = PRIVATE.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for pem in ("planted", public.decode(), PEM.replace("A", "B", 40)):
        with pytest.raises(CredentialUnavailable, match=r"sf \(key private-key\) can't be used") as caught:
            await bearer(world, pem).get(context())
        assert "planted" not in str(caught.value)
    assert world.server.requests == []


# --- service account --------------------------------------------------------------------------------------------------
async def test_a_service_account_is_named_and_a_rotated_token_is_tried() -> None:
    secrets = MemorySecrets({"robot/token": "one\n"})
    config = ServiceAccountConfig(token=SecretValue(secret="robot", key="token"), name="jira-reader")
    source = ServiceAccount("jira", config, secrets, Advice("Jira"))
    first = await source.get(context())
    assert first == Credential(SecretText("one"), "service account jira-reader")
    assert await source.renew(context(), first) is None
    secrets.texts["robot/token"] = "two"
    assert await source.renew(context(), first) == replace(first, token=SecretText("two"))
    secrets.texts["robot/token"] = "planted\r\nX: 1"
    with pytest.raises(CredentialUnavailable, match="does not hold a token"):
        await source.get(context())
    del secrets.texts["robot/token"]
    with pytest.raises(CredentialUnavailable, match=r"robot \(key token\) is not there"):
        await source.get(context())


# --- an authorization server that misbehaves --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "body",
    [
        {}, {"access_token": ""}, {"access_token": "a\nb"}, {"access_token": "a b"}, {"access_token": 7},
        {"access_token": "x" * 20_000}, {"access_token": "good", "token_type": "MAC"}, {"access_token": ["good"]},
    ],
)  # fmt: skip
async def test_what_is_no_bearer_token_is_not_taken(world: World, body: dict[str, object]) -> None:
    world.server.faults = [(200, body)]
    with pytest.raises(CredentialUnavailable, match="no token that can be used"):
        await exchange(world).get(context(token="sign-in"))


@pytest.mark.parametrize(
    ("told", "lasts"),
    [
        ("3600", 3600),
        (3600.9, 3600.9),
        ("soon", math.inf),
        (-5, math.inf),
        (True, math.inf),
        (1e300, math.inf),
        (None, math.inf),
    ],
)  # fmt: skip
async def test_a_lifetime_is_a_number_or_not_known(world: World, told: object, lasts: float) -> None:
    world.server.faults = [(200, {"access_token": "good", "expires_in": told})]
    given = await world.tokens.grant(None, {"grant_type": "x"})
    assert given.expires_at == world.now + lasts


async def test_a_token_endpoint_that_points_inward_is_not_asked() -> None:
    from pilothouse_api.egress import EgressRule

    tokens = TokenClient("Jira", "http://169.254.169.254/token", EgressRule(), time.time)
    with pytest.raises(CredentialUnavailable, match="egress rule"):
        await tokens.grant(None, {"grant_type": "x"})
    await tokens.aclose()
