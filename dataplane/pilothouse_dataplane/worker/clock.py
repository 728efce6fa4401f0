"""A run's clock on one worker: its active time, its deadline, and what its time is spent on."""

from __future__ import annotations

import time

from pilothouse_dataplane.core.timing import Cause, Stopwatch, TimeSplit


class RunClock:
    """Seconds of active time since the run was asked for, over all of its workers, without the time it was parked."""

    def __init__(self, claimed_at: float, elapsed: float, parked_seconds: float, deadline: float) -> None:
        """``elapsed`` is the run's active time at ``claimed_at`` (``time.monotonic``); ``deadline`` on the run's clock.

        What earlier workers spent is not known by cause: it counts as Pilothouse's own.
        """
        self._zero = claimed_at - elapsed
        self.deadline = self._zero + deadline
        """On ``time.monotonic``."""
        self._watch = Stopwatch(0.0)
        self._watch.split(elapsed)
        self._watch.add(Cause.APPROVAL, parked_seconds)

    def now(self) -> float:
        return time.monotonic() - self._zero

    def left(self) -> float:
        """Seconds to the deadline, at least 0."""
        return max(0.0, self.deadline - time.monotonic())

    def begin(self, cause: Cause) -> None:
        """Something of that kind begins."""
        self._watch.begin(cause, self.now())

    def end(self, cause: Cause) -> None:
        """Something of that kind has ended."""
        self._watch.end(cause, self.now())

    def split(self) -> TimeSplit:
        """What was spent so far; the whole is the run's time with the time that it was parked."""
        return self._watch.split(self.now())
