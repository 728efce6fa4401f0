"""Holders of breakers: one per provider and per connector, kept over reloads of the configuration.

Each worker decides on its own breakers, at once and without IO. A ``Sharer`` is told of every guard and change, and
hands in what the tenant's other workers have found (``Guard.apply_remote``); without one a worker decides alone.

The clock comes in as an argument, so that a holder can be tested without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from pilothouse_dataplane.core.breaker import (
    Breaker,
    BreakerMode,
    BreakerSettings,
    BreakerState,
    Cause,
    Permit,
    Rates,
)

_UNSURE_PROBES = 1
"""Calls let through at once where half-open begins and other workers may begin it too."""
_SELF_EXPLAINED = {
    BreakerState.HALF_OPEN: "the open time has passed",
    BreakerState.CLOSED: "calls succeed again",
    BreakerState.OPEN: "no verdict in half-open",
}


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker went into another state, or was used for the first time."""

    name: str
    """``provider/<name>`` or ``connector/<name>``."""
    state: BreakerState
    failure_rate_percent: float
    """What the window held when the state changed, 0..100."""
    reason: str
    slow_rate_percent: float = 0.0
    origin: str = ""
    """The worker that found it; empty: this one."""


class Sharer(Protocol):
    """Who carries changes between workers. Both are called inside of a tool call: they must neither wait nor raise."""

    def created(self, guard: Guard) -> None:
        """A guard is new, or has new settings."""

    def changed(self, guard: Guard) -> None:
        """A guard went into another state by itself."""


class Guard:
    """One named breaker that tells its listener about its first use and each change of state.

    The first use is told so that whoever watches sees every breaker in use, not only those that had trouble.
    """

    def __init__(self, name: str, settings: BreakerSettings, registry: GuardRegistry) -> None:
        self.name = name
        self.reason = ""
        """Why it is in its state: a sentence for operators."""
        self._breaker = Breaker(settings)
        self._registry = registry
        self._clock = registry.clock
        self._told = False

    @property
    def breaker(self) -> Breaker:
        return self._breaker

    @property
    def state(self) -> BreakerState:
        return self._breaker.state

    @property
    def generation(self) -> int:
        """Rises with every change."""
        return self._breaker.generation

    def try_acquire(self) -> Permit | None:
        """Leave to make one call, None where the breaker is open."""
        generation = self._breaker.generation
        permit = self._breaker.try_acquire(self._clock(), _UNSURE_PROBES if self._registry.shared else None)
        self._tell(generation)
        return permit

    def succeeded(self, permit: Permit, seconds: float = 0.0) -> None:
        """The system answered after ``seconds``, were it with a refusal (403, 404): it works."""
        generation = self._breaker.generation
        self._breaker.record(permit, failed=False, seconds=seconds, now=self._clock())
        self._tell(generation, self._what_was_too_much() if self.state is BreakerState.OPEN else "")

    def failed(self, permit: Permit, reason: str, seconds: float = 0.0) -> None:
        """The system failed after ``seconds``. ``reason`` is a sentence for operators; it must hold no secret."""
        generation = self._breaker.generation
        self._breaker.record(permit, failed=True, seconds=seconds, now=self._clock())
        self._tell(generation, reason if self.state is BreakerState.OPEN else "")

    def exhausted(self, permit: Permit, reason: str) -> None:
        """The system takes no more calls for now (a quota is used up): open at once, whatever the rate."""
        generation = self._breaker.generation
        self._breaker.trip(permit, self._clock())
        self._tell(generation, reason if self.state is BreakerState.OPEN else "")

    def ignored(self, permit: Permit) -> None:
        """The call was cancelled or refused for the user's sake: no verdict."""
        generation = self._breaker.generation
        self._breaker.release(permit, self._clock())
        self._tell(generation)

    def retry_in(self) -> float:
        """Seconds until the next call may pass."""
        return self._breaker.retry_in(self._clock())

    def when(self) -> str:
        """When a call that was refused may pass, as the end of a sentence."""
        if self.state is BreakerState.FORCED_OPEN:
            return "an operator has switched it off"
        if self.state is BreakerState.HALF_OPEN:
            return "whether it works again is being tried now"
        return f"ask again in {max(1.0, self.retry_in()):.0f} s"

    def tick(self) -> None:
        """What time alone does; for whoever looks where no calls come."""
        generation = self._breaker.generation
        self._breaker.tick(self._clock())
        if self._breaker.generation != generation:  # a look is no use
            self._tell(generation)

    def grant(self) -> None:
        """This worker is the one that probes in half-open."""
        self._breaker.grant()

    def set_mode(self, mode: BreakerMode, reason: str) -> None:
        """An SRE's word for this worker."""
        generation = self._breaker.generation
        self._breaker.set_mode(mode, self._clock())
        self._tell(generation, reason)

    def apply_remote(self, state: BreakerState, *, age: float, rates: Rates, reason: str, origin: str) -> None:
        """Take over what the worker ``origin`` found ``age`` seconds ago."""
        before = self.state
        self._breaker.adopt(state, self._clock() - age, rates)
        self._breaker.tick(self._clock())
        self.reason = reason
        if self.state is not before:
            self._told = True
            self._registry.report(self._change(reason, origin))

    def _what_was_too_much(self) -> str:
        rates, settings = self._breaker.decided_by, self._breaker.settings
        if rates.failure_percent >= settings.failure_rate_percent:
            return f"{rates.failure_percent:.0f}% of {rates.calls} calls failed"
        return f"{rates.slow_percent:.0f}% of {rates.calls} calls took longer than {settings.slow_call_seconds:g} s"

    def _change(self, reason: str, origin: str = "") -> BreakerChange:
        rates = self._breaker.decided_by
        return BreakerChange(self.name, self.state, rates.failure_percent, reason, rates.slow_percent, origin)

    def _tell(self, generation: int, reason: str = "") -> None:
        """After something happened here."""
        breaker = self._breaker
        if breaker.generation == generation:
            if not self._told:
                self._told = True
                rates = breaker.rates(self._clock())
                change = BreakerChange(self.name, breaker.state, rates.failure_percent, "first call")
                self._registry.report(change)
            return
        self._told = True
        self.reason = reason or _SELF_EXPLAINED.get(breaker.state, "")
        self._registry.report(self._change(self.reason))
        if breaker.cause is not Cause.MODE:
            self._registry.changed(self)


