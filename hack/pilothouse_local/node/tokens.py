"""A Pod's ServiceAccount tokens: asked for once, and again before they lapse.

Kubelet's rule: at 80% of a token's life, and at least once a day. Times are those of a clock that goes on while the
machine sleeps: a token lapses meanwhile, too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .model import Obj
from .projection import TokenWant

RENEWED_AT = 0.8
"""Part of a token's life."""
_DAY = 86400.0
LOOK_SECONDS = 30.0
"""A wait is cut into such pieces: what waits does not notice that the machine slept."""


def clock() -> float:
    """Seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class _Held:
    value: str
    renew_at: float


class Tokens:
    """``request`` asks the API server for one token and returns the TokenRequest as answered."""

    def __init__(self, request: Callable[[TokenWant], Awaitable[Obj]], clock: Callable[[], float] = clock) -> None:
        self._request = request
        self._clock = clock
        self._held: dict[TokenWant, _Held] = {}

    async def get(self, want: TokenWant) -> str:
        """The token, a new one where it is time. Raises what ``request`` raises."""
        held = self._held.get(want)
        if held is not None and self._clock() < held.renew_at:
            return held.value
        asked_at = self._clock()
        answer = await self._request(want)
        # The server may grant less than was asked for.
        seconds = float((answer.get("spec") or {}).get("expirationSeconds") or want.seconds)
        self._held[want] = _Held(answer["status"]["token"], asked_at + min(seconds * RENEWED_AT, _DAY))
        return self._held[want].value

    def due(self) -> bool:
        """Whether one of them has to be renewed now."""
        return any(held.renew_at <= self._clock() for held in self._held.values())

    def wait(self) -> float | None:
        """Seconds to wait before asking ``due`` again; None: there are none."""
        if not self._held:
            return None
        return max(1.0, min(LOOK_SECONDS, min(held.renew_at for held in self._held.values()) - self._clock()))
