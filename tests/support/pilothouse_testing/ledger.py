"""A ledger in memory: the contract of ``ledger.base`` as plainly as it can be said. The real one is tested against it,
and everybody else uses it as a fake.

Everything is durable at once, so it shows no race of a write with a crash; those are tested on PostgreSQL. Time is a
number that the test moves (``store.advance``). Two workers share one ``MemoryStore``::

    first = MemoryLedger(worker="w1")
    second = first.peer("w2")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from pilothouse_dataplane.core.approvals import ApprovalRequest, arguments_hash, may_decide
from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.ledger.base import (
    ApprovalRecord,
    Asker,
    BookedCall,
    Claim,
    CostBy,
    CostSum,
    DeadLetterRecord,
    Decision,
    Fenced,
    Finished,
    Held,
    Ledger,
    LedgerUnavailable,
    NewRun,
    RunKey,
    RunStatus,
    Verdict,
    WriteIntent,
    WriteRecord,
    WriteRefused,
)

LEASE = 10.0
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class StoredRun:
    run: NewRun
    created: float
    fence: int = 0
    holder: str = ""
    lease_until: float = 0.0
    status: RunStatus = RunStatus.ACTIVE
    parked_at: float = 0.0
    parked_seconds: float = 0.0
    opening: bytes | None = None
    journal: list[bytes] = field(default_factory=list)
    outcome: str = ""
    final: bytes = b""


@dataclass
class StoredWrite:
    run_id: str
    intent: WriteIntent
    at: float
    result: ToolResult | None = None


@dataclass
class StoredApproval:
    record: ApprovalRecord
    expires: float
    used_by: str = ""


@dataclass
class MemoryStore:
    """What PostgreSQL would hold of one tenant. Tests may look at it and change it."""

    now: float = 0.0
    """Seconds."""
    available: bool = True
    """False: every call that waits raises LedgerUnavailable; what does not wait is kept all the same."""
    runs: dict[str, StoredRun] = field(default_factory=dict)
    writes: dict[str, StoredWrite] = field(default_factory=dict)
    approvals: dict[str, StoredApproval] = field(default_factory=dict)
    letters: list[DeadLetterRecord] = field(default_factory=list)
    calls: dict[str, BookedCall] = field(default_factory=dict)

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def time(self, seconds: float) -> datetime:
        return START + timedelta(seconds=seconds)

    def of_run(self, run_id: str) -> list[StoredApproval]:
        return [approval for approval in self.approvals.values() if approval.record.run_id == run_id]

    def lapse(self) -> None:
        """Counts what nobody answered in time as refused."""
        for approval in self.approvals.values():
            if approval.record.approved is None and approval.expires <= self.now:
                approval.record = replace(approval.record, approved=False, decided_by="")


class MemoryLedger:
    """One worker's view of a ``MemoryStore``."""

    def __init__(self, store: MemoryStore | None = None, worker: str = "w1") -> None:
        self.store = store or MemoryStore()
        self.worker = worker
        self.closed = False
        self._mine: dict[str, int] = {}
        self._told: dict[RunKey, set[str]] = {}

    def peer(self, worker: str) -> MemoryLedger:
        """Another worker on the same store."""
        return MemoryLedger(self.store, worker)

    # --- runs ---
    async def claim(self, run: NewRun, *, lost_worker: str = "") -> Claim | Held | Finished:
        self._check_available()
        if run.run_id not in self.store.runs:
            self.store.runs[run.run_id] = StoredRun(run, self.store.now)
            return self._take(self.store.runs[run.run_id])
        return self._claim(self.store.runs[run.run_id], lost_worker)

    async def claim_known(self, run_id: str, *, lost_worker: str = "") -> Claim | Held | Finished | None:
        self._check_available()
        stored = self.store.runs.get(run_id)
        return self._claim(stored, lost_worker) if stored else None

    def _claim(self, stored: StoredRun, lost_worker: str) -> Claim | Held | Finished:
        if stored.status is RunStatus.DONE:
            return Finished(stored.final)
        alive = stored.status is RunStatus.ACTIVE and stored.holder != "" and stored.lease_until > self.store.now
        if alive and stored.holder not in (self.worker, lost_worker):
            return Held(stored.holder)
        return self._take(stored)

    def _take(self, stored: StoredRun) -> Claim:
        store, run_id = self.store, stored.run.run_id
        store.lapse()
        if stored.status is RunStatus.PARKED:
            stored.parked_seconds += store.now - stored.parked_at
        stored.fence += 1
        stored.status, stored.holder, stored.lease_until = RunStatus.ACTIVE, self.worker, store.now + LEASE
        key = RunKey(run_id, stored.fence)
        approvals = tuple(approval.record for approval in store.of_run(run_id))
        self._mine[run_id] = stored.fence
        self._told[key] = {record.approval_id for record in approvals if record.approved is not None}
        return Claim(
            key=key,
            run=stored.run,
            fresh=stored.opening is None,
            opening=stored.opening or b"",
            journal=tuple(stored.journal),
            writes=tuple(WriteRecord(w.intent, w.result) for w in store.writes.values() if w.run_id == run_id),
            approvals=approvals,
            elapsed=store.now - stored.created - stored.parked_seconds,
            parked_seconds=stored.parked_seconds,
        )

    def open(self, key: RunKey, opening: bytes) -> None:
        if (stored := self._held(key)) and stored.opening is None:
            stored.opening = opening

    def record(self, key: RunKey, entry: bytes) -> None:
        if stored := self._held(key):
            stored.journal.append(entry)

    async def settled(self, key: RunKey) -> None:
        self._check_available()
        stored = self.store.runs[key.run_id]
        if not (stored.status is RunStatus.DONE and stored.fence == key.fence):
            self._must_hold(key)

    def finish(self, key: RunKey, outcome: str, final: bytes) -> None:
        if stored := self._held(key):
            stored.status, stored.outcome, stored.final = RunStatus.DONE, outcome, final
            stored.opening, stored.journal = None, []
            self._mine.pop(key.run_id, None)
            for approval in self.store.of_run(key.run_id):
                if approval.record.approved is None:
                    approval.record = replace(approval.record, approved=False, decided_by="")

    async def release(self, key: RunKey) -> None:
        self._check_available()
        stored = self._must_hold(key)
        stored.holder = ""
        self._mine.pop(key.run_id, None)

    async def abandoned(self, limit: int) -> Sequence[str]:
        self._check_available()
        self.store.lapse()
        found = [run_id for run_id, stored in self.store.runs.items() if self._is_abandoned(stored)]
        return found[:limit]

    def _is_abandoned(self, stored: StoredRun) -> bool:
        if stored.status is RunStatus.PARKED:
            return all(approval.record.approved is not None for approval in self.store.of_run(stored.run.run_id))
        mine = self._mine.get(stored.run.run_id) == stored.fence
        unheld = stored.holder == "" or stored.lease_until <= self.store.now
        return stored.status is RunStatus.ACTIVE and unheld and not mine

    def renew(self) -> None:
        """What the real ledger does every few seconds for the runs that it holds."""
        for run_id, fence in self._mine.items():
            if stored := self._held(RunKey(run_id, fence)):
                stored.lease_until = self.store.now + LEASE

    # --- writes ---
    async def intend(self, key: RunKey, intent: WriteIntent) -> None:
        self._check_available()
        self._must_hold(key)
        earlier = self.store.writes.get(intent.key)
        if intent.approval_id is not None:
            approval = self.store.approvals.get(intent.approval_id)
            if (
                approval is None
                or approval.record.run_id != key.run_id
                or not approval.record.approved
                or approval.record.request.arguments_hash != intent.arguments_hash
                or approval.used_by not in ("", intent.key)
            ):
                raise WriteRefused(f"the approval that {intent.key} names does not cover it: the write was not sent")
        if earlier is not None:
            done = earlier.result is not None and earlier.result.outcome is Outcome.SUCCEEDED
            under_way = earlier.result is None and earlier.run_id != key.run_id
            if done or under_way or earlier.intent.arguments_hash != intent.arguments_hash:
                raise WriteRefused(f"{intent.key} stands for a write that was made before: it was not sent again")
        if intent.approval_id is not None:
            self.store.approvals[intent.approval_id].used_by = intent.key
        if earlier is None:
            self.store.writes[intent.key] = StoredWrite(key.run_id, intent, self.store.now)

    def outcome(self, key: RunKey, write_key: str, result: ToolResult) -> None:
        write = self.store.writes.get(write_key)
        if self._held(key) and write is not None and write.run_id == key.run_id and write.result is None:
            write.result = result

    # --- approvals ---
    async def ask(self, key: RunKey, requests: Sequence[tuple[str, ApprovalRequest]]) -> Sequence[ApprovalRecord]:
        self._check_available()
        stored = self._must_hold(key)
        self.store.lapse()
        for approval_id, request in requests:
            if approval_id not in self.store.approvals:
                expires = self.store.now + request.expires_in
                record = ApprovalRecord(
                    approval_id=approval_id,
                    run_id=key.run_id,
                    session_id=stored.run.session_id,
                    user_email=stored.run.asker.email,
                    request=request,
                    created=self.store.time(self.store.now),
                    expires=self.store.time(expires),
                )
                self.store.approvals[approval_id] = StoredApproval(record, expires)
        records = [self.store.approvals[approval_id].record for approval_id, _ in requests]
        self._told[key].update(record.approval_id for record in records if record.approved is not None)
        return records

    async def park(self, key: RunKey) -> Sequence[ApprovalRecord] | None:
        self._check_available()
        stored = self._must_hold(key)
        self.store.lapse()
        decided = [a.record for a in self.store.of_run(key.run_id) if a.record.approved is not None]
        news = [record for record in decided if record.approval_id not in self._told[key]]
        if news:
            self._told[key].update(record.approval_id for record in news)
            return news
        stored.status, stored.parked_at, stored.holder = RunStatus.PARKED, self.store.now, ""
        self._mine.pop(key.run_id, None)
        return None

    async def decide(self, approval_id: str, *, approved: bool, decider: Asker, override: bool = False) -> Decision:
        self._check_available()
        approval = self.store.approvals.get(approval_id)
        if approval is None:
            return Decision(Verdict.NOT_FOUND, None)
        request = approval.record.request
        asker = approval.record.user_email
        if not (override or may_decide(request.by, request.approver, asker, decider.email, decider.groups)):
            return Decision(Verdict.NOT_ALLOWED, approval.record)
        self.store.lapse()
        if approval.record.approved is None:
            approval.record = replace(approval.record, approved=approved, decided_by=decider.email or decider.subject)
            verdict = Verdict.DECIDED
        else:
            verdict = Verdict.ALREADY_DECIDED if approval.record.decided_by else Verdict.EXPIRED
        parked = self.store.runs[approval.record.run_id].status is RunStatus.PARKED
        every = all(other.record.approved is not None for other in self.store.of_run(approval.record.run_id))
        return Decision(verdict, approval.record, resume=parked and every)

    async def pending(self, decider: Asker | None = None) -> Sequence[ApprovalRecord]:
        self._check_available()
        self.store.lapse()
        waiting = [a.record for a in self.store.approvals.values() if a.record.approved is None]
        if decider is None:
            return waiting
        return [
            record
            for record in waiting
            if may_decide(record.request.by, record.request.approver, record.user_email, decider.email, decider.groups)
        ]

    # --- dead letters ---
    async def bury(self, letter: DeadLetterRecord) -> None:
        self._check_available()
        kept = {(other.run_id, other.step_id) for other in self.store.letters}
        if (letter.run_id, letter.step_id) not in kept and letter.id not in {other.id for other in self.store.letters}:
            self.store.letters.append(letter)

    async def dead_letters(
        self, *, all_states: bool = False, limit: int = 100, id: str = ""
    ) -> Sequence[DeadLetterRecord]:
        self._check_available()
        if id:
            return [letter for letter in self.store.letters if letter.id == id]
        shown = [letter for letter in self.store.letters if all_states or letter.state == "open"]
        return sorted(shown, key=lambda letter: letter.created, reverse=True)[:limit]

    async def later_success(self, letter: DeadLetterRecord) -> str:
        self._check_available()
        wanted = arguments_hash(letter.tool, letter.arguments)
        for write in self.store.writes.values():
            if (
                write.intent.arguments_hash == wanted
                and write.intent.user_email == letter.asker.email
                and write.run_id != letter.run_id
                and write.result is not None
                and write.result.outcome is Outcome.SUCCEEDED
                and self.store.time(write.at) > letter.created
            ):
                return write.run_id
        return ""

    async def resolve(self, id: str, *, state: str, by: str, resolution: str) -> DeadLetterRecord | None:
        self._check_available()
        for index, letter in enumerate(self.store.letters):
            if letter.id == id and letter.state == "open":
                resolved = self.store.time(self.store.now)
                closed = replace(letter, state=state, resolved=resolved, resolved_by=by, resolution=resolution)
                self.store.letters[index] = closed
                return closed
        return None

    # --- costs ---
    def book(self, call: BookedCall) -> None:
        self.store.calls.setdefault(call.id, call)

    async def costs(
        self, day: date, by: Sequence[CostBy], *, until: datetime | None = None, limit: int = 0
    ) -> Sequence[CostSum]:
        self._check_available()
        groups: dict[tuple[str, ...], list[BookedCall]] = {}
        for call in self.store.calls.values():
            if call.at.astimezone(UTC).date() == day and (until is None or call.at <= until):
                values = {"user": call.user_email, "revision": call.revision}
                names = (values.get(each) or getattr(call.record, each) for each in by)
                groups.setdefault(tuple(names), []).append(call)
        sums = [_summed(dict(zip(by, names, strict=True)), calls) for names, calls in groups.items()]
        return sorted(sums, key=lambda one: -one.cost_micros)[: limit or None]

    async def aclose(self) -> None:
        self.closed = True

    def _check_available(self) -> None:
        if not self.store.available:
            raise LedgerUnavailable("the ledger is away (a test says so)")

    def _held(self, key: RunKey) -> StoredRun | None:
        stored = self.store.runs.get(key.run_id)
        if stored is None or stored.status is not RunStatus.ACTIVE:
            return None
        return stored if (stored.fence, stored.holder) == (key.fence, self.worker) else None

    def _must_hold(self, key: RunKey) -> StoredRun:
        stored = self._held(key)
        if stored is None:
            raise Fenced(f"run {key.run_id} is not this worker's any more")
        return stored


def _summed(names: dict[CostBy, str], calls: Sequence[BookedCall]) -> CostSum:
    records = [call.record for call in calls]
    paid = [record for record in records if not record.cached]
    return CostSum(
        user=names.get("user", ""),
        tier=names.get("tier", ""),
        provider=names.get("provider", ""),
        model=names.get("model", ""),
        revision=names.get("revision", ""),
        calls=len(paid),
        cached_calls=len(records) - len(paid),
        fallbacks=sum(bool(record.fallback) for record in paid),
        aborted=sum(record.aborted for record in records),
        escalated=sum(record.escalated for record in records),
        input_tokens=sum(record.usage.input_tokens for record in records),
        output_tokens=sum(record.usage.output_tokens for record in records),
        cached_input_tokens=sum(record.usage.cached_input_tokens for record in records),
        cost_micros=sum(record.usage.cost_micros for record in records),
        saved_micros=sum(record.saved_micros for record in records),
        runs=len({call.run_id for call in calls}),
    )


_conforms: type[Ledger] = MemoryLedger
