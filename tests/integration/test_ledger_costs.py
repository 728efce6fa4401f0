"""What model calls cost, on a real PostgreSQL: booked once, sums that agree, nobody else's rows."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse_api.workerconfig import Tier
from pilothouse_dataplane.core.messages import Usage
from pilothouse_dataplane.ledger.base import Asker, BookedCall, Claim, CostBy, CostSum, NewRun
from pilothouse_dataplane.ledger.migrate import migrate
from pilothouse_dataplane.ledger.postgres import PostgresLedger
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_testing.ledger import MemoryLedger
from pilothouse_testing.postgres import PostgresServer, postgres_server

NUMBERS = itertools.count(1)
DAY = date(2026, 11, 22)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ANA = Asker("sub-ana", "ana@acme.example", "Ana")
TIERS: tuple[Tier, ...] = ("fast", "mid", "power")
Maker = Callable[..., PostgresLedger]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        asyncio.run(migrate(server.owner_url, server.settings.worker_database_password))
        yield server


@pytest.fixture
async def ledger(server: PostgresServer) -> AsyncIterator[Maker]:
    made: list[PostgresLedger] = []
    own = f"tenant-{next(NUMBERS)}"

    def make(worker: str = "w1", tenant: str = own, url: str = "") -> PostgresLedger:
        made.append(PostgresLedger(url or server.worker_url, tenant, worker))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


def record(cost: int = 100, **fields: Any) -> ModelCallRecord:
    usage = fields.pop("usage", Usage(1000, 10, cost, 200))
    return ModelCallRecord("openai", "small", fields.pop("tier", "fast"), usage, 0.5, **fields)


def call(id: str, made: ModelCallRecord | None = None, **fields: Any) -> BookedCall:
    given_: dict[str, Any] = {
        "at": NOON,
        "run_id": id.split("/")[0],
        "session_id": "session-1",
        "user_email": ANA.email,
        "revision": "r1",
        "record": made or record(),
    }
    return BookedCall(id, **(given_ | fields))


async def rows(server: PostgresServer, sql: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(server.superuser_url, timeout=5)
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


async def claim(ledger: PostgresLedger, run_id: str, lost_worker: str = "") -> Claim:
    new = NewRun(run_id, "session-1", ANA, "A laptop, please.", "r1")
    answer = await ledger.claim(new, lost_worker=lost_worker)
    assert isinstance(answer, Claim)
    return answer


async def test_a_call_is_booked_once_however_often_it_is_told(ledger: Maker, server: PostgresServer) -> None:
    one, two = ledger("w1"), ledger("w2")
    run_id = f"run-{next(NUMBERS)}"
    await claim(one, run_id)
    for _ in range(3):
        one.book(call(f"{run_id}/1.1"))
        two.book(call(f"{run_id}/1.1", record(999_999)))
    await asyncio.gather(one.book_of_costs.booked(), two.book_of_costs.booked())
    one.book(call(f"{run_id}/1.1"))
    await one.book_of_costs.booked()

    (total,) = await rows(server, "SELECT model_calls, cost_micros FROM runs WHERE run_id = $1", run_id)
    (kept,) = await rows(server, "SELECT cost_micros FROM model_calls WHERE run_id = $1", run_id)
    assert (total["model_calls"], total["cost_micros"]) == (1, kept["cost_micros"])


async def test_calls_count_after_a_run_was_lost_or_has_ended(ledger: Maker, server: PostgresServer) -> None:
    one, two = ledger("w1"), ledger("w2")
    run_id = f"run-{next(NUMBERS)}"
    await claim(one, run_id)
    one.book(call(f"{run_id}/1.1", record(100)))
    taken = await claim(two, run_id, lost_worker="w1")
    one.book(call(f"{run_id}/1.2", record(20, aborted=True)))
    two.book(call(f"{run_id}/2.1", record(3, escalated=True)))
    two.finish(taken.key, "answered", b"final")
    await two.settled(taken.key)
    await asyncio.gather(one.book_of_costs.booked(), two.book_of_costs.booked())
    two.book(call(f"{run_id}/2.2", record(0, usage=Usage(), cached=True, saved_micros=50)))
    two.book(call(f"{run_id}/2.3", record(1, aborted=True)))
    await two.book_of_costs.booked()

    (total,) = await rows(server, "SELECT model_calls, input_tokens, cost_micros FROM runs WHERE run_id = $1", run_id)
    assert tuple(total) == (4, 4000, 124)
    (summed,) = await two.costs(DAY, ())
    assert (summed.calls, summed.cached_calls, summed.aborted, summed.escalated) == (4, 1, 2, 1)
    assert (summed.cost_micros, summed.saved_micros, summed.runs) == (124, 50, 1)


async def test_days_are_of_utc_and_until_is_inclusive(ledger: Maker) -> None:
    one = ledger()
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    for number, at in enumerate((NOON, midnight - timedelta(microseconds=1), midnight), 1):
        one.book(call(f"run-x/1.{number}", at=at))
    await one.book_of_costs.booked()

    assert [s.calls for s in await one.costs(DAY, ())] == [2]
    assert [s.calls for s in await one.costs(DAY + timedelta(days=1), ())] == [1]
    assert [s.calls for s in await one.costs(DAY, (), until=NOON)] == [1]
    assert await one.costs(DAY, (), until=NOON - timedelta(microseconds=1)) == []
    assert await one.costs(DAY - timedelta(days=1), ()) == []


async def test_nobody_sees_or_changes_what_was_booked(ledger: Maker, server: PostgresServer) -> None:
    one, other = ledger(), ledger(tenant="another")
    one.book(call("run-x/1.1"))
    await one.book_of_costs.booked()

    assert await other.costs(DAY, ()) == []
    connection = await asyncpg.connect(
        server.worker_url, timeout=5, server_settings={"pilothouse.tenant": one.book_of_costs._tenant}
    )
    try:
        assert await connection.fetchval("SELECT count(*) FROM model_calls") == 1
        for sql in ("UPDATE model_calls SET cost_micros = 0", "DELETE FROM model_calls"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
    finally:
        await connection.close()


async def test_hostile_words_are_kept_and_one_bad_call_hurts_no_other(ledger: Maker) -> None:
    one = ledger()
    words = "x'); DROP TABLE runs; -- \x00 \ud800 {}" * 50
    one.book(call("run-x/1.1", record(5, reason=words, fallback=words), user_email="a\x00b"))
    one.book(call("run-x/1.2", record(7, usage=Usage(-1, 0, 7))))  # refused by the table itself
    one.book(call("run-x/1.3", record(11)))
    await one.book_of_costs.booked()

    assert [s.cost_micros for s in await one.costs(DAY, ())] == [16]
    assert one.book_of_costs.lost == 1


async def test_while_postgresql_is_away_calls_wait_and_the_oldest_go_first(
    server: PostgresServer, ledger: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse_dataplane.ledger.costs.MAX_WAITING", 3)
    away = ledger(url="postgresql://pilothouse_worker:p@127.0.0.1:1/nowhere")
    for number in range(5):
        away.book(call(f"run-x/1.{number}"))

    assert away.book_of_costs.lost == 2
    await away.aclose()
    assert away.book_of_costs.lost == 5


SHORT = st.sampled_from(["a", "b"])
calls = st.lists(
    st.builds(
        lambda run, number, user, revision, tier, model, cost, fallback, cached, aborted: call(
            f"run-{run}/1.{number}",
            ModelCallRecord(
                "p",
                model,
                tier,
                Usage() if cached else Usage(cost * 2, cost, cost, cost // 3),
                0.1,
                fallback=fallback,
                cached=cached,
                aborted=aborted and not cached,
                saved_micros=cost if cached else 0,
            ),
            user_email=user,
            revision=revision,
        ),
        SHORT,
        st.integers(0, 6),
        SHORT,
        SHORT,
        st.sampled_from(TIERS),
        SHORT,
        st.integers(0, 10**9),
        st.sampled_from(["", "timeout"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=20,
)


@given(given_=calls, by=st.lists(st.sampled_from(["user", "tier", "provider", "model", "revision"]), unique=True))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_sums_are_those_of_the_ledger_in_memory(
    server: PostgresServer, given_: list[BookedCall], by: list[CostBy]
) -> None:
    async def both() -> tuple[set[CostSum], set[CostSum]]:
        real, plain = PostgresLedger(server.worker_url, f"tenant-{next(NUMBERS)}", "w1"), MemoryLedger()
        try:
            for each in given_:
                real.book(each)
                plain.book(replace(each))
            await real.book_of_costs.booked()
            return set(await real.costs(DAY, by)), set(await plain.costs(DAY, by))
        finally:
            await real.aclose()

    real, plain = asyncio.run(both())
    assert real == plain
