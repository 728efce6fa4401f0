"""What the limits say to people, and a worker's own share of them, which counts while Redis is away. Pure.

A share of a limit L, for one of n workers that were alive when Redis was last heard, t seconds after it went, is
``((L - U) + U * t/60) / n``, where U is what was used when it was last heard: what was left then, and what has left the
window since. So all workers together stay within the limit while all are alone (as far as U was used evenly over its
minute, and no workers were added), and one that alone has lost its Redis, while others go on with theirs, goes beyond
by no more than its part of the window's flow: short interruptions cost nothing. Of the day's money a share is an equal
part of what was left. Windows and fair shares are as in ``limits_script.py``, whose buckets these are: what was used
here is booked there later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from pilothouse_api.workerconfig import LimitsConfig
from pilothouse_dataplane.models.limits_script import (
    BUCKET_MS,
    BUCKETS,
    DAY_MS,
    GRACE_MS,
    RUNS_RETRY_MS,
)

_MINUTE_MS = 60_000.0
Kind = Literal["requests", "tokens"]


class LimitReason(Enum):
    """Which limit refused."""

    REQUESTS = "requests"
    """Requests a minute, of the tenant."""
    REQUESTS_SHARE = "requests_share"
    """The tenant's are contended, and this user has had an equal share."""
    USER_REQUESTS = "user_requests"
    TOKENS = "tokens"
    TOKENS_SHARE = "tokens_share"
    USER_TOKENS = "user_tokens"
    RUNS = "runs"
    """Runs at a time."""
    RUNS_SHARE = "runs_share"
    BUDGET = "budget"
    """Dollars a day."""
    BUDGET_SHARE = "budget_share"
    """Above the soft budget, and this user has had an equal share of the day's."""
    BUDGET_HELD = "budget_held"
    """What is left of the day's is reserved for calls under way, which will need less."""


_HAPPENED: Mapping[LimitReason, str] = {
    LimitReason.REQUESTS: "Your company has reached its limit of requests a minute",
    LimitReason.REQUESTS_SHARE: "Your company has nearly reached its limit of requests a minute, "
    "and others have had fewer than you",
    LimitReason.USER_REQUESTS: "You have reached your own limit of requests a minute",
    LimitReason.TOKENS: "Your company has reached its limit of model tokens a minute",
    LimitReason.TOKENS_SHARE: "Your company has nearly reached its limit of model tokens a minute, "
    "and others have had fewer than you",
    LimitReason.USER_TOKENS: "You have reached your own limit of model tokens a minute",
    LimitReason.RUNS: "Your company has as many requests in work as it may have at a time",
    LimitReason.RUNS_SHARE: "Your company has nearly as many requests in work as it may have at a time, "
    "and others have fewer than you",
    LimitReason.BUDGET: "Your company's budget for today is used up",
    LimitReason.BUDGET_SHARE: "Your company's budget for today is nearly used up, and you have had your share of it",
    LimitReason.BUDGET_HELD: "What is left of your company's budget for today is held for requests in work",
}


def sentence(reason: LimitReason, seconds: float) -> str:
    """For the user: what happened, what was not done, what to do now. ``seconds``: until it is worth asking again."""
    if reason in (LimitReason.BUDGET, LimitReason.BUDGET_SHARE):
        then = f"It begins anew at midnight UTC, in {_duration(seconds)}; your administrator can raise it."
    else:
        then = f"Ask again in {_duration(seconds)}."
    return f"{_HAPPENED[reason]}. No model was asked. {then}"


def _duration(seconds: float) -> str:
    if seconds <= 120:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds <= 7200:
        return f"{math.ceil(seconds / 60)} min"
    return f"{math.ceil(seconds / 3600)} h"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Not now."""

    reason: LimitReason
    wait_ms: float


@dataclass(frozen=True, slots=True)
class Grant:
    """Let through."""

    bucket: int
    """Half second on Redis' clock in which it counts."""
    day: int
    """Days since 1970 (UTC) on which its money counts."""
    cheap: bool
    """The day's soft budget is used up."""


