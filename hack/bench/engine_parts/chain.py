"""What the same calls take without Pilothouse's ideas, and with each of them: a simulation. Pure.

A plain chain asks the model for a plan, waits for its end, calls the tools side by side, and asks for the answer. Drawn
from the distributions that the stand-ins use; nothing but the model's and the tools' time is in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from pilothouse_sim.script import plans
from pilothouse_sim.script.app import FIRST_TOKEN_SHARE, TIER_FACTORS

PLAN = (1.0, 3.0)
"""Seconds of a plan's model call on the power tier; other tiers by ``TIER_FACTORS``."""
ANSWER = (1.0, 2.0)
TOOL = (0.2, 2.0)
TIER_SHARES = {"fast": 0.7, "mid": 0.1, "power": 0.2}


@dataclass(frozen=True)
class Request:
    """What one request of the load is."""

    tier: str
    reads: int
    writes: int
    brief: bool
    """A confirmation or one or two values: the plan may bring the answer along."""


@dataclass(frozen=True)
class Times:
    """Seconds of one simulated run."""

    model: float
    tools: float
    """While no model call was under way."""
    first_token: float

    @property
    def whole(self) -> float:
        return self.model + self.tools


def request(rng: random.Random, brief_share: float, write_share: float) -> Request:
    """Two or three tools; of the brief ones, ``write_share`` end in a write."""
    tier = rng.choices(list(TIER_SHARES), weights=list(TIER_SHARES.values()))[0]
    calls = rng.choice((2, 3))
    brief = rng.random() < brief_share
    writes = int(brief and rng.random() < write_share)
    return Request(tier, calls - writes, writes, brief)


def run(rng: random.Random, what: Request, *, early: bool, reply: bool) -> Times:
    """One run; ``early``: reads start while the plan streams; ``reply``: brief ones are answered within the plan."""
    factor = TIER_FACTORS[what.tier]
    planning = rng.uniform(*PLAN) * factor
    first = planning * FIRST_TOKEN_SHARE
    replied = reply and what.brief
    per_token = planning * (1 - FIRST_TOKEN_SHARE) / (plans.PLAN_TOKENS - 1)
    plan_ends = planning + (plans.REPLY_TOKENS * per_token if replied else 0.0)
    calls = what.reads + what.writes
    ends = plan_ends
    for number in range(calls):
        known = first + per_token * (plans.PLAN_TOKENS * (number + 1) / calls - 1)
        # a write waits for the whole plan
        start = known if early and number < what.reads else plan_ends
        ends = max(ends, start + rng.uniform(*TOOL))
    answering = 0.0 if replied else rng.uniform(*ANSWER) * factor
    return Times(plan_ends + answering, ends - plan_ends, first)


def simulate(
    seed: int, runs: int, draw: Callable[[random.Random], Request], *, early: bool, reply: bool
) -> list[Times]:
    """Many runs."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    return [run(rng, draw(rng), early=early, reply=reply) for _ in range(runs)]


def quantile(values: list[float], share: float) -> float:
    """The value below which ``share`` (0..1) of them lie; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000 * len(ordered)) // 1000) - 1))] if ordered else 0.0
