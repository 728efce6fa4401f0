"""Where credentials lie: sealed in a real PostgreSQL, and in a real OpenBao, with what goes wrong there."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pilothouse_api import names
from pilothouse_api.workerconfig import SecretValue, ServiceAccountConfig, VaultConfig
from pilothouse_dataplane.connectors.base import CallContext, SecretText
from pilothouse_dataplane.credentials import entry
from pilothouse_dataplane.credentials.advice import Advice
from pilothouse_dataplane.credentials.base import LinkedAccount, StoreUnavailable
from pilothouse_dataplane.credentials.files import FileSecrets
from pilothouse_dataplane.credentials.postgres import SealedAccounts
from pilothouse_dataplane.credentials.sealing import KeyRings
from pilothouse_dataplane.credentials.service_account import ServiceAccount
from pilothouse_dataplane.credentials.vault import VaultAccounts, VaultSecrets, VaultSession
from pilothouse_dataplane.ledger.connections import Connections
from pilothouse_dataplane.ledger.migrate import migrate
from pilothouse_testing.openbao import OpenBao, openbao, unseal_key
from pilothouse_testing.postgres import PostgresServer, postgres_server, run_sql

ANA, BEN = "ana@acme.example", "ben@acme.example"
ACCOUNT = LinkedAccount(
    SecretText("planted-access-token"), SecretText("planted-refresh-token"), 2_000_000_000.0, "Ana There", ("read",),
    "https://acme.example", 1_700_000_000.0, extra={"issued": "1.5"},
)  # fmt: skip
KEYS = {f"key.{n}": base64.b64encode(bytes([n]) * 32) for n in (1, 2, 11)}
Maker = Callable[..., SealedAccounts]


# --- PostgreSQL -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        asyncio.run(migrate(running.owner_url, running.settings.worker_database_password))
        yield running


def files(*keys: str) -> dict[str, bytes]:
    return {names.secret_file("keys", key): KEYS[key] for key in keys}


@pytest.fixture
async def sealed(server: PostgresServer) -> AsyncIterator[Maker]:
    run_now = asyncio.get_running_loop().run_in_executor
    await run_now(None, run_sql, server.superuser_url, "TRUNCATE linked_accounts")
    made: list[SealedAccounts] = []

    def make(*keys: str, tenant: str = "acme", url: str = "") -> SealedAccounts:
        mounted = FileSecrets(files(*(keys or ("key.1",))))
        rings = KeyRings(lambda: mounted.all_of("keys"))
        accounts = SealedAccounts(
            Connections(url or server.worker_url, tenant, "test"), tenant, rings.newest, random=os.urandom,
            clock=time.time,
        )  # fmt: skip
        made.append(accounts)
        return accounts

    yield make
    for accounts in made:
        await accounts.aclose()


async def rows(server: PostgresServer) -> list[Any]:
    connection = await asyncpg.connect(server.superuser_url)
    try:
        return list(await connection.fetch("SELECT * FROM linked_accounts ORDER BY user_email, connector"))
    finally:
        await connection.close()


async def execute(server: PostgresServer, sql: str) -> None:
    connection = await asyncpg.connect(server.superuser_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def contract(store: Any) -> None:
    """What every ``AccountStore`` promises."""
    assert await store.get(ANA, "jira") is None
    assert await store.of_user(ANA) == {}
    assert not await store.delete(ANA, "jira")
    assert await store.put(ANA, "jira", ACCOUNT)
    first = await store.get(ANA, "jira")
    assert first is not None
    assert replace(first, version=0) == ACCOUNT
    assert first.version > 0
    assert not await store.put(ANA, "jira", ACCOUNT)  # somebody has linked it already
    changed = replace(first, access_token=SecretText("second"), expires_at=float("inf"))
    results = await asyncio.gather(*(store.put(ANA, "jira", changed) for _ in range(8)))
    assert sum(results) == 1
    assert await store.get(ANA, "jira") == replace(changed, version=first.version + 1)
    assert not await store.put(ANA, "jira", first)
    assert await store.put(ANA, "okta", ACCOUNT)
    assert set(await store.of_user(ANA)) == {"jira", "okta"}
    assert await store.get(BEN, "jira") is None
    assert await store.delete(ANA, "jira")
    assert await store.get(ANA, "jira") is None
    assert not await store.put(ANA, "jira", first)  # a renewal that comes after unlinking
    assert await store.put(ANA, "jira", ACCOUNT)
    assert await store.delete(ANA, "okta")


async def test_the_sealed_store_keeps_its_promises(sealed: Maker) -> None:
    await contract(sealed())


async def test_no_token_can_be_read_in_the_database(sealed: Maker, server: PostgresServer) -> None:
    await sealed().put(ANA, "jira", ACCOUNT)
    (row,) = await rows(server)
    assert b"planted" not in b"".join(str(value).encode() if not isinstance(value, bytes) else value for value in row)
    assert row["key_id"] == 1


async def test_a_row_that_is_moved_to_another_user_connector_tenant_or_version_is_not_opened(
    sealed: Maker, server: PostgresServer
) -> None:
    columns = "key_id, sealed, version, expires_at, updated_at"
    await sealed().put(ANA, "jira", ACCOUNT)
    for tenant, user, connector in (("acme", BEN, "jira"), ("acme", ANA, "okta"), ("other", ANA, "jira")):
        await execute(
            server,
            f"INSERT INTO linked_accounts (tenant, user_email, connector, {columns}) SELECT '{tenant}', '{user}', "
            f"'{connector}', {columns} FROM linked_accounts WHERE tenant = 'acme' AND user_email = '{ANA}' "
            "AND connector = 'jira'",
        )
        moved = await sealed(tenant=tenant).get(user, connector)
        assert moved is not None
        assert entry.is_refused(moved)
        assert not moved.access_token.reveal()
    before = (await rows(server))[0]["sealed"]
    mine = await sealed().get(ANA, "jira")
    assert mine is not None
    assert await sealed().put(ANA, "jira", replace(mine, access_token=SecretText("newer")))
    where = f"user_email = '{ANA}' AND connector = 'jira' AND tenant = 'acme'"
    await execute(server, f"UPDATE linked_accounts SET sealed = '\\x{before.hex()}' WHERE {where}")
    old = await sealed().get(ANA, "jira")
    assert old is not None
    assert entry.is_refused(old)
    # its user links it again, and that replaces it
    assert await sealed().put(ANA, "jira", replace(ACCOUNT, version=old.version))
    again = await sealed().get(ANA, "jira")
    assert again is not None
    assert again.access_token == ACCOUNT.access_token


async def test_one_tenants_worker_sees_nothing_of_anothers(sealed: Maker) -> None:
    await sealed().put(ANA, "jira", ACCOUNT)
    other = sealed(tenant="other")
    assert await other.get(ANA, "jira") is None
    assert await other.of_user(ANA) == {}
    assert not await other.delete(ANA, "jira")
    assert await sealed().get(ANA, "jira") is not None


async def test_a_new_key_seals_and_what_an_old_one_sealed_is_sealed_anew(sealed: Maker, server: PostgresServer) -> None:
    for number in range(3):
        await sealed("key.1").put(f"user{number}@acme.example", "jira", ACCOUNT)
    await execute(
        server,
        "INSERT INTO linked_accounts SELECT 'acme', 'zz' || n, 'jira', 1, 'broken', 1, NULL "
        "FROM generate_series(1, 240) AS n",
    )
    both = sealed("key.1", "key.11")
    read = await both.get("user0@acme.example", "jira")
    assert read is not None
    assert [row["key_id"] for row in await rows(server)][:3] == [11, 1, 1]
    assert await both.sweep() == 240  # what nobody can open stays, and is counted
    assert [row["key_id"] for row in await rows(server)][:3] == [11, 11, 11]
    alone = sealed("key.11")
    assert await alone.get("user2@acme.example", "jira") is not None
    assert read == await alone.get("user0@acme.example", "jira")


async def test_a_key_that_was_removed_too_early_means_to_link_again(sealed: Maker) -> None:
    await sealed("key.1").put(ANA, "jira", ACCOUNT)
    lost = await sealed("key.2").get(ANA, "jira")
    assert lost is not None
    assert entry.is_lost(lost, time.time())


async def test_a_database_that_is_away_is_said_and_nothing_else(sealed: Maker) -> None:
    away = sealed(url="postgresql://pilothouse_worker:planted-password@127.0.0.1:1/pilothouse")
    with pytest.raises(StoreUnavailable) as caught:
        await away.get(ANA, "jira")
    assert "planted" not in str(caught.value)
    assert away.error


# --- OpenBao ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    with openbao() as running:
        yield running


@pytest.fixture
async def session(bao: OpenBao) -> AsyncIterator[Callable[[VaultConfig], VaultSession]]:
    made: list[VaultSession] = []

    def make(config: VaultConfig) -> VaultSession:
        made.append(VaultSession(config, Path("/"), time.monotonic))
        return made[-1]

    yield make
    for one in made:
        one.close()


Sessions = Callable[[VaultConfig], VaultSession]


async def test_vault_keeps_the_same_promises(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "contract")
    await contract(VaultAccounts(config, session(config)))


async def test_replaced_tokens_are_not_kept_in_earlier_versions(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "versions")
    store = VaultAccounts(config, session(config))
    await store.put(ANA, "jira", ACCOUNT)
    found = await store.get(ANA, "jira")
    assert found is not None
    await store.put(ANA, "jira", replace(found, access_token=SecretText("newer")))
    name = base64.urlsafe_b64encode(ANA.encode()).decode().rstrip("=")
    kept = bao.root.secrets.kv.v2.read_secret_metadata(f"{config.prefix}/users/{name}/jira", mount_point="kv")
    assert list(kept["data"]["versions"]) == ["2"]


async def test_a_policy_without_metadata_rights_still_links(bao: OpenBao, session: Sessions) -> None:
    policy = "\n".join(
        [
            'path "kv/data/acme/narrow/users/*" { capabilities = ["create", "update", "read", "delete"] }',
            'path "kv/metadata/acme/narrow/users/*" { capabilities = ["list", "delete"] }',
        ]
    )
    config = bao.tenant("acme", "narrow", policy=policy)
    await contract(VaultAccounts(config, session(config)))


async def test_a_worker_reads_nothing_of_another_tenant(bao: OpenBao, session: Sessions) -> None:
    mine, other = bao.tenant("acme", "mine"), bao.tenant("globex", "mine")
    bao.put_secrets(other, {"app.token": "planted"})
    await VaultAccounts(other, session(other)).put(ANA, "jira", ACCOUNT)
    crossed = mine.model_copy(update={"prefix": other.prefix})
    with pytest.raises(StoreUnavailable, match="permission denied"):
        await VaultSecrets(crossed, session(crossed)).load()
    with pytest.raises(StoreUnavailable, match="permission denied"):
        await VaultAccounts(crossed, session(crossed)).get(ANA, "jira")
    borrowed = mine.model_copy(update={"role": other.role})
    with pytest.raises(StoreUnavailable):
        await VaultSecrets(borrowed, session(borrowed)).load()


async def test_an_entry_that_was_copied_to_another_user_is_not_taken(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "copied")
    store = VaultAccounts(config, session(config))
    await store.put(ANA, "jira", ACCOUNT)

    def path(user: str) -> str:
        return f"{config.prefix}/users/{base64.urlsafe_b64encode(user.encode()).decode().rstrip('=')}/jira"

    there = bao.root.secrets.kv.v2.read_secret_version(path(ANA), mount_point="kv", raise_on_deleted_version=True)
    bao.root.secrets.kv.v2.create_or_update_secret(path(BEN), there["data"]["data"], mount_point="kv")
    moved = await store.get(BEN, "jira")
    assert moved is not None
    assert entry.is_refused(moved)


async def test_a_rotated_secret_is_in_use_within_five_seconds(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "rotating")
    bao.put_secrets(config, {"robot.token": "first"})
    secrets = VaultSecrets(config, session(config))
    await secrets.load()
    source = ServiceAccount(
        "jira", ServiceAccountConfig(token=SecretValue(secret="robot", key="token")), secrets, Advice("Jira")
    )
    context = CallContext(ANA, "k")
    assert (await source.get(context)).token == SecretText("first")
    keeping = asyncio.create_task(secrets.keep_loaded())
    took = []
    try:
        for turn in range(2):
            await asyncio.sleep(0.7)
            await asyncio.to_thread(bao.put_secrets, config, {"robot.token": f"rotated-{turn}"})
            began = time.monotonic()
            while (await source.get(context)).token != SecretText(f"rotated-{turn}"):
                assert time.monotonic() - began < 5.0
                await asyncio.sleep(0.02)
            took.append(round(time.monotonic() - began, 2))
    finally:
        keeping.cancel()
    print("seconds from rotation to use:", took)


async def test_a_sealed_vault_is_said_and_what_was_read_stays(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "sealed")
    bao.put_secrets(config, {"robot.token": "kept"})
    one = session(config)
    secrets, accounts = VaultSecrets(config, one), VaultAccounts(config, one)
    with pytest.raises(StoreUnavailable, match="not read yet"):
        secrets.get("robot", "token")
    await secrets.load()
    bao.seal()
    try:
        with pytest.raises(StoreUnavailable, match="sealed"):
            await secrets.load()
        with pytest.raises(StoreUnavailable, match="sealed"):
            await accounts.get(ANA, "jira")
        assert "sealed" in one.error
        assert secrets.get("robot", "token") == SecretText("kept")
    finally:
        bao.unseal(unseal_key(bao))
    await secrets.load()
    assert one.error == ""
    with pytest.raises(KeyError):
        secrets.get("robot", "nothing")


async def test_a_vault_that_hangs_is_waited_for_no_longer_than_five_seconds(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "hanging")
    one = session(config)
    accounts = VaultAccounts(config, one)
    await accounts.put(ANA, "jira", ACCOUNT)
    bao.freeze()
    began = time.monotonic()
    try:
        with pytest.raises(StoreUnavailable, match="in time"):
            await accounts.get(ANA, "jira")
    finally:
        bao.thaw()
    assert time.monotonic() - began < 5.5
    found = await accounts.get(ANA, "jira")
    assert found is not None


async def test_the_workers_token_is_renewed_replaced_and_logged_in_for_anew(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "leasing", ttl="2s", max_ttl="5s")
    bao.put_secrets(config, {"robot.token": "x"})
    secrets = VaultSecrets(config, session(config))
    until = time.monotonic() + 7
    while time.monotonic() < until:
        await secrets.load()  # never refused, over renewals and past the longest life
        await asyncio.sleep(0.3)
    bao.rotate_account_token(config)
    await asyncio.sleep(5.5)
    await secrets.load()


async def test_a_token_that_vault_has_revoked_is_replaced_within_the_call(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "revoked")
    bao.put_secrets(config, {"robot.token": "x"})
    one = session(config)
    secrets = VaultSecrets(config, one)
    await secrets.load()
    assert one._token is not None
    bao.root.auth.token.revoke(one._token.reveal())
    await secrets.load()


async def test_a_worker_that_vault_does_not_know_gets_nothing(bao: OpenBao, session: Sessions) -> None:
    config = bao.tenant("acme", "unknown")
    del bao.reviews.known[await asyncio.to_thread(Path(config.token_file).read_text)]
    with pytest.raises(StoreUnavailable) as caught:
        await VaultSecrets(config, session(config)).load()
    assert str(caught.value).startswith(bao.url)
    gone = config.model_copy(update={"token_file": "/nowhere/token"})
    with pytest.raises(StoreUnavailable, match="own token can't be read"):
        await VaultSecrets(gone, session(gone)).load()
