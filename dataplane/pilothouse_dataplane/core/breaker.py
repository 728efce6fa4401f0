"""A circuit breaker with resilience4j's semantics: no clock, no locks, no IO.

::

             a rate is reached, or trip                 open_seconds passed and a call asks
    CLOSED ─────────────────────▶ OPEN ────────────────────────────────────────────▶ HALF_OPEN
       ▲                           ▲     a rate reached, or no verdict in its time      │  │
       │                           └────────────────────────────────────────────────────┘  │
       └──────────────────── enough permitted calls back, both rates below ────────────────┘

    any state ── set_mode ──▶ FORCED_OPEN (nothing passes) or DISABLED (all passes, nothing counts)
    FORCED_OPEN, DISABLED ── set_mode(AUTOMATIC) ──▶ CLOSED, with an empty window
    any state ── adopt ──▶ what another worker has found

A rate is that of failed calls, or of slow ones; a failed call may be slow as well. The window slides over the last
``window`` calls (Count) or over the last ``window`` seconds, the present one included (Time); one call costs O(1).
In half-open the verdict falls with min(minimum_calls, half_open_calls) results, as in resilience4j.

Time model: ``now`` is any monotonic number of seconds; each method gets it as an argument. Time alone changes a state
only when somebody looks (``tick``, called by the other methods), and then with the time at which it was due.

Two differences from resilience4j, both on purpose. The result of a call that began in an earlier state (a call of the
closed state that comes back in half-open) is dropped, as it says nothing about the present. Half-open is bounded by
``half_open_seconds``: resilience4j waits for ever by default where a permitted call never returns. When the bound is
over, the calls that came back decide, and one still away counts as failed and slow: so neither a hanging call nor a
tenant that asks too seldom to use its permits keeps the breaker from a verdict. Another worker's half-open is waited
for only ``OTHERS_PROBE_SECONDS``: it may be dead, or hear of no more calls.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from pilothouse_api.workerconfig import BreakerConfig

OTHERS_PROBE_SECONDS = 3.0
"""How long another worker's half-open is waited for; then the next call here probes itself."""


class BreakerState(Enum):
    """resilience4j's words."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class BreakerMode(Enum):
    """Who decides: the breaker itself, or an SRE."""

    AUTOMATIC = "automatic"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


class Cause(Enum):
    """Why a breaker is in its state."""

    START = "start"
    RESULTS = "results"
    """Calls have shown it: evidence that holds for every worker."""
    TIME = "time"
    """Time alone, which every worker can tell for itself."""
    MODE = "mode"
    """An SRE."""
    ADOPTED = "adopted"
    """Another worker."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Thresholds of one breaker; ``BreakerConfig`` says the same to the operator."""

    window: int = 20
    """Size of the sliding window: calls, or seconds where ``window_type`` is Time."""
    minimum_calls: int = 10
    """Calls before a rate is looked at; with Count at most ``window``."""
    failure_rate_percent: float = 50
    """The breaker opens at this rate of failed calls or above, 0..100."""
    open_seconds: float = 30
    half_open_calls: int = 3
    """Calls let through in half-open."""
    half_open_seconds: float = 30
    """Half-open is decided after this long, whatever has come back."""
    window_type: Literal["Count", "Time"] = "Count"
    slow_call_seconds: float = 0
    """A call that took longer is slow; 0: none is."""
    slow_call_rate_percent: float = 100
    """The breaker opens at this rate of slow calls or above, 0..100."""


def settings_of(config: BreakerConfig) -> BreakerSettings:
    """The settings that a worker's configuration asks for."""
    return BreakerSettings(**config.model_dump())


@dataclass(frozen=True, slots=True)
class Rates:
    """What a window holds."""

    calls: int = 0
    failure_percent: float = 0.0
    """0..100; 0 where there are no calls."""
    slow_percent: float = 0.0

    @staticmethod
    def of(calls: int, failed: int, slow: int) -> Rates:
        return Rates(calls, 100.0 * failed / calls, 100.0 * slow / calls) if calls else Rates()


class Permit:
    """Leave to make one call. Given back once, with ``record`` or ``release``; a second time does nothing."""

    __slots__ = ("generation", "spent")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.spent = False


class _Window(Protocol):
    def add(self, failed: bool, slow: bool, now: float) -> None: ...
    def rates(self, now: float) -> Rates: ...


