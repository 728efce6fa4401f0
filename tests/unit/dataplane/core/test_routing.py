"""Which tier answers: features, rules, strategies, escalation, hostile texts."""

from __future__ import annotations

import json
import math
import statistics
import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse_api.workerconfig import RouteConfig, RoutingRule, TargetConfig, Tier
from pilothouse_dataplane.core.messages import Effect, Situation
from pilothouse_dataplane.core.routing import TIERS, Example, Router, nearest, score
from pilothouse_dataplane.core.routing_features import NAMES, features

DATA = Path(__file__).resolve().parents[4] / "hack" / "bench" / "data" / "routing"
EASY = ["hello", "what's the status of IT-42?", "show me my open tickets", "yes please", "who is my manager?"]
WRITES = ["Create a bug in PAY: the total is wrong", "Add Erin to the group VPN-Users", "close IT-42"]
HARD = [
    "Compare our three biggest customers by revenue and open cases and tell me which one is most at risk",
    "Why did the number of support tickets double in November?",
    "Deactivate all contractors whose contract ended, except those with an open extension request",
]
ORDER = {tier: index for index, tier in enumerate(TIERS)}


def route(*tiers: Tier, default: Tier = "mid", **more: object) -> RouteConfig:
    targets = {
        tier: (TargetConfig(provider="p", model=tier, input_price_per_1k=Decimal(1)),) for tier in tiers or TIERS
    }
    return RouteConfig(providers=(), tiers=targets, default_tier=default, **more)  # type: ignore[arg-type]


def tier(text: str, **more: object) -> Tier:
    return Router(route()).decide(Situation(text, **more)).tier  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "expected"), [(EASY, "fast"), (WRITES, "mid"), (HARD, "power")], ids=["easy", "writes", "hard"]
)
def test_plain_cases_get_their_tier(texts: list[str], expected: Tier) -> None:
    assert [tier(text) for text in texts] == [expected] * len(texts)


def test_the_reason_says_what_stands_out() -> None:
    decision = Router(route()).decide(Situation(HARD[2]))
    assert decision.reason.startswith("complexity 0.")
    assert "condition" in decision.reason
    assert Router(route()).decide(Situation("hello")).reason.endswith("a greeting or a short reply")


@pytest.mark.parametrize(
    "plea",
    [
        "use the power model please",
        "Please use your best model for this.",
        "this is very important and complex!!!",
        "route me to opus",
        "think very hard",
        "tier: power",
    ],
)
@pytest.mark.parametrize("text", EASY + WRITES)
def test_nobody_gets_a_larger_model_by_asking_for_one(text: str, plea: str) -> None:
    alone = ORDER[tier(text)]
    assert ORDER[tier(f"{plea}. {text}")] <= alone
    assert ORDER[tier(f"{text}. {plea}")] <= alone
    assert ORDER[tier(f"{text} ({plea})")] <= alone


def test_padding_with_the_same_word_gains_nothing() -> None:
    assert tier("show me my open tickets " + "please " * 200) == "fast"


@pytest.mark.parametrize("text", ["", "   ", "\n\n", "…", "👍", "\x00", "\ud800", "?" * 300, "а́" * 50, "مرحبا", "你好"])
def test_a_text_without_words_is_no_reason_for_more(text: str) -> None:
    assert tier(text) == "fast"


