"""How many requests and tokens a key has left, as both vendors tell it in the headers of each answer.

Sources: https://platform.openai.com/docs/guides/rate-limits, https://docs.anthropic.com/en/api/rate-limits
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping

from pilothouse_sim.faults import RateLimiter
from pilothouse_sim.models.errors import Dialect

REQUESTS_A_MINUTE = 10_000
TOKENS_A_MINUTE = 2_000_000


class Quota:
    """A minute's requests and tokens, by key; it refuses only where a limit is set."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock``: seconds since 1970."""
        self._clock = clock
        self._limiter = RateLimiter()
        self._used: dict[str, tuple[int, int, int]] = {}

    def take(self, key: str, per_minute: float) -> float:
        """0 and one request taken, or the seconds until there is one."""
        if per_minute and (wait := self._limiter.wait_seconds(key, per_minute, self._clock())):
            return wait
        minute, requests, tokens = self._now(key)
        self._used[key] = (minute, requests + 1, tokens)
        return 0.0

    def headers(self, dialect: Dialect, key: str, per_minute: float, tokens: int) -> Mapping[str, str]:
        """After ``tokens`` more were used."""
        minute, requests, before = self._now(key)
        self._used[key] = (minute, requests, before + tokens)
        most = int(per_minute) or REQUESTS_A_MINUTE
        left, tokens_left = max(0, most - requests), max(0, TOKENS_A_MINUTE - before - tokens)
        ends = (minute + 1) * 60
        request_id = f"req_{abs(hash((key, requests, self._clock()))):024x}"[:28]
        if dialect == "openai":
            reset = f"{math.ceil((ends - self._clock()) * 1000)}ms"
            return {
                "x-ratelimit-limit-requests": str(most),
                "x-ratelimit-limit-tokens": str(TOKENS_A_MINUTE),
                "x-ratelimit-remaining-requests": str(left),
                "x-ratelimit-remaining-tokens": str(tokens_left),
                "x-ratelimit-reset-requests": reset,
                "x-ratelimit-reset-tokens": reset,
                "x-request-id": request_id,
                "openai-processing-ms": "1",
            }
        at = datetime.datetime.fromtimestamp(ends, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        given = {"requests": (most, left), "tokens": (TOKENS_A_MINUTE, tokens_left)}
        told = {
            f"anthropic-ratelimit-{what}-{name}": str(value)
            for what, (limit, remaining) in given.items()
            for name, value in (("limit", limit), ("remaining", remaining), ("reset", at))
        }
        return {**told, "request-id": request_id}

    def _now(self, key: str) -> tuple[int, int, int]:
        """(minute, requests, tokens) of this minute."""
        minute = int(self._clock() // 60)
        used = self._used.get(key, (minute, 0, 0))
        return used if used[0] == minute else (minute, 0, 0)
