"""Two tenants side by side, with the same people's names: nothing of the one is read, finished or shared by the other.

Real Valkey, PostgreSQL, OpenBao, gateway and a worker of each tenant; each proof goes past the product, too, with what
a worker that runs hostile code would have: its database login and its Vault token.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import asyncpg
import grpc.aio
import hvac
import pytest
import pytest_asyncio
from yarl import URL

from pilothouse_api import names
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_testing.estate import CARL, ERIN, Estate, estate, outcomes
from pilothouse_testing.leaks import redis_dump

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]
A, B = "acme", "umbrella"
GET = '\nCALL jira.issue.get {"key": "IT-1"}'
COLUMNS = "tenant, user_email, connector, key_id, sealed, version"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vaults(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Estate]:
    """Both tenants keep their credentials in one OpenBao; Erin has linked Jira in each."""
    async with estate(tmp_path_factory.mktemp("vaults")) as here:
        for tenant in (A, B):
            cached = {"cache_seconds": 60.0}
            await here.start_worker(f"{tenant}-1", here.config(tenant, jira=cached, servicenow=cached), here.files())
            assert (await here.link("jira", tenant=tenant))[0] == 200
        yield here


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sealed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Estate]:
    """Both tenants keep linked accounts sealed in one PostgreSQL, by mistake even under the same key."""
    async with estate(tmp_path_factory.mktemp("sealed"), vault=False) as here:
        for tenant in (A, B):
            await here.start_worker(f"{tenant}-1", here.config(tenant, backend="Kubernetes"), here.files("Kubernetes"))
            assert (await here.link("jira", tenant=tenant))[0] == 200
        yield here


# --- Vault ------------------------------------------------------------------------------------------------------------
async def test_a_tenants_vault_token_reads_writes_and_lists_nothing_of_anothers(vaults: Estate) -> None:
    bao = vaults.bao
    assert bao is not None

    def attack() -> list[str]:
        make: Any = hvac.Client
        client: Any = make(url=bao.url)
        account = bao.account_token(B, f"{B}-worker")
        client.auth.kubernetes.login(role=f"pilothouse-{B}.{B}", jwt=account)
        kv: Any = client.secrets.kv.v2
        # it is a good token where it may be used
        assert kv.read_secret_version(f"{B}/{B}/secrets", mount_point="kv", raise_on_deleted_version=True)
        users = f"{A}/{A}/users"
        (user,) = bao.root.secrets.kv.v2.list_secrets(users, mount_point="kv")["data"]["keys"]
        path = f"{users}/{user}jira"
        went: list[str] = []
        tries: dict[str, Callable[[], Any]] = {
            "read secrets": lambda: kv.read_secret_version(f"{A}/{A}/secrets", mount_point="kv"),
            "read account": lambda: kv.read_secret_version(path, mount_point="kv"),
            "read by another way": lambda: client.read(f"kv/data/{B}/{B}/users/../../../{path}"),
            "list": lambda: kv.list_secrets(users, mount_point="kv"),
            "list tenants": lambda: kv.list_secrets("", mount_point="kv"),
            "write": lambda: kv.create_or_update_secret(path, {"x": "y"}, mount_point="kv"),
            "delete": lambda: kv.delete_metadata_and_all_versions(path, mount_point="kv"),
            "become": lambda: client.auth.kubernetes.login(role=f"pilothouse-{A}.{A}", jwt=account),
            "change its policy": lambda: client.sys.create_or_update_policy(f"pilothouse-{B}.{B}", 'path "*" {}'),
            "make a token": lambda: client.auth.token.create(policies=["root"]),
        }
        for name, work in tries.items():
            try:
                work()
                went.append(name)
            except hvac.exceptions.Forbidden:
                pass
            except hvac.exceptions.VaultError as error:
                went.append(f"{name}: {type(error).__name__} {error}")
        return went

    assert await asyncio.to_thread(attack) == []


# --- PostgreSQL -------------------------------------------------------------------------------------------------------
async def test_a_workers_login_sees_and_changes_no_row_of_another_tenant(sealed: Estate) -> None:
    owner = await asyncpg.connect(sealed.postgres.superuser_url)
    before = await owner.fetch(f"SELECT {COLUMNS} FROM linked_accounts ORDER BY 1, 2, 3")
    assert [row["tenant"] for row in before] == [A, B]
    tables = [row[0] for row in await owner.fetch("SELECT relname FROM pg_class WHERE relforcerowsecurity")]
    assert {"linked_accounts", "runs", "tool_calls", "approvals", "dead_letters"} <= set(tables)
    connection = await asyncpg.connect(sealed.postgres.worker_url)
    try:
        # without a tenant there is nothing; as B, only B's
        assert await connection.fetchval("SELECT count(*) FROM linked_accounts") == 0
        await connection.execute(f"SELECT set_config('pilothouse.tenant', '{B}', false)")
        for table in tables:
            seen = {row[0] for row in await connection.fetch(f'SELECT DISTINCT tenant FROM "{table}"')}
            assert seen <= {B}, table
        assert await connection.execute(f"DELETE FROM linked_accounts WHERE tenant = '{A}'") == "DELETE 0"
        assert await connection.execute(f"UPDATE linked_accounts SET version = 1 WHERE tenant = '{A}'") == "UPDATE 0"
        for refused in (
            f"INSERT INTO linked_accounts ({COLUMNS}) VALUES ('{A}', 'x@y.example', 'jira', 1, 'x', 1)",
            f"UPDATE linked_accounts SET tenant = '{A}' WHERE tenant = '{B}'",
            "ALTER TABLE linked_accounts DISABLE ROW LEVEL SECURITY",
            "SET ROLE pilothouse",
            "COPY linked_accounts TO PROGRAM 'cat'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(refused)
        assert await owner.fetch(f"SELECT {COLUMNS} FROM linked_accounts ORDER BY 1, 2, 3") == before
    finally:
        await connection.close()
        await owner.close()


async def test_a_row_that_is_copied_to_another_tenant_is_not_opened_there(sealed: Estate) -> None:
    # given Erin's account of A, laid by whoever may write all rows where B looks for Carl's
    owner = await asyncpg.connect(sealed.postgres.superuser_url)
    try:
        await owner.execute(
            f"INSERT INTO linked_accounts ({COLUMNS}) SELECT '{B}', '{CARL}', connector, key_id, sealed, version "
            f"FROM linked_accounts WHERE tenant = '{A}' AND user_email = '{ERIN}'"
        )
        # when Carl asks in B
        sealed.taps["jira"].calls.clear()
        events = await sealed.ask("look" + GET, CARL, tenant=B)
        # then nothing is sent with it
        assert outcomes(events) == {"jira.issue.get": "REFUSED"}
        assert sealed.taps["jira"].tokens("GET", "/rest/api/3/issue/IT-1") == []
    finally:
        await owner.execute(f"DELETE FROM linked_accounts WHERE tenant = '{B}' AND user_email = '{CARL}'")
        await owner.close()


# --- linking ----------------------------------------------------------------------------------------------------------
async def test_a_state_of_one_tenant_is_nothing_to_another_and_stays_good(vaults: Estate) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        back = await vaults.consent(browser, "jira", CARL, tenant=A)
        (cookie,) = [cookie.value for cookie in browser.cookie_jar]
        digest = hashlib.sha256(cookie.encode()).hexdigest()
        query = dict(URL(back).query)
        forged = query["state"].replace(f"{A}.{A}.", f"{B}.{B}.")
        async with vaults.workers[f"{B}-1"].stub() as stub:
            for state in (query["state"], forged):
                request = agent.FinishLinkRequest(
                    tenant=B, state=state, code=query["code"], browser=digest,
                    redirect_uri=f"{vaults.gateway}/oauth/callback",
                )  # fmt: skip
                answer = await stub.FinishLink(request)
                assert "finished already, or was begun more than ten minutes ago" in answer.error.message
            # nor does it answer for another tenant at all
            request.tenant = A
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.FinishLink(request)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            who = agent.User(subject="1", email=ERIN)
            for asked, method in (
                (agent.ListAccountsRequest(tenant=A, user=who), stub.ListAccounts),
                (agent.UnlinkRequest(tenant=A, user=who, connector="jira"), stub.Unlink),
                (agent.BeginLinkRequest(tenant=A, user=who, connector="jira"), stub.BeginLink),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await method(asked)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        # through the gateway, a state whose namespace or tenant was changed is refused before a worker is asked
        for state in (forged, query["state"].replace(f"{A}.{A}.", f"{A}.{B}."), "x", f"nowhere.nobody.{'x' * 43}"):
            params = {"state": state, "code": query["code"]}
            async with browser.get(f"{vaults.gateway}/oauth/callback", params=params) as answer_page:
                assert answer_page.status == 400
        # after all of it, the person who had begun it can finish
        async with browser.get(back) as done:
            assert done.status == 200, await done.text()
    listed = (await vaults.post("/v1/accounts", CARL, tenant=B, method="GET"))["accounts"]
    assert {a["state"] for a in listed if a["connector"] == "jira"} == {"LINK_STATE_NOT_LINKED"}
    await vaults.post("/v1/accounts/jira/unlink", CARL, tenant=A)


async def test_unlinking_in_one_tenant_leaves_the_same_persons_account_in_another(vaults: Estate) -> None:
    assert (await vaults.link("servicenow", tenant=A))[0] == 200
    assert (await vaults.link("servicenow", tenant=B))[0] == 200
    await vaults.post("/v1/accounts/servicenow/unlink", ERIN, tenant=B)
    call = '\nCALL servicenow.incident.search {"mine": true}'
    assert outcomes(await vaults.ask("look" + call, tenant=A)) == {"servicenow.incident.search": "SUCCEEDED"}
    assert outcomes(await vaults.ask("look" + call, tenant=B)) == {"servicenow.incident.search": "REFUSED"}


# --- Redis and caches -------------------------------------------------------------------------------------------------
async def test_every_key_in_redis_is_one_tenants(vaults: Estate) -> None:
    for tenant in (A, B):
        assert (await vaults.ask("look" + GET, tenant=tenant))[-1]["type"] == "final"
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        await vaults.consent(browser, "jira", CARL, tenant=A)  # a state waits
    places = await redis_dump(vaults.redis_url)
    keys = {place.removeprefix("redis ") for place in places}
    assert {names.events_key(A), names.events_key(B)} <= keys
    assert any(key.startswith(f"{{{A}}}:link:") for key in keys)
    # "{acme}:…" is a tenant's, "{acme:<session>}:…" one of its sessions'
    of = {key: next((t for t in (A, B) if key.startswith((f"{{{t}}}:", f"{{{t}:"))), "") for key in keys}
    assert [key for key, tenant in of.items() if not tenant] == []
    # and what stands under it speaks of no other
    for key, tenant in of.items():
        other = B if tenant == A else A
        assert f"{other}-1".encode() not in places[f"redis {key}"], key


async def test_a_cached_read_is_never_another_users_nor_another_tenants(vaults: Estate) -> None:
    assert (await vaults.link("jira", CARL, tenant=A))[0] == 200
    jira = vaults.taps["jira"]

    async def look(user: str, tenant: str = A) -> tuple[str, list[str]]:
        """The answer, and the tokens with which Jira was asked for it."""
        jira.calls.clear()
        events = await vaults.ask("look\nCALL jira.user.me {}\nCALL jira.project.search {}", user, tenant=tenant)
        assert set(outcomes(events).values()) == {"SUCCEEDED"}, events[-1]
        return events[-1]["text"], sorted({token for _, path, _, token in jira.calls if "/rest/" in path})

    erins, with_hers = await look(ERIN)
    again, asked_again = await look(ERIN)
    carls, with_his = await look(CARL)
    theirs, with_theirs = await look(ERIN, B)
    assert asked_again == []  # it does come from the cache
    assert again == erins
    assert len(with_hers) == len(with_his) == len(with_theirs) == 1
    assert len({*with_hers, *with_his, *with_theirs}) == 3
    assert "Erin Employee" in erins
    assert "Carl Contractor" in carls
    assert "Erin" not in carls
    assert "Human Resources" not in carls
    assert theirs == erins  # the same person at the same Jira, asked anew
    # what she reads after linking anew is not what was read before
    await vaults.post("/v1/accounts/jira/unlink", CARL, tenant=A)
    events = await vaults.ask("look\nCALL jira.user.me {}", CARL)
    assert outcomes(events) == {"jira.user.me": "REFUSED"}
