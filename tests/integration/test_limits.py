"""The limits' script on a real Valkey against a model of it, and what workers make of a Valkey that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from pilothouse_api.workerconfig import LimitsConfig
from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.limits import LimitReached, Limits, Reservation
from pilothouse_dataplane.models.limits_script import BUCKET_MS, BUCKETS, DAY_MS, SCRIPT
from pilothouse_dataplane.models.limits_share import LimitReason
from pilothouse_testing.servers import free_port, valkey

NOON = 20_000 * DAY_MS + DAY_MS // 2
OPEN = {"requests": 0, "tokens": 0, "runs": 0, "user_requests": 0, "user_tokens": 0, "hard": -1, "soft": -1}


class Store:
    """A Valkey that can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        self._running.enter_context(valkey(self.folder, self.port))

    def stop(self) -> None:
        self._running.close()

    def kill(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            pid = int(client.info("server")["process_id"])

        os.kill(pid, signal.SIGKILL)
        self._running.close()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It hangs: connections stay, nothing is answered."""

        with redis.Redis.from_url(self.url) as client:
            pid = int(client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    store.start()
    try:
        yield store
    finally:
        store.stop()


Worker = Callable[..., Limits]


@pytest.fixture
async def worker(store: Store) -> AsyncIterator[Callable[..., Any]]:
    """Makes workers of the tenant acme."""
    made: list[tuple[Limits, Redis]] = []

    async def make(
        config: LimitsConfig, name: str = "", wall: Callable[[], float] = time.time, max_workers: int = 2
    ) -> Limits:
        client = connect(store.url)
        name = name or f"w{len(made)}"
        limits = Limits(client, "acme", name, config, max_workers=max_workers, clock=time.monotonic, wall=wall)
        made.append((limits, client))
        await limits.start()
        return limits

    yield make
    for limits, client in made:
        await limits.aclose()
        await client.aclose()


class Script:
    """Calls the script with a clock of its own."""

    def __init__(self, client: redis.Redis, tenant: str, worker: str = "w") -> None:
        self.key, self.worker, self.now = f"{{{tenant}}}:limits", worker, NOON
        self.client, self.script = client, client.register_script(SCRIPT)
        self.numbers = itertools.count(1)

    def __call__(self, *ops: list[Any], number: int = 0, beat: bool = False, **limit: int) -> Any:
        call = {
            "worker": self.worker,
            "number": number or next(self.numbers),
            "beat": beat,
            "now": self.now,
            "limit": OPEN | limit,
            "ops": list(ops),
        }
        return json.loads(self.script(keys=[self.key], args=[json.dumps(call)]))

    def take(self, user: str, requests: int, tokens: int, cost: int = 0, /, lease: str = "", **limit: int) -> Any:
        return self(["take", user, requests, tokens, cost, lease, 30_000, 0], **limit)["results"][0]


@pytest.fixture
def client(store: Store) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store.url, decode_responses=True) as client:
        yield client


_tenants = (f"t{number}" for number in itertools.count())


# --- the script against a model --------------------------------------------------------------------------------------
def test_the_script_does_what_a_log_of_all_that_was_let_through_says(client: redis.Redis) -> None:
    """Every grant and refusal, on any clock, with settling, against a plain log of what is in the window."""

    class Machine(RuleBasedStateMachine):
        @initialize(
            requests=st.integers(0, 6),
            tokens=st.integers(0, 300),
            own=st.integers(0, 4),
            own_tokens=st.integers(0, 150),
            hard=st.one_of(st.just(-1), st.integers(1, 2000)),
        )
        def begin(self, requests: int, tokens: int, own: int, own_tokens: int, hard: int) -> None:
            self.script = Script(client, next(_tenants))
            self.limit = {
                "requests": requests,
                "tokens": tokens,
                "user_requests": own,
                "user_tokens": own_tokens,
                "hard": hard,
            }
            self.log: list[list[Any]] = []  # bucket, user, requests, tokens
            self.days: Counter[int] = Counter()
            self.held: Counter[int] = Counter()
            self.open: list[tuple[str, int, int, int, int]] = []

        def window(self, user: str | None = None) -> tuple[int, int]:
            oldest = self.script.now // BUCKET_MS - BUCKETS
            inside = [e for e in self.log if e[0] >= oldest and user in (None, e[1])]
            return sum(e[2] for e in inside), sum(e[3] for e in inside)

        @rule(
            user=st.sampled_from("ab"), requests=st.integers(0, 1), tokens=st.integers(0, 200), cost=st.integers(0, 900)
        )
        def take(self, user: str, requests: int, tokens: int, cost: int) -> None:
            limit, day = self.limit, self.script.now // DAY_MS
            expected = None
            for kind, own, amount, index in (
                ("requests", "user_requests", requests, 0),
                ("tokens", "user_tokens", tokens, 1),
            ):
                if (
                    expected is None
                    and amount
                    and limit[own]
                    and self.window(user)[index] + min(amount, limit[own]) > limit[own]
                ):
                    expected = own
                if (
                    expected is None
                    and amount
                    and limit[kind]
                    and self.window()[index] + min(amount, limit[kind]) > limit[kind]
                ):
                    expected = kind
            if expected is None and limit["hard"] >= 0:
                more = min(max(cost, 1), limit["hard"])
                if self.days[day] + more > limit["hard"]:
                    expected = "budget_held" if self.days[day] - self.held[day] + more <= limit["hard"] else "budget"
            found = self.script.take(user, requests, tokens, cost, **limit)
            if found[0] == 0 and found[1].endswith("_share"):
                assert expected in (None, "tokens", "tokens_share", "budget", "budget_held"), expected
                return
            assert (found[0] == 1) == (expected is None), (found, expected)
            if expected is None:
                assert found[1:3] == [self.script.now // BUCKET_MS, day]
                self.log.append([found[1], user, requests, tokens])
                if limit["hard"] >= 0:
                    self.days[day] += cost
                    self.held[day] += cost
                self.open.append((user, found[1], day, tokens, cost))
            else:
                assert found[1] == expected
                assert 0 < found[2] <= DAY_MS

        @rule(tokens=st.integers(0, 250), cost=st.integers(0, 1000), data=st.data())
        def settle(self, tokens: int, cost: int, data: st.DataObject) -> None:
            if not self.open:
                return
            user, bucket, day, before, was = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            held = was if self.limit["hard"] >= 0 else 0
            spent = cost if self.limit["hard"] >= 0 else 0
            self.script(["book", user, bucket, 0, tokens - before, day, spent - held, -held], **self.limit)
            self.days[day] += spent - held
            self.held[day] -= held
            now = self.script.now // BUCKET_MS
            if bucket >= now - BUCKETS:
                self.log.append([bucket, user, 0, tokens - before])
            elif tokens > before:
                self.log.append([now, user, 0, tokens - before])

        @rule(pause=st.one_of(st.integers(0, 2_000), st.integers(0, 70_000), st.just(DAY_MS // 2)))
        def wait(self, pause: int) -> None:
            self.script.now += pause

        @invariant()
        def sums_hold(self) -> None:
            if not hasattr(self, "script"):
                return
            for user in "ab":
                raw = client.hgetall(f"{self.script.key}:user:{user}")
                assert sum(int(v) for k, v in raw.items() if k[0].isdigit() and k[-1] == "t") == int(
                    raw.get("tokens", 0)
                )
                assert sum(int(v) for k, v in raw.items() if k[0].isdigit() and k[-1] == "r") == int(
                    raw.get("requests", 0)
                )

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(paces=st.lists(st.integers(1, 20), min_size=2, max_size=5), most=st.integers(10, 60))
def test_under_contention_users_get_equal_parts(client: redis.Redis, paces: list[int], most: int) -> None:
    """After a minute of contention each has an equal part of what the modest leave, or all that she asked for."""
    script = Script(client, next(_tenants))
    got: Counter[int] = Counter()
    wanted: Counter[int] = Counter()
    for tick in range(1000):
        script.now = NOON + tick * 200
        asking = [user for user, pace in enumerate(paces) if tick % pace == 0]
        found = script(*(["take", f"u{user}", 1, 0, 0, "", 0, 0] for user in asking), requests=most)["results"]
        if tick >= 695:
            wanted.update(asking)
            got.update(user for user, result in zip(asking, found, strict=True) if result[0])
    for user in range(len(paces)):
        assert got[user] >= 0.85 * min(wanted[user], most // len(paces)) - 2, (got, wanted)
    script.now += 125_000  # nobody waits any more: one may have all
    assert sum(script.take("u0", 1, 0, requests=most)[0] for _ in range(most + 5)) == most


def test_a_newcomer_gets_her_part_from_one_who_had_all(client: redis.Redis) -> None:
    script = Script(client, next(_tenants))
    assert sum(script.take("greedy", 1, 0, requests=20)[0] for _ in range(40)) == 20
    assert script.take("modest", 1, 0, requests=20)[0] == 0
    let: Counter[str] = Counter()
    for _ in range(200):
        script.now += 500
        for user in ("greedy", "greedy", "greedy", "modest"):
            let[user] += script.take(user, 1, 0, requests=20)[0]
        if script.now >= NOON + 70_000:
            break
    assert let == {"greedy": 10, "modest": 10}


def test_above_the_soft_budget_nobody_gets_more_than_an_equal_part_of_the_day(client: redis.Redis) -> None:
    script = Script(client, next(_tenants))
    budget = {"hard": 1000, "soft": 800}
    assert script.take("greedy", 0, 0, 790, **budget) == [1, NOON // BUCKET_MS, 20_000, 0]
    assert script.take("modest", 0, 0, 20, **budget)[3] == 0
    assert script.take("greedy", 0, 0, 10, **budget)[:2] == [0, "budget_share"]
    assert script.take("modest", 0, 0, 20, **budget)[3] == 1  # the cheapest tier, from now on
    assert script.take("modest", 0, 0, 171, **budget) == [0, "budget_held", 5000]
    script(["book", "greedy", 0, 0, 0, 20_000, 0, -790], ["book", "modest", 0, 0, 0, 20_000, 0, -40])
    assert script.take("modest", 0, 0, 171, **budget) == [0, "budget", DAY_MS // 2]
    assert script.take("modest", 0, 0, 170, **budget)[0] == 1
    script.now += DAY_MS // 2
    assert script.take("greedy", 0, 0, 500, **budget)[3] == 0


def test_places_of_runs_are_shared_and_those_of_a_dead_worker_lapse(client: redis.Redis) -> None:
    script = Script(client, next(_tenants))
    assert sum(script.take("greedy", 0, 0, lease=f"g{n}", runs=4)[0] for n in range(6)) == 4
    assert script.take("modest", 0, 0, lease="m0", runs=4)[:2] == [0, "runs"]
    script(["lease", "greedy", "g0", 0])
    assert script.take("greedy", 0, 0, lease="g9", runs=4)[:2] == [0, "runs_share"]
    assert script.take("modest", 0, 0, lease="m1", runs=4)[0] == 1
    script.now += 29_000
    script(["lease", "modest", "m1", 30_000])
    script.now += 2_000  # the others were not heard of
    assert client.zrange(f"{script.key}:runs", 0, -1) == ["greedy g1", "greedy g2", "greedy g3", "modest m1"]
    assert sum(script.take("modest", 0, 0, lease=f"n{n}", runs=4)[0] for n in range(6)) == 3


def test_the_same_call_sent_twice_counts_once(client: redis.Redis) -> None:
    script = Script(client, next(_tenants))
    ops = [["take", "ann", 1, 100, 50, "run", 30_000, 0], ["book", "ann", NOON // BUCKET_MS, 0, 5, 20_000, 7, 0]]
    first = script(*ops, number=7, requests=10, hard=1000)
    script.now += 400
    assert script(*ops, number=7, requests=10, hard=1000) == first
    assert client.hget(f"{script.key}:user:ann", "tokens") == "105"
    assert client.hget(f"{script.key}:day:20000", "") == "57"


def test_a_clock_that_is_put_back_blocks_nobody_for_ever(client: redis.Redis) -> None:
    script = Script(client, next(_tenants))
    assert script.take("ann", 1, 0, requests=1)[0] == 1
    script.now -= 3_600_000
    assert script.take("ann", 1, 0, requests=1)[0] == 1
    assert script.take("ann", 1, 0, requests=1)[0] == 0


def test_keys_of_350_tenants_expire_by_themselves(client: redis.Redis) -> None:
    client.flushdb()
    script = Script(client, "x")
    limit = {"requests": 1, "tokens": 100, "runs": 1, "user_requests": 1, "hard": 100, "soft": 10}
    for tenant in range(350):
        script.key = f"{{tenant-{tenant}}}:limits"
        for number in range(3):
            script(
                ["take", "ann", 1, 10, 50, f"r{number}", 30_000, 0],
                ["take", "bob", 1, 10, 0, "", 0, 0],
                beat=True,
                **limit,
            )
    keys = client.keys("*")
    assert len(keys) >= 350 * 6
    assert {key.split("}")[0] for key in keys} == {f"{{tenant-{tenant}" for tenant in range(350)}
    # 0: none; everything but the day's sums within ten minutes
    lasting = {key: ttl for key in keys if not 0 < (ttl := client.ttl(key)) <= 600}
    assert all(":day:" in key and 0 < ttl <= 2 * DAY_MS / 1000 for key, ttl in lasting.items())


@pytest.mark.parametrize("raw", [b"", b"x", b"[]", b"{}", b'{"worker": "w", "number": 1}'])
def test_nonsense_changes_nothing(client: redis.Redis, raw: bytes) -> None:
    with pytest.raises(redis.ResponseError):
        client.eval(SCRIPT, 1, "{nonsense}:limits", raw)
    assert client.keys("{nonsense}*") == []


# --- workers ---------------------------------------------------------------------------------------------------------
async def _spend(limits: Limits, user: str, tokens: int, cost: int, times: int) -> int:
    let = 0
    for _ in range(times):
        try:
            reservation = await limits.reserve(user, tokens, cost)
        except LimitReached:
            await asyncio.sleep(0)
        else:
            let += 1
            limits.settle(reservation, tokens, cost)
    return let


async def test_many_workers_let_through_exactly_the_limit(worker: Any) -> None:
    config = LimitsConfig(requests_per_minute=500, tokens_per_minute=50_000, daily_budget_micros=200_000)
    workers = [await worker(config) for _ in range(4)]

    async def ask(limits: Limits, user: int) -> int:
        let = 0
        for _ in range(50):
            with contextlib.suppress(LimitReached):
                limits.release(await limits.admit(f"u{user}"))
                let += 1
        return let

    assert sum(await asyncio.gather(*(ask(each, user) for each in workers for user in range(8)))) == 500
    spent = sum(await asyncio.gather(*(_spend(each, f"u{user}", 100, 10, 40) for each in workers for user in range(8))))
    assert spent == 500  # tokens
    assert all(each.round_trips < 2500 and each.alone == 0 for each in workers)


async def test_the_hard_limit_holds_with_reservations_and_refunds(worker: Any) -> None:
    config = LimitsConfig(daily_budget_micros=100_000, concurrent_runs=0, soft_budget_percent=100)
    workers = [await worker(config) for _ in range(3)]
    spent = 0
    cheap = False

    async def call(limits: Limits) -> None:
        nonlocal spent, cheap
        for _ in range(150):
            try:
                reservation = await limits.reserve("ann", 0, 900)
            except LimitReached as error:
                if error.reason is LimitReason.BUDGET:
                    return
                await asyncio.sleep(0.01)
                continue
            await asyncio.sleep(0.001)
            spent += 300
            cheap = cheap or reservation.cheap_only
            limits.settle(reservation, 0, 300)

    await asyncio.gather(*(call(each) for each in workers for _ in range(5)))
    assert 99_000 < spent <= 100_000
    assert not cheap


async def test_a_store_that_dies_leaves_each_worker_its_share_and_gets_it_booked(store: Store, worker: Any) -> None:
    config = LimitsConfig(tokens_per_minute=10_000, daily_budget_micros=1_000_000, concurrent_runs=8)
    a, b = await worker(config, max_workers=9), await worker(config, max_workers=9)
    for each in (a, b):  # both know that there are two
        each._beat = True
        await _spend(each, "ann", 100, 1_000, 10)
    run = await a.admit("ann")
    open_call = await a.reserve("ann", 1_000, 5_000)
    store.kill()
    let_a, let_b = await asyncio.gather(_spend(a, "bob", 100, 1_000, 80), _spend(b, "bob", 100, 1_000, 80))
    assert a.away
    assert b.away
    # half of what was left, as each had last heard it, and what leaves the window while they ask
    assert 35 <= let_a <= 38
    assert 40 <= let_b <= 43
    a.settle(open_call, 200, 700)
    store.start()
    await _until(lambda: not a.away and not b.away)
    await _settled(a)
    await _settled(b)
    with redis.Redis.from_url(store.url, decode_responses=True) as client:
        # the store had lost all: the day's sum as last heard, and what was booked since
        day = client.hgetall(f"{{acme}}:limits:day:{int(time.time() * 1000) // DAY_MS}")
        assert 0 <= 25_000 + 1_000 * (let_a + let_b) - 4_300 - int(day[""]) <= 1_000
        assert client.zcard("{acme}:limits:runs") == 1  # is known again
        tenant = client.hgetall("{acme}:limits:tenant")
        assert int(tenant["tokens"]) == 100 * (let_a + let_b) - 800  # what the dead store knew is forgotten
    a.release(run)
    assert await _spend(a, "ann", 100, 0, 1) == 1


async def test_a_store_that_hangs_counts_each_call_once(store: Store, worker: Any) -> None:
    config = LimitsConfig(tokens_per_minute=100_000, daily_budget_micros=10_000_000)
    limits = await worker(config)
    await _spend(limits, "ann", 100, 10, 10)
    with store.stopped():
        began = time.monotonic()
        reservations = await asyncio.gather(*(limits.reserve("ann", 100, 10) for _ in range(20)))
        assert time.monotonic() - began < 0.5
        assert limits.away
        for each in reservations[:15]:
            limits.settle(each, 50, 5)
        gone = asyncio.create_task(limits.reserve("eve", 100, 10))
        await asyncio.sleep(0)
        gone.cancel()
    await _until(lambda: not limits.away)
    for each in reservations[15:]:
        limits.settle(each, 50, 5)
    await _settled(limits)
    with redis.Redis.from_url(store.url, decode_responses=True) as client:
        eve = 100 if gone.done() and not gone.cancelled() else 0  # it was answered before it could be cancelled
        assert int(client.hget("{acme}:limits:tenant", "tokens")) == 1_000 + 20 * 50 + eve
        day = client.hgetall(f"{{acme}}:limits:day:{int(time.time() * 1000) // DAY_MS}")
        assert (int(day[""]), int(day["held"])) == (100 + 20 * 5 + eve // 10, eve // 10)


async def test_who_stops_waiting_leaves_nothing_behind(store: Store, worker: Any) -> None:
    limits = await worker(LimitsConfig(tokens_per_minute=10**6, daily_budget_micros=10**9))
    for pause in range(40):
        calls = [asyncio.create_task(limits.reserve("ann", 100, 10)) for _ in range(5)]
        runs = [asyncio.create_task(limits.admit("ann")) for _ in range(2)]
        for _ in range(pause):
            await asyncio.sleep(0)
        for task in (*calls, *runs):
            task.cancel()
        for done in await asyncio.gather(*calls, *runs, return_exceptions=True):
            if isinstance(done, Reservation):
                limits.settle(done, 0, 0)
            elif not isinstance(done, BaseException):
                limits.release(done)
    await _settled(limits)
    with redis.Redis.from_url(store.url, decode_responses=True) as client:
        assert int(client.hget("{acme}:limits:tenant", "tokens") or 0) == 0
        assert client.zcard("{acme}:limits:runs") == 0
        day = client.hgetall(f"{{acme}}:limits:day:{int(time.time() * 1000) // DAY_MS}")
        assert (int(day[""]), int(day["held"])) == (0, 0)


async def test_workers_clocks_do_not_matter(worker: Any) -> None:
    config = LimitsConfig(tokens_per_minute=1_000, concurrent_runs=0)
    fast = await worker(config, wall=lambda: time.time() + 3_600)
    slow = await worker(config, wall=lambda: time.time() - 3_600)
    assert await _spend(fast, "ann", 100, 0, 6) == 6
    assert await _spend(slow, "bob", 100, 0, 6) == 4
    reservation = await _refused(slow)
    assert math.isclose(reservation, 60, abs_tol=2)


async def _refused(limits: Limits) -> float:
    with pytest.raises(LimitReached) as refused:
        await limits.reserve("bob", 100, 0)
    assert refused.value.retry_after is not None
    return refused.value.retry_after


async def test_a_dead_workers_run_counts_no_longer_and_a_living_ones_does(store: Store, worker: Any) -> None:
    limits = await worker(LimitsConfig(concurrent_runs=2))
    await limits.admit("ann")
    with redis.Redis.from_url(store.url) as client:
        client.zadd("{acme}:limits:runs", {"bob dead": time.time() * 1000 + 300})
        with pytest.raises(LimitReached) as refused:
            await limits.admit("eve")
        assert (refused.value.reason, refused.value.retry_after) == (LimitReason.RUNS, 3)
        await asyncio.sleep(0.35)
        await limits.admit("eve")
        assert client.zcard("{acme}:limits:runs") == 2
    await limits.aclose()
    with redis.Redis.from_url(store.url) as client:
        assert client.zcard("{acme}:limits:runs") == 0


async def _until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def _settled(limits: Limits) -> None:
    """All that was told has arrived."""
    await asyncio.sleep(0.05)
    await _until(lambda: limits.idle)
