"""The ledger in PostgreSQL: runs, writes and approvals of one tenant, as one worker sees them.

Where a write goes: ``intend`` below → ``batch`` makes columns of it → ``writer`` sends them with all that was given
before → ``ledger_flush_1`` (``migrations/versions/0002_functions.py``) checks claim and approval and commits.

Times are PostgreSQL's own: workers' clocks are compared with nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any

from pilothouse_dataplane.core.approvals import ApprovalRequest, may_decide
from pilothouse_dataplane.core.messages import ToolResult
from pilothouse_dataplane.ledger import batch, codec
from pilothouse_dataplane.ledger.base import (
    ApprovalRecord,
    Asker,
    BookedCall,
    Claim,
    CostBy,
    CostSum,
    Decision,
    Fenced,
    Finished,
    Held,
    Ledger,
    LedgerUnavailable,
    NewRun,
    RunKey,
    Verdict,
    WriteIntent,
)
from pilothouse_dataplane.ledger.batch import HeldRun
from pilothouse_dataplane.ledger.connections import Connections
from pilothouse_dataplane.ledger.costs import CostBook
from pilothouse_dataplane.ledger.letters import Letters
from pilothouse_dataplane.ledger.writer import LEASE_SECONDS, MAX_QUEUED, Writer

_CLAIM = "SELECT * FROM ledger_claim_1($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_RELEASE = "SELECT ledger_release_1($1, $2, $3)"
_ABANDONED = "SELECT ledger_abandoned_1($1, $2, $3)"
_ASK = "SELECT held, approvals FROM ledger_ask_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
_PARK = "SELECT verdict, news FROM ledger_park_1($1, $2, $3, $4)"
_APPROVAL = "SELECT row_to_json(a) FROM approvals a WHERE tenant = $1 AND approval_id = $2"
_DECIDE = "SELECT verdict, approval, resume FROM ledger_decide_1($1, $2, $3)"
_PENDING = """
SELECT json_agg(row_to_json(a) ORDER BY created, approval_id) FROM (
    SELECT * FROM approvals WHERE tenant = $1 AND approved IS NULL AND expires > clock_timestamp()
    ORDER BY created LIMIT 5000
) a
"""
_REMEMBERED = 1000
"""Finished runs of which ``settled`` still knows that nothing of theirs waits."""


class PostgresLedger(Letters):
    """``Ledger`` on PostgreSQL; see there for what each method does. Connects when it is first used."""

    def __init__(self, url: str, tenant: str, worker: str, *, max_queued: int = MAX_QUEUED) -> None:
        if not tenant or not worker:
            raise ValueError("a ledger needs the names of its tenant and its worker")
        super().__init__(Connections(url, tenant, f"pilothouse {tenant} {worker}"), tenant)
        self.worker = worker
        self._runs: dict[str, HeldRun] = {}
        self._finished: OrderedDict[RunKey, None] = OrderedDict()
        self.book_of_costs = CostBook(self._connections, tenant)
        self.writer = Writer(self._connections, worker, self._runs.values, self._forget, max_queued=max_queued)

    # --- runs ---
    async def claim(self, run: NewRun, *, lost_worker: str = "") -> Claim | Held | Finished:
        asker = codec.asker_json(run.asker)
        new = (run.session_id, run.asker.email, asker, codec.clean(run.text), run.revision)
        claimed = await self._claim(run.run_id, lost_worker, new, run)
        if claimed is None:
            raise LedgerUnavailable(f"run {run.run_id} was removed while it was claimed; ask again")
        return claimed

    async def claim_known(self, run_id: str, *, lost_worker: str = "") -> Claim | Held | Finished | None:
        return await self._claim(run_id, lost_worker, (None,) * 5, None)

    async def _claim(
        self, run_id: str, lost_worker: str, new: tuple[str | None, ...], run: NewRun | None
    ) -> Claim | Held | Finished | None:
        if mine := self._runs.get(run_id):
            # It may have ended here just now: asked for again, it must be found finished, not begun again.
            with suppress(Fenced):
                await self._barrier(mine)
        async with self._connections.borrowed() as connection:
            row = await connection.fetchrow(_CLAIM, run_id, self.worker, lost_worker, LEASE_SECONDS, *new)
        verdict = row["verdict"]
        if verdict == "unknown":
            return None
        if verdict == "finished":
            return Finished(row["final"] or b"")
        if verdict == "held":
            return Held(row["holder"])
        return self._claimed(row, run_id, run)

    def _claimed(self, row: Any, run_id: str, run: NewRun | None) -> Claim:
        key = RunKey(run_id, row["fence"])
        if (kept := codec.from_json(row["run"])) is not None:
            run = codec.run_of(run_id, kept)
        assert run is not None  # a run that was known is told with all of it
        approvals = tuple(map(codec.approval_of, codec.from_json(row["approvals"]) or ()))
        told = {record.approval_id for record in approvals if record.approved is not None}
        if mine := self._runs.get(run_id):
            mine.fenced = True
        self._runs[run_id] = HeldRun(key, row["next_seq"], told)
        self.writer.start()
        return Claim(
            key=key,
            run=run,
            fresh=row["opening"] is None,
            opening=row["opening"] or b"",
            journal=tuple(row["journal"] or ()),
            writes=tuple(map(codec.write_of, codec.from_json(row["writes"]) or ())),
            approvals=approvals,
            elapsed=row["elapsed"],
            parked_seconds=row["parked_seconds"],
        )

    def open(self, key: RunKey, opening: bytes) -> None:
        if run := self._usable(key):
            self.writer.put(batch.Opening(run, opening))

    def record(self, key: RunKey, entry: bytes) -> None:
        if run := self._usable(key):
            self.writer.put(batch.Entry(run, run.next_seq, entry))
            run.next_seq += 1

    async def settled(self, key: RunKey) -> None:
        if key not in self._finished:
            await self._barrier(self._held(key, ended=True))

    def finish(self, key: RunKey, outcome: str, final: bytes) -> None:
        if run := self._usable(key):
            run.ended = True
            self.writer.put(batch.Final(run, outcome, final))
        elif (broken := self._runs.get(key.run_id)) and broken.key == key and broken.broken:
            self._forget(broken)

    async def release(self, key: RunKey) -> None:
        run = self._held(key)

        async def call(connection: Any) -> None:
            if not await connection.fetchval(_RELEASE, key.run_id, key.fence, self.worker):
                raise Fenced(f"run {key.run_id} is not this worker's any more")
            self._forget(run)

        await self._alone(run, call)

    async def abandoned(self, limit: int) -> Sequence[str]:
        mine = [run_id for run_id, run in self._runs.items() if not run.broken]
        async with self._connections.borrowed() as connection:
            rows = await connection.fetch(_ABANDONED, LEASE_SECONDS, mine, limit)
        return [row[0] for row in rows]

    # --- writes ---
    async def intend(self, key: RunKey, intent: WriteIntent) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writer.put(batch.write(self._held(key), intent, done))
        await self.writer.wait(done)

    def outcome(self, key: RunKey, write_key: str, result: ToolResult) -> None:
        if run := self._usable(key):
            self.writer.put(batch.WriteOutcome.of(run, write_key, result))

    # --- approvals ---
    async def ask(self, key: RunKey, requests: Sequence[tuple[str, ApprovalRequest]]) -> Sequence[ApprovalRecord]:
        run = self._held(key)
        columns = _columns(requests)

        async def call(connection: Any) -> list[ApprovalRecord]:
            row = await connection.fetchrow(_ASK, key.run_id, key.fence, self.worker, *columns)
            if not row["held"]:
                raise Fenced(f"run {key.run_id} is not this worker's any more")
            by_id = {record.approval_id: record for record in map(codec.approval_of, codec.from_json(row[1]) or ())}
            run.told.update(record.approval_id for record in by_id.values() if record.approved is not None)
            return [by_id[approval_id] for approval_id, _ in requests]

        answer: list[ApprovalRecord] = await self._alone(run, call)
        return answer

    async def park(self, key: RunKey) -> Sequence[ApprovalRecord] | None:
        run = self._held(key)

        async def call(connection: Any) -> list[ApprovalRecord] | None:
            row = await connection.fetchrow(_PARK, key.run_id, key.fence, self.worker, list(run.told))
            if row["verdict"] == "fenced":
                raise Fenced(f"run {key.run_id} is not this worker's any more")
            if row["verdict"] == "parked":
                self._forget(run)
                return None
            news = [codec.approval_of(item) for item in codec.from_json(row["news"])]
            run.told.update(record.approval_id for record in news)
            return news

        answer: list[ApprovalRecord] | None = await self._alone(run, call)
        return answer

    async def decide(self, approval_id: str, *, approved: bool, decider: Asker, override: bool = False) -> Decision:
        async with self._connections.borrowed() as connection:
            # Who may decide never changes, so it needs no lock.
            found = codec.from_json(await connection.fetchval(_APPROVAL, self._tenant, approval_id))
            if found is None:
                return Decision(Verdict.NOT_FOUND, None)
            record = codec.approval_of(found)
            if not (override or _may(record, decider)):
                return Decision(Verdict.NOT_ALLOWED, record)
            row = await connection.fetchrow(_DECIDE, approval_id, approved, decider.email or decider.subject)
            return Decision(Verdict(row[0]), codec.approval_of(codec.from_json(row[1])), resume=row[2])

    async def pending(self, decider: Asker | None = None) -> Sequence[ApprovalRecord]:
        async with self._connections.borrowed() as connection:
            found = codec.from_json(await connection.fetchval(_PENDING, self._tenant)) or ()
        records = [codec.approval_of(row) for row in found]
        return records if decider is None else [record for record in records if _may(record, decider)]

    # --- costs ---
    def book(self, call: BookedCall) -> None:
        self.book_of_costs.book(call)

    async def costs(
        self, day: date, by: Sequence[CostBy], *, until: datetime | None = None, limit: int = 0
    ) -> Sequence[CostSum]:
        return await self.book_of_costs.sums(day, by, until=until, limit=limit)

    async def aclose(self) -> None:
        await asyncio.gather(self.writer.aclose(), self.book_of_costs.aclose())
        await self._connections.aclose()

    # --- this worker's claims ---
    def _usable(self, key: RunKey) -> HeldRun | None:
        run = self._runs.get(key.run_id)
        return run if run is not None and run.key == key and run.usable else None

    def _held(self, key: RunKey, *, ended: bool = False) -> HeldRun:
        """Raises Fenced or LedgerUnavailable where nothing can be recorded for the run."""
        run = self._runs.get(key.run_id)
        if run is None or run.key != key or run.fenced or (run.ended and not ended):
            raise Fenced(f"run {key.run_id} is not this worker's any more")
        if run.broken:
            raise LedgerUnavailable(f"run {key.run_id} can't be recorded: {run.broken}")
        return run

    def _forget(self, run: HeldRun) -> None:
        if self._runs.get(run.key.run_id) is run:
            del self._runs[run.key.run_id]
        if run.ended and not run.fenced:
            self._finished[run.key] = None
            if len(self._finished) > _REMEMBERED:
                self._finished.popitem(last=False)

    async def _barrier(self, run: HeldRun) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writer.put(batch.Barrier(run, done))
        await self.writer.wait(done)

    async def _alone(self, run: HeldRun, call: Any) -> Any:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.writer.put(batch.Alone(run, call, done))
        return await self.writer.wait(done)


def _may(record: ApprovalRecord, decider: Asker) -> bool:
    request = record.request
    return may_decide(request.by, request.approver, record.user_email, decider.email, decider.groups)


def _columns(requests: Sequence[tuple[str, ApprovalRequest]]) -> tuple[list[Any], ...]:
    asked = [request for _, request in requests]
    return (
        [approval_id for approval_id, _ in requests],
        [request.step_id for request in asked],
        [codec.clean(request.tool) for request in asked],
        [codec.clean(request.summary) for request in asked],
        [codec.to_json(request.arguments) for request in asked],
        [request.arguments_hash for request in asked],
        [request.by.value for request in asked],
        [request.approver for request in asked],
        [codec.clean(request.reason) for request in asked],
        [codec.origins_json(request.origins) for request in asked],
        [request.expires_in for request in asked],
    )


_conforms: type[Ledger] = PostgresLedger
