"""Holders of breakers: one per provider and per connector, kept over reloads of the configuration.

The clock comes in as an argument, so that a holder can be tested without waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pilothouse_dataplane.core.breaker import Breaker, BreakerSettings, BreakerState, Permit, acquire, record, release


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker went into another state, or was used for the first time."""

    name: str
    """``provider/<name>`` or ``connector/<name>``."""
    state: BreakerState
    failure_rate_percent: float
    """What the window held when the state changed, 0..100."""
    reason: str


class Guard:
    """One named breaker that changes in place and tells its listener about its first use and each change of state.

    The first use is told so that whoever watches sees every breaker in use, not only those that had trouble.
    """

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        clock: Callable[[], float],
        on_change: Callable[[BreakerChange], None] | None = None,
    ) -> None:
        self.name = name
        self._breaker = Breaker(settings)
        self._clock = clock
        self._on_change = on_change
        self._told = False

    @property
    def breaker(self) -> Breaker:
        return self._breaker

    def try_acquire(self) -> Permit | None:
        """Leave to make one call, None where the breaker is open."""
        before = self._breaker
        after, permit = acquire(before, self._clock())
        self._become(before, after, "the open time has passed")
        return permit

    def succeeded(self, permit: Permit) -> None:
        before = self._breaker
        self._become(before, record(before, permit, failed=False, now=self._clock()), "calls succeed again")

    def failed(self, permit: Permit, reason: str) -> None:
        """``reason`` is a sentence for operators; it must hold no secret."""
        before = self._breaker
        self._become(before, record(before, permit, failed=True, now=self._clock()), reason)

    def ignored(self, permit: Permit) -> None:
        """The call was cancelled or refused for the user's sake: no verdict."""
        before = self._breaker
        self._become(before, release(before, permit, self._clock()), "no verdict in half-open")

    def retry_in(self) -> float:
        """Seconds until the next call may pass."""
        return self._breaker.retry_in(self._clock())

    def _become(self, before: Breaker, after: Breaker, reason: str) -> None:
        self._breaker = after
        if self._on_change is None:
            return
        if after.state is before.state and not self._told:
            self._told = True
            self._on_change(BreakerChange(self.name, after.state, after.failure_rate_percent, "first call"))
        elif after.state is not before.state:
            self._told = True
            # the rate of the window that was just cleared is gone; opening means that it had reached the threshold
            rate = before.failure_rate_percent
            if after.state is BreakerState.OPEN:
                rate = max(rate, after.settings.failure_rate_percent)
            self._on_change(BreakerChange(self.name, after.state, rate, reason))


class GuardRegistry:
    """The worker's breakers by name. A reload that leaves a breaker's settings alone keeps what it has learnt."""

    def __init__(self, clock: Callable[[], float], on_change: Callable[[BreakerChange], None] | None = None) -> None:
        self._clock = clock
        self._on_change = on_change
        self._guards: dict[str, Guard] = {}

    def get(self, name: str, settings: BreakerSettings) -> Guard:
        guard = self._guards.get(name)
        if guard is None or guard.breaker.settings != settings:
            guard = Guard(name, settings, self._clock, self._on_change)
            self._guards[name] = guard
        return guard
