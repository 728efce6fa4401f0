"""What a ledger is: the durable record that lets another worker go on with a run without doing anything twice.

A worker *claims* a run and gets a fence, a number that rises with each claim. Every record of the run carries the
fence; a worker whose run was claimed by another finds its records refused (``Fenced``) and stops before a write leaves.

Order: the records of one worker become durable in the order in which they were given. ``open``, ``record``,
``outcome`` and ``finish`` do not wait; ``intend``, ``ask``, ``park`` and ``settled`` return when their own record, and
so every earlier one, is durable. What was never durable when a worker died can't have been followed by a write.

Errors, and who must act::

    LedgerError                 message is a sentence for the operator; it holds no argument of a tool
    ├─ LedgerUnavailable        no connection, too slow; retry, the operator must act if it lasts
    ├─ Fenced                   another worker has the run; stop it here, say nothing to the user
    └─ WriteRefused             this write must not leave; the step fails, the user is told
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Any, Literal, Protocol

from pilothouse_dataplane.core.approvals import ApprovalRequest
from pilothouse_dataplane.core.messages import JsonObject, ToolResult
from pilothouse_dataplane.models.cost import ModelCallRecord


class LedgerError(Exception):
    """Base of the tree above."""


class LedgerUnavailable(LedgerError):
    """The ledger did not answer in time. What was asked for may have been recorded all the same, when only the answer
    was lost: the caller must not act on it, and may ask again, for asking twice records once."""


class Fenced(LedgerError):
    """Another worker holds the run, or this one has given it up."""


class WriteRefused(LedgerError):
    """The approval that the write names does not cover it (not given, for other arguments, of another run, used by
    another write), or its key stands for another write, for one that has succeeded, or that another run makes now."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom a run acts for; kept with the run so that any worker can go on with it."""

    subject: str
    email: str
    display_name: str = ""
    manager_email: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunKey:
    """A run under one claim."""

    run_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is asked."""

    run_id: str
    session_id: str
    asker: Asker
    text: str
    revision: str


class RunStatus(Enum):
    """Where a run stands, as the ledger knows it."""

    ACTIVE = "active"
    """A worker drives it, or did when it died."""
    PARKED = "parked"
    """It waits for approvals; no worker holds it."""
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker may drive from now on."""

    key: RunKey
    run: NewRun
    fresh: bool
    """Nothing was recorded before: begin, also where an earlier worker (``key.fence`` above 1) died before its first
    record. Else: replay ``opening`` and ``journal``."""
    opening: bytes
    """What ``open`` recorded; empty where ``fresh``."""
    journal: tuple[bytes, ...]
    """What ``record`` was given, in order."""
    writes: tuple[WriteRecord, ...]
    approvals: tuple[ApprovalRecord, ...]
    elapsed: float
    """Seconds since the run was asked for, without the time that it was parked."""
    parked_seconds: float
    """Seconds that it was parked in all."""


@dataclass(frozen=True, slots=True)
class Held:
    """The run can't be claimed: another worker drives it and its lease has not run out."""

    holder: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The run has ended before. ``final`` is the serialized last ``ConverseEvent``."""

    final: bytes


@dataclass(frozen=True, slots=True)
class WriteIntent:
    """A write that is about to leave."""

    key: str
    """Idempotency key: the same for the same step of the same run."""
    step_id: str
    tool: str
    arguments: JsonObject
    arguments_hash: str
    user_email: str
    approval_id: str | None = None


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """A write that was intended, and its outcome where that is known."""

    intent: WriteIntent
    result: ToolResult | None


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """A question to a person, and the answer. ``request.expires_in`` is what it was when it was asked."""

    approval_id: str
    run_id: str
    session_id: str
    user_email: str
    request: ApprovalRequest
    created: datetime
    expires: datetime
    approved: bool | None = None
    """None: not decided. A lapsed one is recorded as refused by nobody."""
    decided_by: str = ""


class Verdict(Enum):
    """What became of a decision; the same words as ``DecideOutcome`` in agent.proto."""

    DECIDED = "decided"
    ALREADY_DECIDED = "already_decided"
    EXPIRED = "expired"
    NOT_ALLOWED = "not_allowed"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Decision:
    """Answer to ``decide``."""

    verdict: Verdict
    record: ApprovalRecord | None
    resume: bool = False
    """The run is parked and all of its approvals are decided."""


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A write that failed for good."""

    id: str
    run_id: str
    session_id: str
    step_id: str
    asker: Asker
    tool: str
    arguments: JsonObject
    key: str
    error: str
    attempts: int
    breaker_state: str
    in_doubt: bool
    """Whether the write may have happened after all: a replay looks its key up first."""
    created: datetime
    state: str = "open"
    """open, replayed, discarded."""
    resolved: datetime | None = None
    resolved_by: str = ""
    resolution: str = ""


@dataclass(frozen=True, slots=True)
class BookedCall:
    """One model call as it is booked. ``at`` is the same moment that its event tells."""

    id: str
    """``<run>/<claim>.<number>``."""
    at: datetime
    run_id: str
    session_id: str
    user_email: str
    revision: str
    record: ModelCallRecord


