"""What the router saves and what it costs in quality, on the labelled requests: two figures and a picture."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal

from results import Figure

from models_parts import picture, routing
from models_parts.routing_set import TIERS, Labelled, labelled
from pilothouse_dataplane.core.routing import Router
from pilothouse_dataplane.core.routing_weights import POWER_THRESHOLD

_THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)


def figures() -> list[Figure]:
    """``seed_day_cost`` and ``underserved_share``, of all or of the held-out half, whichever is worse."""
    config = routing.route()
    per_1k = routing.prices(config)
    router = Router(config)
    everything = labelled()
    mix = routing.mix_of(everything)
    halves: dict[str, Sequence[Labelled]] = {
        "all": everything,
        "tuning": labelled("tuning"),
        "held_out": labelled("held_out"),
    }
    answered = {name: routing.drawn(router, ones, mix) for name, ones in halves.items()}
    costs = {name: routing.cost(counts, per_1k) for name, counts in answered.items()}
    exact = {name: routing.cost(routing.drawn(router, ones, routing.GOAL_MIX), per_1k) for name, ones in halves.items()}
    found = {name: routing.confusion(router, ones) for name, ones in halves.items()}
    missed = {name: routing.underserved(one) for name, one in found.items()}
    worse = max(("all", "held_out"), key=lambda name: costs[name])
    return [
        Figure(
            "seed_day_cost",
            float(costs[worse]),
            "USD",
            {
                **{name: _dollars(costs[name]) for name in halves},
                "requests": f"{routing.REQUESTS:,} of {routing.TOKENS:,} tokens",
                "labelled mix": _shares(mix),
                "answered by": _shares({tier: answered[worse][tier] / routing.REQUESTS for tier in TIERS}),
                "with exactly 70/10/20": ", ".join(f"{name} {_dollars(exact[name])}" for name in halves),
                "a router without fault": _dollars(_faultless(mix, per_1k)),
                "power alone": _dollars(routing.cost({"power": routing.REQUESTS}, per_1k)),
            },
        ),
        Figure(
            "underserved_share",
            max(missed["all"], missed["held_out"]),
            "ratio",
            {
                **{name: f"{missed[name]:.4f} of {_needing(ones)}" for name, ones in halves.items()},
                "needed → answered by fast/mid/power, held_out": _table(found["held_out"]),
                "the same, all": _table(found["all"]),
                "deciding, µs p50/p95": "/".join(f"{value * 1e6:.0f}" for value in _speed(router, everything)),
                "threshold": POWER_THRESHOLD,
                "labels": "by the router's author, before it; of the held-out half only totals were seen, five times",
            },
        ),
    ]


def curve(ones: Sequence[Labelled]) -> list[picture.Point]:
    """Cost and underserved share of a day by the power threshold."""
    config = routing.route()
    per_1k = routing.prices(config)
    mix = routing.mix_of(labelled())
    points = []
    for threshold in sorted({*_THRESHOLDS, POWER_THRESHOLD}):
        router = Router(config, power_threshold=threshold)
        bill = float(routing.cost(routing.drawn(router, ones, mix), per_1k))
        share = routing.underserved(routing.confusion(router, ones))
        points.append(picture.Point(bill, share, threshold, threshold == POWER_THRESHOLD))
    return points


def draw() -> None:
    """Write the picture that docs/models.md shows."""
    picture.write({"tuning half": curve(labelled("tuning")), "held-out half": curve(labelled("held_out"))})


def _faultless(mix: Mapping[str, float], per_1k: Mapping[str, Decimal]) -> Decimal:
    return sum(
        (per_1k[tier] * round(mix[tier] * routing.REQUESTS) * routing.TOKENS / 1000 for tier in TIERS), Decimal(0)
    )


def _needing(ones: Sequence[Labelled]) -> int:
    return sum(one.tier == "power" for one in ones)


def _table(found: routing.Confusion) -> str:
    rows = (f"{needed} {'/'.join(str(found.get((needed, by), 0)) for by in TIERS)}" for needed in TIERS)
    return ", ".join(rows)


def _shares(mix: Mapping[str, float]) -> str:
    return "/".join(f"{mix[tier]:.1%}" for tier in TIERS)


def _dollars(amount: Decimal) -> str:
    return f"${amount:,.0f}"


def _speed(router: Router, ones: Sequence[Labelled]) -> tuple[float, float]:
    """Seconds of CPU to decide: median and 95th percentile."""
    taken = []
    for one in ones:
        began = time.process_time_ns()
        router.decide(one.situation)
        taken.append((time.process_time_ns() - began) / 1e9)
    return statistics.median(taken), statistics.quantiles(taken, n=20)[18]