class Window:
    """A sliding minute of one user's or of all requests and tokens."""

    __slots__ = ("buckets", "requests", "tokens")

    def __init__(self) -> None:
        self.buckets: dict[int, list[int]] = {}
        """Half second → requests, tokens; in the order in which they came."""
        self.requests = 0
        self.tokens = 0

    def forget(self, current: int) -> None:
        """Drop what is older than a minute."""
        while self.buckets:
            bucket = next(iter(self.buckets))
            # a bucket from the future: the clock was put back
            if current - BUCKETS <= bucket <= current + BUCKETS:
                return
            requests, tokens = self.buckets.pop(bucket)
            self.requests -= requests
            self.tokens -= tokens

    def add(self, bucket: int, current: int, requests: int, tokens: int) -> None:
        """Count; less than 0 is given back, unless it has lapsed."""
        self.forget(current)
        if bucket < current - BUCKETS:
            bucket, requests, tokens = current, max(0, requests), max(0, tokens)
        if not requests and not tokens:
            return
        found = self.buckets.get(bucket)
        if found is None:
            found = self.buckets[bucket] = [0, 0]
        found[0] += requests
        found[1] += tokens
        self.requests += requests
        self.tokens += tokens

    def used(self, kind: Kind) -> int:
        return max(0, self.requests if kind == "requests" else self.tokens)

    def wait_ms(self, kind: Kind, need: float, now: float) -> float:
        """Until ``need`` of what is used has left."""
        for bucket in sorted(self.buckets):
            need -= self.buckets[bucket][0 if kind == "requests" else 1]
            if need <= 0:
                return max(1.0, (bucket + BUCKETS + 1) * BUCKET_MS - now)
        return 60_000.0


@dataclass(slots=True)
class Budget:
    """Micro-dollars that this worker may spend on one day while Redis is away."""

    day: int
    left: int
    soft_left: int
    """Until the soft budget, likewise; below 1: it is used up."""