class _CountWindow:
    """The last ``size`` calls: a ring of one byte a call, with running totals."""

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)
        self._next = self._calls = self._failed = self._slow = 0

    def add(self, failed: bool, slow: bool, now: float) -> None:
        size, at = len(self._ring), self._next
        if self._calls == size:
            old = self._ring[at]
            self._failed -= old & 1
            self._slow -= old >> 1
        else:
            self._calls += 1
        self._ring[at] = failed | slow << 1
        self._failed += failed
        self._slow += slow
        self._next = (at + 1) % size

    def rates(self, now: float) -> Rates:
        return Rates.of(self._calls, self._failed, self._slow)


class _TimeWindow:
    """The last ``size`` seconds: at most one bucket a second, with running totals."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._buckets: deque[list[int]] = deque()
        """[second, calls, failed, slow], oldest first; only seconds that had calls."""
        self._calls = self._failed = self._slow = 0

    def _expire(self, second: int) -> None:
        while self._buckets and self._buckets[0][0] <= second - self._size:
            _, calls, failed, slow = self._buckets.popleft()
            self._calls -= calls
            self._failed -= failed
            self._slow -= slow

    def add(self, failed: bool, slow: bool, now: float) -> None:
        second = int(now // 1)
        self._expire(second)
        if not self._buckets or self._buckets[-1][0] < second:
            self._buckets.append([second, 0, 0, 0])
        bucket = self._buckets[-1]
        bucket[1] += 1
        bucket[2] += failed
        bucket[3] += slow
        self._calls += 1
        self._failed += failed
        self._slow += slow

    def rates(self, now: float) -> Rates:
        self._expire(int(now // 1))
        return Rates.of(self._calls, self._failed, self._slow)


_STATE_OF_MODE = {
    BreakerMode.AUTOMATIC: BreakerState.CLOSED,
    BreakerMode.FORCED_OPEN: BreakerState.FORCED_OPEN,
    BreakerMode.DISABLED: BreakerState.DISABLED,
}


class Breaker:
    """One breaker. Its attributes are for reading."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.state = BreakerState.CLOSED
        self.since = 0.0
        """When the state began, seconds."""
        self.generation = 0
        """Rises with every change of state, and with every adoption."""
        self.cause = Cause.START
        self.decided_by = Rates()
        """What the window held when the state changed."""
        self._window: _Window = self._fresh_window()
        self._permitted = 0
        """Half-open: calls let through and not released."""
        self._returned = [0, 0, 0]
        """Half-open: calls that came back, failed ones, slow ones."""
        self._limit = 0
        """Half-open: calls that may be let through here."""

    @property
    def mode(self) -> BreakerMode:
        if self.state is BreakerState.FORCED_OPEN:
            return BreakerMode.FORCED_OPEN
        return BreakerMode.DISABLED if self.state is BreakerState.DISABLED else BreakerMode.AUTOMATIC

    @property
    def permitted(self) -> int:
        """Half-open: calls let through so far."""
        return self._permitted

    def rates(self, now: float) -> Rates:
        """Of the calls counted in the present state."""
        if self.state is BreakerState.HALF_OPEN:
            return Rates.of(*self._returned)
        return self._window.rates(now)

    def retry_in(self, now: float) -> float:
        """Seconds until a breaker that is open lets a call through; 0 in the states that may let one through.

        Forced open has no end that could be told: ``open_seconds``, so that nobody asks more often than that.
        """
        if self.state is BreakerState.FORCED_OPEN:
            return self.settings.open_seconds
        if self.state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self.since + self.settings.open_seconds - now)

    def tick(self, now: float) -> None:
        """What time alone does: half-open is decided when its bound is over."""
        if self.state is not BreakerState.HALF_OPEN:
            return
        if self.cause is Cause.ADOPTED:
            due = self.since + min(OTHERS_PROBE_SECONDS, self.settings.half_open_seconds)
            if now >= due:  # open, with its time over: the next call probes
                self._enter(BreakerState.OPEN, due - self.settings.open_seconds, Cause.TIME, Rates())
            return
        due = self.since + self.settings.half_open_seconds
        if now < due:
            return
        calls, failed, slow = self._returned
        away = self._permitted - calls
        rates = Rates.of(self._permitted, failed + away, slow + away)
        if self._permitted == 0:
            self._enter(BreakerState.OPEN, due, Cause.TIME, rates)
        else:
            self._enter(BreakerState.OPEN if self._over(rates) else BreakerState.CLOSED, due, Cause.RESULTS, rates)

    def try_acquire(self, now: float, probes: int | None = None) -> Permit | None:
        """Leave to make one call; None: not now.

        Where this call begins half-open, ``probes`` bounds the calls let through until ``grant`` lifts the bound.
        """
        if self.state is not BreakerState.CLOSED:  # the way of nearly all calls is short
            self.tick(now)
            if self.state is BreakerState.FORCED_OPEN:
                return None
            if self.state is BreakerState.OPEN:
                if self.retry_in(now) > 0:
                    return None
                self._enter(BreakerState.HALF_OPEN, now, Cause.TIME, Rates())
                allowed = self.settings.half_open_calls
                self._limit = allowed if probes is None else min(probes, allowed)
            if self.state is BreakerState.HALF_OPEN:
                if self._permitted >= self._limit:
                    return None
                self._permitted += 1
        return Permit(self.generation)

    def record(self, permit: Permit, *, failed: bool, seconds: float = 0.0, now: float) -> None:
        """The permitted call came back after ``seconds``."""
        if not self._take_back(permit, now):
            return
        settings = self.settings
        slow = 0 < settings.slow_call_seconds < seconds
        if self.state is BreakerState.HALF_OPEN:
            self._returned[0] += 1
            self._returned[1] += failed
            self._returned[2] += slow
            needed = min(settings.minimum_calls, settings.half_open_calls)
        else:
            self._window.add(failed, slow, now)
            needed = settings.minimum_calls
            if settings.window_type == "Count":
                needed = min(needed, settings.window)
        rates = self.rates(now)
        if rates.calls < needed:
            return
        if self._over(rates):
            self._enter(BreakerState.OPEN, now, Cause.RESULTS, rates)
        elif self.state is BreakerState.HALF_OPEN:
            self._enter(BreakerState.CLOSED, now, Cause.RESULTS, rates)

    def trip(self, permit: Permit, now: float) -> None:
        """The permitted call came back with proof that the next ones would fail in the same way: open at once."""
        if self._take_back(permit, now) and self.state in (BreakerState.CLOSED, BreakerState.HALF_OPEN):
            self._enter(BreakerState.OPEN, now, Cause.RESULTS, Rates.of(1, 1, 0))

    def release(self, permit: Permit, now: float) -> None:
        """The call says nothing about the system (it was cancelled, or the user may not): give the permit back."""
        if self._take_back(permit, now) and self.state is BreakerState.HALF_OPEN:
            self._permitted -= 1

    def grant(self) -> None:
        """Half-open that began here may let through all its permitted calls: this worker is the one that probes."""
        if self._limit:
            self._limit = self.settings.half_open_calls

    def set_mode(self, mode: BreakerMode, now: float) -> None:
        """An SRE's word. Back to automatic begins anew, closed; automatic to automatic changes nothing."""
        if mode is not self.mode:
            self._enter(_STATE_OF_MODE[mode], now, Cause.MODE, self.rates(now))

    def adopt(self, state: BreakerState, since: float, rates: Rates) -> None:
        """Another worker's finding. Its half-open lets nothing through here for a while: the other one probes."""
        self._enter(state, since, Cause.ADOPTED, rates)

    def _take_back(self, permit: Permit, now: float) -> bool:
        """Whether the permit's call still counts."""
        self.tick(now)
        if permit.spent or permit.generation != self.generation or self.state is BreakerState.DISABLED:
            return False
        permit.spent = True
        return True

    def _over(self, rates: Rates) -> bool:
        settings = self.settings
        return rates.failure_percent >= settings.failure_rate_percent or (
            settings.slow_call_seconds > 0 and rates.slow_percent >= settings.slow_call_rate_percent
        )

    def _fresh_window(self) -> _Window:
        size = self.settings.window
        return _TimeWindow(size) if self.settings.window_type == "Time" else _CountWindow(size)

    def _enter(self, state: BreakerState, since: float, cause: Cause, rates: Rates) -> None:
        self.state, self.since, self.cause, self.decided_by = state, since, cause, rates
        self.generation += 1
        self._window = self._fresh_window()
        self._permitted = self._limit = 0
        self._returned = [0, 0, 0]
