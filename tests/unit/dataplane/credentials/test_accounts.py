"""What a worker does with a configuration's credentials: sources, reloads, status, the front door's questions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from pilothouse_api.workerconfig import WorkerConfig
from pilothouse_dataplane.connectors.base import AccountNotLinked, CallContext, CredentialUnavailable, SecretText
from pilothouse_dataplane.credentials.backend import Backend, BackendKeeper, Credentials
from pilothouse_dataplane.credentials.base import LinkedAccount
from pilothouse_dataplane.credentials.exchange import TokenExchange
from pilothouse_dataplane.credentials.jwt_bearer import JWTBearer
from pilothouse_dataplane.ledger.base import NewRun
from pilothouse_dataplane.worker import accounts
from pilothouse_dataplane.worker.admin import Refusal
from pilothouse_dataplane.worker.begin import Wanted
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_testing.fakes import FakeModel, FakeSource, asks_for, text
from pilothouse_testing.oauth import AuthServer, MemoryAccounts, MemorySecrets, MemoryStates, auth_server
from pilothouse_testing.runs import EMPLOYEE, QUESTION, FakeTenant, worker_config

ANA = agent.User(email="Ana@acme.example")
CALLBACK = "https://pilothouse.example/oauth/callback"
BROWSER = hashlib.sha256(b"cookie").hexdigest()
APP = {"client_id": {"secret": "app", "key": "client-id"}, "client_secret": {"secret": "app", "key": "client-secret"}}


def connectors(url: str) -> list[dict[str, Any]]:
    """One of each mode."""
    base = {"type": "openapi", "url": "http://127.0.0.1:9"}
    oauth = {
        **APP, "authorization_url": f"{url}/authorize", "token_url": f"{url}/token", "revocation_url": f"{url}/revoke",
        "accounts": {"secret": "linked", "key": "accounts.json"},
    }  # fmt: skip
    key = {"secret": "sf", "key": "private-key"}
    return [
        {**base, "name": "tickets", "auth_mode": "UserOAuth", "oauth": oauth},
        {**base, "name": "wiki", "auth_mode": "UserOAuth", "oauth": {"accounts": oauth["accounts"]}},
        {
            **base, "name": "mail", "auth_mode": "TokenExchange",
            "token_exchange": {"token_url": f"{url}/token", "audience": "api://mail", **APP},
        },
        {
            **base, "name": "crm", "auth_mode": "JWTBearer",
            "jwt_bearer": {"token_url": f"{url}/token", "issuer": "i", "audience": "a", "private_key": key},
        },
        {
            **base, "name": "reports", "auth_mode": "ServiceAccount",
            "service_account": {"token": {"secret": "robot", "key": "token"}, "name": "reader"},
        },
    ]  # fmt: skip


def config_of(url: str) -> WorkerConfig:
    return WorkerConfig.model_validate(worker_config(connectors=connectors(url), egress={"allow_hosts": ["127.0.0.1"]}))


class World:
    def __init__(self, server: AuthServer) -> None:
        self.server = server
        self.store = MemoryAccounts()
        self.states = MemoryStates()
        self.error = ""
        self.secrets = MemorySecrets(
            {"app/client-id": server.client[0], "app/client-secret": server.client[1], "robot/token": "robot-token",
             "linked/accounts.json": json.dumps({"carl@acme.example": "carls-token"})}
        )  # fmt: skip
        self.config = config_of(server.url)

        async def nothing() -> None:
            return None

        self.backend = Backend(
            self.config.credentials, "acme", self.secrets, self.store, error=lambda: self.error, work=list,
            close=nothing,
        )  # fmt: skip
        self.backend.users = 1
        self.credentials = Credentials(self.config, self.backend, self.states)
        self.forgotten: list[str] = []
        toolset = SimpleNamespace(forget=lambda user, connector: self.forgotten.append(connector))
        self.runtime: Any = SimpleNamespace(config=self.config, credentials=self.credentials, toolset=toolset)

    async def accounts(self, email: str = "Ana@acme.example") -> dict[str, agent.Account]:
        asked = agent.ListAccountsRequest(tenant="acme", user=agent.User(email=email))
        found = await accounts.list_accounts(self.runtime, asked)
        return {account.connector: account for account in found.accounts}

    async def begin(self) -> dict[str, str]:
        begun = await accounts.begin_link(
            self.runtime,
            agent.BeginLinkRequest(
                tenant="acme", user=ANA, connector="tickets", redirect_uri=CALLBACK, browser=BROWSER
            ),
        )
        assert not begun.HasField("error"), begun.error
        return self.server.consent(begun.authorization_url, "ana@acme.example")


@pytest.fixture
async def world() -> Any:
    async with auth_server() as server:
        made = World(server)
        yield made
        await made.credentials.aclose()


async def test_a_user_links_sees_and_unlinks_her_account(world: World) -> None:
    before = await world.accounts()
    assert {name: account.state for name, account in before.items()} == {
        "crm": agent.LINK_STATE_NOT_NEEDED,
        "mail": agent.LINK_STATE_NOT_NEEDED,
        "reports": agent.LINK_STATE_NOT_NEEDED,
        "tickets": agent.LINK_STATE_NOT_LINKED,
        "wiki": agent.LINK_STATE_BY_ADMINISTRATOR,
    }
    assert before["reports"].account == "service account reader"
    assert before["tickets"].system == "Tickets"
    brought = await world.begin()
    finish = agent.FinishLinkRequest(tenant="acme", browser=BROWSER, **brought)
    done = await accounts.finish_link(world.runtime, finish)
    assert done.account.state == agent.LINK_STATE_LINKED
    assert done.account.expires.seconds > time.time()
    again = await accounts.finish_link(world.runtime, finish)
    assert again.error.code == agent.ERROR_CODE_INVALID_REQUEST
    assert again.error.message.endswith("Nothing was linked.")
    after = await world.accounts()
    assert after["tickets"] == done.account
    source = world.credentials.sources["tickets"]
    token = (await source.get(CallContext("ana@acme.example", "k"))).token.reveal()
    assert world.server.grants.user_of(token) == "ana@acme.example"
    assert token not in str(done) + str(after)
    said = await accounts.unlink(world.runtime, agent.UnlinkRequest(tenant="acme", user=ANA, connector="tickets"))
    assert "revoked" in said.message
    assert world.forgotten == ["tickets", "tickets"]  # what was read as the one account is not served as another
    with pytest.raises(AccountNotLinked):
        await source.get(CallContext("ana@acme.example", "k"))


async def test_an_administrators_link_is_shown_as_one(world: World) -> None:
    found = await world.accounts("Carl@acme.example")
    assert (found["wiki"].state, found["wiki"].account) == (agent.LINK_STATE_LINKED, "Carl@acme.example")
    assert found["tickets"].state == agent.LINK_STATE_LINKED


async def test_what_cannot_be_told_is_refused_in_words(world: World) -> None:
    with pytest.raises(Refusal, match="not known who asks"):
        await world.accounts("")
    world.store.down = True
    with pytest.raises(Refusal, match="can't be looked up"):
        await world.accounts()
    begun = await accounts.begin_link(world.runtime, agent.BeginLinkRequest(tenant="acme", connector="tickets"))
    assert begun.error.code == agent.ERROR_CODE_UNAUTHENTICATED
    said = await accounts.unlink(world.runtime, agent.UnlinkRequest(tenant="acme", user=ANA, connector="tickets"))
    assert said.error.retryable
    assert "not forgotten" in said.error.message
    for connector in ("wiki", "reports", "nope"):
        request = agent.BeginLinkRequest(
            tenant="acme", user=ANA, connector=connector, redirect_uri=CALLBACK, browser=BROWSER
        )
        assert (await accounts.begin_link(world.runtime, request)).error.message


async def test_a_worker_without_a_place_for_accounts_says_so() -> None:
    runtime: Any = SimpleNamespace(config=config_of("http://127.0.0.1:9"), credentials=None)
    request = agent.BeginLinkRequest(tenant="acme", user=ANA, connector="tickets")
    assert "no place" in (await accounts.begin_link(runtime, request)).error.message


async def test_a_connectors_missing_secret_is_its_problem(world: World) -> None:
    problems = {config.name: world.credentials.problem(config) for config in world.config.connectors}
    assert {name for name, problem in problems.items() if problem} == {"crm"}
    assert "secret sf (key private-key) is not there" in problems["crm"]
    with pytest.raises(CredentialUnavailable, match="private-key"):
        await world.credentials.sources["crm"].get(CallContext("ana@acme.example", "k"))


async def test_each_mode_has_its_source(world: World) -> None:
    assert isinstance(world.credentials.sources["mail"], TokenExchange)
    assert isinstance(world.credentials.sources["crm"], JWTBearer)


async def test_the_status_tells_until_when_memory_serves(world: World) -> None:
    now = time.time()
    for name, ends in (("ana", now + 900), ("ben", now + 300), ("eve", now - 5), ("max", float("inf"))):
        account = LinkedAccount(SecretText("t"), None, ends, name)
        await world.store.put(f"{name}@acme.example", "tickets", account)
        if ends > now:
            await world.credentials.sources["tickets"].get(CallContext(f"{name}@acme.example", "k"))
    assert world.credentials.status().error == ""
    world.error = "Vault is sealed"
    status = world.credentials.status()
    assert (status.error, status.until) == ("Vault is sealed", now + 300)


async def test_a_reload_keeps_the_backend_and_serves_the_new_secrets() -> None:
    keeper = BackendKeeper("w1")
    config = config_of("http://127.0.0.1:9")
    first = keeper.get(config, {"secret.robot.token": b"one"}, "postgresql://x")
    old = Credentials(config, first, None)
    second = keeper.get(config, {"secret.robot.token": b"two\n"}, "postgresql://x")
    assert second is first
    fresh = Credentials(config, second, None)
    context = CallContext("ana@acme.example", "k")
    for credentials in (old, fresh):  # a run that began before the reload, too
        assert (await credentials.sources["reports"].get(context)).token == SecretText("two")
    assert fresh.linking is None
    await old.aclose()
    assert first.users == 1
    moved = config.model_copy(update={"tenant": "other"})
    assert keeper.get(moved, {}, "postgresql://x") is not first
    await fresh.aclose()


# --- the sign-in token ------------------------------------------------------------------------------------------------
async def test_a_sign_in_reaches_the_calls_and_is_kept_nowhere() -> None:
    planted = SecretText("planted-sign-in")
    source = FakeSource({EMPLOYEE.email: "token"})
    tenant = FakeTenant(
        FakeModel(
            [asks_for("fake.thing.read", "a", name="x"), asks_for("fake.thing.write", "b", name="y")], [text("Ok.")]
        ),
        sources={"fake": source},
    )
    wanted = Wanted("r1", NewRun("r1", "s", EMPLOYEE, QUESTION, "r1"), user_token=planted)
    told = await tenant._drive(wanted, "w1").end()
    assert told.text == "Ok."
    assert [context.user_token for _, _, context in tenant.connector.calls] == [planted, planted]
    kept = [repr(tenant.store.__dict__), *map(repr, tenant.sink.published), *map(str, told.events)]
    kept += [repr(tenant.memory.__dict__), *map(repr, tenant.model.requests), repr(wanted)]
    assert not [record for record in kept if planted.reveal() in record]


async def test_a_run_that_goes_on_without_its_user_has_none() -> None:
    model = FakeModel([asks_for("fake.thing.read", "a", name="x")], [5.0, text("Never.")])
    tenant = FakeTenant(model, sources={"fake": FakeSource({EMPLOYEE.email: "token"})})
    wanted = Wanted("r1", NewRun("r1", "s", EMPLOYEE, QUESTION, "r1"), user_token=SecretText("planted-sign-in"))
    told = tenant._drive(wanted, "w1")
    async with asyncio.timeout(5):
        while len(model.requests) < 2:  # noqa: ASYNC110 - a fake that has no event
            await asyncio.sleep(0.01)
    told.driver.hand_over()
    await told.end()
    tenant.model = model._turns and FakeModel([asks_for("fake.thing.read", "b", name="y")], [text("Ok.")])
    resumed = await tenant.resume(worker="w2").end()
    assert resumed.last.WhichOneof("event") == "final"
    assert [context.user_token for _, _, context in tenant.connector.calls] == [SecretText("planted-sign-in"), None]
