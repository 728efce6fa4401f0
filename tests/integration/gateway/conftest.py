"""A Valkey for the session, and a chat server in this process with a fake worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvicorn
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pilothouse_dataplane.gateway.accounts import Accounts
from pilothouse_dataplane.gateway.app import build_app
from pilothouse_dataplane.gateway.approvals import Approvals
from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.channels import ChannelPool
from pilothouse_dataplane.gateway.chat import ChatServer
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.identity import DevTokenVerifier
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.sessions import SessionStore
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.workers import Directory, TenantRef, Worker
from pilothouse_testing.gateway_fakes import SIGNING_KEY, FakeAgent, FakeLedger
from pilothouse_testing.servers import free_port, valkey


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@dataclass
class Gateway:
    base: str
    directory: Directory
    chat: ChatServer
    redis: Redis
    pool: ChannelPool
    agents: dict[str, FakeAgent]
    ledger: FakeLedger

    async def add_worker(self, name: str, tenant: str = "acme", revision: str = "r1") -> FakeAgent:
        agent = FakeAgent(name, self.ledger)
        port = await agent.start()
        self.agents[name] = agent
        worker = Worker(tenant, tenant, name, f"uid-{name}", "127.0.0.1", revision, True, port)
        self.directory.table.put_worker((tenant, name), worker)
        self.directory.announce()
        return agent


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def start(valkey_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    key = tmp_path / "key"
    key.write_bytes(SIGNING_KEY)
    async with contextlib.AsyncExitStack() as stack:

        async def build(**changes: object) -> Gateway:
            settings = replace(
                Settings(pod_ip="127.0.0.1", redis_url=valkey_url, dev_token_key_file=key, http_port=free_port()),
                **changes,  # type: ignore[arg-type]
            )
            redis: Redis = Redis.from_url(settings.redis_url, socket_timeout=2, retry=Retry(NoBackoff(), 0))
            directory, metrics = Directory(), Metrics()
            for tenant in ("acme", "globex"):
                directory.table.put_tenant(TenantRef(tenant, tenant, tenant, "2026"))
            pool = ChannelPool(probe_interval=settings.probe_interval, silence=settings.worker_silence)
            sessions = SessionStore(redis, ttl=settings.session_ttl, lock_ttl=settings.run_lock_ttl)
            dispatcher = Dispatcher(directory, sessions, pool, wait=settings.no_worker_wait)
            approvals = Approvals(dispatcher=dispatcher, settings=settings, metrics=metrics)
            chat = ChatServer(
                settings=settings,
                verifier=DevTokenVerifier(key),
                sessions=sessions,
                dispatcher=dispatcher,
                approvals=approvals,
                metrics=metrics,
            )

            accounts = Accounts(
                settings=settings,
                verifier=DevTokenVerifier(key),
                calls=WorkerCalls(dispatcher),
                directory=directory,
            )

            async def ready() -> str | None:
                return None

            server = _Quiet(
                uvicorn.Config(
                    build_app(settings=settings, chat=chat, accounts=accounts, metrics=metrics, ready=ready),
                    port=settings.http_port,
                    log_config=None,
                    lifespan="off",
                    timeout_graceful_shutdown=1,
                    ws_max_size=settings.max_frame_bytes,
                )
            )
            task = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
            gateway = Gateway(f"http://127.0.0.1:{settings.http_port}", directory, chat, redis, pool, {}, FakeLedger())

            async def close() -> None:
                server.should_exit = True
                await task
                await approvals.close()
                await pool.close()
                for agent in gateway.agents.values():
                    await agent.stop()
                await redis.aclose()

            stack.push_async_callback(close)
            return gateway

        yield build
