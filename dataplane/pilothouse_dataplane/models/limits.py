"""Limits of a tenant and of its users, one truth for all workers: requests and tokens a minute, runs, dollars a day.

A run is admitted (``admit``: it counts as one request and takes a place until ``release``); each of its model calls
reserves tokens and money for the worst case before (``reserve``) and settles with what it really took (``settle``).
``limits_script.py`` decides, inside Redis; ``limits_share.py`` says what is told to people, and decides alone on this
worker's share while Redis is away.

**One round trip for many.** Decisions that are asked for while a call to Redis is under way leave together in the next
one, over a connection of their own; what nobody waits for (settle, release) rides along.

**Redis away.** Whoever waits is answered from the local share at once; later ones don't ask at all. The call that was
under way is in doubt: when Redis is back, it is sent again under its number, so that it counts exactly once. What it
let through there is given back (its callers got their answer here), and what was used here meanwhile is booked. Where
the store has lost all, it is told what this worker knows of the day's sum and of its runs.

A worker that dies leaves its runs' places for 30 s, tokens for a minute, and money that it had reserved, some cents,
until midnight.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from pilothouse_api import names
from pilothouse_api.workerconfig import LimitsConfig
from pilothouse_dataplane.models.base import ModelLimited
from pilothouse_dataplane.models.limits_line import ScriptLine
from pilothouse_dataplane.models.limits_script import BUCKET_MS, DAY_MS, SCRIPT
from pilothouse_dataplane.models.limits_share import (
    Grant,
    Kind,
    LimitReason,
    LocalShare,
    Refusal,
    sentence,
    soft_micros,
)

DECISION_SECONDS = 0.4
"""A call to Redis that takes longer counts as failed: users wait for it."""
_SLICES = 4
"""In which it is measured."""
_CONNECT_SECONDS = 1.0
_TELL_SECONDS = 0.005
"""How long what nobody waits for may wait for company."""
LEASE_SECONDS = 30.0
"""How long a run keeps its place after its worker was last heard."""
_BEAT_SECONDS = 10.0
_RETURN_SECONDS = 0.5
"""Between two tries to reach a Redis that is away."""
_START_SECONDS = 1.0
_CLOSE_SECONDS = 2.0
_BATCH = 256
_ANSWERS = (RedisError, OSError, TimeoutError, ValueError, KeyError, TypeError, IndexError)
"""What no answer, or one that no script of ours gives, looks like."""
_log = structlog.get_logger()

Op = list[Any]
"""One op of the script, see there."""


class LimitReached(ModelLimited):
    """A limit refused; ``reason`` says which one. The message is for the user."""

    def __init__(self, reason: LimitReason, retry_after: float) -> None:
        """``retry_after``: seconds."""
        super().__init__(sentence(reason, retry_after), retry_after)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Admission:
    """A run's place among the tenant's."""

    user: str
    """Hashed."""
    lease: str
    """"": nothing limits runs."""
    cheap_only: bool = False
    """The day's soft budget is used up."""


@dataclass(slots=True)
class Reservation:
    """What a model call may take. Settle it exactly once; a second time does nothing."""

    user: str
    """Hashed."""
    bucket: int
    """Half second on Redis' clock in which its tokens count."""
    day: int
    """Days since 1970 (UTC) on which its money counts."""
    tokens: int
    cost_micros: int
    cheap_only: bool = False
    """The day's soft budget is used up: the cheapest tier should serve it."""
    settled: bool = False


