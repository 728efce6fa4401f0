"""A worker's own share of the limits, as a pure thing; and Limits where there is no Redis at all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse_api.workerconfig import LimitsConfig
from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.base import ModelLimited
from pilothouse_dataplane.models.limits import LimitReached, Limits, _Asked, _compact
from pilothouse_dataplane.models.limits_script import BUCKET_MS, DAY_MS
from pilothouse_dataplane.models.limits_share import Grant, LimitReason, LocalShare, Refusal, Window, sentence
from pilothouse_testing.servers import free_port

NONE = LimitsConfig(concurrent_runs=0)
NOON = 20_000 * DAY_MS + DAY_MS / 2


class TestShare:
    @settings(max_examples=60, deadline=None)
    @given(
        asks=st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.integers(0, 20_000)), min_size=1, max_size=150
        ),
        requests=st.integers(0, 12),
        tokens=st.integers(60, 400),
        own=st.integers(0, 8),
    )
    def test_no_minute_holds_more_than_the_limit(
        self, asks: list[tuple[str, int, int]], requests: int, tokens: int, own: int
    ) -> None:
        config = LimitsConfig(requests_per_minute=requests, tokens_per_minute=tokens, user_requests_per_minute=own)
        share, now = LocalShare(), NOON
        let: list[tuple[float, str, int]] = []
        for user, amount, pause in asks:
            now += pause
            found = share.take(user, 1, amount, 0, config, 1, now)
            if isinstance(found, Grant):
                let.append((now, user, amount))
            else:
                assert 0 < found.wait_ms <= 61_000
            minute = [(who, size) for at, who, size in let if at > now - 60_000]
            assert not requests or len(minute) <= requests
            assert sum(size for _, size in minute) <= tokens
            assert not own or max(Counter(who for who, _ in minute).values(), default=0) <= own

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 70_000)), min_size=1, max_size=60))
    def test_who_comes_back_when_told_is_let_in_if_nobody_else_asks(self, asks: list[tuple[int, int]]) -> None:
        config = LimitsConfig(requests_per_minute=3)
        share, now = LocalShare(), NOON
        for user, pause in asks:
            now += pause
            found = share.take(str(user), 1, 0, 0, config, 1, now)
            if isinstance(found, Refusal) and found.reason is LimitReason.REQUESTS:
                now += found.wait_ms
                again = share.take(str(user), 1, 0, 0, config, 1, now)
                # others may wait with less, who are served before
                assert isinstance(again, Grant) or again.reason is LimitReason.REQUESTS_SHARE

    @settings(max_examples=40, deadline=None)
    @given(
        paces=st.lists(st.integers(100, 3_000), min_size=2, max_size=5),
        most=st.integers(10, 60),
    )
    def test_users_who_ask_for_more_get_equal_parts(self, paces: list[int], most: int) -> None:
        """After a minute of contention each has an equal part, or all that she asked for."""
        config = LimitsConfig(requests_per_minute=most)
        share, let = LocalShare(), []
        asked: list[tuple[float, int]] = []
        for tick in range(0, 200_000, 50):
            for user, pace in enumerate(paces):
                if tick % (pace // 50 * 50) == 0:
                    asked.append((tick, user))
                    if isinstance(share.take(str(user), 1, 0, 0, config, 1, NOON + tick), Grant):
                        let.append((tick, user))
        got = Counter(user for at, user in let if at >= 139_000)
        wanted = Counter(user for at, user in asked if at >= 139_000)
        for user in range(len(paces)):
            part = min(wanted[user], most // len(paces))
            assert got[user] >= part * 0.9 - 2, (got, wanted, most)
            modest = sum(count for count in wanted.values() if count < part)
            assert got[user] <= (most - modest) / sum(count >= part for count in wanted.values()) + 2, (got, wanted)

    def test_alone_a_user_may_have_all_of_it(self) -> None:
        share = LocalShare()
        config = LimitsConfig(requests_per_minute=10)
        found = [share.take("a", 1, 0, 0, config, 1, NOON) for _ in range(12)]
        assert sum(isinstance(each, Grant) for each in found) == 10

    def test_what_is_larger_than_the_limit_waits_for_an_empty_window(self) -> None:
        share = LocalShare()
        config = LimitsConfig(tokens_per_minute=1000)
        assert isinstance(share.take("a", 0, 5000, 0, config, 1, NOON), Grant)
        refused = share.take("a", 0, 5000, 0, config, 1, NOON + 1)
        assert isinstance(refused, Refusal)
        assert isinstance(share.take("a", 0, 5000, 0, config, 1, NOON + 1 + refused.wait_ms), Grant)

    def test_a_share_is_a_part_of_the_limit_and_never_nothing(self) -> None:
        config = LimitsConfig(requests_per_minute=10)
        share = LocalShare()
        assert sum(isinstance(share.take("a", 1, 0, 0, config, 4, NOON), Grant) for _ in range(9)) == 2
        assert isinstance(LocalShare().take("a", 1, 0, 0, config, 1000, NOON), Grant)

    @settings(max_examples=30, deadline=None)
    @given(used=st.integers(0, 120), workers=st.integers(1, 5), pauses=st.lists(st.integers(0, 3_000), max_size=150))
    def test_workers_who_are_all_alone_stay_within_the_limit_from_the_first_moment(
        self, used: int, workers: int, pauses: list[int]
    ) -> None:
        """``used`` of 120 were used evenly in the minute before Redis went."""
        config, now = LimitsConfig(requests_per_minute=120), NOON
        log = [NOON - 60_000 + 60_000 * (number + 1) / max(1, used) for number in range(used)]
        shares = [LocalShare() for _ in range(workers)]
        for share in shares:
            share.begin(config, workers, NOON, None, {"requests": used, "tokens": 0})
        for pause in pauses:
            now += pause
            for share in shares:
                for _ in range(3):
                    if isinstance(share.take("a", 1, 0, 0, config, workers, now), Grant):
                        log.append(now)
            assert sum(at > now - 60_000 for at in log) <= 121

    def test_money_is_a_part_of_what_was_left_and_begins_anew_at_midnight(self) -> None:
        config = LimitsConfig(daily_budget_micros=1000, soft_budget_percent=80)
        share = LocalShare()
        share.begin(config, 2, NOON, (20_000, 600), {"requests": 0, "tokens": 0})
        grants = [share.take("a", 0, 1, 50, config, 2, NOON) for _ in range(5)]
        assert [isinstance(each, Grant) and each.cheap for each in grants] == [False, False, True, True, False]
        refused = grants[-1]
        assert isinstance(refused, Refusal)
        assert refused.reason is LimitReason.BUDGET
        assert refused.wait_ms == DAY_MS / 2
        assert isinstance(share.take("a", 0, 1, 50, config, 2, NOON + DAY_MS / 2), Grant)

    def test_a_refund_counts_once_it_is_in_the_window_and_lapses_with_it(self) -> None:
        window, bucket = Window(), int(NOON // BUCKET_MS)
        window.add(bucket, bucket, 1, 100)
        window.add(bucket, bucket + 5, 0, -60)
        assert window.tokens == 40
        window.add(bucket, bucket + 200, 0, -40)
        assert (window.tokens, window.buckets) == (0, {})
        window.add(bucket, bucket + 200, 0, 7)  # what is owed counts now
        assert window.tokens == 7

    def test_a_clock_that_is_put_back_blocks_nobody_for_ever(self) -> None:
        config = LimitsConfig(requests_per_minute=1)
        share = LocalShare()
        share.take("a", 1, 0, 0, config, 1, NOON + 3_600_000)
        assert isinstance(share.take("a", 1, 0, 0, config, 1, NOON), Grant)

    @pytest.mark.parametrize("reason", LimitReason)
    def test_each_reason_says_whose_limit_it_is_and_when_to_come_back(self, reason: LimitReason) -> None:
        said = sentence(reason, 12.2)
        assert ("You have reached" in said) == reason.value.startswith("user_")
        assert "No model was asked." in said
        assert "13 s" in said
        assert "5 h" in sentence(reason, 4.5 * 3600)


class TestCompact:
    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(-9, 9), st.integers(-9, 9)), max_size=30
        )
    )
    def test_sums_stay(self, books: list[tuple[str, int, int, int]]) -> None:
        queue = [_Asked(["book", user, bucket, 0, tokens, 5, cost, -cost]) for user, bucket, tokens, cost in books]
        short = _compact(queue)
        assert len(short) <= 4
        for index in (4, 6, 7):
            assert sum(each.op[index] for each in short) == sum(each.op[index] for each in queue)


@pytest.fixture
async def alone() -> AsyncIterator[Limits]:
    """Nobody listens where its Redis should be."""
    client = connect(f"redis://127.0.0.1:{free_port()}/0")
    config = LimitsConfig(requests_per_minute=40, tokens_per_minute=4000, daily_budget_micros=4_000, concurrent_runs=8)
    limits = Limits(client, "acme", "w1", config, max_workers=4, clock=time.monotonic, wall=time.time)
    await limits.start()
    yield limits
    await limits.aclose()
    await client.aclose()


class TestWithoutRedis:
    async def test_neither_open_without_bound_nor_closed_for_all(self, alone: Limits) -> None:
        began = time.monotonic()
        let, refused = 0, []
        for _ in range(40):
            try:
                admission = await alone.admit("ann@acme.example")
            except ModelLimited as error:
                refused.append(error)
            else:
                alone.release(admission)
                alone.release(admission)
                let += 1
        assert let == 10  # a quarter
        assert all(isinstance(error, LimitReached) and error.retry_after for error in refused)
        assert alone.refused == {LimitReason.REQUESTS: 30}
        assert alone.away
        assert alone.alone == 40
        assert time.monotonic() - began < 1.5  # only the first waits for the time-out, if at all

    async def test_runs_at_a_time(self, alone: Limits) -> None:
        first, _ = await alone.admit("ann"), await alone.admit("bob")
        with pytest.raises(LimitReached) as refused:
            await alone.admit("eve")
        assert refused.value.reason is LimitReason.RUNS
        taken_over = await alone.admit("eve", forced=True)
        alone.release(first)
        alone.release(taken_over)
        alone.release(await alone.admit("eve"))

    async def test_settling_gives_back(self, alone: Limits) -> None:
        for _ in range(20):
            reservation = await alone.reserve("ann", 500, 500)
            alone.settle(reservation, 10, 10)
            alone.settle(reservation, 999, 999)  # a second time does nothing
        assert alone.granted == 20

    async def test_no_limit_asks_nobody(self) -> None:
        client = connect(f"redis://127.0.0.1:{free_port()}/0")
        limits = Limits(client, "acme", "w1", NONE, max_workers=1, clock=time.monotonic, wall=time.time)
        limits.release(await limits.admit("ann"))
        reservation = await limits.reserve("ann", 10**9, 10**9)
        limits.settle(reservation, 1, 1)
        assert not limits.away
        assert limits.round_trips == limits.alone == 0
        await limits.aclose()
        await client.aclose()

    async def test_what_is_told_while_redis_is_away_stays_small(self, alone: Limits) -> None:
        alone.configure(LimitsConfig(tokens_per_minute=10**9), 1)
        for _ in range(3000):
            alone.settle(await alone.reserve("ann", 100, 0), 50, 0)
        assert len(alone._queue) < 600
        await asyncio.sleep(0)
