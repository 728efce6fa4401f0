"""Linking through the authorization server, and all that must not lead to a link."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pilothouse_api.workerconfig import ConnectorConfig, OAuthConfig, SecretValue
from pilothouse_dataplane.connectors.base import SecretText
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import LinkedAccount
from pilothouse_dataplane.credentials.cache import UserCache
from pilothouse_dataplane.credentials.linking import Linkable, LinkFailed, Linking, State
from pilothouse_dataplane.credentials.oauth import Held, UserOAuth
from pilothouse_dataplane.credentials.refresh import Refresher
from pilothouse_dataplane.credentials.secrets import client_of
from pilothouse_dataplane.credentials.tokens import TokenClient
from pilothouse_testing.oauth import (
    LOOPBACK,
    AuthServer,
    MemoryAccounts,
    MemorySecrets,
    MemoryStates,
    auth_server,
    id_token,
)

ANA = "Ana@acme.example"
KEY = "ana@acme.example"
CALLBACK = "https://pilothouse.example/oauth/callback"
BROWSER = hashlib.sha256(b"cookie").hexdigest()
ADVICE = Advice("Jira", self_service=True)


class World:
    def __init__(self, server: AuthServer) -> None:
        self.server = server
        self.store = MemoryAccounts()
        self.states = MemoryStates()
        self.held: UserCache[Held] = UserCache()
        self.secrets = MemorySecrets({"app/client-id": server.client[0], "app/client-secret": server.client[1]})
        self.tokens = TokenClient(
            "Jira", f"{server.url}/token", LOOPBACK, time.time, revocation_url=f"{server.url}/revoke"
        )
        self.numbers = 0

    def random(self, size: int) -> bytes:
        self.numbers += 1
        return bytes([self.numbers]) * size

    def linking(self, tenant: str = "acme", kind: str = "jira", **oauth: Any) -> Linking:
        id, secret = SecretValue(secret="app", key="client-id"), SecretValue(secret="app", key="client-secret")
        config = OAuthConfig(
            authorization_url="https://auth.example/authorize", token_url=f"{self.server.url}/token", client_id=id,
            client_secret=secret, **{"scopes": ("read:jira-work",), **oauth},
        )  # fmt: skip
        connector = ConnectorConfig.model_validate(
            {"name": "jira", "type": kind, "url": "https://jira.example", "auth_mode": "UserOAuth", "oauth": config}
        )

        def client() -> Any:
            return client_of(self.secrets, id, secret, ADVICE)

        refresher = Refresher("jira", self.store, self.tokens, client, ADVICE, time.time)
        source = UserOAuth("jira", config, self.secrets, self.store, refresher, self.held, ADVICE, time.time)
        self.linkable = Linkable(connector, config, source, self.tokens, client, ADVICE)
        return Linking(
            tenant, tenant, {"jira": self.linkable}, self.store, self.states, self.held,
            random=self.random, clock=time.time,
        )  # fmt: skip

    async def back(self, linking: Linking, user: str = KEY, by: str = ANA) -> dict[str, str]:
        """What the call-back carries after the user has agreed."""
        url = await linking.begin(by, "jira", CALLBACK, BROWSER)
        brought = self.server.consent(url, user)
        return {"state": brought["state"], "code": brought["code"], "browser": BROWSER, "redirect_uri": CALLBACK}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with auth_server() as server:
        made = World(server)
        yield made
        await made.tokens.aclose()


async def test_an_account_is_linked_and_shown(world: World) -> None:
    linking = world.linking()
    world.server.more = {"scope": "read:jira-work offline_access", "id_token": id_token("ANA@acme.example")}
    view = await linking.finish(**await world.back(linking))
    assert (view.state, view.account, view.scopes) == (State.LINKED, KEY, ("read:jira-work", "offline_access"))
    shown = await linking.linked(ANA, world.linkable)
    assert shown == view
    assert 3500 < shown.expires_at - shown.linked_at <= 3601
    assert (await linking.linked("ben@acme.example", world.linkable)).state is State.NOT_LINKED


async def test_the_address_asks_as_the_vendor_wants_and_names_tenant_and_namespace(world: World) -> None:
    url = await world.linking().begin(ANA, "jira", CALLBACK, BROWSER)
    query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    assert url.startswith("https://auth.example/authorize?")
    assert (query["audience"], query["prompt"]) == ("api.atlassian.com", "consent")
    assert query["scope"] == "read:jira-work offline_access"
    assert query["redirect_uri"] == CALLBACK
    assert query["state"].startswith("acme.acme.")
    assert len(query["state"].rpartition(".")[2]) == 43
    assert query["code_challenge_method"] == "S256"
    kept = b"".join(world.states.values.values())
    assert query["code_challenge"].encode() not in kept  # the verifier is kept, the browser carries its hash


async def test_scopes_are_not_narrowed_where_the_connector_names_none(world: World) -> None:
    url = await world.linking(kind="salesforce", scopes=()).begin(ANA, "jira", CALLBACK, BROWSER)
    assert "scope" not in parse_qs(urlsplit(url).query)


async def test_a_state_serves_once(world: World) -> None:
    linking = world.linking()
    back = await world.back(linking)
    results = await asyncio.gather(*(linking.finish(**back) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, LinkFailed) for result in results) == 4
    assert len([form for form in world.server.requests if form["_path"] == "/token"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"browser": hashlib.sha256(b"another").hexdigest()}, {"browser": ""},
        {"redirect_uri": "https://evil.example/oauth/callback"}, {"state": "acme.acme." + "A" * 43}, {"state": ""},
        {"state": "other.other." + "A" * 43}, {"state": "x" * 100_000}, {"code": ""}, {"code": "x" * 9000},
    ],
)  # fmt: skip
async def test_a_call_back_that_is_not_the_users_own_links_nothing(world: World, change: dict[str, str]) -> None:
    linking = world.linking()
    back = await world.back(linking)
    with pytest.raises(LinkFailed, match=r"Nothing was linked\."):
        await linking.finish(**{**back, **change})
    assert world.store.entries == {}
    assert world.server.requests == []


async def test_another_tenants_state_is_not_taken(world: World) -> None:
    back = await world.back(world.linking("other"))
    with pytest.raises(LinkFailed):
        await world.linking("acme").finish(**back)
    assert len(world.states.values) == 1


async def test_a_code_that_another_flow_got_is_refused(world: World) -> None:
    # code injection: the code of an attacker's flow, in the victim's call-back
    linking = world.linking()
    attacker = await world.back(linking, by="eve@acme.example")
    victim = await world.back(linking)
    with pytest.raises(LinkFailed, match=r"did not accept your consent"):
        await linking.finish(**{**victim, "code": attacker["code"]})
    assert world.store.entries == {}


async def test_another_persons_account_is_refused_and_its_tokens_are_revoked(world: World) -> None:
    linking = world.linking()
    world.server.more = {"id_token": id_token("ben@acme.example")}
    with pytest.raises(LinkFailed, match=r"signed in as ben@acme.example, and here as ana@acme.example") as caught:
        await linking.finish(**await world.back(linking))
    assert "Sign out at Jira" in caught.value.action
    assert world.store.entries == {}
    assert world.server.grants.families[0].ended


async def test_who_does_not_agree_is_told_so_and_a_servers_words_are_cut(world: World) -> None:
    linking = world.linking()
    back = {**await world.back(linking), "code": ""}
    with pytest.raises(LinkFailed, match="You did not agree at Jira"):
        await linking.finish(**back, error="access_denied")
    back = {**await world.back(linking), "code": ""}
    planted = "planted-token-0123456789-abcdefghij"
    with pytest.raises(LinkFailed, match="not known to us") as caught:
        await linking.finish(**back, error="invalid_scope", description=f"not known to us {planted}\x00" + "y " * 500)
    assert planted not in str(caught.value)
    assert len(str(caught.value)) < 350


async def test_tokens_that_cannot_be_kept_are_given_back(world: World) -> None:
    linking = world.linking()
    back = await world.back(linking)
    world.store.down = True
    with pytest.raises(LinkFailed, match="can't be kept") as caught:
        await linking.finish(**back)
    assert caught.value.retryable
    assert world.server.grants.families[0].ended


async def test_linking_again_replaces_what_is_stored_and_in_memory(world: World) -> None:
    linking = world.linking()
    await linking.finish(**await world.back(linking))
    from pilothouse_dataplane.connectors.base import CallContext

    source = world.linkable.source
    first = await source.get(CallContext(ANA, "k"))
    await linking.finish(**await world.back(linking))
    assert (await source.get(CallContext(ANA, "k"))).token != first.token


async def test_unlinking_revokes_both_tokens_and_forgets_them(world: World) -> None:
    linking = world.linking()
    await linking.finish(**await world.back(linking))
    said = await linking.unlink(ANA, "jira")
    assert said == "Your Jira account is unlinked: its tokens are revoked at Jira and forgotten here."
    hints = [form["token_type_hint"] for form in world.server.requests if form["_path"] == "/revoke"]
    assert hints == ["refresh_token", "access_token"]
    assert world.store.entries == {}
    assert world.server.grants.families[0].ended
    assert "nothing to forget" in await linking.unlink(ANA, "jira")


async def test_what_could_not_be_revoked_is_forgotten_and_said(world: World) -> None:
    linking = world.linking()
    await linking.finish(**await world.back(linking))
    world.server.faults = [(503, {})] * 2
    assert "could not be revoked at Jira: it could not be reached" in await linking.unlink(ANA, "jira")
    await linking.finish(**await world.back(linking))
    await world.tokens.aclose()
    world.tokens = TokenClient("Jira", f"{world.server.url}/token", LOOPBACK, time.time)
    linking = world.linking()
    said = await linking.unlink(ANA, "jira")
    assert "it has no way to revoke them. To be sure, remove this agent's access" in said
    assert world.store.entries == {}


async def test_nothing_is_called_forgotten_that_is_not(world: World) -> None:
    linking = world.linking()
    await linking.finish(**await world.back(linking))
    world.store.down = True
    with pytest.raises(LinkFailed, match="are not forgotten"):
        await linking.unlink(ANA, "jira")


async def test_an_account_that_nobody_takes_any_more_is_shown_as_expired(world: World) -> None:
    linking = world.linking()
    await world.store.put(
        KEY, "jira", LinkedAccount(SecretText(""), None, 0.0, KEY, extra={"refused": "invalid_grant"})
    )
    assert (await linking.linked(ANA, world.linkable)).state is State.EXPIRED


async def test_redis_away_is_said_and_tried_again_later(world: World) -> None:
    linking = world.linking()
    back = await world.back(linking)
    world.states.down = True
    for work in (linking.begin(ANA, "jira", CALLBACK, BROWSER), linking.finish(**back)):
        with pytest.raises(LinkFailed, match=r"Nothing was linked\.") as caught:
            await work
        assert caught.value.retryable


@pytest.mark.parametrize(
    "bad", [{"connector": "nope"}, {"redirect_uri": "javascript:alert(1)"}, {"redirect_uri": ""}, {"browser": "x"}]
)
async def test_a_link_is_begun_only_for_what_is_there(world: World, bad: dict[str, str]) -> None:
    with pytest.raises(LinkFailed):
        await world.linking().begin(
            **{"email": ANA, "connector": "jira", "redirect_uri": CALLBACK, "browser": BROWSER, **bad}
        )
    assert world.states.values == {}


async def test_a_system_that_does_not_tell_whose_account_it_is_just_now_links_nothing(world: World) -> None:
    # the fake has no userinfo endpoint: it is asked only where the scope for it was granted
    linking = world.linking(scopes=("read:me",))
    assert (await linking.finish(**await world.back(linking))).account == KEY
    await world.store.delete(KEY, "jira")
    world.server.userinfo = (503, {})
    with pytest.raises(LinkFailed, match="does not tell at the moment whose account it is") as caught:
        await linking.finish(**await world.back(linking))
    assert caught.value.retryable
    assert world.store.entries == {}
    assert world.server.grants.families[-1].ended
    world.server.userinfo = (200, {"email": "BEN@acme.example"})
    with pytest.raises(LinkFailed, match=r"signed in as ben@acme\.example"):
        await linking.finish(**await world.back(linking))