@dataclass(slots=True)
class _Asked:
    """An op, and who waits for what comes of it."""

    op: Op
    answer: asyncio.Future[Grant | Refusal] | None = None

    @property
    def dropped(self) -> bool:
        """Who waited has gone."""
        return self.answer is not None and self.answer.cancelled()


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A call that may have been carried out."""

    payload: bytes
    asked: tuple[_Asked, ...]


@lru_cache(maxsize=4096)
def _hashed(user: str) -> str:
    """No e-mail address stands in a key."""
    return hashlib.blake2s(user.lower().encode(), digest_size=8).hexdigest()


class Limits:
    """The limits of one tenant, as one worker obeys them; it outlives reloads (``configure``)."""

    def __init__(
        self,
        client: Redis,
        tenant: str,
        worker: str,
        config: LimitsConfig,
        *,
        max_workers: int,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Connects to nothing yet. ``clock``: monotonic seconds; ``wall``: Unix seconds, until Redis' clock is known.
        ``max_workers``: how many the tenant may have, until it is known how many live."""
        self._line = ScriptLine(client, SCRIPT, names.limits_key(tenant))
        self._worker = f"{worker}/{uuid.uuid4().hex[:8]}"
        self._clock = clock
        self._offset = wall() * 1000 - clock() * 1000
        """From our clock to Redis', milliseconds."""
        self._numbers = itertools.count(1)
        self._leases: dict[str, str] = {}
        """Runs that go on here: lease → user."""
        self._running: Counter[str] = Counter()
        self._share = LocalShare()
        self._workers: int | None = None
        """Alive, as Redis last said."""
        self._spent: tuple[int, int] | None = None
        """The day, and the micro-dollars of all workers, as Redis last said."""
        self._used: dict[Kind, int] = {"requests": 0, "tokens": 0}
        """In the window by all workers, likewise."""
        self._queue: list[_Asked] = []
        self._doubt: _Doubt | None = None
        self._away = False
        self._beat = True
        self._busy = False
        """A call is under way."""
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self.refused: Counter[LimitReason] = Counter()
        """For metrics, like the next three."""
        self.granted = 0
        self.alone = 0
        """Decisions without Redis."""
        self.round_trips = 0
        self.configure(config, max_workers)

    def configure(self, config: LimitsConfig, max_workers: int) -> None:
        """New limits; what was used stays used."""
        self._config = config
        self._max_workers = max(1, max_workers)
        soft = soft_micros(config)
        self._limit = {
            "requests": config.requests_per_minute,
            "tokens": config.tokens_per_minute,
            "runs": config.concurrent_runs,
            "user_requests": config.user_requests_per_minute,
            "user_tokens": config.user_tokens_per_minute,
            "hard": -1 if config.daily_budget_micros is None else config.daily_budget_micros,
            "soft": -1 if soft is None else soft,
        }
        budget = config.daily_budget_micros is not None
        self._limits_runs = bool(
            config.requests_per_minute or config.user_requests_per_minute or config.concurrent_runs or budget
        )
        self._limits_calls = bool(config.tokens_per_minute or config.user_tokens_per_minute or budget)

    @property
    def away(self) -> bool:
        """Redis is away: this worker decides alone, on its share."""
        return self._away

    @property
    def cheap_only(self) -> bool:
        """The day's soft budget is used up, as far as this worker has heard."""
        soft = soft_micros(self._config)
        day, spent = self._spent or (0, 0)
        return soft is not None and day == int(self._now() // DAY_MS) and spent >= soft

    async def start(self) -> None:
        """Join the tenant's workers, for at most a second. Raises nothing."""
        self._tasks.append(asyncio.create_task(self._beats(), name="limits"))
        self._kick()
        await self._quiet(_START_SECONDS)

    async def aclose(self) -> None:
        """Tell what is untold, for at most two seconds."""
        for lease, user in self._leases.items():
            self._queue.append(_Asked(["lease", user, lease, 0]))
        self._leases.clear()
        if self._queue and not self._away:
            self._kick()
        await self._quiet(_CLOSE_SECONDS)
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._line.fail(ConnectionError("closed"))

    async def admit(self, user: str, *, forced: bool = False) -> Admission:
        """Begin a run: one request, and one place among the runs. Raises LimitReached.

        ``forced``: a run that had been admitted, and goes on here; it counts, but is not refused.
        """
        who = _hashed(user)
        if not self._limits_runs:
            return Admission(who, "")
        lease = uuid.uuid4().hex
        requests = 0 if forced else 1
        op: Op = ["take", who, requests, 0, 0, lease, round(LEASE_SECONDS * 1000), int(forced)]
        grant = await self._take(op)
        self._leases[lease] = who
        self._running[who] += 1
        return Admission(who, lease, grant.cheap)

    def release(self, admission: Admission) -> None:
        """A run has ended. Does not wait, raises nothing; a second time does nothing."""
        user = self._leases.pop(admission.lease, None)
        if user is None:
            return
        self._running[user] -= 1
        if self._running[user] <= 0:
            del self._running[user]
        self._tell(["lease", user, admission.lease, 0])

    async def reserve(self, user: str, tokens: int, cost_micros: int) -> Reservation:
        """Before a model call: what it takes at most. Raises LimitReached."""
        who = _hashed(user)
        if not self._limits_calls:
            return Reservation(who, 0, 0, 0, 0, settled=True)
        grant = await self._take(["take", who, 0, tokens, cost_micros, "", 0, 0])
        return Reservation(who, grant.bucket, grant.day, tokens, cost_micros, grant.cheap)

    def settle(self, reservation: Reservation, tokens: int, cost_micros: int) -> None:
        """After a model call, however it ended: what it really took. Does not wait, raises nothing."""
        if reservation.settled:
            return
        reservation.settled = True
        user, bucket, day = reservation.user, reservation.bucket, reservation.day
        more, cost = tokens - reservation.tokens, cost_micros - reservation.cost_micros
        self._share.record(user, bucket, 0, more, self._now())
        if self._away:
            self._share.spend(day, cost)
        if more or cost or reservation.cost_micros:
            self._tell(["book", user, bucket, 0, more, day, cost, -reservation.cost_micros])

    # --- asking -------------------------------------------------------------------------------------------------------
    def _now(self) -> float:
        """Milliseconds on Redis' clock."""
        return self._clock() * 1000 + self._offset

    async def _take(self, op: Op) -> Grant:
        if self._away or self._closed:
            answer = self._alone(op)
        else:
            asked = _Asked(op, asyncio.get_running_loop().create_future())
            assert asked.answer is not None
            self._queue.append(asked)
            self._kick()
            try:
                answer = await asked.answer
            except asyncio.CancelledError:
                # the answer may have come in the same turn of the loop: then nobody else gives it back
                if asked.answer.done() and not asked.answer.cancelled():
                    self._give_back(op, asked.answer.result())
                raise
        if isinstance(answer, Refusal):
            self.refused[answer.reason] += 1
            raise LimitReached(answer.reason, answer.wait_ms / 1000)
        self.granted += 1
        return answer

    def _tell(self, op: Op) -> None:
        """Nobody waits for it. While Redis is away it waits in the queue, where equal ones are added up."""
        self._queue.append(_Asked(op))
        if self._away:
            if len(self._queue) > 2 * _BATCH:
                self._queue = _compact(self._queue)
        elif not self._closed and self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_TELL_SECONDS, self._kick)

    @property
    def idle(self) -> bool:
        """All that was asked and told has been answered, or Redis is away."""
        return self._away or not (self._busy or self._queue or self._beat)

    async def _quiet(self, seconds: float) -> None:
        """Until that, or for that long."""
        end = self._clock() + seconds
        while not self.idle and self._clock() < end:  # noqa: ASYNC110 - when a worker starts or ends, only
            await asyncio.sleep(0.005)

    def _kick(self) -> None:
        """Say what there is to say, unless an answer is awaited: then what has gathered leaves after it."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._busy or self._away or self._closed:
            return
        batch = tuple(asked for asked in self._queue[:_BATCH] if not asked.dropped)
        del self._queue[:_BATCH]
        if not batch and not self._beat:
            if self._queue:
                self._kick()
            return
        self._call(self._payload(batch), batch)

    def _payload(self, batch: Iterable[_Asked]) -> bytes:
        beat, self._beat = self._beat, False
        call = {
            "worker": self._worker,
            "number": next(self._numbers),
            "beat": beat,
            "now": 0,
            "limit": self._limit,
            "ops": [asked.op for asked in batch],
        }
        return orjson.dumps(call)

    def _call(self, payload: bytes, batch: tuple[_Asked, ...]) -> None:
        """Begin an exchange; whatever comes of it, who waits gets an answer."""
        self._busy = True
        if self._line.connected:
            self._send(payload, batch)
        else:
            self._spawn(self._connect(payload, batch))

    def _send(self, payload: bytes, batch: tuple[_Asked, ...]) -> None:
        self._time(_SLICES)
        self._line.call(payload, lambda answer: self._answered(payload, batch, answer))

    async def _connect(self, payload: bytes, batch: tuple[_Asked, ...]) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._line.connect()
        except _ANSWERS as error:
            self._answered(payload, batch, error)
        else:
            self._send(payload, batch)

    def _time(self, left: int) -> None:
        """A time-out that counts only while this process runs: one that is short of CPU, and so reads an answer late,
        must not take that for a Redis that is away."""

        def tick() -> None:
            if left > 1:
                self._time(left - 1)
            else:
                self._line.fail(TimeoutError("no answer in time"))

        self._timer = asyncio.get_running_loop().call_later(DECISION_SECONDS / _SLICES, tick)

    def _answered(self, payload: bytes, batch: tuple[_Asked, ...], raw: bytes | BaseException) -> None:
        """An exchange has ended."""
        self._busy = False
        if self._timer is not None:
            self._timer.cancel()
        try:
            if isinstance(raw, BaseException):
                raise raw
            self._learn(orjson.loads(raw), batch)
        except _ANSWERS as error:
            self._line.drop()
            self._lose(payload, batch, error)
            return
        if self._away:
            self._return()
        elif self._queue or self._beat:
            self._kick()

    def _learn(self, answer: dict[str, Any], batch: tuple[_Asked, ...]) -> None:
        """Raises what no answer of the script's is."""
        results = [_parsed(each) for each in answer["results"]] if batch else []
        now, day = float(answer["now"]), int(answer["day"])
        if len(results) != len(batch):
            raise ValueError("an answer to another call")
        if "used" in answer:
            self._used = {"requests": int(answer["used"][0]), "tokens": int(answer["used"][1])}
        self.round_trips += 1
        self._offset = now - self._clock() * 1000
        if "workers" in answer:
            self._workers = max(1, int(answer["workers"]))
        if answer.get("lost"):
            _log.warning("the store has lost what the limits had counted; it is told what this worker knows")
            told = [] if self._spent is None else [_Asked(["spent", *self._spent])]
            self._queue = told + self._queue + self._renewals()
            self._beat = True
        elif "spent" in answer:
            self._spent = (day, int(answer["spent"]))
        for asked, result in zip(batch, results, strict=True):
            self._deliver(asked, result)

    def _deliver(self, asked: _Asked, result: Grant | Refusal) -> None:
        op = asked.op
        if op[0] != "take":
            return
        if asked.answer is None or asked.answer.done():  # gone, or answered from the local share
            self._give_back(op, result)
            return
        if isinstance(result, Grant):
            self._share.record(op[1], result.bucket, op[2], op[3], self._now())
        asked.answer.set_result(result)

    def _give_back(self, op: Op, result: Grant | Refusal) -> None:
        """Whoever asked has no use for it."""
        if isinstance(result, Refusal):
            return
        _, user, requests, tokens, cost, lease, _, _ = op
        if requests or tokens or cost:
            self._tell(["book", user, result.bucket, -requests, -tokens, result.day, -cost, -cost])
        if lease:
            self._tell(["lease", user, lease, 0])

    # --- alone --------------------------------------------------------------------------------------------------------
    def _alone(self, op: Op) -> Grant | Refusal:
        """Decide on the local share; what is let through is booked later."""
        _, user, requests, tokens, cost, lease, _, forced = op
        self.alone += 1
        now, workers = self._now(), self._workers or self._max_workers
        if forced:
            return Grant(int(now // BUCKET_MS), int(now // DAY_MS), cheap=False)
        if lease and (refused := self._share.runs(self._running, self._config, workers)) is not None:
            return refused
        found = self._share.take(user, requests, tokens, cost, self._config, workers, now)
        if isinstance(found, Grant) and (requests or tokens or cost):
            self._tell(["book", user, found.bucket, requests, tokens, found.day, cost, cost])
        return found

    def _lose(self, payload: bytes, batch: tuple[_Asked, ...], error: BaseException) -> None:
        """Redis is away: answer all who wait, and try to come back."""
        self._doubt = _Doubt(payload, batch)
        if not self._away:
            _log.warning("limits are not shared: the store is away", error=type(error).__name__)
            self._away = True
            workers = self._workers or self._max_workers
            self._share.begin(self._config, workers, self._now(), self._spent, self._used)
        if not self._closed:
            asyncio.get_running_loop().call_later(_RETURN_SECONDS, self._try_again)
        waiting, self._queue = self._queue, [asked for asked in self._queue if asked.answer is None]
        for asked in (*batch, *waiting):
            if asked.answer is not None and not asked.answer.done():
                asked.answer.set_result(self._alone(asked.op))

    def _try_again(self) -> None:
        """Send the call that is in doubt again."""
        doubt = self._doubt
        if doubt is not None and not self._busy and not self._closed:
            self._call(doubt.payload, doubt.asked)

    def _return(self) -> None:
        """Redis has answered again."""
        self._doubt, self._away, self._beat = None, False, True
        self._queue = _compact([*self._queue, *self._renewals()])
        _log.info("limits are shared again")
        self._kick()

    def _renewals(self) -> list[_Asked]:
        ttl = round(LEASE_SECONDS * 1000)
        return [_Asked(["lease", user, lease, ttl]) for lease, user in self._leases.items()]

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            self._share.tidy(self._now())
            if not self._away:
                self._queue += self._renewals()
                self._beat = True
                self._kick()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(work, name="limits: connect"))


def _parsed(result: Any) -> Grant | Refusal:
    """Raises ValueError, TypeError or IndexError for what the script doesn't say."""
    if result[0]:
        return Grant(int(result[1]), int(result[2]), bool(result[3]))
    return Refusal(LimitReason(result[1]), float(result[2]))


def _compact(queue: Iterable[_Asked]) -> list[_Asked]:
    """Bookings of one user, half second and day in one; a lease's last word only. The order doesn't matter to them."""
    booked: dict[tuple[str, int, int], list[int]] = {}
    leases: dict[str, Op] = {}
    rest: list[_Asked] = []
    for asked in queue:
        op = asked.op
        if op[0] == "book":
            sums = booked.setdefault((op[1], op[2], op[5]), [0, 0, 0, 0])
            for index, place in enumerate((3, 4, 6, 7)):
                sums[index] += op[place]
        elif op[0] == "lease":
            leases[op[2]] = op
        else:
            rest.append(asked)
    for (user, bucket, day), (requests, tokens, cost, held) in booked.items():
        rest.append(_Asked(["book", user, bucket, requests, tokens, day, cost, held]))
    rest.extend(_Asked(op) for op in leases.values())
    return rest  # what the store had lost comes before what is booked on top of it
