"""Model calls in the ledger: booked off the answer's path, summed by day.

A booking needs no claim: what a call cost was spent, also by a worker that has lost its run meanwhile, and by a stream
that was cut off after the run had ended. So bookings have a queue of their own beside the writer's::

    book ──▶ queue ── a quarter of a second, or 200 calls ──▶ ledger_book_1, one transaction ──▶ PostgreSQL

PostgreSQL away: they wait, at most MAX_WAITING; then the oldest are dropped and counted in ``lost``. A call that
PostgreSQL refuses (it should not happen) is dropped alone. Told twice, a call is booked once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import structlog

from pilothouse_dataplane.ledger import codec
from pilothouse_dataplane.ledger.base import BookedCall, CostBy, CostSum, LedgerError, LedgerUnavailable
from pilothouse_dataplane.ledger.connections import Connections

LINGER = 0.25
"""Seconds that calls wait for others to share a transaction. What a killed worker has not booked by then is lost to the
ledger: at most the calls of these seconds."""
MAX_WAITING = 20_000
_BATCH = 200
_CLOSE_SECONDS = 2.0
_MAX_TEXT = 500
_BOOK = "SELECT ledger_book_1($1::text::json)"

COLUMNS: dict[CostBy, str] = {
    "user": "user_email",
    "tier": "tier",
    "provider": "provider",
    "model": "model",
    "revision": "revision",
}
"""What sums are taken by, and the column's name."""
MAX_SUMS = 1000

_log = structlog.get_logger()


def row(call: BookedCall) -> dict[str, Any]:
    """The call as ``ledger_book_1`` takes it."""
    record, usage = call.record, call.record.usage
    return {
        "id": call.id,
        "at": call.at.astimezone(UTC).isoformat(),
        "run_id": call.run_id,
        "session_id": call.session_id,
        "user_email": codec.clean(call.user_email),
        "revision": call.revision,
        "tier": record.tier,
        "provider": record.provider,
        "model": codec.clean(record.model),
        "reason": codec.clean(record.reason)[:_MAX_TEXT],
        "fallback": codec.clean(record.fallback)[:_MAX_TEXT],
        "cached": record.cached,
        "aborted": record.aborted,
        "escalated": record.escalated,
        "estimated": record.estimated,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_micros": usage.cost_micros,
        "saved_micros": record.saved_micros,
        "duration_ms": round(record.duration_seconds * 1000),
        "first_token_ms": round(record.first_token_seconds * 1000),
    }


def sums_query(by: Sequence[CostBy]) -> str:
    """The query for sums by these, the dearest first; its parameters: tenant, day, until (or NULL), limit."""
    columns = [COLUMNS[each] for each in dict.fromkeys(by)]
    names = "".join(f"{column}, " for column in columns)
    group = f"GROUP BY {', '.join(columns)}" if columns else "HAVING count(*) > 0"
    # Names of columns out of COLUMNS alone: nothing of a request's text is in the statement.
    return f"""
SELECT {names}count(*) FILTER (WHERE NOT cached), count(*) FILTER (WHERE cached),
       count(*) FILTER (WHERE fallback <> '' AND NOT cached), count(*) FILTER (WHERE aborted),
       count(*) FILTER (WHERE escalated), sum(input_tokens)::bigint, sum(output_tokens)::bigint,
       sum(cached_input_tokens)::bigint, sum(cost_micros)::bigint, sum(saved_micros)::bigint, count(DISTINCT run_id)
    FROM model_calls WHERE tenant = $1 AND day = $2 AND ($3::timestamptz IS NULL OR at <= $3)
    {group} ORDER BY sum(cost_micros) DESC, count(*) DESC{"".join(f", {column}" for column in columns)} LIMIT $4
"""  # noqa: S608


class CostBook:
    """Books calls of one worker, and sums a tenant's."""

    def __init__(self, connections: Connections, tenant: str, *, linger: float = LINGER) -> None:
        self._connections = connections
        self._tenant = tenant
        self._linger = linger
        self._waiting: deque[dict[str, Any]] = deque()
        self._under_way: list[dict[str, Any]] = []
        self._given = asyncio.Event()
        self._due = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.lost = 0
        """Calls that were dropped."""

    def book(self, call: BookedCall) -> None:
        """Queue one call. Never waits and never raises."""
        if self._closing:
            self.lost += 1
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(row(call))
        self._idle.clear()
        self._given.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="ledger-costs")
        if len(self._waiting) >= _BATCH:
            self._due.set()

    async def booked(self) -> None:
        """Wait until all that was given is booked or dropped."""
        self._due.set()
        await self._idle.wait()

    async def sums(
        self, day: date, by: Sequence[CostBy], *, until: datetime | None = None, limit: int = 0
    ) -> list[CostSum]:
        """Sums of a day (UTC), the dearest first; only of calls up to ``until`` where it is given. Raises
        LedgerUnavailable."""
        kinds = list(dict.fromkeys(by))
        most = min(limit or MAX_SUMS, MAX_SUMS)
        async with self._connections.borrowed() as connection:
            rows = await connection.fetch(sums_query(kinds), self._tenant, day, until, most)
        return [_sum(kinds, each) for each in rows]

    async def aclose(self) -> None:
        """Book what is queued, for at most two seconds."""
        self._closing = True
        self._given.set()
        self._due.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if left := len(self._waiting) + len(self._under_way):
            self.lost += left
            _log.warning("the ledger was closed with model calls that were not booked", calls=left)

    async def _run(self) -> None:
        delay = 0.0
        while True:
            if not self._under_way:
                if not self._waiting:
                    self._idle.set()
                    if self._closing:
                        return
                    self._given.clear()
                    await self._given.wait()
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._linger):
                        await self._due.wait()
                self._due.clear()
                self._under_way = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                if len(self._waiting) >= _BATCH or self._closing:
                    self._due.set()
            try:
                await self._send(self._under_way)
            except LedgerUnavailable as error:
                if delay == 0.0:
                    waiting = len(self._waiting) + len(self._under_way)
                    _log.warning("model calls wait for the ledger", error=str(error), calls=waiting)
                delay = min(5.0, max(0.2, delay * 2))
                await asyncio.sleep(delay)
                continue
            delay = 0.0
            self._under_way = []

    async def _send(self, calls: list[dict[str, Any]]) -> None:
        """One transaction; where PostgreSQL refuses the data, each call goes by itself and the culprit is dropped."""
        try:
            async with self._connections.borrowed() as connection:
                await connection.execute(_BOOK, codec.to_json(calls))
        except LedgerUnavailable:
            raise
        except LedgerError as error:
            if len(calls) == 1:
                self.lost += 1
                _log.error("the ledger can't hold a model call", id=calls[0]["id"], error=str(error))
                return
            for call in calls:
                await self._send([call])


def _sum(by: Sequence[CostBy], values: Sequence[Any]) -> CostSum:
    numbers = (int(value or 0) for value in values[len(by) :])
    fields: dict[str, Any] = {**dict(zip(by, values, strict=False)), **dict(zip(_NUMBERS, numbers, strict=True))}
    return CostSum(**fields)


_NUMBERS = (
    "calls",
    "cached_calls",
    "fallbacks",
    "aborted",
    "escalated",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cost_micros",
    "saved_micros",
    "runs",
)
"""Fields of a sum in the order of the query's columns."""
