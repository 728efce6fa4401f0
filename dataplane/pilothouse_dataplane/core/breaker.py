"""A circuit breaker as plain data: resilience4j's semantics, no clock, no locks.

::

             failure rate reached                      open_seconds passed and a call asks
    CLOSED ───────────────────────▶ OPEN ───────────────────────────────────────▶ HALF_OPEN
       ▲                             ▲    rate reached, or half_open_seconds passed   │ │
       │                             └───────────────────────────────────────────────┘ │
       └─────────────────────────────── every permitted call back, rate below ─────────┘

Time model: ``now`` is any monotonic number of seconds; each function gets it as an argument.

Two differences from resilience4j, both on purpose. The result of a call that began in an earlier state (a call of the
closed state that comes back in half-open) is dropped, as it says nothing about the present. Half-open is bounded
by ``half_open_seconds``: resilience4j waits for ever by default where a permitted call never returns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class BreakerState(Enum):
    """resilience4j's words."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Thresholds of one breaker."""

    window: int = 20
    """Calls in the sliding count window."""
    minimum_calls: int = 10
    """Calls before the rate is looked at; at most ``window``."""
    failure_rate_percent: float = 50
    """The breaker opens at this rate or above, 0..100."""
    open_seconds: float = 30
    half_open_calls: int = 3
    """Calls let through in half-open."""
    half_open_seconds: float = 30
    """Half-open goes back to open after this long without a verdict."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; to be given back with ``record`` or ``release``."""

    generation: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one breaker. Make it with ``Breaker(settings)``."""

    settings: BreakerSettings
    state: BreakerState = BreakerState.CLOSED
    failures: tuple[bool, ...] = ()
    """Newest last; True is a failure. The window in closed, the permitted calls' results in half-open."""
    since: float = 0.0
    """When the state began, seconds."""
    generation: int = 0
    """Rises with every change of state."""
    permitted: int = 0
    """Half-open: calls let through so far."""

    @property
    def failure_rate_percent(self) -> float:
        """0..100 over the calls in the window; 0 where there are none."""
        return 100.0 * sum(self.failures) / len(self.failures) if self.failures else 0.0

    def retry_in(self, now: float) -> float:
        """Seconds until an open breaker lets a call through; 0 in the other states."""
        if self.state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self.since + self.settings.open_seconds - now)


def _enter(breaker: Breaker, state: BreakerState, now: float) -> Breaker:
    return replace(breaker, state=state, failures=(), since=now, generation=breaker.generation + 1, permitted=0)


def tick(breaker: Breaker, now: float) -> Breaker:
    """The breaker after time alone: a half-open that got no verdict in its bound opens again."""
    if breaker.state is BreakerState.HALF_OPEN and now - breaker.since >= breaker.settings.half_open_seconds:
        # it opened when its bound was over, not when somebody looked
        return _enter(breaker, BreakerState.OPEN, breaker.since + breaker.settings.half_open_seconds)
    return breaker


def acquire(breaker: Breaker, now: float) -> tuple[Breaker, Permit | None]:
    """Ask to make one call; None: not now."""
    breaker = tick(breaker, now)
    if breaker.state is BreakerState.OPEN:
        if breaker.retry_in(now) > 0:
            return breaker, None
        breaker = _enter(breaker, BreakerState.HALF_OPEN, now)
    if breaker.state is BreakerState.HALF_OPEN:
        if breaker.permitted >= breaker.settings.half_open_calls:
            return breaker, None
        breaker = replace(breaker, permitted=breaker.permitted + 1)
    return breaker, Permit(breaker.generation)


def record(breaker: Breaker, permit: Permit, *, failed: bool, now: float) -> Breaker:
    """The permitted call came back."""
    breaker = tick(breaker, now)
    if permit.generation != breaker.generation:
        return breaker
    settings = breaker.settings
    if breaker.state is BreakerState.HALF_OPEN:
        breaker = replace(breaker, failures=(*breaker.failures, failed))
        if len(breaker.failures) < settings.half_open_calls:
            return breaker
        over = breaker.failure_rate_percent >= settings.failure_rate_percent
        return _enter(breaker, BreakerState.OPEN if over else BreakerState.CLOSED, now)
    window = (*breaker.failures, failed)[-settings.window :]
    breaker = replace(breaker, failures=window)
    enough = len(window) >= min(settings.minimum_calls, settings.window)
    if enough and breaker.failure_rate_percent >= settings.failure_rate_percent:
        return _enter(breaker, BreakerState.OPEN, now)
    return breaker


def release(breaker: Breaker, permit: Permit, now: float) -> Breaker:
    """The call says nothing about the system (it was cancelled, or the user may not): give the permit back."""
    breaker = tick(breaker, now)
    if permit.generation == breaker.generation and breaker.state is BreakerState.HALF_OPEN:
        return replace(breaker, permitted=max(0, breaker.permitted - 1))
    return breaker
