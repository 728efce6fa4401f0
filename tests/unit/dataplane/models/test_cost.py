"""What a call costs: prices, rounding, prompt caching, what was cut off, and providers that tell nonsense."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_api.workerconfig import TargetConfig
from pilothouse_dataplane.core.messages import Effect, Message, ModelRequest, Tool, ToolCall
from pilothouse_dataplane.models.base import ModelDone, ModelText, ModelToolCall
from pilothouse_dataplane.models.cost import Meter, cost_micros, request_tokens, usage_of

TARGET = TargetConfig(
    provider="openai",
    model="small",
    input_price_per_1k=Decimal("0.0025"),
    output_price_per_1k=Decimal("0.01"),
    cached_input_price_per_1k=Decimal("0.00125"),
)
TOOL = Tool(
    "jira.issue.get", "Read an issue", {"type": "object", "properties": {"key": {"type": "string"}}}, Effect.READ
)
REQUEST = ModelRequest((Message("system", "You help."), Message("user", "x" * 391)), tools=(TOOL,))
prices = st.decimals(0, 1000, places=9)
tokens = st.integers(0, 10_000_000)


@pytest.mark.parametrize(
    ("given_", "micros"),
    [
        ((1001, 3, 0), 2533),  # 2502.5 + 30, half up
        ((1001, 3, 1000), 1283),  # 1250 + 2.5 + 30, half up
        ((1000, 0, 5000), 1250),  # more cached than sent: all of it
        ((1000, 0, -5), 2500),
        ((0, 0, 0), 0),
    ],
)
def test_a_call_is_rounded_once_after_its_parts_are_added(given_: tuple[int, int, int], micros: int) -> None:
    assert cost_micros(TARGET, *given_) == micros
    assert usage_of(TARGET, *given_).cost_micros == micros


def test_without_a_price_for_cached_input_the_input_price_counts() -> None:
    assert cost_micros(TARGET.model_copy(update={"cached_input_price_per_1k": None}), 1000, 0, 1000) == 2500
    assert cost_micros(TARGET.model_copy(update={"cached_input_price_per_1k": Decimal(0)}), 1000, 0, 1000) == 0


@given(prices, prices, st.none() | prices, tokens, tokens, tokens)
def test_cost_is_the_exact_sum_to_half_a_micro_dollar(
    input_price: Decimal, output_price: Decimal, cached_price: Decimal | None, sent: int, wrote: int, cached: int
) -> None:
    target = TargetConfig(
        provider="p",
        model="m",
        input_price_per_1k=input_price,
        output_price_per_1k=output_price,
        cached_input_price_per_1k=cached_price,
    )
    cached = min(cached, sent)
    of_cached = input_price if cached_price is None else cached_price
    exact = 1000 * (
        Fraction(input_price) * (sent - cached) + Fraction(of_cached) * cached + Fraction(output_price) * wrote
    )

    charged = cost_micros(target, sent, wrote, cached)

    assert -Fraction(1, 2) < charged - exact <= Fraction(1, 2)


def test_a_finished_stream_is_charged_as_the_provider_tells() -> None:
    meter = Meter(TARGET, REQUEST)
    meter.saw(ModelText("Done."))
    meter.saw(ModelDone(150, 20, cached_input_tokens=100))

    usage = meter.usage()

    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (150, 20, 100)
    assert usage.cost_micros == 450
    assert not meter.estimated
    assert not meter.problem


def test_a_stream_that_was_cut_off_is_charged_for_the_request_and_what_came() -> None:
    meter = Meter(TARGET, REQUEST)
    before = meter.usage()
    meter.saw(ModelText("x" * 40))
    meter.saw(ModelToolCall(ToolCall("1", "jira__issue__get", '{"key": "IT-1"}')))

    usage = meter.usage()

    assert before.input_tokens == usage.input_tokens == request_tokens(REQUEST) > 100
    assert (before.output_tokens, usage.output_tokens) == (0, 18)
    assert meter.estimated
    assert not meter.problem


@pytest.mark.parametrize(
    "told",
    [
        ModelDone(0, 20),
        ModelDone(-5, 20),
        ModelDone(10_000_000, 20),
        ModelDone(150, 0),
        ModelDone(150, 10_000_000),
        ModelDone(150, 20, cached_input_tokens=151),
        ModelDone(150, 20, cached_input_tokens=-1),
    ],
)
def test_a_provider_that_lies_about_usage_is_charged_as_counted_here_and_told(told: ModelDone) -> None:
    meter = Meter(TARGET, REQUEST)
    meter.saw(ModelText("x" * 80))
    meter.saw(told)

    usage = meter.usage()

    assert (usage.input_tokens, usage.output_tokens) == (request_tokens(REQUEST), 20)
    assert meter.estimated
    assert "can't be true" in meter.problem
    assert "openai" in meter.problem


def test_a_provider_without_usage_is_charged_by_what_its_client_counted() -> None:
    meter = Meter(TARGET, REQUEST)
    meter.saw(ModelDone(7, 0, estimated=True))

    assert meter.usage().input_tokens == 7
    assert meter.estimated
    assert not meter.problem


def test_tools_count_as_a_provider_reads_them() -> None:
    longer = replace(TOOL, description="Read an issue" + "!" * 400)
    assert request_tokens(replace(REQUEST, tools=(longer,))) == request_tokens(REQUEST) + 100
    assert request_tokens(replace(REQUEST, tools=())) == 100
