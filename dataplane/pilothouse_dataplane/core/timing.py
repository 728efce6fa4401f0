"""What a run's time is spent on. Pure; ``now`` is seconds of one monotonic clock.

Causes overlap (a tool runs while the model still writes the plan), so each moment counts once, for the first of these
that is under way: model, tools, approval; where none is, the time is Pilothouse's own. The four add up to the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Cause(Enum):
    """In the order of precedence."""

    MODEL = "model"
    TOOLS = "tools"
    APPROVAL = "approval"
    OWN = "pilothouse"


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Seconds by cause."""

    model: float = 0.0
    tools: float = 0.0
    approval: float = 0.0
    own: float = 0.0

    @property
    def total(self) -> float:
        return self.model + self.tools + self.approval + self.own


class Stopwatch:
    """Counts what is under way and adds the time up."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._under_way = {Cause.MODEL: 0, Cause.TOOLS: 0, Cause.APPROVAL: 0}
        self._spent = dict.fromkeys(Cause, 0.0)

    def begin(self, cause: Cause, now: float) -> None:
        """Something of that kind begins."""
        self._advance(now)
        self._under_way[cause] += 1

    def end(self, cause: Cause, now: float) -> None:
        """Something of that kind has ended."""
        self._advance(now)
        self._under_way[cause] = max(0, self._under_way[cause] - 1)

    def add(self, cause: Cause, seconds: float) -> None:
        """Time that passed while this process did not look (a parked run)."""
        self._spent[cause] += max(0.0, seconds)

    def split(self, now: float) -> TimeSplit:
        """What was spent so far."""
        self._advance(now)
        spent = self._spent
        return TimeSplit(spent[Cause.MODEL], spent[Cause.TOOLS], spent[Cause.APPROVAL], spent[Cause.OWN])

    def _advance(self, now: float) -> None:
        cause = next((cause for cause, count in self._under_way.items() if count), Cause.OWN)
        self._spent[cause] += max(0.0, now - self._at)
        self._at = max(self._at, now)
