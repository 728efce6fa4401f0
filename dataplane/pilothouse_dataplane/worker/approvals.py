"""A run's questions to people: recorded, shown, answered live, lapsed, or left to whoever resumes the parked run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from pilothouse_dataplane.core.report import step_title
from pilothouse_dataplane.core.state import AskApproval, Decided
from pilothouse_dataplane.ledger.base import (
    ApprovalRecord,
    Asker,
    Decision,
    Fenced,
    Ledger,
    LedgerUnavailable,
    RunKey,
    Verdict,
)
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.publish import RunEvents
from pilothouse_dataplane.worker.stream import Outlet

_LEAST_WAIT = 0.5
"""Seconds between two looks whether an approval has lapsed; the ledger's clock decides, not ours."""
_log = structlog.get_logger()


class Approvals:
    """The questions of one run under one claim."""

    def __init__(
        self,
        ledger: Ledger,
        key: RunKey,
        outlet: Outlet,
        events: RunEvents,
        feed: Callable[[Decided], None],
        waiting: Callable[[int], None],
    ) -> None:
        """``feed`` takes the answers; ``waiting`` is told how many questions are open, whenever that changes."""
        self._ledger = ledger
        self._key = key
        self._outlet = outlet
        self._events = events
        self._feed = feed
        self._waiting = waiting
        self._open: dict[str, ApprovalRecord] = {}
        self._timers: dict[str, asyncio.Task[None]] = {}

    async def ask(self, questions: Sequence[AskApproval]) -> None:
        """Record the questions and put them to the people. Raises Fenced."""
        try:
            records = await self._ledger.ask(self._key, [(each.approval_id, each.request) for each in questions])
        except LedgerUnavailable as error:
            _log.warning("approval not recorded", error=str(error))
            for each in questions:
                why = (
                    f"“{step_title(each.request.tool)}” was not done: the question for approval could not be recorded."
                )
                self._feed(Decided(each.step.id, False, why))
            return
        for record in records:
            if record.approved is not None:
                self.decided(record)
                continue
            self._open[record.approval_id] = record
            required = wire.approval_required(record)
            self._outlet.emit(approval_required=required)
            self._events.publish(approval_required=required)
            self._timers[record.approval_id] = asyncio.create_task(self._lapse(record))
        self._waiting(len(self._open))

    def show_open(self) -> None:
        """For a client that has just come."""
        for record in self._open.values():
            self._outlet.emit(approval_required=wire.approval_required(record))

    def parked(self) -> tuple[list[str], datetime | None]:
        """What is waited for, and when the first of it lapses."""
        return list(self._open), min((record.expires for record in self._open.values()), default=None)

    async def decide(self, approval_id: str, *, approved: bool, decider: Asker) -> Decision | None:
        """A decision that came in on the run's own stream; None where the ledger could not be asked."""
        try:
            decision = await self._ledger.decide(approval_id, approved=approved, decider=decider)
        except LedgerUnavailable as error:
            _log.warning("decision not recorded", approval=approval_id, error=str(error))
            return None
        ours = decision.record is not None and decision.record.run_id == self._key.run_id
        if decision.record is not None and ours and decision.record.approved is not None:
            self.decided(decision.record)
        if decision.verdict is not Verdict.DECIDED:
            _log.info("decision not taken", approval=approval_id, verdict=decision.verdict.value)
        return decision

    def decided(self, record: ApprovalRecord, *, publish: bool = True) -> None:
        """Take an answer in, wherever it was given. Told twice, it counts once."""
        self._forget(record.approval_id)
        told = wire.approval_decided(record)
        self._outlet.emit(approval_decided=told)
        if publish:
            self._events.publish(approval_decided=told)
        self._feed(Decided(record.request.step_id, bool(record.approved), "" if record.approved else told.reason))

    def close(self) -> None:
        """Wait for nothing any more."""
        for approval_id in tuple(self._open):
            self._forget(approval_id)

    def _forget(self, approval_id: str) -> None:
        if self._open.pop(approval_id, None) is not None:
            self._waiting(len(self._open))
        timer = self._timers.pop(approval_id, None)
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()

    async def _lapse(self, record: ApprovalRecord) -> None:
        """Ask the ledger again when the time is over: it counts an unanswered question as refused."""
        wait = (record.expires - datetime.now(UTC)).total_seconds()
        while True:
            await asyncio.sleep(min(max(wait, _LEAST_WAIT), record.request.expires_in))
            wait = _LEAST_WAIT
            try:
                (now,) = await self._ledger.ask(self._key, [(record.approval_id, record.request)])
            except (LedgerUnavailable, Fenced):
                continue
            if now.approved is not None:
                self.decided(now)
                return
