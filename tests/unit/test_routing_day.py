"""The day that `make bench BENCH=models` simulates: its arithmetic, and the picture that is drawn of it."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "hack" / "bench"))

from models_parts import picture, routing
from models_parts.routing_set import labelled

from pilothouse_dataplane.core.routing import Router


def test_a_day_on_power_alone_and_one_of_the_goals_mix_cost_what_the_goal_says() -> None:
    per_1k = routing.prices(routing.route())
    assert routing.cost({"power": routing.REQUESTS}, per_1k) == Decimal(63_000)
    assert routing.cost({"fast": 1_050_000, "mid": 150_000, "power": 300_000}, per_1k) == Decimal(16_590)


def test_the_same_router_costs_the_same_each_time() -> None:
    ones = labelled("tuning")[::10]
    router = Router(routing.route())
    answered = routing.drawn(router, ones, routing.GOAL_MIX)
    assert answered == routing.drawn(router, ones, routing.GOAL_MIX)
    assert sum(answered.values()) == routing.REQUESTS


def test_underserved_counts_hard_requests_only() -> None:
    found = {
        ("power", "power"): 8,
        ("power", "mid"): 1,
        ("power", "fast"): 1,
        ("mid", "fast"): 50,
        ("fast", "power"): 9,
    }
    assert routing.underserved(found) == pytest.approx(0.2)


def test_a_router_that_sends_everything_up_misses_nothing_and_costs_the_most() -> None:
    ones = labelled("tuning")[::10]
    router = Router(routing.route(), power_threshold=0.0)
    assert routing.underserved(routing.confusion(router, ones)) == 0
    assert routing.cost(routing.drawn(router, ones, routing.GOAL_MIX), routing.prices(routing.route())) == Decimal(
        63_000
    )


def test_the_picture_is_well_formed_and_says_which_threshold_is_used() -> None:
    points = [picture.Point(20_000.0, 0.0, 0.1, False), picture.Point(16_000.0, 0.02, 0.2, True)]
    text = picture.svg({"held-out half": points})
    ElementTree.fromstring(text)
    assert "$16,000 and 2.0% at threshold 0.2" in text
    assert text == picture.svg({"held-out half": points})
