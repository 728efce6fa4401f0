"""A tenant's model calls of one day (UTC), from two sources that overlap, without counting any call twice. Pure.

The ledger's sum of all calls that ended up to a moment, and the events of those that ended after it::

    ───── the ledger's sum ─────▶│◀── events, each id once ──
                               until

Both sides know the same moment of a call, so a later answer of the ledger replaces its part of the events exactly. What
an event lost (Redis was away, a stream was trimmed) is in the next answer; what the ledger books late, too. At midnight
the sums begin anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as ev
from pilothouse_proto.fleet.v1 import fleet_pb2 as pb

MAX_RECENT = 10_000
"""Events that are kept apart until the ledger's answer covers them; of the oldest beyond, only the sum is kept."""
_COUNTED = (
    "calls",
    "cached_calls",
    "fallbacks",
    "aborted",
    "escalated",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cost_micros",
    "saved_micros",
)


class Target(NamedTuple):
    """What sums are kept by."""

    tier: str
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class _Heard:
    at: datetime
    target: Target
    numbers: tuple[int, ...]
    """In the order of ``_COUNTED``."""


class DayCosts:
    """The sums of one tenant."""

    def __init__(self) -> None:
        self.day: date | None = None
        self._base: dict[Target, tuple[int, ...]] = {}
        self._until: datetime | None = None
        self._recent: OrderedDict[str, _Heard] = OrderedDict()
        self._nameless = 0
        self._asked: datetime | None = None
        self._ledger_runs = 0
        self._runs: set[str] = set()
        self.dirty = False
        """Something was heard since the ledger was last asked."""

    def heard(self, run_id: str, at: datetime, called: ev.ModelCalled) -> bool:
        """Take one event; returns whether it changes the sums. An event of an earlier day, one that was heard before
        and one that the ledger's answer covers do not."""
        day = at.astimezone(UTC).date()
        if self.day is None or day > self.day:
            self.begin(day)
        if day != self.day or (self._until is not None and at <= self._until) or called.id in self._recent:
            return False
        self._nameless += not called.id
        name = called.id or f"{run_id}/?{self._nameless}"
        self._recent[name] = _Heard(at, Target(called.tier, called.provider, called.model), _numbers(called))
        self._runs.add(run_id)
        if len(self._recent) > MAX_RECENT:
            self._fold(self._recent.popitem(last=False)[1])
        self.dirty = True
        return True

    def begin(self, day: date) -> bool:
        """A new day; returns whether it is one."""
        if self.day is not None and day <= self.day:
            return False
        known = self.day is not None
        self.day, self._until, self._asked = day, None, None
        self._base.clear()
        self._recent.clear()
        self._runs.clear()
        self._ledger_runs = 0
        return known

    def reconcile(self, day: date, until: datetime, sums: Iterable[agent.CostSum], asked: datetime) -> None:
        """Take the ledger's sum of all calls up to ``until``, by tier, provider and model."""
        if self.day is not None and day < self.day:
            return  # asked before midnight, answered after it
        self.begin(day)
        if self._until is not None and until < self._until:
            return
        self._base = {}
        self._ledger_runs = 0
        for each in sums:
            target = Target(each.tier, each.provider, each.model)
            self._base[target] = tuple(int(getattr(each, name)) for name in _COUNTED)
            self._ledger_runs = max(self._ledger_runs, each.runs)
        self._until, self._asked, self.dirty = until, asked, False
        for name in [name for name, heard in self._recent.items() if heard.at <= until]:
            del self._recent[name]

    def sums(self) -> list[agent.CostSum]:
        """By tier, provider and model, the dearest first."""
        total = dict(self._base)
        for heard in self._recent.values():
            total[heard.target] = _plus(total.get(heard.target), heard.numbers)
        made = [_sum(target, numbers) for target, numbers in total.items()]
        return sorted(made, key=lambda one: (-one.cost_micros, one.tier, one.provider, one.model))

    def message(self, tenant: str) -> pb.TenantCost:
        """All of it as Fleet tells it."""
        sums = self.sums()
        cost = pb.TenantCost(
            tenant=tenant,
            cost_micros=sum(one.cost_micros for one in sums),
            input_tokens=sum(one.input_tokens for one in sums),
            output_tokens=sum(one.output_tokens for one in sums),
            saved_micros=sum(one.saved_micros for one in sums),
            runs=max(self._ledger_runs, len(self._runs)),
            day="" if self.day is None else self.day.isoformat(),
            sums=sums,
        )
        if self._asked is not None:
            cost.reconciled.FromDatetime(self._asked)
        return cost

    def _fold(self, heard: _Heard) -> None:
        self._base[heard.target] = _plus(self._base.get(heard.target), heard.numbers)


def _numbers(called: ev.ModelCalled) -> tuple[int, ...]:
    usage = called.usage
    return (
        int(not called.cached),
        int(called.cached),
        int(bool(called.fallback) and not called.cached),
        int(called.aborted),
        int(called.escalated),
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cost_micros,
        called.saved_micros,
    )


def _plus(one: tuple[int, ...] | None, other: tuple[int, ...]) -> tuple[int, ...]:
    return other if one is None else tuple(a + b for a, b in zip(one, other, strict=True))


def _sum(target: Target, numbers: tuple[int, ...]) -> agent.CostSum:
    made = agent.CostSum(tier=target.tier, provider=target.provider, model=target.model)
    for name, number in zip(_COUNTED, numbers, strict=True):
        setattr(made, name, number)
    return made
