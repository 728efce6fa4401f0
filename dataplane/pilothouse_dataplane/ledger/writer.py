"""One task writes everything that a worker records, in the order in which it was given.

Each flush takes all that has queued up while the last one was under way (group commit)::

    record, outcome, finish ──▶ queue ──▶ ledger_flush_1, one transaction ──▶ PostgreSQL
    intend, settled ───────────▶  │  ◀── wait for their flush
    ask, park, release ────────▶  │      (in their place in the queue, each a transaction)

What nobody waits for may linger LINGER seconds to share a transaction, and is committed without waiting for the disk;
the next commit that somebody waits for makes it durable, too, for PostgreSQL's log is one sequence.

PostgreSQL away: the batch under way is tried again until it succeeds; it may have been committed before the connection
broke, so every statement may be given twice. Callers that wait are told within ANSWER_SECONDS and their record is taken
out of the queue. What nobody waits for is kept up to MAX_QUEUED bytes; then the run that would add more is *broken*:
its queued records are dropped, its calls raise LedgerUnavailable, its lease runs out, and another worker goes on from
what is durable. No write can have left unrecorded, since ``intend`` did not return.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from pilothouse_dataplane.ledger.base import Fenced, LedgerError, LedgerUnavailable, WriteRefused
from pilothouse_dataplane.ledger.batch import (
    FLUSH,
    Alone,
    Final,
    HeldRun,
    Item,
    Write,
    WriteOutcome,
    awaited,
    build,
    given_up,
    places,
)
from pilothouse_dataplane.ledger.connections import (
    ANSWER_SECONDS,
    STATEMENT_SECONDS,
    Connections,
    close,
    is_poison,
    unavailable,
)

LINGER = 0.02
MAX_QUEUED = 32_000_000
LEASE_SECONDS = 10.0
RENEW_SECONDS = 3.0
CLOSE_SECONDS = 2.0
_MAX_ITEMS = 2000
_MAX_BYTES = 4_000_000
_RETRY = (0.05, 0.1, 0.2, 0.5)
_RENEW = "SELECT ledger_renew_1($1, $2, $3, $4)"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Writer:
    """The queue, and the task that empties it and renews leases.

    ``held`` gives the runs whose leases are renewed; ``lost`` is told of each run that is this worker's no more.
    """

    def __init__(
        self,
        connections: Connections,
        worker: str,
        held: Callable[[], Collection[HeldRun]],
        lost: Callable[[HeldRun], None],
        *,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._connections = connections
        self._worker = worker
        self._held = held
        self._lost = lost
        self._max_queued = max_queued
        self._queue: deque[Item] = deque()
        self._under_way: list[Item] = []
        self._queued = 0
        self._due = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._renew_at = 0.0
        self._closing = False
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._trouble: BaseException | None = None
        self.flushes = 0
        """Transactions so far."""

    def start(self) -> None:
        """From now on leases are renewed."""
        if self._task is None and not self._closing:
            self._renew_later()
            self._task = asyncio.create_task(self._run(), name="ledger-writer")

    def put(self, item: Item) -> None:
        """Queues an item; over the bound its run is broken instead."""
        self.start()
        if self._queued + item.size > self._max_queued and not awaited(item):
            self._break(item.run, "PostgreSQL has been away for so long that this run's records were dropped")
            return
        self._queue.append(item)
        self._queued += item.size
        if awaited(item):
            self._due.set()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._due.set)

    async def wait(self, done: asyncio.Future[_T]) -> _T:
        """An item's answer. Raises LedgerUnavailable after ANSWER_SECONDS; the item is taken out of the queue then."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await done
        except TimeoutError:
            raise unavailable(self._trouble or TimeoutError()) from None

    async def aclose(self) -> None:
        """Writes what is queued, for at most CLOSE_SECONDS."""
        self._closing = True
        self._due.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for timer in (self._linger, self._renewal):
            if timer is not None:
                timer.cancel()
        if left := [*self._under_way, *self._queue]:
            _log.warning("the ledger was closed with %d records that PostgreSQL did not take", len(left))
        for item in left:
            _fail(item, LedgerUnavailable("the ledger was closed before this was recorded"))
        if self._connection is not None:
            await close(self._connection)

    # --- the task ---
    async def _run(self) -> None:
        failures = 0
        while True:
            if not self._under_way:
                if not self._queue and self._closing:
                    return
                await self._due.wait()
            try:
                await self._step()
                failures, self._trouble = 0, None
            except Exception as error:
                if failures == 0:
                    _log.warning("ledger: %s", unavailable(error), exc_info=is_poison(error))
                self._trouble = error
                self._drop_connection()
                self._due.set()
                await asyncio.sleep(_RETRY[min(failures, len(_RETRY) - 1)])
                failures += 1

    async def _step(self) -> None:
        if self._connection is None:
            self._connection = await self._connections.connect()
        if not self._under_way:
            # What broke off is tried again before anything else: its runs' state is not known until then.
            if time.monotonic() >= self._renew_at:
                await self._renew()
            self._take()
        if self._under_way:
            await self._write()

    def _take(self) -> None:
        """The next transaction's items: everything up to one that needs a transaction of its own. One transaction takes
        writes before outcomes, so a write whose own outcome stands before it waits for the next."""
        self._due.clear()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        size, told = 0, set()
        while self._queue and len(self._under_way) < _MAX_ITEMS and size < _MAX_BYTES:
            following = self._queue[0]
            if isinstance(following, Alone) and self._under_way:
                break
            if isinstance(following, Write) and following.intent.key in told:
                break
            if isinstance(following, WriteOutcome):
                told.add(following.write_key)
            item = self._queue.popleft()
            self._under_way.append(item)
            size += item.size
            if isinstance(item, Alone):
                break
        if self._queue or self._closing:
            self._due.set()

    async def _write(self) -> None:
        items = []
        for item in self._under_way:
            if given_up(item):
                _fail(item, _why(item.run))
            else:
                items.append(item)
        if items and isinstance(items[0], Alone):
            await self._alone(items[0])
        elif items:
            await self._flush_or_split(items)
        self._queued -= sum(item.size for item in self._under_way)
        self._under_way = []

    async def _alone(self, item: Alone) -> None:
        try:
            async with asyncio.timeout(STATEMENT_SECONDS + 0.2):
                answer = await item.call(self._connection)
        except LedgerError as refused:
            if isinstance(refused, Fenced):
                self._lose(item.run)
            _fail(item, refused)
        except Exception as error:
            if not is_poison(error):
                raise
            _fail(item, LedgerError(f"PostgreSQL can't hold this ({type(error).__name__}); nothing was recorded"))
        else:
            self.flushes += 1
            if not item.done.done():
                item.done.set_result(answer)

    async def _flush_or_split(self, items: list[Item]) -> None:
        """One run's data that PostgreSQL refuses must not hurt the others: then each run goes by itself."""
        try:
            await self._flush(items)
        except Exception as error:
            if not is_poison(error):
                raise
            runs = places(items)
            if len(runs) == 1:
                _log.error(
                    "the ledger can't hold a record of run %s (%s)", items[0].run.key.run_id, type(error).__name__
                )
                self._break(items[0].run, "PostgreSQL refused a record of this run, and what came after it was dropped")
                for item in items:
                    _fail(item, _why(item.run))
                return
            for run in runs:
                await self._flush_or_split([item for item in items if item.run is run])

    async def _flush(self, items: list[Item]) -> None:
        batch = build(self._worker, items)
        async with asyncio.timeout(STATEMENT_SECONDS + 0.2):
            row = await self._connection.fetchrow(FLUSH, *batch.arguments)
        self.flushes += 1
        held, granted = set(row[0] or ()), set(row[1] or ())
        for run, place in batch.runs.items():
            if place not in held:
                self._lose(run)
        for item in items:
            if item.run.fenced:
                _fail(item, _why(item.run))
            elif isinstance(item, Write) and item.intent.key not in granted:
                refused = "its approval does not cover it, or its key stands for another write or one that was made"
                _fail(item, WriteRefused(f"the ledger refused the write {item.intent.key}: {refused}"))
            elif isinstance(item, Final):
                self._lost(item.run)
            elif awaited(item) and not item.done.done():  # type: ignore[union-attr]
                item.done.set_result(None)  # type: ignore[union-attr]

    # --- leases ---
    def _renew_later(self) -> None:
        self._renew_at = time.monotonic() + RENEW_SECONDS
        self._renewal = asyncio.get_running_loop().call_later(RENEW_SECONDS, self._due.set)

    async def _renew(self) -> None:
        runs = [run for run in self._held() if not run.fenced and not run.broken]
        if runs:
            ids, fences = [run.key.run_id for run in runs], [run.key.fence for run in runs]
            async with asyncio.timeout(STATEMENT_SECONDS + 0.2):
                held = set(await self._connection.fetchval(_RENEW, self._worker, ids, fences, LEASE_SECONDS) or ())
            for place, run in enumerate(runs, start=1):
                if place not in held:
                    self._lose(run)
        self._renew_later()

    # --- runs that go wrong ---
    def _lose(self, run: HeldRun) -> None:
        run.fenced = True
        self._lost(run)

    def _break(self, run: HeldRun, why: str) -> None:
        run.broken = why
        kept: deque[Item] = deque()
        for item in self._queue:
            if item.run is run:
                self._queued -= item.size
                _fail(item, _why(run))
            else:
                kept.append(item)
        self._queue = kept

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _why(run: HeldRun) -> LedgerError:
    if run.broken:
        return LedgerUnavailable(f"run {run.key.run_id} can't be recorded: {run.broken}")
    return Fenced(f"run {run.key.run_id} is not this worker's any more")


def _fail(item: Item, error: LedgerError) -> None:
    if isinstance(item, (Write, Alone)) or awaited(item):
        done: asyncio.Future[Any] = item.done  # type: ignore[union-attr]
        if not done.done():
            done.set_exception(error)
