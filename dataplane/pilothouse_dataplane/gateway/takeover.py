"""What a run knows of the workers that it has lost, and so what it tells the next one. Pure: now comes in.

The ledger gives a run at once to who names its holder as lost; else it says *held*, until the holder's lease runs out
(10 s). The holder is the worker from which the run was last heard, or, where a later one died unheard, perhaps that:
whether it had claimed the run is not known. So the names are told in turn, the surest first. A holder that is none of
them lives: a worker that found the run by itself, and will be found by asking the others.

Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pilothouse_dataplane.gateway.workers import Worker

HELD_WAIT = 20.0
"""Seconds after a loss during which *held* is no end: a lease runs out after 10, and is found by then."""


@dataclass(slots=True)
class Takeover:
    """One run's losses. ``patience`` is when the look for the next worker ends."""

    wait: float
    """Seconds to look for a worker after a loss."""
    patience: float
    since: float
    """Of the last loss, or of the beginning."""
    count: int = 0
    gone: Worker | None = None
    elsewhere: frozenset[str] = frozenset()
    """Uids of workers that said another one has the run."""
    _suspects: list[str] = field(default_factory=list)
    _told: int = 0

    @property
    def attempt(self) -> int:
        """Number of the next ask."""
        return self.count + 1

    @property
    def lost_worker(self) -> str:
        """Who is named as lost in the next ask; "" before any loss."""
        return self._suspects[self._told % len(self._suspects)] if self._suspects else ""

    def lost(self, worker: Worker, *, heard: bool, now: float) -> None:
        """A worker is gone, after an event of this run came from it (``heard``) or not."""
        if heard:
            self._suspects = [worker.name]
        elif worker.name not in self._suspects:
            self._suspects.append(worker.name)
        self._told = 0
        self.count, self.gone, self.since, self.patience = self.count + 1, worker, now, now + self.wait

    def held(self, worker: Worker, now: float) -> bool:
        """A worker says that another one has the run. False where that has been so for too long."""
        self._told += 1
        self.elsewhere |= {worker.uid}
        self.patience = now + self.wait
        return now < self.since + HELD_WAIT
