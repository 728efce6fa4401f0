"""Holds calls back where a limit would refuse them: the Connector's own, and the one that the system tells of.

Guarantees: this worker sends at most ``requests_per_minute``, in bursts of at most ten seconds' worth. After a 429, or
an answer which says that nothing is left of a limit, the same user's calls wait until the system takes them again; when
several users have met it, the limit is the whole system's, and everybody's wait. A call waits no longer than its run
lasts, nor longer than a person would: then it fails, and says when to ask again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Connector, RateLimit, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.wrappers.base import Clock, Wrapper
from pilothouse_dataplane.core.messages import Tool, ToolResult

_BURST_SECONDS = 10.0
_MAX_WAIT = 10.0
"""Seconds; who would wait longer would rather hear of it."""
_MAX_HOLD = 300.0
"""Seconds that one word of the system counts at most: a header that is nonsense must not lock a user out."""
_ALL_HELD = 3
"""So many users held at once make it the system's own limit."""


class _Bucket:
    """Generic cell rate algorithm: a token bucket without a timer."""

    def __init__(self, per_minute: int) -> None:
        self._interval = 60.0 / per_minute
        self._tolerance = max(0.0, _BURST_SECONDS - self._interval)
        self._next = -math.inf
        """When a bucket that has emptied evenly would give the next."""

    def wait(self, now: float) -> float:
        return max(0.0, self._next - self._tolerance - now)

    def take(self, now: float) -> None:
        self._next = max(self._next, now) + self._interval

    def give_back(self) -> None:
        self._next -= self._interval


class WithRateLimit(Wrapper):
    """Waits before each request."""

    def __init__(self, inner: Connector, per_minute: int, system: str, clock: Clock, *, shared: bool) -> None:
        """``per_minute`` 0: only the system's own limits. ``shared``: all users' calls carry the same account."""
        super().__init__(inner)
        self._bucket = _Bucket(per_minute) if per_minute else None
        self._system = system
        self._clock = clock
        self._shared = shared
        self._held: dict[str, float] = {}
        """By user: until when."""

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        await self._turn(context)
        try:
            result = await self._inner.call(tool, arguments, context)
        except SystemUnavailable as error:
            held = self._learn(context, error.retry_after)
            if held >= 1 and not error.lasting:
                raise self._told(error, held) from error
            raise
        except Refused:
            self._learn(context, None)
            raise
        self._learn(context, None)
        return result

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        await self._turn(context)
        try:
            found = await self._inner.find_by_key(tool, arguments, context)
        except SystemUnavailable as error:
            self._learn(context, error.retry_after)
            raise
        self._learn(context, None)
        return found

    def _user(self, context: CallContext) -> str:
        return "" if self._shared else context.user_email

    async def _turn(self, context: CallContext) -> None:
        """Wait until the call may leave. Raises SystemUnavailable."""
        now = self._clock()
        wait = self._held_for(self._user(context), now) if self._held else 0.0
        if self._bucket is not None:
            wait = max(wait, self._bucket.wait(now))
        if wait > 0 and (wait > _MAX_WAIT or now + wait >= context.deadline):
            raise SystemUnavailable(
                f"{self._system} takes no more requests at the moment and was not asked; "
                f"ask again in {math.ceil(wait)} s.",
                may_have_acted=False,
                retry_after=wait,
                lasting=True,
            )
        if self._bucket is not None:
            self._bucket.take(now)
        if wait > 0:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                if self._bucket is not None:
                    self._bucket.give_back()
                raise

    def _held_for(self, user: str, now: float) -> float:
        for name in [name for name, until in self._held.items() if until <= now]:
            del self._held[name]
        own = self._held.get(user, now)
        everybody = min(self._held.values()) if len(self._held) >= _ALL_HELD else now
        return max(own, everybody) - now

    def _learn(self, context: CallContext, retry_after: float | None) -> float:
        """Seconds for which this user's calls are held now."""
        limit: RateLimit | None = context.record.limit
        context.record.limit = None  # the next try's answer says it anew
        wait = retry_after or 0.0
        if limit is not None and limit.remaining <= 0:
            wait = max(wait, limit.reset_seconds)
        if wait > 0:
            now = self._clock()
            if len(self._held) > 1000:
                self._held_for("", now)  # those whose time has passed go
            self._held[self._user(context)] = now + min(wait, _MAX_HOLD)
        return wait

    def _told(self, error: SystemUnavailable, held: float) -> SystemUnavailable:
        when = f" It takes requests again in {math.ceil(held)} s."
        return SystemUnavailable(
            f"{error}{when}", may_have_acted=error.may_have_acted, retry_after=held, lasting=error.lasting
        )
