"""A whole worker, over gRPC, with a real PostgreSQL and Redis: an account is linked, sealed, rotated, unlinked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import pytest
import redis.asyncio

from pilothouse_dataplane.connectors.base import CallContext, ConnectorError
from pilothouse_dataplane.ledger.migrate import migrate
from pilothouse_dataplane.worker.server import Worker
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.agent.v1 import agent_pb2_grpc
from pilothouse_testing.oauth import AuthServer, auth_server
from pilothouse_testing.postgres import PostgresServer, postgres_server
from pilothouse_testing.runs import worker_config
from pilothouse_testing.servers import valkey

ANA = "ana@acme.example"
CALLBACK = "https://pilothouse.example/oauth/callback"
BROWSER = hashlib.sha256(b"cookie").hexdigest()
KEYS = {f"secret.keys.key.{n}": base64.b64encode(bytes([n]) * 32) for n in (1, 2)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, str]]:
    with postgres_server() as postgres, valkey(tmp_path_factory.mktemp("valkey")) as url:
        asyncio.run(migrate(postgres.owner_url, postgres.settings.worker_database_password))
        yield postgres, url


def mount(directory: Path, files: dict[str, bytes]) -> None:
    """As a kubelet does it: a new folder behind ``..data``."""
    folder = directory / f"..{time.monotonic_ns()}"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    (directory / "..new").symlink_to(folder.name)
    (directory / "..new").rename(directory / "..data")
    for link in directory.iterdir():
        if link.is_symlink() and not link.exists():
            link.unlink()


def files(server: AuthServer, stores: tuple[PostgresServer, str], *keys: int) -> dict[str, bytes]:
    app = {name: {"secret": "app", "key": name.replace("_", "-")} for name in ("client_id", "client_secret")}
    oauth = {
        **app, "authorization_url": f"{server.url}/authorize", "token_url": f"{server.url}/token",
        "revocation_url": f"{server.url}/revoke", "scopes": ["read:jira-work"],
    }  # fmt: skip
    jira = {"name": "jira", "type": "jira", "url": "http://127.0.0.1:9", "auth_mode": "UserOAuth", "oauth": oauth}
    config = worker_config(
        connectors=[jira], egress={"allow_hosts": ["127.0.0.1"]}, credentials={"keys_secret": "keys"}
    )
    return {
        "config.json": json.dumps(config).encode(),
        "redis-url": stores[1].encode(),
        "database-url": stores[0].worker_url.encode(),
        "secret.app.client-id": b"client",
        "secret.app.client-secret": b"client-secret-of-a-test",
        **{f"secret.keys.key.{n}": KEYS[f"secret.keys.key.{n}"] for n in keys},
    }


async def stored(postgres: PostgresServer) -> list[Any]:
    connection = await asyncpg.connect(postgres.superuser_url)
    try:
        return list(await connection.fetch("SELECT * FROM linked_accounts"))
    finally:
        await connection.close()


async def until(true: Any, seconds: float) -> float:
    """Seconds until it was true."""
    began = time.monotonic()
    while not await true():
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_an_account_is_linked_sealed_rotated_and_unlinked(
    tmp_path: Path, stores: tuple[PostgresServer, str]
) -> None:
    async with auth_server() as server:
        mount(tmp_path, files(server, stores, 1))
        worker = Worker(tmp_path, "w1")
        port = await worker.start("127.0.0.1:0")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = agent_pb2_grpc.AgentStub(channel)  # type: ignore[no-untyped-call]
            try:
                await story(stub, server, stores, tmp_path, worker)
            finally:
                await worker.stop(grace_seconds=0)


async def story(
    stub: Any, server: AuthServer, stores: tuple[PostgresServer, str], directory: Path, worker: Worker
) -> None:
    user = agent.User(subject="1", email=ANA)
    server.grants.lifetime = 2.0
    begun = await stub.BeginLink(
        agent.BeginLinkRequest(tenant="acme", user=user, connector="jira", redirect_uri=CALLBACK, browser=BROWSER)
    )
    brought = server.consent(begun.authorization_url, ANA)
    client = redis.asyncio.Redis.from_url(stores[1])
    (key,) = [key.decode() async for key in client.scan_iter("*:link:*")]
    assert key == f"{{acme}}:link:{hashlib.sha256(brought['state'].encode()).hexdigest()}"
    assert 590 < await client.ttl(key) <= 600
    finish = agent.FinishLinkRequest(tenant="acme", browser=BROWSER, **brought)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.FinishLink(agent.FinishLinkRequest(**{**brought, "tenant": "globex", "browser": BROWSER}))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    done = await asyncio.gather(*(stub.FinishLink(finish) for _ in range(4)))
    assert sorted(answer.HasField("error") for answer in done) == [False, True, True, True]
    assert await client.exists(key) == 0
    await client.aclose()
    (row,) = await stored(stores[0])
    assert (row["tenant"], row["user_email"], row["connector"], row["key_id"]) == ("acme", ANA, "jira", 1)
    shown = await stub.ListAccounts(agent.ListAccountsRequest(tenant="acme", user=user))
    assert [account.state for account in shown.accounts] == [agent.LINK_STATE_LINKED]
    assert (await stub.GetStatus(agent.GetStatusRequest())).credentials_error == ""

    async def get() -> str:
        runtime = worker.service._runtime
        assert runtime is not None
        assert runtime.credentials is not None
        return (await runtime.credentials.sources["jira"].get(CallContext(ANA, "k"))).token.reveal()

    first = await get()
    assert server.grants.owner(first) == ANA

    # a new key and a new client secret, both without a restart; the access token ends, too
    server.client = ("client", "rotated-client-secret")
    server.grants.lifetime = 3600.0
    rotated = {**files(server, stores, 1, 2), "secret.app.client-secret": b"rotated-client-secret"}
    await asyncio.to_thread(mount, directory, rotated)
    began = time.monotonic()

    async def renewed() -> bool:
        try:
            return await get() != first
        except ConnectorError:
            return False  # the old secret is refused

    print("seconds from the mount to a token that the new secret gave:", round(await until(renewed, 5.0), 2))
    assert server.grants.user_of(await get()) == ANA
    assert [row["key_id"] for row in await stored(stores[0])] == [2]
    assert time.monotonic() - began < 6.0

    said = await stub.Unlink(agent.UnlinkRequest(tenant="acme", user=user, connector="jira"))
    assert said.message == "Your Jira account is unlinked: its tokens are revoked at Jira and forgotten here."
    assert await stored(stores[0]) == []
    assert server.grants.families[0].ended
