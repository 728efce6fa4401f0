"""In which order the targets of a route are asked. Pure: the gateway asks, this says whom.

Of the tier that was decided first, then of the fallback tiers in their order; each model of a provider once. Within a
tier the lower priority number comes first; targets of one priority are dealt by weight, each time anew, so that a
failure spreads over the rest in the proportion of their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pilothouse_api.workerconfig import RouteConfig, TargetConfig, Tier

TIERS: tuple[Tier, ...] = ("fast", "mid", "power")
"""From the cheapest to the most able."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target as it stands in one tier."""

    tier: Tier
    target: TargetConfig

    @property
    def key(self) -> tuple[str, str]:
        """The same model of the same provider is asked once, though two tiers name it."""
        return self.target.provider, self.target.model


def at_least(tier: Tier, floor: Tier | None) -> Tier:
    """The tier, or ``floor`` where that is more able."""
    return tier if floor is None or TIERS.index(tier) >= TIERS.index(floor) else floor


class Targets:
    """The targets of one route."""

    def __init__(self, route: RouteConfig) -> None:
        self._tiers: dict[Tier, tuple[tuple[Candidate, ...], ...]] = {}
        for tier, targets in route.tiers.items():
            by_priority: dict[int, list[Candidate]] = {}
            for target in targets:
                by_priority.setdefault(target.priority, []).append(Candidate(tier, target))
            self._tiers[tier] = tuple(tuple(by_priority[priority]) for priority in sorted(by_priority))
        self._default = route.default_tier
        self._fallback = route.fallback
        self._settled: dict[Tier, tuple[Candidate, ...]] = {}
        """Orders that no weight changes: those of nearly all routes."""

    def serving(self, tier: Tier) -> Tier:
        """The tier itself where it has targets; else the next more able one that has, else the most able one."""
        if self._tiers.get(tier):
            return tier
        there = [each for each in TIERS if self._tiers.get(each)]
        able = [each for each in there if TIERS.index(each) > TIERS.index(tier)]
        return able[0] if able else there[-1] if there else self._default

    def order(self, tier: Tier, random: Callable[[], float]) -> tuple[Candidate, ...]:
        """All targets that may answer a call of that tier, each once. ``random`` is uniform in 0..1."""
        settled = self._settled.get(tier)
        if settled is not None:
            return settled
        found: dict[tuple[str, str], Candidate] = {}
        dealt = False
        for each in (tier, *self._fallback):
            for group in self._tiers.get(each, ()):
                dealt = dealt or len(group) > 1
                for candidate in group if len(group) == 1 else deal(group, random):
                    found.setdefault(candidate.key, candidate)
        order = tuple(found.values())
        if not dealt:
            self._settled[tier] = order
        return order


def deal(group: Sequence[Candidate], random: Callable[[], float]) -> list[Candidate]:
    """Drawn one by one, each by its share of the weights that are left; weight 0 only after all others."""
    left = list(group)
    drawn: list[Candidate] = []
    while left:
        total = sum(max(0, candidate.target.weight) for candidate in left)
        point = random() * total
        chosen = 0
        for index, candidate in enumerate(left):
            point -= max(0, candidate.target.weight)
            if point < 0:
                chosen = index
                break
        else:
            # only where random() is 1, or no weight is left
            chosen = 0 if total == 0 else len(left) - 1
        drawn.append(left.pop(chosen))
    return drawn


def fits(target: TargetConfig, tokens: int) -> bool:
    """Whether a request of about so many tokens has room for an answer in the model's window; True: not known."""
    return target.context_tokens <= 0 or tokens + target.max_output_tokens <= target.context_tokens


def fitting(order: Sequence[Candidate], tokens: int) -> Sequence[Candidate]:
    """Those with room. The count is a guess: where none has room, the largest windows are asked all the same."""
    if all(fits(candidate.target, tokens) for candidate in order):
        return order
    found = [candidate for candidate in order if fits(candidate.target, tokens)]
    return found or sorted(order, key=lambda candidate: -candidate.target.context_tokens)


def larger(order: Sequence[Candidate], overflown: TargetConfig) -> list[Candidate]:
    """Those that may take what was too long for ``overflown``: larger windows first, then unknown ones of other
    models."""
    window = overflown.context_tokens
    known = [each for each in order if each.target.context_tokens > window]
    unknown = [each for each in order if each.target.context_tokens <= 0 and each.target.model != overflown.model]
    return known + [each for each in unknown if each not in known]
