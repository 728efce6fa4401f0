"""A day of requests through the real router, and what it costs at the demo route's prices.

Each request of the day is one of the labelled set, drawn by a seeded generator with the set's mix of tiers. The router
is pure, so each labelled request is decided once and its decision counted as often as it is drawn.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import yaml

from models_parts.routing_set import TIERS, Labelled
from pilothouse_api.workerconfig import RouteConfig, TargetConfig, Tier
from pilothouse_dataplane.core.routing import Router

REQUESTS = 1_500_000
TOKENS = 1_400
"""Of one request, its prompt and its answer together."""
GOAL_MIX: Mapping[Tier, float] = {"fast": 0.70, "mid": 0.10, "power": 0.20}
_ROUTE = Path(__file__).resolve().parents[2] / "demo" / "modelroute.yaml"
_SEED = 20261101

Confusion = Mapping[tuple[Tier, Tier], int]
"""(needed, answered by) → requests."""


def route() -> RouteConfig:
    """The demo's route, as far as routing and prices go."""
    spec = yaml.safe_load(_ROUTE.read_text())["spec"]
    tiers = {
        tier: tuple(
            TargetConfig(
                provider=target["provider"],
                model=target["model"],
                input_price_per_1k=Decimal(target["pricePer1K"]["input"]),
                output_price_per_1k=Decimal(target["pricePer1K"]["output"]),
            )
            for target in value["targets"]
        )
        for tier, value in spec["tiers"].items()
    }
    return RouteConfig(providers=(), tiers=tiers, default_tier=spec["routing"]["default"])


def prices(config: RouteConfig) -> dict[Tier, Decimal]:
    """USD per 1,000 tokens of each tier's first target. Raises ValueError where input and output differ."""
    found = {}
    for tier, targets in config.tiers.items():
        if targets[0].input_price_per_1k != targets[0].output_price_per_1k:
            raise ValueError(f"{tier}: a day of whole tokens needs one price for input and output")
        found[tier] = targets[0].input_price_per_1k
    return found


def confusion(router: Router, ones: Sequence[Labelled]) -> Confusion:
    """What the router makes of each request."""
    return Counter((one.tier, router.decide(one.situation).tier) for one in ones)


def drawn(router: Router, ones: Sequence[Labelled], mix: Mapping[Tier, float]) -> Counter[Tier]:
    """A day's requests by the tier that answers them."""
    random_source = random.Random(_SEED)  # noqa: S311
    decided = {tier: [router.decide(one.situation).tier for one in ones if one.tier == tier] for tier in TIERS}
    needed = Counter(random_source.choices(TIERS, [mix[tier] for tier in TIERS], k=REQUESTS))
    answered: Counter[Tier] = Counter()
    for tier in TIERS:
        answered.update(random_source.choices(decided[tier], k=needed[tier]))
    return answered


def cost(answered: Mapping[Tier, int], per_1k: Mapping[Tier, Decimal]) -> Decimal:
    """USD of a day."""
    return sum((per_1k[tier] * count * TOKENS / 1000 for tier, count in answered.items()), Decimal(0))


def mix_of(ones: Sequence[Labelled]) -> dict[Tier, float]:
    """Share (0..1) of each tier among the requests."""
    return {tier: sum(one.tier == tier for one in ones) / len(ones) for tier in TIERS}


def underserved(found: Confusion) -> float:
    """Share (0..1) of the requests that need the power tier and are answered by less."""
    needing = sum(count for (needed, _), count in found.items() if needed == "power")
    return 1 - found.get(("power", "power"), 0) / needing
