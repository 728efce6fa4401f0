"""A run's model calls, over a whole driver: what they are asked with, what is told of them, and what they cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pilothouse_api.workerconfig import LimitsConfig, Tier
from pilothouse_dataplane.core.messages import Situation
from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.base import ModelDone, ModelLimited, ModelUnavailable
from pilothouse_dataplane.models.limits import Limits
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_testing.fakes import FakeModel, asks_for, text
from pilothouse_testing.runs import FakeTenant, fake_connector, worker_config


def two_providers(**changes: Any) -> dict[str, Any]:
    """``local`` serves the tier fast, ``other`` the tier mid."""
    return worker_config(
        route={
            "providers": [
                {"name": name, "type": "OpenAI", "base_url": "http://127.0.0.1:9/v1"} for name in ("local", "other")
            ],
            "tiers": {
                "fast": [{"provider": "local", "model": "f", "input_price_per_1k": "0.01"}],
                "mid": [{"provider": "other", "model": "m", "input_price_per_1k": "0.02"}],
            },
            "default_tier": "fast",
            "fallback": ["mid"],
            **changes,
        }
    )


@dataclass(frozen=True)
class Says:
    tier: Tier
    reason: str
    escalated: bool = False


class OneUp:
    """Fast, and the next tier for what failed."""

    def __init__(self) -> None:
        self.situations: list[Situation] = []

    wants_vector = False

    def decide(
        self, situation: Situation | None, failed: Tier | None = None, vector: Sequence[float] | None = None
    ) -> Says:
        assert situation is not None
        self.situations.append(situation)
        return Says("mid", f"the plan of {failed} failed", True) if failed else Says("fast", "a short request")


async def test_a_plan_that_cannot_be_carried_out_is_made_by_the_next_tier_once_and_the_events_say_why() -> None:
    router = OneUp()
    fast = FakeModel([asks_for("fake.thing.fly")])
    mid = FakeModel([asks_for("fake.thing.read", nonsense="x")], [asks_for("fake.thing.read", name="x")], [text("ok")])
    tenant = FakeTenant(fast, config=two_providers(), providers={"other": mid}, router=router)
    told = await tenant.ask().end()
    assert told.text == "ok"
    assert (len(fast.requests), len(mid.requests)) == (1, 3)
    made = tenant.published("model_called")
    assert [(call.tier, call.escalated) for call in made] == [
        ("fast", False),
        ("mid", True),
        ("mid", False),
        ("mid", False),
    ]
    assert made[0].reason == "a short request"
    assert made[1].reason == "the plan of fast failed"
    assert [call.id for call in made] == ["r1/1.1", "r1/1.2", "r1/1.3", "r1/1.4"]
    first, second = router.situations[:2]
    assert (first.user_email, first.groups, first.rounds) == ("employee@acme.example", ("staff",), 0)
    assert (second.planned_by, second.failed_calls, second.least) == ("fast", 1, None)
    assert router.situations[2].least == "mid"
    assert told.last.final.usage.cost_micros == sum(call.usage.cost_micros for call in made)


async def test_a_half_answer_is_followed_by_a_whole_one_from_another_provider() -> None:
    half = FakeModel([text("The ans"), ModelUnavailable("The model provider local broke off its answer")])
    tenant = FakeTenant(half, config=two_providers(), providers={"other": FakeModel([text("Four.")])})
    told = await tenant.ask().end()
    deltas = "".join(event.text for event in told.of("text_delta"))
    assert deltas == "The ans\n\n(That answer broke off. Here it begins anew:)\n\nFour."
    assert (told.text, told.last.final.partial) == ("Four.", False)
    cut, whole = tenant.published("model_called")
    assert (cut.aborted, cut.estimated, whole.aborted) == (True, True, False)
    assert whole.fallback.startswith("local/f: The model provider local broke off")
    assert told.last.final.usage.cost_micros == cut.usage.cost_micros + whole.usage.cost_micros
    assert tenant.memory.sessions["s"][-1].content == "Four."


async def test_where_nobody_else_answers_the_half_answer_stands_and_what_is_missing_is_said() -> None:
    half = FakeModel([text("The ans"), ModelUnavailable("The model provider local broke off its answer", again=False)])
    told = await FakeTenant(half).ask().end()
    assert told.last.final.partial
    assert told.text.startswith("The ans")
    assert "broke off" in told.text


async def test_a_stopped_run_pays_for_the_call_that_it_cuts_off() -> None:
    tenant = FakeTenant(FakeModel([text("x" * 400), 5.0, text("never")]))
    told = tenant.ask()
    await asyncio.sleep(0.2)
    assert told.of("text_delta")
    told.driver.stop("You stopped this")
    await told.end()
    (cut,) = tenant.published("model_called")
    assert cut.aborted
    assert cut.usage.output_tokens == 100
    assert cut.usage.cost_micros > 0
    assert told.last.final.usage == cut.usage
    (finished,) = tenant.published("run_finished")
    assert finished.usage == cut.usage


async def test_a_limit_is_told_with_its_own_code_and_when_to_come_back() -> None:
    told = await FakeTenant(FakeModel([ModelLimited("You have used up X. Ask again in 12 s.", 12)])).ask().end()
    error = told.last.error
    assert (error.code, error.retryable) == (agent.ERROR_CODE_RATE_LIMITED, True)
    assert "in 12 s" in error.message


async def test_the_budget_of_the_run_bounds_the_tries_within_one_call() -> None:
    config = two_providers()
    config["agent"] = {**config["agent"], "run_budget_micros": 100}
    half = FakeModel([text("x" * 4000), ModelUnavailable("The model provider local broke off its answer")])
    other = FakeModel([text("dear")])
    tenant = FakeTenant(half, config=config, providers={"other": other})
    told = await tenant.ask(text="x").end()
    assert other.requests == []
    assert told.last.WhichOneof("event") in ("final", "error")


async def test_an_answer_that_is_not_whole_says_so() -> None:
    told = await FakeTenant(FakeModel([text("First, "), ModelDone(100, 10, stop="length")])).ask().end()
    assert told.text.startswith("First, \n\n(The answer was cut off here")


async def test_cached_input_is_charged_and_told_as_such() -> None:
    tenant = FakeTenant(FakeModel([text("hi"), ModelDone(100, 10, cached_input_tokens=80)]))
    told = await tenant.ask().end()
    assert told.last.final.usage.cached_input_tokens == 80


# --- limits -----------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def alone(**limits: Any) -> AsyncIterator[Limits]:
    """The real limits of one worker whose Redis does not answer: it decides on its own share, which is all."""
    client = connect("redis://127.0.0.1:1/0")
    made = Limits(client, "acme", "w1", LimitsConfig(**limits), max_workers=1, clock=time.monotonic, wall=time.time)
    made.release(await made.admit("somebody"))  # it notices that nobody answers
    try:
        yield made
    finally:
        await made.aclose()
        await client.aclose()


async def test_a_run_that_is_one_too_many_is_told_when_to_come_back_and_a_parked_one_takes_no_place() -> None:
    write = asks_for("fake.thing.write", name="made up")
    async with alone(concurrent_runs=1) as limits:
        config = worker_config(connectors=[fake_connector(approvals=[{"match": "thing.write"}])])
        tenant = FakeTenant(FakeModel([0.3, text("slow")], [write], [text("ok")]), config=config, limits=limits)
        first = tenant.ask(run_id="r1")
        await asyncio.sleep(0.1)
        refused = await tenant.ask(run_id="r2").end()
        assert refused.last.error.code == agent.ERROR_CODE_RATE_LIMITED
        assert "Ask again in" in refused.last.error.message
        assert "r2" not in tenant.store.runs
        assert len(tenant.memory.sessions["s"]) == 1, "nothing is stored of what is refused"
        assert (await first.end()).text == "slow"
        parked = await tenant.ask(run_id="r3").end()
        assert parked.kinds[-1] == "parked"
        assert (await tenant.ask(run_id="r4", text="hi").end()).text == "ok"
        assert len(tenant.store.runs) == 3


async def test_a_run_that_goes_on_elsewhere_is_never_refused() -> None:
    async with alone(concurrent_runs=1) as limits:
        tenant = FakeTenant(FakeModel([5.0], [0.2, text("one")], [text("two")]), limits=limits)
        gone = tenant.ask(run_id="r1")
        await asyncio.sleep(0.1)
        gone.driver.hand_over()
        await gone.end()
        other = tenant.ask(run_id="r2")
        await asyncio.sleep(0.1)
        assert (await tenant.ask(run_id="r1", worker="w2", lost="w1").end()).text == "two"
        assert (await other.end()).text == "one"


async def test_money_is_reserved_before_a_call_and_settled_with_what_it_took() -> None:
    async with alone(daily_budget_micros=100_000) as limits:
        tenant = FakeTenant(FakeModel([text("hi"), ModelDone(1000, 10)]), limits=limits)
        for number in range(9):
            assert (await tenant.ask(run_id=f"r{number}").end()).text == "hi"
        last = await tenant.ask(run_id="r9").end()
        assert last.text == "hi"
        over = await tenant.ask(run_id="r10").end()
        assert over.last.error.code == agent.ERROR_CODE_RATE_LIMITED
        assert "midnight UTC" in over.last.error.message
        assert len(tenant.model.requests) == 10, "ten calls of a cent each"


async def test_above_the_soft_budget_the_cheapest_tier_answers() -> None:
    async with alone(daily_budget_micros=100_000, soft_budget_percent=1) as limits:
        fast, mid = FakeModel([text("f")]), FakeModel([text("m"), ModelDone(1000, 10)])
        config = two_providers()
        config["route"]["default_tier"] = "mid"
        tenant = FakeTenant(fast, config=config, providers={"other": mid}, limits=limits)
        assert (await tenant.ask(run_id="r1").end()).text == "m"
        assert (await tenant.ask(run_id="r2").end()).text == "f"
        assert "soft budget" in tenant.published("model_called")[-1].reason
