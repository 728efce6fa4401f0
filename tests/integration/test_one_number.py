"""What model calls cost is one number: run, events, Fleet, Prometheus and PostgreSQL, whatever happened to the calls.

Real drivers, a real Valkey and a real PostgreSQL; the models are scripts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import generate_latest
from redis.asyncio import Redis

from pilothouse_api import names
from pilothouse_api.workerconfig import Tier
from pilothouse_dataplane.core.messages import ModelRequest, Situation, Usage
from pilothouse_dataplane.gateway.fleet.consumer import Consumer
from pilothouse_dataplane.gateway.fleet.hub import Hub
from pilothouse_dataplane.gateway.fleet.projection import Projection
from pilothouse_dataplane.gateway.metrics import Metrics, ModelCosts
from pilothouse_dataplane.gateway.workers import Directory, TenantRef
from pilothouse_dataplane.ledger.migrate import migrate
from pilothouse_dataplane.ledger.postgres import PostgresLedger
from pilothouse_dataplane.models.base import ModelDone, ModelEvent, ModelUnavailable
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.events import EventPublisher
from pilothouse_testing.fakes import FakeModel, asks_for, text
from pilothouse_testing.postgres import PostgresServer, postgres_server
from pilothouse_testing.runs import FakeTenant, Told, worker_config
from pilothouse_testing.servers import valkey

CONFIG = worker_config(
    route={
        "providers": [{"name": n, "type": "OpenAI", "base_url": "http://127.0.0.1:9/v1"} for n in ("local", "other")],
        "tiers": {
            "fast": [{"provider": "local", "model": "f", "input_price_per_1k": "0.0101", "output_price_per_1k": "0.3"}],
            "mid": [{"provider": "other", "model": "m", "input_price_per_1k": "0.0207"}],
        },
        "default_tier": "fast",
        "fallback": ["mid"],
    }
)


@dataclass(frozen=True)
class Says:
    tier: Tier
    reason: str
    escalated: bool = False


class OneUp:
    wants_vector = False

    def decide(
        self, situation: Situation | None, failed: Tier | None = None, vector: Sequence[float] | None = None
    ) -> Says:
        return Says("mid", "the plan failed", True) if failed else Says("fast", "short")


class Remembered:
    """Models whose answer is known already: what a response cache gives."""

    async def stream(
        self, request: ModelRequest, *, on_call: Callable[[ModelCallRecord], None], **_: Any
    ) -> AsyncGenerator[ModelEvent, None]:
        yield text("Known.")
        on_call(ModelCallRecord("local", "f", "fast", Usage(), 0.001, cached=True, saved_micros=1234))
        yield ModelDone(0, 0)

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass
class World:
    tenant: FakeTenant
    ledgers: dict[str, PostgresLedger]
    redis: Any
    server: PostgresServer
    publisher: EventPublisher

    async def settle(self) -> None:
        """Everything is booked and published."""
        for ledger in self.ledgers.values():
            await ledger.book_of_costs.booked()
        async with asyncio.timeout(5):
            while self.publisher._queue:  # noqa: ASYNC110 - no event, by design
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)

    async def sql(self, query: str) -> Any:
        connection = await asyncpg.connect(self.server.superuser_url, timeout=5)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        asyncio.run(migrate(server.owner_url, server.settings.worker_database_password))
        yield server


@contextlib.asynccontextmanager
async def world(server: PostgresServer, folder: Path, model: FakeModel, other: FakeModel) -> AsyncIterator[World]:
    with valkey(folder) as url:
        redis: Redis = Redis.from_url(url, socket_timeout=5)
        publisher = EventPublisher(redis, "acme")
        tenant = FakeTenant(model, config=CONFIG, providers={"other": other}, router=OneUp())
        tenant.sink = publisher  # type: ignore[assignment]
        ledgers = {name: PostgresLedger(server.worker_url, "acme", name) for name in ("w1", "w2", "cached")}
        for name, ledger in ledgers.items():
            tenant.runtime(name, ledger)
        tenant.runtimes["cached"].models = Remembered()  # type: ignore[assignment]
        try:
            yield World(tenant, ledgers, redis, server, publisher)
        finally:
            await publisher.aclose()
            for ledger in ledgers.values():
                await ledger.aclose()
            await redis.aclose()


async def read_streams(here: World, projection: Projection) -> None:
    """Fold all that the stream holds, as a gateway does at its start."""
    directory, started = Directory(), asyncio.Event()
    directory.table.put_tenant(TenantRef("acme", "acme", "u", ""))
    started.set()
    reader = Consumer(here.redis, directory, projection, Hub(), Metrics())
    task = asyncio.create_task(reader.run(started))
    async with asyncio.timeout(10):
        while not reader.synced:  # noqa: ASYNC110 - no event, by design
            await asyncio.sleep(0.02)
    while not task.done():  # a cancel that meets Valkey's answer is lost in redis-py
        task.cancel()
        await asyncio.wait([task], timeout=0.2)


async def reconcile(here: World, projection: Projection, until: datetime) -> None:
    day = until.date()
    sums = await here.ledgers["w1"].costs(day, ("tier", "provider", "model"), until=until)
    projection.reconcile("acme", day, until, [wire.cost_sum(one) for one in sums], until)


def shown(projection: Projection) -> int:
    return sum(cost.cost_micros for cost in projection.costs())


def exported(projection: Projection) -> float:
    metrics = Metrics()
    metrics.registry.register(ModelCosts(projection.costs))
    lines = generate_latest(metrics.registry).decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("pilothouse_model_cost_micros_total")
    )


async def begun(told: Told) -> None:
    async with asyncio.timeout(5):
        while not told.of("text_delta"):  # noqa: ASYNC110 - no event, by design
            await asyncio.sleep(0.01)


@pytest.mark.timeout(120)
async def test_every_sum_is_the_same_after_fallback_abort_cache_escalation_and_takeover(
    tmp_path: Path, server: PostgresServer
) -> None:
    broken = ModelUnavailable("The model provider local broke off its answer")
    model = FakeModel(
        [text("Half an ans"), broken],  # r1 falls back
        [text("x" * 333), 5.0],  # r2 is stopped
        [asks_for("fake.thing.fly")],  # r3's plan can't be carried out
        [text("y" * 77), 5.0],  # r4's worker is lost
        [text("Again."), ModelDone(1234, 5, cached_input_tokens=1000)],  # r4 on the other worker
    )
    other = FakeModel([text("Whole.")])
    async with world(server, tmp_path, model, other) as here:
        began = datetime.now(UTC)
        tenant = here.tenant
        assert (await tenant.ask(run_id="r1").end()).text == "Whole."
        stopped = tenant.ask(run_id="r2")
        await begun(stopped)
        stopped.driver.stop("You stopped this")
        await stopped.end()
        await tenant.ask(run_id="r3").end()
        lost = tenant.ask(run_id="r4")
        await begun(lost)
        lost.task.cancel()
        await asyncio.gather(lost.task, return_exceptions=True)
        middle = datetime.now(UTC)
        taken = await tenant.ask(run_id="r4", worker="w2", lost="w1").end()
        assert taken.text == "Again."
        assert (await tenant.ask(run_id="r5", worker="cached").end()).text == "Known."
        await here.settle()

        booked = await here.sql("SELECT sum(cost_micros) FROM model_calls")
        assert booked > 0
        assert await here.sql("SELECT sum(cost_micros) FROM runs") == booked
        assert await here.sql("SELECT sum(model_calls) FROM runs") == await here.sql(
            "SELECT count(*) FROM model_calls WHERE NOT cached"
        )
        assert await here.sql("SELECT count(*) FROM model_calls WHERE aborted") == 3
        assert await here.sql("SELECT count(*) FROM model_calls WHERE escalated") == 1
        assert await here.sql("SELECT count(*) FROM model_calls WHERE fallback <> ''") == 1
        assert await here.sql("SELECT count(*) FROM model_calls WHERE cached AND saved_micros = 1234") == 1
        for told, run_id in ((stopped, "r2"),):
            assert told.last.final.usage.cost_micros == await here.sql(
                f"SELECT cost_micros FROM runs WHERE run_id = '{run_id}'"
            )

        heard = Projection()  # events alone
        await read_streams(here, heard)
        assert shown(heard) == exported(heard) == booked
        state = heard.session("acme", "s")
        assert state is not None
        assert sum(call.usage.cost_micros for run in state.runs for call in run.model_calls) == booked

        for until in (began, middle, datetime.now(UTC)):  # the ledger's part, whatever its size, and the rest
            projection = Projection()
            await read_streams(here, projection)
            await reconcile(here, projection, until)
            assert shown(projection) == exported(projection) == booked, until

        await here.redis.xtrim(names.events_key("acme"), maxlen=3, approximate=False)  # most events are lost
        fresh = Projection()
        await read_streams(here, fresh)
        assert shown(fresh) < booked
        await reconcile(here, fresh, datetime.now(UTC) + timedelta(seconds=1))
        assert shown(fresh) == exported(fresh) == booked
