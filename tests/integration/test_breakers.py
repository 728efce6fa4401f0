"""Breakers shared by several workers through a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis as blocking
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from pilothouse_api import names
from pilothouse_dataplane.core.breaker import OTHERS_PROBE_SECONDS, BreakerMode, BreakerSettings, BreakerState, Permit
from pilothouse_dataplane.core.guard import BreakerChange, Guard, GuardRegistry
from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.worker.breakers import SharedBreakers
from pilothouse_testing.servers import free_port, valkey

JIRA = "connector/jira"
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SETTINGS = BreakerSettings(window=4, minimum_calls=2, open_seconds=2, half_open_calls=3, half_open_seconds=3)
WITHIN = 1.0


class Worker:
    """A worker's breakers, with a clock of its own that began at any time."""

    def __init__(self, url: str, name: str, *, clock: Callable[[], float] | None = None) -> None:
        self.changes: list[BreakerChange] = []
        began = hash(name) % 10_000
        self.registry = GuardRegistry(clock or (lambda: time.monotonic() - began), self.changes.append)
        self.client: Redis = connect(url)
        self.shared = SharedBreakers(self.client, "acme", name, self.registry)

    @property
    def guard(self) -> Guard:
        return self.registry.get(JIRA, SETTINGS)

    def ask(self, times: int) -> list[Permit]:
        asked = [self.guard.try_acquire() for _ in range(times)]
        return [permit for permit in asked if permit is not None]

    def fail(self) -> None:
        for permit in self.ask(SETTINGS.minimum_calls):
            self.guard.failed(permit, "Jira can't be reached.")
        assert self.guard.state is OPEN

    async def aclose(self) -> None:
        await self.shared.aclose()
        await self.client.aclose()