class GuardRegistry:
    """The worker's breakers by name. A reload that leaves a breaker's settings alone keeps what it has learnt."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[BreakerChange], None] | None = None) -> None:
        self.clock = clock
        """Monotonic seconds."""
        self.shared = False
        """Other workers' states come in, so that half-open's permits are one worker's alone; the sharer sets it."""
        self._on_change = on_change
        self._sharer: Sharer | None = None
        self._guards: dict[str, Guard] = {}

    @property
    def guards(self) -> Mapping[str, Guard]:
        """By name; a view."""
        return MappingProxyType(self._guards)

    def get(self, name: str, settings: BreakerSettings) -> Guard:
        """The breaker of this name. Other settings begin anew, but for an SRE's word."""
        guard = self._guards.get(name)
        if guard is None or guard.breaker.settings != settings:
            old, guard = guard, Guard(name, settings, self)
            self._guards[name] = guard
            if old is not None and old.breaker.mode is not BreakerMode.AUTOMATIC:
                guard.set_mode(old.breaker.mode, old.reason)
            if self._sharer is not None:
                self._sharer.created(guard)
        return guard

    def attach(self, sharer: Sharer) -> None:
        """Tell this one of guards and changes from now on."""
        self._sharer = sharer
        for guard in self._guards.values():
            sharer.created(guard)

    def detach(self) -> None:
        """Decide alone again."""
        self._sharer, self.shared = None, False

    def report(self, change: BreakerChange) -> None:
        """To the listener."""
        if self._on_change is not None:
            self._on_change(change)

    def changed(self, guard: Guard) -> None:
        """To the sharer, unless a reload has replaced the guard."""
        if self._sharer is not None and self._guards.get(guard.name) is guard:
            self._sharer.changed(guard)
