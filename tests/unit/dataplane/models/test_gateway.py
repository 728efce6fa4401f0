"""The gateway over fake providers: what is asked, in which order, what is told, and what is charged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from pilothouse_api.workerconfig import HedgeConfig, LimitsConfig, ProviderConfig, RouteConfig, TargetConfig, Tier
from pilothouse_dataplane.core.breaker import BreakerState
from pilothouse_dataplane.core.guard import BreakerChange, GuardRegistry
from pilothouse_dataplane.core.messages import Message, ModelRequest, Situation, ToolCall
from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelDone,
    ModelError,
    ModelEvent,
    ModelExhausted,
    ModelInterrupted,
    ModelNonsense,
    ModelOverBudget,
    ModelOverflow,
    ModelProvider,
    ModelRateLimited,
    ModelRejected,
    ModelRestarted,
    ModelTimeout,
    ModelToolCall,
    ModelUnavailable,
    ModelUnreachable,
    Stop,
)
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_dataplane.models.gateway import ModelGateway
from pilothouse_dataplane.models.limits import LimitReached, Limits
from pilothouse_dataplane.models.providers import MisconfiguredProvider
from pilothouse_dataplane.models.response_cache import ResponseCache
from pilothouse_testing.fakes import ECHO, FakeModel, Turn, text

REQUEST = ModelRequest((Message("system", "Be brief."), Message("user", "hello")), (ECHO,))
CALL = ModelToolCall(ToolCall("a", "x", "{}"))


@dataclass(frozen=True)
class Says:
    tier: Tier
    reason: str = "because"
    escalated: bool = False


class FakeRouter:
    """One tier up from whichever failed; else fast."""

    def __init__(self) -> None:
        self.asked: list[tuple[Situation | None, Tier | None]] = []

    wants_vector = False

    def decide(
        self, situation: Situation | None, failed: Tier | None = None, vector: Sequence[float] | None = None
    ) -> Says:
        self.asked.append((situation, failed))
        return Says("mid", "fast failed", escalated=True) if failed == "fast" else Says("fast", "short")


@dataclass
class World:
    """A gateway with one target a provider, all in the tier mid unless ``tiers`` says otherwise."""

    models: Mapping[str, FakeModel]
    tiers: Mapping[str, tuple[str, ...]] | None = None
    targets: Mapping[str, Any] = field(default_factory=dict)
    hedge: HedgeConfig | None = None
    router: FakeRouter | None = None
    misconfigured: Mapping[str, str] = field(default_factory=dict)
    cache: ResponseCache | None = None
    limits: Limits | None = None
    now: float = 0.0

    def __post_init__(self) -> None:
        self.records: list[ModelCallRecord] = []
        self.changes: list[BreakerChange] = []
        self.registry = GuardRegistry(lambda: self.now, self.changes.append)
        tiers = self.tiers or {"mid": tuple(self.models)}
        route = RouteConfig.model_validate(
            {
                "providers": [ProviderConfig(name=name, type="OpenAI") for name in self.models],
                "tiers": {
                    tier: tuple(
                        TargetConfig(
                            provider=name,
                            model=f"{name}-m",
                            priority=number,
                            input_price_per_1k=Decimal("0.01"),
                            output_price_per_1k=Decimal("0.01"),
                            **self.targets.get(name, {}),
                        )
                        for number, name in enumerate(names)
                    )
                    for tier, names in tiers.items()
                },
                "default_tier": next(iter(tiers)),
                "fallback": tuple(tiers),
                "hedge": self.hedge,
            }
        )
        providers: dict[str, ModelProvider] = {
            name: MisconfiguredProvider(self.misconfigured[name]) if name in self.misconfigured else model
            for name, model in self.models.items()
        }
        self.gateway = ModelGateway(
            route,
            providers,
            self.registry,
            clock=lambda: self.now,
            random=lambda: 0.0,
            router=self.router,
            cache=self.cache,
            limits=self.limits,
        )

    def stream(
        self, request: ModelRequest = REQUEST, *, deadline: float = 10, budget: int | None = None
    ) -> AsyncIterator[ModelEvent]:
        return self.gateway.stream(request, deadline=deadline, on_call=self.records.append, budget_micros=budget)

    async def ask(
        self, request: ModelRequest = REQUEST, into: list[ModelEvent] | None = None, **more: Any
    ) -> list[ModelEvent]:
        got = [] if into is None else into
        async for event in self.stream(request, **more):
            got.append(event)
        return got

    def state(self, provider: str) -> BreakerState:
        return self.registry.guards[f"provider/{provider}"].state


def world(**models: FakeModel) -> World:
    return World(models)


@pytest.mark.parametrize(
    "error",
    [
        ModelUnavailable("503"),
        ModelTimeout("no first token"),
        ModelRateLimited("429", 30),
        ModelUnreachable("nobody there"),
        ModelNonsense("not to be parsed"),
        ModelDenied("401"),
        ModelExhausted("402"),
        ModelRejected("400"),
        ZeroDivisionError("a bug in reading what came"),
    ],
)
async def test_whatever_fails_before_text_the_next_target_answers_and_the_record_says_why(error: Exception) -> None:
    given = world(first=FakeModel([error]), second=FakeModel([text("hi")]))
    assert await given.ask() == [text("hi"), ModelDone(100, 10)]
    last = given.records[-1]
    assert (last.provider, last.aborted) == ("second", False)
    assert last.fallback.startswith("first/first-m: ")
    assert sum(record.usage.cost_micros for record in given.records[:-1]) == (
        0 if isinstance(error, ModelError) else given.records[0].usage.cost_micros
    )


async def test_a_quota_that_is_used_up_opens_the_breaker_with_one_call_and_a_refused_request_never_does() -> None:
    given = world(first=FakeModel([ModelExhausted("no credit left")]), second=FakeModel([text("hi")]))
    await given.ask()
    await given.ask()
    assert given.state("first") is BreakerState.OPEN
    assert given.changes[-1].reason == "no credit left" or given.changes[-2].reason == "no credit left"
    assert len(given.models["first"].requests) == 1
    assert given.records[-1].fallback.startswith("first/first-m: The model provider first is down; ask again in")
    refusing = world(first=FakeModel([ModelRejected("400")]), second=FakeModel([text("hi")]))
    for _ in range(10):
        await refusing.ask()
    assert refusing.state("first") is BreakerState.CLOSED


async def test_a_half_answer_is_void_and_the_user_is_told_so_before_the_next_targets_first_word() -> None:
    given = world(first=FakeModel([text("The ans"), ModelUnavailable("cut")]), second=FakeModel([text("Four.")]))
    assert (await given.ask())[:3] == [text("The ans"), ModelRestarted(after_text=True), text("Four.")]
    assert [(record.provider, record.aborted) for record in given.records] == [("first", True), ("second", False)]
    cut = given.records[0].usage
    assert cut.output_tokens == 2, "of the seven characters that came"
    assert cut.input_tokens > 0
    assert given.records[0].estimated


async def test_calls_without_text_are_void_without_a_word_to_the_user() -> None:
    given = world(first=FakeModel([CALL, ModelUnavailable("cut")]), second=FakeModel([text("hi")]))
    assert (await given.ask())[:3] == [CALL, ModelRestarted(after_text=False), text("hi")]


async def test_a_half_answer_stands_where_nobody_else_can_answer() -> None:
    half: Turn = [text("The ans"), ModelUnavailable("cut")]
    given = world(first=FakeModel(half, [ModelDenied("key revoked")]))
    got: list[ModelEvent] = []
    with pytest.raises(ModelInterrupted, match="cut"):
        await given.ask(into=got)
    assert got == [text("The ans")], "no restart is told that does not come"


async def test_an_answer_does_not_begin_anew_for_ever() -> None:
    half: Turn = [text("The ans"), ModelUnavailable("cut")]
    given = world(a=FakeModel(half), b=FakeModel(half), c=FakeModel(half), d=FakeModel(half))
    got: list[ModelEvent] = []
    with pytest.raises(ModelInterrupted):
        await given.ask(into=got)
    assert got.count(ModelRestarted(after_text=True)) == 2


async def test_too_long_a_request_goes_to_larger_windows_only() -> None:
    over = FakeModel([ModelOverflow("longer than the model's context")])
    given = World(
        {"small": over, "same": FakeModel([text("no")]), "large": FakeModel([text("yes")])},
        targets={
            "small": {"context_tokens": 8_000},
            "same": {"context_tokens": 8_000},
            "large": {"context_tokens": 64_000},
        },
    )
    assert (await given.ask())[0] == text("yes")
    assert given.models["same"].requests == []
    alone = World({"small": over}, targets={"small": {"context_tokens": 8_000}})
    with pytest.raises(ModelOverflow):
        await alone.ask()
    long = ModelRequest((Message("user", "x" * 40_000),))
    assert (await given.ask(long))[0] == text("yes")
    assert len(over.requests) == 2, "what can't fit is not sent"


async def test_the_run_s_budget_is_looked_at_before_each_target() -> None:
    given = World({"first": FakeModel([text("x" * 400), ModelUnavailable("cut")]), "second": FakeModel([text("hi")])})
    with pytest.raises(ModelInterrupted):
        await given.ask(budget=1000)
    assert given.models["second"].requests == []
    assert given.records[0].usage.cost_micros > 1000
    with pytest.raises(ModelOverBudget, match="not asked"):
        await given.ask(ModelRequest((Message("user", "x" * 4_000),)), budget=5_000)
    assert len(given.models["first"].requests) == 1


async def test_a_target_that_wants_fewer_requests_is_asked_last_until_its_pause_is_over() -> None:
    given = world(first=FakeModel([ModelRateLimited("slow down", 20)], [text("one")]), second=FakeModel([text("two")]))
    assert (await given.ask())[0] == text("two")
    given.now = 19
    assert (await given.ask(deadline=99))[0] == text("two")
    assert len(given.models["first"].requests) == 1
    given.now = 21
    assert (await given.ask(deadline=99))[0] == text("one")


async def test_a_second_pass_leaves_out_what_would_fail_again() -> None:
    denied, flaky = FakeModel([ModelDenied("401")]), FakeModel([ModelUnavailable("503", 0.01)], [text("hi")])
    given = world(denied=denied, flaky=flaky)
    assert (await given.ask())[0] == text("hi")
    assert len(denied.requests) == 1
    once = FakeModel([ModelUnavailable("don't", again=False)], [text("hi")])
    with pytest.raises(ModelUnavailable, match="don't"):
        await world(once=once).ask()


async def test_a_long_pause_is_not_waited_for_and_what_the_last_one_said_is_told() -> None:
    given = world(first=FakeModel([ModelRateLimited("Rate limit reached", 20)]), second=FakeModel([ModelDenied("401")]))
    began = asyncio.get_running_loop().time()
    with pytest.raises(ModelRateLimited, match="Rate limit reached"):
        await given.ask()
    assert asyncio.get_running_loop().time() - began < 1


async def test_a_provider_that_could_not_be_made_is_passed_over_with_the_reason() -> None:
    why = "The key of first holds a line break; correct the Secret's key api-key"
    given = World({"first": FakeModel([]), "second": FakeModel([text("hi")])}, misconfigured={"first": why})
    assert (await given.ask())[0] == text("hi")
    assert why in given.records[0].fallback
    assert list(given.registry.guards) == ["provider/second"], "no breaker hides the reason"
    with pytest.raises(ModelDenied, match="line break"):
        await World({"first": FakeModel([])}, misconfigured={"first": why}).ask()
    empty = World({"first": FakeModel([])}, tiers={"mid": ()})
    with pytest.raises(ModelUnavailable, match="No model is configured"):
        await empty.ask()


async def test_whoever_stops_reading_pays_for_what_had_come() -> None:
    given = world(first=FakeModel([text("x" * 40), 5.0, text("never")]))
    stream = given.stream()
    assert await anext(stream) == text("x" * 40)
    await stream.aclose()  # type: ignore[attr-defined]
    (record,) = given.records
    assert (record.aborted, record.usage.output_tokens) == (True, 10)
    task = asyncio.create_task(given.ask())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(given.records) == 2
    assert given.state("first") is BreakerState.CLOSED


async def test_a_plan_that_failed_is_made_by_the_next_tier_once_and_the_run_stays_there() -> None:
    router = FakeRouter()
    given = World(
        {"f": FakeModel([text("f")]), "m": FakeModel([text("m")])}, tiers={"fast": ("f",), "mid": ("m",)}, router=router
    )

    def at(**more: Any) -> ModelRequest:
        return ModelRequest((Message("user", "hello"),), situation=Situation("hello", **more))

    assert (await given.ask(at()))[0] == text("f")
    assert (given.records[-1].tier, given.records[-1].reason) == ("fast", "short")
    assert (await given.ask(at(rounds=1, failed_calls=2, planned_by="fast")))[0] == text("m")
    assert (given.records[-1].tier, given.records[-1].escalated) == ("mid", True)
    assert (await given.ask(at(rounds=2, failed_calls=2, planned_by="mid", least="mid")))[0] == text("m")
    assert [failed for _, failed in router.asked] == [None, "fast", None]
    assert "stays on mid" in given.records[-1].reason
    assert not given.records[-1].escalated


@pytest.mark.parametrize("stop", ["length", "refusal", "filter"])
async def test_a_target_that_gave_nothing_but_a_reason_is_followed_by_the_next(stop: Stop) -> None:
    given = world(first=FakeModel([ModelDone(100, 10, stop=stop)]), second=FakeModel([text("hi")]))
    assert (await given.ask())[0] == text("hi")
    assert [(record.provider, record.aborted) for record in given.records] == [("first", False), ("second", False)]
    assert given.state("first") is BreakerState.CLOSED
    half = world(first=FakeModel([text("I can't"), ModelDone(100, 10, stop=stop)]), second=FakeModel([text("hi")]))
    assert (await half.ask())[0] == text("I can't"), "what was said stands"


# --- hedging ----------------------------------------------------------------------------------------------------------
def hedging(percent: float = 100, **models: FakeModel) -> World:
    return World(models, hedge=HedgeConfig(after_seconds=0.02, budget_percent=percent))


async def test_the_faster_of_two_is_heard_and_the_other_is_cancelled_and_charged() -> None:
    slow = FakeModel([0.5, text("slow")])
    given = hedging(first=slow, second=FakeModel([text("quick")]))
    assert await given.ask() == [text("quick"), ModelDone(100, 10)]
    assert slow.cancelled == 1
    by_name = {record.provider: record for record in given.records}
    assert len(given.records) == 2
    assert by_name["first"].aborted
    assert by_name["first"].usage.input_tokens > 0
    assert by_name["second"].fallback == "first/first-m: no first token within 0.02 s"
    assert given.state("first") is BreakerState.CLOSED


async def test_a_quick_first_target_is_never_hedged_and_a_failing_one_falls_back_as_ever() -> None:
    given = hedging(first=FakeModel([text("quick"), 0.05, text(" and long")]), second=FakeModel([text("no")]))
    assert (await given.ask())[:2] == [text("quick"), text(" and long")]
    assert given.models["second"].requests == []
    failing = hedging(first=FakeModel([ModelUnavailable("503")]), second=FakeModel([text("yes")]))
    assert (await failing.ask())[0] == text("yes")
    assert len(failing.models["second"].requests) == 1


async def test_where_the_hedge_fails_the_first_target_is_waited_for_and_where_both_fail_the_third_is_asked() -> None:
    given = hedging(first=FakeModel([0.05, text("late")]), second=FakeModel([ModelUnavailable("503")]))
    assert (await given.ask())[0] == text("late")
    both = hedging(
        first=FakeModel([0.05, ModelUnavailable("503")]),
        second=FakeModel([ModelUnavailable("503")]),
        third=FakeModel([text("third")]),
    )
    assert (await both.ask())[0] == text("third")
    assert len(both.models["second"].requests) == 1, "not asked again in the same pass"


async def test_hedges_are_bounded_by_their_share_of_all_calls() -> None:
    slow, second = FakeModel([0.04, text("slow")]), FakeModel([text("quick")])
    given = hedging(25, first=slow, second=second)
    for _ in range(8):
        await given.ask()
    assert len(second.requests) == 2


async def test_stopping_while_two_are_asked_cancels_both() -> None:
    first, second = FakeModel([5.0]), FakeModel([5.0])
    given = hedging(first=first, second=second)
    task = asyncio.create_task(given.ask())
    await asyncio.sleep(0.06)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (first.cancelled, second.cancelled) == (1, 1)
    assert [record.aborted for record in given.records] == [True, True]


# --- cache and limits, whose Redis is away ----------------------------------------------------------------------------
KNOWN = replace(REQUEST, situation=Situation("hello", "ann@acme.example", permissions="p"))


async def test_equal_calls_at_one_time_ask_once_and_only_one_of_them_costs() -> None:
    client = connect("redis://127.0.0.1:1/0")
    given = World(
        {"first": FakeModel([0.05, text("hi")])}, cache=ResponseCache(client, "acme", 60, clock=time.monotonic)
    )
    one, two, other = await asyncio.gather(given.ask(KNOWN), given.ask(KNOWN), given.ask(REQUEST))
    assert one[0] == two[0] == other[0] == text("hi")
    assert len(given.models["first"].requests) == 2, "whose permissions are not known, asks for herself"
    paid, cached = (
        [record for record in given.records if not record.cached],
        [record for record in given.records if record.cached],
    )
    assert (len(paid), len(cached)) == (2, 1)
    assert cached[0].usage.cost_micros == cached[0].usage.input_tokens == 0
    assert cached[0].saved_micros == paid[0].usage.cost_micros > 0
    await given.gateway.aclose()
    await client.aclose()


async def test_who_leads_and_goes_away_leaves_the_call_to_the_next() -> None:
    client = connect("redis://127.0.0.1:1/0")
    given = World(
        {"first": FakeModel([0.6, text("hi")])}, cache=ResponseCache(client, "acme", 60, clock=time.monotonic)
    )
    leader = asyncio.create_task(given.ask(KNOWN))
    await asyncio.sleep(0.3)
    follower = asyncio.create_task(given.ask(KNOWN))
    await asyncio.sleep(0.02)
    leader.cancel()
    assert (await follower)[0] == text("hi")
    assert len(given.models["first"].requests) == 2
    await given.gateway.aclose()
    await client.aclose()


async def test_a_limit_refuses_before_any_provider_is_asked_and_what_is_left_over_is_given_back() -> None:
    client = connect("redis://127.0.0.1:1/0")
    config = LimitsConfig(tokens_per_minute=10_000, concurrent_runs=0)
    limits = Limits(client, "acme", "w1", config, max_workers=1, clock=time.monotonic, wall=time.time)
    given = World({"first": FakeModel([text("hi")])}, limits=limits)
    for _ in range(5):  # each reserves 4,096 tokens for its answer, and takes 110
        await given.ask(KNOWN)
    held = [asyncio.create_task(given.ask(KNOWN)) for _ in range(4)]
    ended = await asyncio.gather(*held, return_exceptions=True)
    refused = [error for error in ended if isinstance(error, BaseException)]
    assert all(isinstance(error, LimitReached) and (error.retry_after or 0) > 0 for error in refused)
    assert len(given.models["first"].requests) == 9 - len(refused)
    await limits.aclose()
    await client.aclose()