HOSTILE = {
    "letters": "a" * 16_000,
    "commas": "," * 16_000,
    "words": "plan " * 3_200,
    "courtesies": "please, " * 2_000,
    "dots": "a." * 8_000,
    "quotes": '"“' * 8_000,
    "mails": "a@" * 8_000,
    "identifiers": "ab-" * 5_300,
    "ligatures": "\ufdfa" * 16_000,
    "spaces": " " * 16_000,
    "replies": "ok yes no " * 1_600,
    "writes": "write " + "x" * 15_000 + " in y",
    "taking": "taking " * 2_200,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_text_costs_no_more_than_its_length(kind: str) -> None:
    score(Situation("warm up"))
    taken = []
    for _ in range(3):
        began = time.process_time()
        score(Situation(HOSTILE[kind]))
        taken.append(time.process_time() - began)
    assert min(taken) < 0.02


@given(st.text(max_size=400), st.integers(0, 50), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_any_text_in_any_state_gets_a_tier(text: str, turns: int, rounds: int, writes: int, failed: int) -> None:
    situation = Situation(text, earlier_turns=turns, rounds=rounds, writes=writes, failed_calls=failed)
    found = features(situation)
    assert len(found.values) == len(NAMES)
    assert all(0 <= value <= 3 for value in found.values)
    assert Router(route()).decide(situation) == Router(route()).decide(situation)


@given(st.sampled_from(EASY + WRITES + HARD), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_a_run_that_goes_on_never_gets_a_smaller_model(text: str, rounds: int, failed: int) -> None:
    later = score(Situation(text, rounds=rounds, failed_calls=failed))
    assert later.power >= score(Situation(text)).power
    assert later.more >= score(Situation(text)).more


def test_deciding_takes_well_under_a_millisecond() -> None:
    router = Router(route())
    texts = [json.loads(line)["text"] for line in (DATA / "requests.jsonl").read_text().splitlines()]
    taken = []
    for text in texts:
        began = time.process_time_ns()
        router.decide(Situation(text))
        taken.append(time.process_time_ns() - began)
    assert statistics.median(taken) < 500_000


# --- tiers that are not there, strategies, escalation ---------------------------------------------------------------
def test_a_tier_that_is_not_declared_is_replaced_by_the_next_up_else_down() -> None:
    assert Router(route("mid", "power")).decide(Situation("hello")).tier == "mid"
    assert Router(route("fast", "mid")).decide(Situation(HARD[0])).tier == "mid"
    assert Router(route("fast")).decide(Situation(HARD[0])).tier == "fast"
    assert "no power tier" in Router(route("fast")).decide(Situation(HARD[0])).reason


def test_a_tier_without_targets_counts_as_not_declared() -> None:
    config = route().model_copy(update={"tiers": {**route().tiers, "fast": ()}})
    assert Router(config).decide(Situation("hello")).tier == "mid"


def test_without_a_situation_the_default_answers() -> None:
    assert Router(route(default="power")).decide(None).tier == "power"


def test_fixed_is_always_the_default() -> None:
    router = Router(route(default="fast", strategy="Fixed"))
    assert {router.decide(Situation(text)).tier for text in EASY + WRITES + HARD} == {"fast"}


def test_a_failed_plan_goes_one_tier_up() -> None:
    router = Router(route())
    assert router.decide(Situation("hello"), failed="fast").tier == "mid"
    assert router.decide(Situation("hello"), failed="mid").tier == "power"
    assert router.decide(Situation("hello"), failed="fast").escalated
    top = router.decide(Situation("hello"), failed="power")
    assert (top.tier, top.escalated) == ("power", False)
    assert Router(route("fast", "power")).decide(None, failed="fast").tier == "power"


def test_escalation_can_be_switched_off() -> None:
    decision = Router(route(escalate=False)).decide(Situation("hello"), failed="fast")
    assert (decision.tier, decision.escalated) == ("fast", False)


# --- the operator's rules -------------------------------------------------------------------------------------------
def test_the_first_rule_that_holds_decides() -> None:
    rules = (
        RoutingRule(when='role == "interns"', tier="fast"),
        RoutingRule(when='"destructive" in effects || systems >= 3', tier="power"),
    )
    router = Router(route(rules=rules))
    assert router.decide(Situation(HARD[0], groups=("interns",))).tier == "fast"
    assert router.decide(Situation("hello", effects=(Effect.READ, Effect.DESTRUCTIVE))).tier == "power"
    assert router.decide(Situation("hello", systems=("a", "b", "c"))).reason.startswith("rule: ")
    assert router.decide(Situation("hello")).tier == "fast"


def test_a_rule_that_cannot_be_read_is_told_and_the_others_stand() -> None:
    rules = (RoutingRule(when="systems >=", tier="power"), RoutingRule(when="length == 5", tier="power"))
    router = Router(route(rules=rules))
    assert len(router.problems) == 1
    assert "rule 1" in router.problems[0]
    assert "character 11" in router.problems[0]
    assert router.decide(Situation("hello")).tier == "power"


# --- nearest examples -----------------------------------------------------------------------------------------------
def _unit(*values: float) -> tuple[float, ...]:
    length = math.hypot(*values)
    return tuple(value / length for value in values)


EXAMPLES = [Example("fast", _unit(1, 0.01 * i)) for i in range(8)] + [
    Example("power", _unit(0.01 * i, 1)) for i in range(8)
]


def test_the_nearest_examples_decide() -> None:
    router = Router(route(strategy="Embedding"), EXAMPLES)
    assert router.wants_vector
    assert router.decide(Situation(HARD[0]), vector=_unit(1, 0)).tier == "fast"
    assert router.decide(Situation("hello"), vector=_unit(0, 1)).tier == "power"
    assert "nearest examples" in router.decide(Situation("hello"), vector=_unit(0, 1)).reason


def test_without_a_vector_or_examples_complexity_decides() -> None:
    assert Router(route(strategy="Embedding"), EXAMPLES).decide(Situation(HARD[0])).tier == "power"
    assert not Router(route(strategy="Embedding")).wants_vector
    assert Router(route(strategy="Embedding")).decide(Situation("hello"), vector=_unit(1, 0)).tier == "fast"


def test_in_doubt_the_higher_tier_answers() -> None:
    torn = [Example("fast", (1.0, 0.0))] * 4 + [Example("power", (1.0, 0.0))] * 3
    assert nearest(torn, (1.0, 0.0))[0] == "power"


def test_vectors_that_say_nothing_do_no_harm() -> None:
    assert nearest(EXAMPLES, (0.0, 0.0))[0] in TIERS
    assert nearest(EXAMPLES[:1], (-1.0, 0.0))[0] == "fast"
