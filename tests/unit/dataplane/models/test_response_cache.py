"""What makes a key, what is kept, and who asks when many want the same. Its Redis is away; see tests/integration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Effect, Message, ModelRequest, Situation, Tool, ToolCall, Usage
from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.base import ModelDone, ModelEvent, ModelRestarted, ModelText, ModelToolCall
from pilothouse_dataplane.models.response_cache import MAX_BYTES, Cached, CacheKey, Lead, ResponseCache, _dump, _load
from pilothouse_testing.servers import free_port

SEARCH = Tool("jira.issue.search", "Find issues.", {"type": "object", "properties": {"text": {}}}, Effect.READ)
CREATE = Tool("jira.issue.create", "Create one.", {"type": "object"}, Effect.WRITE)
TARGET = TargetConfig(provider="openai", model="gpt")
SITUATION = Situation("hello", user_email="ann@acme.example", permissions="p1")
REQUEST = ModelRequest(
    (
        Message("system", "You help Ann."),
        Message("user", "hello"),
        Message("assistant", "", (ToolCall("call_x1", "jira__issue__search", "{}"),)),
        Message("tool", "3 issues", tool_call_id="call_x1"),
    ),
    (SEARCH, CREATE),
    situation=SITUATION,
)
BY = ("openai", "gpt")
USAGE = Usage(100, 10, 1234)
DONE = ModelDone(100, 10)
ANSWER = (ModelText("Hel"), ModelText("lo"), DONE)


def make(tenant: str = "acme") -> ResponseCache:
    client = connect(f"redis://127.0.0.1:{free_port()}/0")
    return ResponseCache(client, tenant, 3600, clock=time.monotonic)


@pytest.fixture
async def cache() -> AsyncIterator[ResponseCache]:
    cache = make()
    yield cache
    await cache.aclose()


def key_of(cache: ResponseCache, request: ModelRequest = REQUEST, *targets: TargetConfig) -> CacheKey:
    key = cache.key(targets or (TARGET,), request)
    assert key is not None
    return key


def say(lead: Cached | Lead, *events: ModelEvent, by: tuple[str, str] = BY) -> None:
    assert isinstance(lead, Lead)
    with lead:
        for event in events:
            lead.add(event)
        lead.finish(by, USAGE)


class TestKey:
    @pytest.mark.parametrize(
        "other",
        [
            replace(REQUEST, situation=replace(SITUATION, permissions="p2")),
            replace(REQUEST, messages=(*REQUEST.messages, Message("user", ""))),
            replace(REQUEST, messages=(replace(REQUEST.messages[0], role="user"), *REQUEST.messages[1:])),
            replace(REQUEST, messages=(*REQUEST.messages[:3], replace(REQUEST.messages[3], content="4 issues"))),
            replace(REQUEST, tools=(SEARCH,)),
            replace(REQUEST, tools=(CREATE, SEARCH)),
            replace(REQUEST, tools=(replace(SEARCH, parameters={"type": "object"}), CREATE)),
            replace(REQUEST, tools=(replace(SEARCH, description="Find!"), CREATE)),
            replace(REQUEST, allow_tools=False),
            replace(REQUEST, response_schema={}),
        ],
    )
    async def test_all_that_decides_an_answer_is_in_it(self, cache: ResponseCache, other: ModelRequest) -> None:
        assert key_of(cache, other).digest != key_of(cache).digest

    async def test_so_are_tenant_and_targets(self, cache: ResponseCache) -> None:
        digest = key_of(cache).digest
        assert key_of(make("globex")).digest != digest
        for change in ({"model": "gpt-2"}, {"provider": "azure"}, {"reasoning": "high"}, {"max_output_tokens": 9}):
            assert key_of(cache, REQUEST, TARGET.model_copy(update=change)).digest != digest
        second = TargetConfig(provider="b", model="m")
        assert key_of(cache, REQUEST, TARGET, second).digest == key_of(cache, REQUEST, second, TARGET).digest != digest

    async def test_the_models_own_ids_are_not(self, cache: ResponseCache) -> None:
        renamed = (
            *REQUEST.messages[:2],
            replace(REQUEST.messages[2], tool_calls=(ToolCall("toolu_9", "jira__issue__search", "{}"),)),
            replace(REQUEST.messages[3], tool_call_id="toolu_9"),
        )
        assert key_of(cache, replace(REQUEST, messages=renamed)) == key_of(cache)
        unpaired = (*renamed[:3], replace(renamed[3], tool_call_id="other"))
        assert key_of(cache, replace(REQUEST, messages=unpaired)) != key_of(cache)

    @pytest.mark.parametrize(
        "request_",
        [
            replace(REQUEST, situation=None),
            replace(REQUEST, situation=replace(SITUATION, permissions="")),
            replace(REQUEST, situation=replace(SITUATION, writes=1)),
            replace(REQUEST, messages=(Message("user", "\ud800"),)),
            replace(REQUEST, response_schema={"x": object()}),
        ],
    )
    async def test_what_may_not_be_used_again_has_none(self, cache: ResponseCache, request_: ModelRequest) -> None:
        assert cache.key((TARGET,), request_) is None
        assert cache.uncacheable == 1
        lead = await cache.enter(None, wait_seconds=1)
        say(lead, *ANSWER)


class TestEntry:
    async def test_is_read_as_it_was_written_and_only_under_its_key(self, cache: ResponseCache) -> None:
        key = key_of(cache)
        events = (ModelText("Hallo, wie geht's? ☃"), ModelToolCall(ToolCall("c1", "x", '{"broken')), DONE)
        raw = _dump(key, Cached(events, BY, USAGE))
        assert _load(key, raw) == Cached(events, BY, USAGE)
        assert _load(key_of(cache, replace(REQUEST, allow_tools=False)), raw) is None

    @given(st.data())
    def test_a_damaged_one_is_a_miss(self, data: st.DataObject) -> None:
        key = CacheKey("d" * 64, frozenset({BY}), frozenset())
        raw = bytearray(_dump(key, Cached(ANSWER[1:], BY, USAGE)))
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where] ^= data.draw(st.integers(1, 255))
        assert _load(key, bytes(raw)) is None
        assert _load(key, bytes(raw[:where])) is None

    @given(st.binary(max_size=200))
    def test_so_is_anything_else(self, raw: bytes) -> None:
        assert _load(CacheKey("d" * 64, frozenset({BY}), frozenset()), raw) is None


class TestTogether:
    async def test_equal_calls_at_one_time_make_one(self, cache: ResponseCache) -> None:
        key = key_of(cache)
        lead = await cache.enter(key, wait_seconds=1)
        others = [asyncio.create_task(cache.enter(key_of(cache), wait_seconds=5)) for _ in range(20)]
        await asyncio.sleep(0.01)
        say(lead, *ANSWER)
        for found in await asyncio.gather(*others):
            assert found == Cached((ModelText("Hello"), DONE), BY, USAGE)
        assert (cache.hits, cache.shared, cache.misses) == (20, 20, 1)
        assert cache.saved_micros == 20 * 1234
        assert not cache._flights

    @pytest.mark.parametrize(
        "events",
        [
            (ModelToolCall(ToolCall("c", "jira__issue__create", "{}")), DONE),
            (ModelToolCall(ToolCall("c", "jira__issue__remove", "{}")), DONE),  # not shown
            (ModelText("cut"), ModelDone(1, 1, stop="length")),
            (ModelText("a"), ModelRestarted(after_text=True), ModelText("b"), DONE),
            (ModelText("x" * (MAX_BYTES + 1)), DONE),
            (ModelText("no end"),),
            (),
        ],
    )
    async def test_what_may_not_be_shared_lets_all_ask_for_themselves(
        self, cache: ResponseCache, events: tuple[ModelEvent, ...]
    ) -> None:
        await self._nothing_is_shared(cache, *events)

    async def test_so_does_another_tiers_answer(self, cache: ResponseCache) -> None:
        await self._nothing_is_shared(cache, *ANSWER, by=("openai", "gpt-mini"))

    async def _nothing_is_shared(self, cache: ResponseCache, *events: ModelEvent, by: tuple[str, str] = BY) -> None:
        key = key_of(cache)
        lead = await cache.enter(key, wait_seconds=1)
        others = [asyncio.create_task(cache.enter(key, wait_seconds=5)) for _ in range(3)]
        await asyncio.sleep(0.01)
        say(lead, *events, by=by)
        assert all(isinstance(found, Lead) for found in await asyncio.wait_for(asyncio.gather(*others), 1))
        assert (cache.hits, cache.misses) == (0, 4)
        assert not cache._flights

    async def test_what_came_before_a_restart_is_void(self, cache: ResponseCache) -> None:
        key = key_of(cache)
        lead = await cache.enter(key, wait_seconds=1)
        other = asyncio.create_task(cache.enter(key, wait_seconds=5))
        await asyncio.sleep(0.01)
        call = ModelToolCall(ToolCall("c", "jira__issue__search", "{}"))
        say(lead, call, ModelRestarted(), *ANSWER)
        assert await other == Cached((ModelText("Hello"), DONE), BY, USAGE)

    async def test_a_failure_is_not_shared(self, cache: ResponseCache) -> None:
        key = key_of(cache)
        lead = await cache.enter(key, wait_seconds=1)
        others = [asyncio.create_task(cache.enter(key, wait_seconds=5)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert isinstance(lead, Lead)
        lead.add(ModelText("Hel"))
        with pytest.raises(OSError), lead:
            raise OSError
        assert all(isinstance(found, Lead) for found in await asyncio.wait_for(asyncio.gather(*others), 1))

    async def test_a_leader_who_is_cancelled_hands_over_to_one(self, cache: ResponseCache) -> None:
        key = key_of(cache)
        lead = await cache.enter(key, wait_seconds=1)
        others = [asyncio.create_task(cache.enter(key, wait_seconds=5)) for _ in range(4)]
        await asyncio.sleep(0.01)
        others[0].cancel()  # who left is passed over
        assert isinstance(lead, Lead)
        with pytest.raises(asyncio.CancelledError), lead:
            raise asyncio.CancelledError
        done, waiting = await asyncio.wait(others[1:], timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(waiting)) == (1, 2)
        say(done.pop().result(), *ANSWER)
        assert all(isinstance(found, Cached) for found in await asyncio.gather(*waiting))
        assert not cache._flights

    async def test_whose_turn_it_is_may_leave_at_that_moment(self, cache: ResponseCache) -> None:
        key = key_of(cache)
        lead = await cache.enter(key, wait_seconds=1)
        first, second = (asyncio.create_task(cache.enter(key, wait_seconds=5)) for _ in range(2))
        await asyncio.sleep(0.01)
        assert isinstance(lead, Lead)
        with pytest.raises(asyncio.CancelledError), lead:
            raise asyncio.CancelledError
        first.cancel()
        assert isinstance(await asyncio.wait_for(second, 1), Lead)

    async def test_nobody_waits_longer_than_she_says(self, cache: ResponseCache) -> None:
        key = key_of(cache)
        lead = await cache.enter(key, wait_seconds=1)
        began = time.monotonic()
        assert isinstance(await cache.enter(key, wait_seconds=0.05), Lead)
        assert time.monotonic() - began < 0.5
        say(lead, *ANSWER)

    async def test_without_redis_nothing_is_kept_and_nothing_fails(self, cache: ResponseCache) -> None:
        key = key_of(cache)
        for _ in range(3):
            say(await cache.enter(key, wait_seconds=1), *ANSWER)
        assert (cache.hits, cache.misses) == (0, 3)