class LocalShare:
    """What this worker has let through in the last minute, and what it may while it decides alone.

    ``now`` is in milliseconds on Redis' clock, as far as it is known.
    """

    def __init__(self) -> None:
        self.all = Window()
        self.fresh = Window()
        """Since Redis went."""
        self._since = 0.0
        self._used: Mapping[Kind, int] = {"requests": 0, "tokens": 0}
        """By all workers, when Redis was last heard."""
        self.users: dict[str, Window] = {}
        self._waiting: dict[Kind, dict[str, float]] = {"requests": {}, "tokens": {}}
        self._budget: Budget | None = None

    def record(self, user: str, bucket: int, requests: int, tokens: int, now: float) -> None:
        """Something that counts, whoever let it through."""
        current = int(now // BUCKET_MS)
        self.all.add(bucket, current, requests, tokens)
        if bucket >= self._since // BUCKET_MS:
            self.fresh.add(bucket, current, requests, tokens)
        window = self.users.get(user)
        if window is None:
            window = self.users[user] = Window()
        window.add(bucket, current, requests, tokens)

    def spend(self, day: int, cost: int) -> None:
        """Money that this worker has reserved, spent or given back while it decides alone."""
        if self._budget is not None and self._budget.day == day:
            self._budget.left -= cost
            self._budget.soft_left -= cost

    def tidy(self, now: float) -> None:
        """Forget users who did nothing in the last minute."""
        current = int(now // BUCKET_MS)
        for user in list(self.users):
            self.users[user].forget(current)
            if not self.users[user].buckets:
                del self.users[user]

    def begin(
        self,
        config: LimitsConfig,
        workers: int,
        now: float,
        spent: tuple[int, int] | None,
        used: Mapping[Kind, int],
    ) -> None:
        """Redis is gone. ``spent``: the day and the micro-dollars of all workers; ``used``: their requests and tokens
        in the window; both as last heard."""
        self._since, self._used, self.fresh = now, used, Window()
        day = int(now // DAY_MS)
        hard, known = config.daily_budget_micros, spent[1] if spent is not None and spent[0] == day else 0
        self._budget = None if hard is None else _budget(config, hard, workers, day, known)

    def take(
        self, user: str, requests: int, tokens: int, cost: int, config: LimitsConfig, workers: int, now: float
    ) -> Grant | Refusal:
        """Decide alone, and count it. A run's place is the caller's to judge (``runs``)."""
        current, day = int(now // BUCKET_MS), int(now // DAY_MS)
        refused = self._over(
            "requests", user, requests, config.user_requests_per_minute, config.requests_per_minute, workers, now
        ) or self._over("tokens", user, tokens, config.user_tokens_per_minute, config.tokens_per_minute, workers, now)
        if refused is not None:
            return refused
        cheap = False
        if config.daily_budget_micros is not None:
            budget = self._budget
            if budget is None or budget.day != day:
                budget = self._budget = _budget(config, config.daily_budget_micros, workers, day, 0)
            cheap = budget.soft_left <= 0
            whole = max(1, config.daily_budget_micros // workers)
            if min(max(cost, 1), whole) > budget.left:
                return Refusal(LimitReason.BUDGET, (day + 1) * DAY_MS - now)
            if cost:
                self.spend(day, cost)
        self.record(user, current, requests, tokens, now)
        return Grant(current, day, cheap)

    def runs(self, running: Mapping[str, int], config: LimitsConfig, workers: int) -> Refusal | None:
        """Whether one more run has no place here. ``running``: this worker's runs by user."""
        most = share_of(config.concurrent_runs, workers)
        if most and sum(running.values()) >= most:
            return Refusal(LimitReason.RUNS, RUNS_RETRY_MS)
        return None

    def _over(
        self, kind: Kind, user: str, amount: int, own: int, most: int, workers: int, now: float
    ) -> Refusal | None:
        if amount <= 0:
            return None
        current = int(now // BUCKET_MS)
        mine = self.users.get(user) or Window()
        mine.forget(current)
        self.all.forget(current)
        if own := share_of(own, workers):
            over: float = mine.used(kind) + min(amount, own) - own
            if over > 0:
                return Refusal(LimitReason(f"user_{kind}"), mine.wait_ms(kind, over, now))
        if part := share_of(most, workers):
            gone = min(1.0, max(0.0, (now - self._since) / _MINUTE_MS))
            used = min(self._used[kind], most) if now >= self._since else 0
            self.fresh.forget(current)
            allowed = max(part - used / workers * (1 - gone), 0.0)
            over = self.fresh.used(kind) + min(amount, part) - allowed
            if over > 0:
                wait = self.fresh.wait_ms(kind, over, now)
                if used and gone < 1:
                    wait = min(wait, max(1.0, over * workers / used * _MINUTE_MS))
                return self._wait(kind, user, LimitReason(kind), wait, now)
            level, least = self._level(kind, max(part, self.all.used(kind)), now)
            had = mine.used(kind)
            over = had + min(amount, part) - level
            if had > least and over > 0:
                wait = mine.wait_ms(kind, min(over, had), now)
                return self._wait(kind, user, LimitReason(f"{kind}_share"), wait, now)
        return None

    def _level(self, kind: Kind, most: int, now: float) -> tuple[float, float]:
        """What each of those who wait may have, and the least that one of them has had; infinite where nobody waits."""
        waiting = self._waiting[kind]
        for user in [user for user, till in waiting.items() if till <= now]:
            del waiting[user]
        if not waiting:
            return math.inf, math.inf
        had = []
        for user in waiting:
            window = self.users.get(user) or Window()
            window.forget(int(now // BUCKET_MS))
            had.append(window.used(kind))
        return (most - max(0, self.all.used(kind) - sum(had))) / len(waiting), min(had)

    def _wait(self, kind: Kind, user: str, reason: LimitReason, wait_ms: float, now: float) -> Refusal:
        self._waiting[kind][user] = now + wait_ms + GRACE_MS
        return Refusal(reason, wait_ms)


def share_of(limit: int, workers: int) -> int:
    """A worker's part of a limit; 0 stays 0: no limit."""
    return max(1, limit // max(1, workers)) if limit > 0 else 0


def soft_micros(config: LimitsConfig) -> int | None:
    """The soft budget in micro-dollars a day; None: there is none."""
    if config.daily_budget_micros is None:
        return None
    return config.daily_budget_micros * config.soft_budget_percent // 100


def _budget(config: LimitsConfig, hard: int, workers: int, day: int, spent: int) -> Budget:
    workers = max(1, workers)
    return Budget(
        day,
        left=max(0, hard - spent) // workers,
        soft_left=((soft_micros(config) or 0) - spent) // workers,
    )
