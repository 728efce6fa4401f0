from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pilothouse_api.workerconfig import ProviderConfig, RouteConfig, TargetConfig, Tier
from pilothouse_dataplane.models.targets import TIERS, Candidate, Targets, at_least, deal, fits, fitting, larger


def target(model: str, **more: int) -> TargetConfig:
    return TargetConfig(provider="p", model=model, **more)


def route(fallback: tuple[Tier, ...] = (), **tiers: tuple[TargetConfig, ...]) -> RouteConfig:
    return RouteConfig.model_validate(
        {
            "providers": [ProviderConfig(name="p", type="OpenAI")],
            "tiers": tiers,
            "default_tier": next(iter(tiers), "mid"),
            "fallback": fallback,
        }
    )


def models(found: tuple[Candidate, ...] | list[Candidate]) -> list[str]:
    return [candidate.target.model for candidate in found]


def test_priority_then_the_fallback_tiers_in_their_order_and_each_model_once() -> None:
    targets = Targets(
        route(
            ("power", "fast", "mid"),
            mid=(target("b", priority=1), target("a")),
            power=(target("c"), target("a")),
            fast=(target("d"),),
        )
    )
    assert models(targets.order("mid", lambda: 0.0)) == ["a", "b", "c", "d"]
    assert models(targets.order("fast", lambda: 0.0)) == ["d", "c", "a", "b"]
    assert [candidate.tier for candidate in targets.order("fast", lambda: 0.0)] == ["fast", "power", "power", "mid"]


def test_weights_deal_within_a_priority_and_weight_zero_comes_last() -> None:
    targets = Targets(route(mid=(target("a", weight=3), target("b", weight=1), target("z", weight=0))))
    rng = random.Random(5)
    firsts = Counter(models(targets.order("mid", rng.random))[0] for _ in range(4000))
    assert firsts["z"] == 0
    assert 0.72 < firsts["a"] / 4000 < 0.78
    assert models(targets.order("mid", lambda: 1.0))[-1] == "a" or len(targets.order("mid", lambda: 1.0)) == 3
    assert models(deal([Candidate("mid", target("x", weight=0))] * 2, lambda: 0.5)) == ["x", "x"]


def test_a_tier_without_targets_is_served_by_the_next_more_able_one() -> None:
    targets = Targets(route(mid=(target("m"),), fast=()))
    assert targets.serving("fast") == "mid"
    assert targets.serving("mid") == "mid"
    assert targets.serving("power") == "mid", "the most able there is"
    nothing = Targets(route(mid=()))
    assert nothing.order(nothing.serving("mid"), random.random) == ()


def test_windows_that_are_too_small_are_passed_over_and_the_largest_is_tried_where_none_fits() -> None:
    small, large, unknown = target("s", context_tokens=8_000), target("l", context_tokens=128_000), target("u")
    order = tuple(Candidate("mid", each) for each in (small, large, unknown))
    assert models(list(fitting(order, 1_000))) == ["s", "l", "u"]
    assert models(list(fitting(order, 5_000))) == ["l", "u"], "4,096 tokens of the window are the answer's"
    assert models(list(fitting(order[:2], 500_000))) == ["l", "s"]
    assert not fits(small, 8_000)


def test_after_an_overflow_only_larger_windows_and_unknown_ones_of_other_models_follow() -> None:
    order = [
        Candidate("mid", each)
        for each in (target("s", context_tokens=8_000), target("u"), target("l", context_tokens=128_000))
    ]
    assert models(larger(order, target("m", context_tokens=8_000))) == ["l", "u"]
    assert models(larger(order, target("u"))) == ["s", "l"]
    assert larger(order[:1], target("l", context_tokens=128_000)) == []


def test_at_least_never_lowers() -> None:
    assert at_least("fast", None) == "fast"
    assert at_least("fast", "mid") == "mid"
    assert at_least("power", "mid") == "power"


_targets = st.lists(
    st.builds(
        TargetConfig,
        provider=st.sampled_from(["p", "q"]),
        model=st.sampled_from(["a", "b", "c"]),
        priority=st.integers(0, 2),
        weight=st.integers(0, 3),
    ),
    max_size=5,
).map(tuple)


@given(
    tiers=st.dictionaries(st.sampled_from(TIERS), _targets, max_size=3),
    fallback=st.lists(st.sampled_from(TIERS), max_size=6).map(tuple),
    tier=st.sampled_from(TIERS),
    seed=st.integers(0, 1000),
)
def test_whatever_the_route_each_model_comes_once_and_lower_priorities_first(
    tiers: dict[Tier, tuple[TargetConfig, ...]], fallback: tuple[Tier, ...], tier: Tier, seed: int
) -> None:
    targets = Targets(RouteConfig(providers=(), tiers=tiers, default_tier="mid", fallback=fallback))
    order = targets.order(tier, random.Random(seed).random)
    reachable = {(each.provider, each.model) for name in (tier, *fallback) for each in tiers.get(name, ())}
    assert {candidate.key for candidate in order} == reachable
    assert len(order) == len(reachable)
    own = [candidate.target.priority for candidate in order if candidate.tier == tier]
    assert own == sorted(own)