class Team:
    """Workers of one tenant on one Valkey that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.server = contextlib.ExitStack()
        self.workers: list[Worker] = []

    def start_store(self) -> None:
        self.server.enter_context(valkey(self.folder, self.port))

    async def join(self, *who: str) -> list[Worker]:
        joined = [Worker(self.url, name) for name in who]
        for worker in joined:
            self.workers.append(worker)
            _ = worker.guard
            await worker.shared.start()
        return joined

    async def all_are(self, state: BreakerState, within: float = WITHIN) -> float:
        """Seconds that it took. Raises AssertionError when its time is over."""
        began = time.monotonic()
        while any(worker.guard.state is not state for worker in self.workers):
            states = [worker.guard.state for worker in self.workers]
            assert time.monotonic() - began < within, f"not all {state}: {states}"
            await asyncio.sleep(0.01)
        return time.monotonic() - began


@pytest.fixture
async def team(tmp_path: Path) -> AsyncIterator[Team]:
    team = Team(tmp_path)
    team.start_store()
    try:
        yield team
    finally:
        for worker in team.workers:
            await worker.aclose()
        team.server.close()


async def test_what_one_finds_all_know_within_a_second_and_one_probe_closes_all(team: Team) -> None:
    a, b, c = await team.join("a", "b", "c")
    a.fail()
    await team.all_are(OPEN)
    assert not b.ask(1)
    assert b.changes[-1].origin == "a"
    assert b.changes[-1].reason == "Jira can't be reached."
    assert abs(a.guard.retry_in() - c.guard.retry_in()) < 0.1  # though their clocks have nothing in common

    await asyncio.sleep(a.guard.retry_in() + 0.02)
    probes = b.ask(5)
    assert len(probes) == 1  # until Redis says that nobody else probes
    await team.all_are(HALF_OPEN)
    assert not a.ask(5) + c.ask(5)
    probes += b.ask(5)
    assert len(probes) == SETTINGS.half_open_calls
    for permit in probes:
        b.guard.succeeded(permit)
    await team.all_are(CLOSED)
    assert a.ask(1)


async def test_workers_that_all_begin_half_open_at_once_let_a_bounded_number_through(team: Team) -> None:
    workers = await team.join("a", "b", "c", "d")
    workers[0].fail()
    await team.all_are(OPEN)
    await asyncio.sleep(max(worker.guard.retry_in() for worker in workers) + 0.02)
    passed = 0
    ends = time.monotonic() + 2.0
    while time.monotonic() < ends:
        passed += sum(len(worker.ask(3)) for worker in workers)
        await asyncio.sleep(0.01)
    assert SETTINGS.half_open_calls <= passed <= SETTINGS.half_open_calls + len(workers) - 1


async def test_a_prober_that_dies_holds_nobody_up(team: Team) -> None:
    a, b = await team.join("a", "b")
    a.fail()
    await team.all_are(OPEN)
    await asyncio.sleep(a.guard.retry_in() + 0.02)
    assert a.ask(1)
    await team.all_are(HALF_OPEN)
    await a.aclose()
    team.workers.remove(a)
    ends = time.monotonic() + OTHERS_PROBE_SECONDS + 3
    while not (probes := b.ask(1)):
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    for permit in probes + b.ask(SETTINGS.half_open_calls):
        b.guard.succeeded(permit)
    assert b.guard.state is CLOSED


async def test_a_restarted_worker_probes_at_once_what_its_former_life_had_begun(team: Team) -> None:
    (a,) = await team.join("a")
    a.fail()
    await asyncio.sleep(a.guard.retry_in() + 0.02)
    assert a.ask(1)
    await asyncio.sleep(0.3)
    await a.aclose()
    team.workers.remove(a)
    (again,) = await team.join("a")
    assert again.ask(1)


async def test_an_sres_word_reaches_all_and_those_that_come_later(team: Team) -> None:
    a, _ = await team.join("a", "b")
    assert await a.shared.set_mode(JIRA, BreakerMode.FORCED_OPEN, "ana@acme.example")
    await team.all_are(BreakerState.FORCED_OPEN)
    (c,) = await team.join("c")
    assert c.guard.state is BreakerState.FORCED_OPEN
    assert c.guard.reason == "forced open by ana@acme.example"
    late = Worker(team.url, "d")  # learns it at its start, its configuration comes later
    await late.shared.start()
    team.workers.append(late)
    assert late.guard.state is BreakerState.FORCED_OPEN
    assert await c.shared.set_mode(JIRA, BreakerMode.DISABLED, "ana")
    await team.all_are(BreakerState.DISABLED)
    assert await late.shared.set_mode(JIRA, BreakerMode.AUTOMATIC, "ana")
    await team.all_are(CLOSED)
    await asyncio.sleep(0.6)
    await team.all_are(CLOSED, 0)


async def test_without_redis_each_goes_on_alone_and_they_agree_again_when_it_is_back(team: Team) -> None:
    a, b = await team.join("a", "b")
    a.fail()
    await team.all_are(OPEN)
    team.server.close()  # and the store keeps nothing
    await asyncio.sleep(0.8)

    began = time.monotonic()
    calls = 0
    while b.guard.try_acquire() is None:  # no call waits for the store; the open time ends here as well
        calls += 1
        await asyncio.sleep(0.002)
        assert time.monotonic() - began < SETTINGS.open_seconds + 0.5
    assert calls > 20
    probes = b.ask(5)
    assert len(probes) == SETTINGS.half_open_calls - 1  # alone it need not ask whether it may probe
    assert not await b.shared.set_mode("connector/okta", BreakerMode.FORCED_OPEN, "ana")
    okta = b.registry.get("connector/okta", SETTINGS)
    assert okta.try_acquire() is None
    for permit in probes:
        b.guard.succeeded(permit)
    assert b.guard.state is CLOSED
    assert a.guard.state is OPEN

    team.start_store()
    await team.all_are(CLOSED, within=2.0)  # the younger verdict, though the older one came first to an empty store
    a_okta = a.registry.get("connector/okta", SETTINGS)
    await asyncio.sleep(0.6)
    assert a_okta.state is BreakerState.FORCED_OPEN
    a.fail()
    await team.all_are(OPEN)


async def test_a_frozen_store_delays_no_call(team: Team) -> None:
    (a,) = await team.join("a")
    with blocking.Redis.from_url(team.url) as admin:
        admin.execute_command("CLIENT", "PAUSE", "3000", "ALL")
    worst, ends = 0.0, time.monotonic() + 2.5
    while time.monotonic() < ends:
        began = time.monotonic()
        for permit in a.ask(1):
            a.guard.succeeded(permit)
        worst = max(worst, time.monotonic() - began)
        await asyncio.sleep(0.005)
    assert worst < 0.1
    assert not a.registry.shared


async def test_nonsense_in_the_store_is_passed_over_and_written_over(team: Team) -> None:
    with blocking.Redis.from_url(team.url) as admin:
        for name, raw in ((JIRA, "{"), ("x", b"\xff"), ("y", '{"version": "x"}'), ("z", "[1]"), (b"\xfe", "null")):
            admin.hset(names.breakers_key("acme"), name, raw)
    a, _ = await team.join("a", "b")
    a.fail()
    await team.all_are(OPEN)
    with blocking.Redis.from_url(team.url) as admin:
        assert admin.ttl(names.breakers_key("acme")) > 24 * 3600


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    with valkey(tmp_path) as url:
        yield url


async def _two(url: str, clock: Callable[[], float]) -> tuple[Worker, Worker]:
    """Workers that exchange when they are told to."""
    a, b = Worker(url, "a", clock=clock), Worker(url, "b", clock=clock)
    for worker in (a, b):
        worker.registry.attach(worker.shared)
        _ = worker.guard
    return a, b


@pytest.mark.parametrize("first", ["older", "younger"])
async def test_of_two_verdicts_made_apart_the_younger_counts_in_whatever_order_they_come(
    store: str, first: str
) -> None:
    now = 0.0
    a, b = await _two(store, lambda: now)
    b.fail()
    now = 3.0
    for permit in b.ask(SETTINGS.half_open_calls)[: SETTINGS.minimum_calls]:
        b.guard.succeeded(permit)
    now = 2.0
    a.fail()
    now = 4.0
    for worker in (a, b, a) if first == "older" else (b, a, b):
        await worker.shared.sync()
    assert (a.guard.state, b.guard.state) == (CLOSED, CLOSED)
    await a.client.aclose()
    await b.client.aclose()


async def test_what_the_store_lost_is_put_back(store: str) -> None:
    a, b = await _two(store, lambda: 0.0)
    a.fail()
    await a.shared.set_mode("connector/okta", BreakerMode.FORCED_OPEN, "ana")
    _ = a.registry.get("connector/okta", SETTINGS)
    await a.shared.sync()
    await a.client.flushall()
    await a.shared.sync()  # sees it
    await a.shared.sync()  # mends it
    await b.shared.sync()
    assert (b.guard.state, b.guard.reason) == (OPEN, "Jira can't be reached.")
    assert b.registry.get("connector/okta", SETTINGS).state is BreakerState.FORCED_OPEN
    await a.client.aclose()
    await b.client.aclose()


_STEP = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["ask", "ok", "fail", "fail", "sync", "sync", "wait", "force", "disable", "automatic", "restart"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(_STEP, max_size=40), lost_at=st.integers(0, 80))
def test_whatever_happens_workers_that_talk_again_agree(
    store: str, script: list[tuple[int, str]], lost_at: int
) -> None:
    asyncio.run(_play(store, script, lost_at))


async def _play(url: str, script: list[tuple[int, str]], lost_at: int) -> None:
    """Steps of three workers without their loops: each syncs when the script says so; the store may lose all once."""
    now = 1000.0

    def clock() -> float:
        return now

    workers = [Worker(url, name, clock=clock) for name in "abc"]
    held: list[list[Permit]] = [[], [], []]
    for worker in workers:
        await worker.client.delete(names.breakers_key("acme"))
        worker.registry.attach(worker.shared)
        _ = worker.guard
    for number, (who, what) in enumerate(script):
        worker, mine = workers[who], held[who]
        if number == lost_at:
            await worker.client.delete(names.breakers_key("acme"))
        if what == "wait":
            now += 1.25
        elif what == "ask":
            mine += worker.ask(2)
        elif what in ("ok", "fail"):
            for permit in mine or worker.ask(2):
                worker.guard.failed(permit, "down") if what == "fail" else worker.guard.succeeded(permit)
            mine.clear()
        elif what == "sync":
            assert await worker.shared.sync()
        elif what == "restart":
            await worker.client.aclose()
            workers[who] = Worker(url, "abc"[who], clock=clock)
            workers[who].registry.attach(workers[who].shared)
            mine.clear()
        else:
            modes = {"force": BreakerMode.FORCED_OPEN, "disable": BreakerMode.DISABLED}
            await worker.shared.set_mode(JIRA, modes.get(what, BreakerMode.AUTOMATIC), "ana")
    for _ in range(3):
        for worker in workers:
            _ = worker.guard
            assert await worker.shared.sync()
    states = [worker.guard.state for worker in workers]
    assert len(set(states)) == 1, states
    for worker in workers:
        await worker.client.aclose()
