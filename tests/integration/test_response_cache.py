"""The answers' cache among workers, on a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Message, ModelRequest, Situation, Usage
from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.base import ModelDone, ModelText
from pilothouse_dataplane.models.response_cache import Cached, CacheKey, Lead, ResponseCache
from pilothouse_testing.servers import free_port, valkey

BY = ("openai", "gpt")
TARGET = TargetConfig(provider="openai", model="gpt")
REQUEST = ModelRequest((Message("user", "hello"),), situation=Situation("hello", permissions="p1"))
EVENTS = (ModelText("Hello"), ModelDone(100, 10))


class Workers:
    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Redis = connect(url)
        self._made: list[tuple[ResponseCache, Redis]] = []

    def make(self, tenant: str = "acme", seconds: float = 60) -> ResponseCache:
        client = connect(self.url)
        cache = ResponseCache(client, tenant, seconds, clock=time.monotonic)
        self._made.append((cache, client))
        return cache

    async def aclose(self) -> None:
        for cache, client in self._made:
            await cache.aclose()
            await client.aclose()
        await self.client.aclose()


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    with valkey(tmp_path) as url:
        workers = Workers(url)
        yield workers
        await workers.aclose()


def key_of(cache: ResponseCache) -> CacheKey:
    key = cache.key((TARGET,), REQUEST)
    assert key is not None
    return key


async def enter(cache: ResponseCache, wait: float = 5) -> Cached | Lead:
    return await cache.enter(key_of(cache), wait_seconds=wait)


async def say(cache: ResponseCache, lead: Cached | Lead) -> None:
    assert isinstance(lead, Lead)
    with lead:
        for event in EVENTS:
            lead.add(event)
        lead.finish(BY, Usage(100, 10, 700))
    await asyncio.gather(*cache._leaving)


async def test_another_worker_uses_it_again_for_its_time(workers: Workers) -> None:
    a, b = workers.make(seconds=0.3), workers.make(seconds=0.3)
    await say(a, await enter(a))
    assert await enter(b) == Cached(EVENTS, BY, Usage(100, 10, 700))
    assert (b.hits, b.saved_micros) == (1, 700)
    keys = await workers.client.keys("*")
    assert len(keys) == 1
    assert keys[0].startswith(b"{acme}:response:")
    await asyncio.sleep(0.35)
    assert isinstance(await enter(b), Lead)


async def test_another_tenant_never(workers: Workers) -> None:
    a, b = workers.make(), workers.make("globex")
    await say(a, await enter(a))
    assert isinstance(await enter(b), Lead)


async def test_workers_wait_for_the_one_that_asks(workers: Workers) -> None:
    a, b, c = workers.make(), workers.make(), workers.make()
    lead = await enter(a)
    others = [asyncio.create_task(enter(each)) for each in (b, b, c, c, c)]
    await asyncio.sleep(0.15)
    assert not any(other.done() for other in others)
    await say(a, lead)
    assert all(isinstance(found, Cached) for found in await asyncio.gather(*others))
    assert a.misses + b.misses + c.misses == 1


async def test_a_leader_that_leaves_lets_another_worker_lead(workers: Workers) -> None:
    a, b = workers.make(), workers.make()
    lead = await enter(a)
    other = asyncio.create_task(enter(b))
    await asyncio.sleep(0.05)
    assert isinstance(lead, Lead)
    with pytest.raises(asyncio.CancelledError), lead:
        raise asyncio.CancelledError
    await say(b, await asyncio.wait_for(other, 1))
    assert isinstance(await enter(a), Cached)


async def test_a_leaders_worker_that_dies_holds_nobody_for_long(workers: Workers) -> None:
    a, b = workers.make(), workers.make()
    await enter(a)
    began = time.monotonic()
    assert isinstance(await enter(b, wait=0.3), Lead)
    assert time.monotonic() - began < 0.6
    [lock] = await workers.client.keys("*:lock")
    assert 0 < await workers.client.pttl(lock) <= 10_000


async def test_a_damaged_entry_is_a_miss_and_is_replaced(workers: Workers) -> None:
    a = workers.make()
    await say(a, await enter(a))
    [name] = await workers.client.keys("*")
    await workers.client.set(name, (await workers.client.get(name))[:-1])
    lead = await enter(a)
    assert a.damaged == 1
    await say(a, lead)
    assert isinstance(await enter(a), Cached)


async def test_a_store_that_goes_and_comes_back_costs_little(tmp_path: Path) -> None:
    port = free_port()
    workers = Workers(f"redis://127.0.0.1:{port}/0")
    with valkey(tmp_path, port):
        a = workers.make()
        await say(a, await enter(a))
        assert isinstance(await enter(a), Cached)
    began = time.monotonic()
    for _ in range(50):
        await say(a, await enter(a))
    assert time.monotonic() - began < 1
    with valkey(tmp_path, port):
        await asyncio.sleep(2)
        await say(a, await enter(a))
        assert isinstance(await enter(a), Cached)
        await workers.aclose()
