"""Which tier answers a model call: the operator's rules first, then the route's strategy. Pure.

- Complexity: two small logistic scores over what a request asks for and where its run stands (``routing_features``,
  ``routing_weights``): how likely it needs the power tier, and how likely more than the fast one. A wrong “power”
  costs money, a wrong “fast” costs the answer, so the first threshold is low.
- Embedding: the tiers of the nearest labelled examples; who calls brings the request's vector.
- Fixed: the default tier.

A tier that the route doesn't declare is replaced by the next one up, else by the next one down. A plan that could not
be carried out goes one tier up; that this happens once only is the caller's business.
"""

from __future__ import annotations

import heapq
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from pilothouse_api.workerconfig import RouteConfig, Tier
from pilothouse_dataplane.core.messages import Situation
from pilothouse_dataplane.core.routing_features import Features, features
from pilothouse_dataplane.core.routing_rules import Condition, RuleError, parse
from pilothouse_dataplane.core.routing_weights import (
    MORE_BIAS,
    MORE_THRESHOLD,
    MORE_WEIGHTS,
    POWER_BIAS,
    POWER_THRESHOLD,
    POWER_WEIGHTS,
)

TIERS: tuple[Tier, ...] = ("fast", "mid", "power")
"""From the cheapest up."""
NEIGHBOURS = 7
"""Examples that vote."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The tier that shall answer, and why in a few words that an operator reads."""

    tier: Tier
    reason: str
    escalated: bool = False
    """A cheaper tier's plan could not be carried out."""


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled request as a vector of length 1."""

    tier: Tier
    vector: Sequence[float]


@dataclass(frozen=True, slots=True)
class Scores:
    """What Complexity says of a request."""

    power: float
    """0..1: that it needs the power tier."""
    more: float
    """0..1: that it needs more than the fast tier."""
    features: Features


def score(situation: Situation) -> Scores:
    """Look at a request. Bounded time, never raises."""
    found = features(situation)
    return Scores(
        _logistic(POWER_BIAS + sum(map(operator.mul, POWER_WEIGHTS, found.values))),
        _logistic(MORE_BIAS + sum(map(operator.mul, MORE_WEIGHTS, found.values))),
        found,
    )


class Router:
    """Decides for one route. Immutable: a new configuration makes a new one."""

    def __init__(
        self,
        route: RouteConfig,
        examples: Sequence[Example] = (),
        *,
        power_threshold: float = POWER_THRESHOLD,
        more_threshold: float = MORE_THRESHOLD,
    ) -> None:
        """``examples`` go with strategy Embedding."""
        self._default = route.default_tier
        self._strategy = route.strategy
        self._escalate = route.escalate
        self._examples = tuple(examples)
        self._power, self._more = power_threshold, more_threshold
        self._declared = tuple(tier for tier in TIERS if route.tiers.get(tier))
        self._rules: list[tuple[str, Condition, Tier]] = []
        problems = []
        for number, rule in enumerate(route.rules, 1):
            try:
                self._rules.append((rule.when, parse(rule.when), rule.tier))
            except RuleError as error:
                problems.append(f"Routing rule {number} is passed over: {error}. Correct it in the ModelRoute.")
        self.problems: tuple[str, ...] = tuple(problems)
        """Sentences for the ModelRoute's condition."""

    @property
    def wants_vector(self) -> bool:
        """Whether ``decide`` makes use of the request's vector."""
        return self._strategy == "Embedding" and bool(self._examples)

    def decide(
        self, situation: Situation | None, failed: Tier | None = None, vector: Sequence[float] | None = None
    ) -> Decision:
        """The tier for a call; ``failed`` is the tier whose plan could not be carried out. Never raises.

        Without a vector, Embedding decides as Complexity does.
        """
        if failed is not None:
            return self._above(failed)
        if situation is None:
            return self._declare(self._default, "default: nothing is known of the request")
        for source, holds, tier in self._rules:
            if holds(situation):
                return self._declare(tier, f"rule: {source if len(source) <= 80 else source[:79] + '…'}")
        if self._strategy == "Fixed":
            return self._declare(self._default, "fixed")
        if self._strategy == "Embedding" and self._examples and vector is not None:
            return self._declare(*nearest(self._examples, vector))
        return self._declare(*self._complexity(situation))

    def _complexity(self, situation: Situation) -> tuple[Tier, str]:
        found = score(situation)
        why = ", ".join(found.features.notes) or "nothing stands out"
        if found.power >= self._power:
            return "power", f"complexity {found.power:.2f}: {why}"
        if found.more >= self._more:
            return "mid", f"complexity {found.power:.2f}, more than a look-up {found.more:.2f}: {why}"
        return "fast", f"complexity {found.power:.2f}: {why}"

    def _declare(self, tier: Tier, reason: str) -> Decision:
        if tier in self._declared or not self._declared:
            return Decision(tier, reason)
        at = TIERS.index(tier)
        higher = [other for other in self._declared if TIERS.index(other) > at]
        return Decision(higher[0] if higher else self._declared[-1], f"{reason}; there is no {tier} tier")

    def _above(self, failed: Tier) -> Decision:
        higher = [tier for tier in self._declared if TIERS.index(tier) > TIERS.index(failed)]
        if not self._escalate or not higher:
            return Decision(failed, "no higher tier" if self._escalate else "escalation is off")
        return Decision(higher[0], f"the {failed} tier's plan could not be carried out", escalated=True)


def nearest(examples: Sequence[Example], vector: Sequence[float]) -> tuple[Tier, str]:
    """The tier for which the nearest examples speak, and why. ``vector`` has length 1, as the examples' have.

    In doubt the higher tier: it needs a third of the votes only, since too small a model costs the answer.
    """
    likest = heapq.nlargest(
        NEIGHBOURS,
        ((sum(map(operator.mul, example.vector, vector)), -index) for index, example in enumerate(examples)),
    )
    votes = dict.fromkeys(TIERS, 0.0)
    for likeness, index in likest:
        votes[examples[-index].tier] += max(likeness, 0.0) ** 2 + 1e-6
    total = sum(votes.values())
    shares = {tier: vote / total for tier, vote in votes.items()}
    tier = next((tier for tier in ("power", "mid") if shares[tier] >= 1 / 3), "fast")
    chosen: Tier = "power" if tier == "power" else "mid" if tier == "mid" else "fast"
    return chosen, f"{shares[chosen]:.0%} of the {len(likest)} nearest examples"


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))
