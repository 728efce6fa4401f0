"""What a call may take is reserved while the cache is looked at: whatever comes of either, nothing stays reserved."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any

import pytest

from pilothouse_api.workerconfig import ProviderConfig, RouteConfig, TargetConfig
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Message, ModelRequest, Situation, Usage
from pilothouse_dataplane.models.base import ModelDone, ModelEvent, ModelLimited, ModelText
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_dataplane.models.gateway import ModelGateway
from pilothouse_dataplane.models.limits import Reservation
from pilothouse_dataplane.models.response_cache import Cached, CacheKey, Lead

REQUEST = ModelRequest((Message("user", "hello"),), situation=Situation("hello", "ann@acme.example", permissions="p"))
ANSWER = (ModelText("hi"), ModelDone(100, 10))


class Model:
    def __init__(self) -> None:
        self.asked = 0

    async def stream(self, target: TargetConfig, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        self.asked += 1
        for event in ANSWER:
            yield event

    async def aclose(self) -> None: ...


class Limits:
    """Grants after ``seconds``, or refuses; keeps what is reserved and not settled."""

    cheap_only = False

    def __init__(self, seconds: float = 0.0, *, refuses: bool = False) -> None:
        self.open: list[Reservation] = []
        self.made = 0
        self.settled: list[tuple[int, int]] = []
        self._seconds, self._refuses = seconds, refuses

    async def reserve(self, user: str, tokens: int, cost_micros: int) -> Reservation:
        self.made += 1
        await asyncio.sleep(self._seconds)
        if self._refuses:
            raise ModelLimited("Too much", 3)
        reservation = Reservation(user, 0, 0, tokens, cost_micros)
        self.open.append(reservation)
        return reservation

    def settle(self, reservation: Reservation, tokens: int, cost_micros: int) -> None:
        self.open.remove(reservation)
        self.settled.append((tokens, cost_micros))


class Cache:
    """Knows the answer after ``seconds``, or does not."""

    def __init__(self, seconds: float = 0.0, *, knows: bool, under_way: bool = False) -> None:
        self._seconds, self._knows, self._under_way = seconds, knows, under_way

    def key(self, targets: Any, request: ModelRequest) -> CacheKey:
        return CacheKey("k", frozenset(), frozenset())

    def under_way(self, key: CacheKey) -> bool:
        return self._under_way

    async def enter(self, key: CacheKey, *, wait_seconds: float) -> Cached | Lead:
        await asyncio.sleep(self._seconds)
        lead: Any = Lead.__new__(Lead)
        Lead.__init__(lead, None, None, None)  # type: ignore[arg-type]
        return Cached(ANSWER, ("p", "m"), Usage(100, 10, 700)) if self._knows else lead

    async def aclose(self) -> None: ...


def gateway(model: Model, limits: Limits, cache: Cache) -> ModelGateway:
    price = Decimal("0.01")
    target = TargetConfig(provider="p", model="m", input_price_per_1k=price, output_price_per_1k=price)
    route = RouteConfig(
        providers=(ProviderConfig(name="p", type="OpenAI"),), tiers={"mid": (target,)}, default_tier="mid"
    )
    kept: Any = {"limits": limits, "cache": cache}
    return ModelGateway(route, {"p": model}, GuardRegistry(lambda: 0.0), clock=lambda: 0.0, random=lambda: 0.0, **kept)


async def ask(given: ModelGateway) -> tuple[list[ModelEvent], list[ModelCallRecord]]:
    records: list[ModelCallRecord] = []
    stream = given.stream(REQUEST, deadline=10, on_call=records.append)
    return [event async for event in stream], records


@pytest.mark.parametrize(("limit", "look"), [(0.0, 0.02), (0.02, 0.0), (0.0, 0.0)])
async def test_a_known_answer_gives_back_what_was_reserved(limit: float, look: float) -> None:
    model, limits = Model(), Limits(limit)
    events, [record] = await ask(gateway(model, limits, Cache(look, knows=True)))
    assert (events, record.cached, model.asked) == (list(ANSWER), True, 0)
    await asyncio.sleep(0.04)
    assert limits.made == 1
    assert limits.open == []
    assert limits.settled == [(0, 0)]


@pytest.mark.parametrize(("limit", "look"), [(0.0, 0.02), (0.02, 0.0)])
async def test_an_unknown_answer_is_asked_for_within_what_was_reserved(limit: float, look: float) -> None:
    model, limits = Model(), Limits(limit)
    events, [record] = await ask(gateway(model, limits, Cache(look, knows=False)))
    assert (events, record.cached, model.asked) == (list(ANSWER), False, 1)
    assert (limits.made, limits.open) == (1, [])
    assert limits.settled == [(110, 1100)]


@pytest.mark.parametrize(("limit", "look"), [(0.0, 0.02), (0.02, 0.0)])
async def test_a_refusal_asks_nobody_and_does_not_keep_a_known_answer_back(limit: float, look: float) -> None:
    model, limits = Model(), Limits(limit, refuses=True)
    with pytest.raises(ModelLimited) as refused:
        await ask(gateway(model, limits, Cache(look, knows=False)))
    assert (refused.value.retry_after, model.asked) == (3, 0)
    events, _ = await ask(gateway(model, limits, Cache(look, knows=True)))
    assert events == list(ANSWER)
    await asyncio.sleep(0.04)
    gc.collect()  # an error that nobody has heard of would be told now, and fail the test


@pytest.mark.parametrize(("limit", "look"), [(0.02, 1.0), (1.0, 0.02), (0.04, 1.0)])
async def test_who_goes_away_leaves_nothing_reserved(limit: float, look: float) -> None:
    model, limits = Model(), Limits(limit)
    asking = asyncio.create_task(ask(gateway(model, limits, Cache(look, knows=False))))
    await asyncio.sleep(0.03)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(1.05 if limit == 1.0 else 0.05)
    assert (limits.open, model.asked) == ([], 0)


async def test_who_waits_for_another_ones_answer_reserves_nothing_meanwhile() -> None:
    model, limits = Model(), Limits()
    await ask(gateway(model, limits, Cache(knows=True, under_way=True)))
    assert limits.made == 0