@dataclass(frozen=True, slots=True)
class CostSum:
    """Calls that have the same values in what the sum was taken by; the other names are empty."""

    user: str = ""
    tier: str = ""
    provider: str = ""
    model: str = ""
    revision: str = ""
    calls: int = 0
    """That reached a provider."""
    cached_calls: int = 0
    fallbacks: int = 0
    aborted: int = 0
    escalated: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_micros: int = 0
    saved_micros: int = 0
    runs: int = 0


CostBy = Literal["user", "tier", "provider", "model", "revision"]
"""What costs are summed by."""


class Ledger(Protocol):
    """The tenant's ledger as one worker sees it. Each method raises LedgerUnavailable; those that take a ``RunKey``
    raise Fenced, too, except where they do not wait."""

    # --- runs ---
    async def claim(self, run: NewRun, *, lost_worker: str = "") -> Claim | Held | Finished:
        """Begin a run or take it over. A run whose holder is ``lost_worker`` or this worker itself, whose lease has run
        out, or that is parked, is given at once."""
        ...

    async def claim_known(self, run_id: str, *, lost_worker: str = "") -> Claim | Held | Finished | None:
        """As ``claim`` for a run that the ledger knows by its id alone; None where it doesn't."""
        ...

    def open(self, key: RunKey, opening: bytes) -> None:
        """Record how the run begins (messages, tools, limits). Does not wait."""
        ...

    def record(self, key: RunKey, entry: bytes) -> None:
        """Append to the run's journal. Does not wait."""
        ...

    async def settled(self, key: RunKey) -> None:
        """Wait until all that was recorded for the run is durable."""
        ...

    def finish(self, key: RunKey, outcome: str, final: bytes) -> None:
        """The run has ended; the journal is dropped, approvals that nobody answered count as refused. Does not wait."""
        ...

    async def release(self, key: RunKey) -> None:
        """Give the run up, so that another worker may claim it at once (draining)."""
        ...

    async def abandoned(self, limit: int) -> Sequence[str]:
        """Ids of runs that nobody drives: the lease has run out, or a parked run's approvals are all decided or have
        lapsed. Oldest first. Runs that this ledger holds are never among them."""
        ...

    # --- writes ---
    async def intend(self, key: RunKey, intent: WriteIntent) -> None:
        """Record a write before it leaves. When this returns, the intent is durable and the run is still this worker's.
        An approval that it names is used up by it (single use). The same intent again is accepted until it has
        succeeded. Raises WriteRefused, too. After any error the write must not leave; after LedgerUnavailable the
        intent may stand in the ledger, so give its ``outcome`` if the run goes on."""
        ...

    def outcome(self, key: RunKey, write_key: str, result: ToolResult) -> None:
        """Record how a write ended; only the first outcome counts. Does not wait."""
        ...

    # --- approvals ---
    async def ask(self, key: RunKey, requests: Sequence[tuple[str, ApprovalRequest]]) -> Sequence[ApprovalRecord]:
        """Record questions, (approval id, request) each. One that is recorded already is returned as it stands."""
        ...

    async def park(self, key: RunKey) -> Sequence[ApprovalRecord] | None:
        """Park the run unless an approval of it was decided (or lapsed) that this claim has not been told of: then
        these are returned and the run stays active. ``claim``, ``ask`` and ``park`` tell; ``decide`` does not, so that
        a decision may be told twice, and is never missed. None: it is parked, and this worker holds it no more."""
        ...

    async def decide(self, approval_id: str, *, approved: bool, decider: Asker, override: bool = False) -> Decision:
        """Answer an approval once. Who may is decided by ``core.approvals.may_decide``."""
        ...

    async def pending(self, decider: Asker | None = None) -> Sequence[ApprovalRecord]:
        """Approvals that wait, oldest first; only the decider's own where one is given."""
        ...

    # --- dead letters ---
    async def bury(self, letter: DeadLetterRecord) -> None:
        """Keep what failed for good. The same (run, step) is kept once."""
        ...

    async def dead_letters(
        self, *, all_states: bool = False, limit: int = 100, id: str = ""
    ) -> Sequence[DeadLetterRecord]:
        """Newest first; with ``id`` that one, in whichever state."""
        ...

    async def later_success(self, letter: DeadLetterRecord) -> str:
        """Id of a later run of the same user that made the same change with success; "" where there is none."""
        ...

    async def resolve(self, id: str, *, state: str, by: str, resolution: str) -> DeadLetterRecord | None:
        """Close an open dead letter; None where it is not open any more."""
        ...

    # --- costs ---
    def book(self, call: BookedCall) -> None:
        """Record what a model call cost, once for each id; it needs no claim. Does not wait and never raises."""
        ...

    async def costs(
        self, day: date, by: Sequence[CostBy], *, until: datetime | None = None, limit: int = 0
    ) -> Sequence[CostSum]:
        """Sums of a day's (UTC) calls, the dearest first, at most ``limit`` (0: 1,000); only of calls that ended up to
        ``until`` where it is given."""
        ...

    async def aclose(self) -> None:
        """Write what is queued, for at most two seconds, and close the connections."""
        ...


JsonRow = dict[str, Any]
