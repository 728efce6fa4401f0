"""Obeys a run's actions: model calls, tool calls, what the user sees, what is recorded, remembered and published.

One task a run; everything that comes back goes through one queue into ``core.run.advance``, which decides. When the run
ends, whatever is still under way is cancelled at once. The driver ends in one of these ways::

    answered, failed     final or error is sent and kept in the ledger, the stream ends
    parked               only people are waited for: the ledger keeps the run, the stream ends, this task is gone
    handed over          the worker is draining: the ledger gives the run free, the stream breaks
    fenced               another worker has the run: nothing more leaves this one, the stream breaks

Time model: ``now`` of the machine is the run's active time: seconds since it was asked for, over all of its workers,
without the time that it was parked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import structlog

from pilothouse_dataplane.core import journal, run
from pilothouse_dataplane.core import state as flow
from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.core.timing import Cause
from pilothouse_dataplane.ledger.base import (
    Asker,
    Claim,
    DeadLetterRecord,
    Decision,
    Fenced,
    Finished,
    LedgerUnavailable,
)
from pilothouse_dataplane.models.base import ModelLimited
from pilothouse_dataplane.models.limits import Admission
from pilothouse_dataplane.worker import problems
from pilothouse_dataplane.worker.approvals import Approvals
from pilothouse_dataplane.worker.begin import Begun, NotBegun, Wanted, begin
from pilothouse_dataplane.worker.calls import Calls
from pilothouse_dataplane.worker.clock import RunClock
from pilothouse_dataplane.worker.ending import Ending, told_again
from pilothouse_dataplane.worker.inbox import Again, HandOver, Inbox, Lost
from pilothouse_dataplane.worker.publish import RunEvents
from pilothouse_dataplane.worker.runtime import Runtime
from pilothouse_dataplane.worker.stream import ClientStream, Outlet
from pilothouse_dataplane.worker.telling import Teller
from pilothouse_dataplane.worker.thinking import Thinking
from pilothouse_dataplane.worker.tracing import RunSpans, Tracing
from pilothouse_dataplane.worker.writes import Writes
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as events

_HANDED_OVER = "handing over: this worker is shutting down"
_FENCED = "another worker has the run"
_RELEASE_SECONDS = 2.0
_PARK_AGAIN_SECONDS = 1.0
_log = structlog.get_logger()


class RunDriver:
    """One run on one worker, from its claim to its end here."""

    def __init__(
        self, runtime: Runtime, wanted: Wanted, worker: str, tracing_: Tracing, stream: ClientStream | None
    ) -> None:
        self.runtime = runtime
        self._wanted = wanted
        self._worker = worker
        self._tracing = tracing_
        self._outlet = Outlet(stream)
        self._inbox = Inbox()
        self._tasks: set[asyncio.Task[None]] = set()
        """Model calls, questions and decisions under way."""
        self._people_asked = False
        self._admission: Admission | None = None
        # set once the run is this worker's
        self._begun: Begun | None = None
        self._state: flow.RunState
        self._claim: Claim
        self._clock: RunClock
        self._thinking: Thinking
        self._calls: Calls
        self._ending: Ending
        self._writes: Writes
        self._approvals: Approvals
        self._events: RunEvents
        self._teller: Teller
        self._spans: RunSpans

    # --- what others ask of it ----------------------------------------------------------------------------------------
    def stop(self, reason: str) -> None:
        """End the run with what there is. ``reason`` begins the sentence that the user reads."""
        self._inbox.put(flow.StopRequested(reason))

    def hand_over(self) -> None:
        """Give the run up to another worker; writes that are under way are waited for."""
        self._inbox.put(HandOver())

    async def decide(self, approval_id: str, *, approved: bool, decider: Asker) -> Decision | None:
        """A decision from the run's own stream; None where it could not be recorded, or the run is not begun yet."""
        if self._begun is None:
            return None
        return await self._approvals.decide(approval_id, approved=approved, decider=decider)

    def decided(self, decision: Decision) -> None:
        """A decision that was recorded elsewhere and published there."""
        if self._begun is not None and decision.record is not None and decision.record.approved is not None:
            self._approvals.decided(decision.record, publish=False)

    def attach(self, stream: ClientStream) -> None:
        """A client asks for the run that is under way here already."""
        self._outlet.attach(stream)
        if self._begun is not None:
            self._tell_where_it_stands("You are connected to your request again.")
            self._approvals.show_open()
            if self._state.text:
                self._outlet.text(self._state.text)

    def detach(self, stream: ClientStream) -> None:
        """The client has gone; the run goes on."""
        self._outlet.detach(stream)

    # --- the run ------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Drive the run to its end here. Never raises, except when it is cancelled itself."""
        structlog.contextvars.bind_contextvars(run=self._wanted.run_id)
        lost = ""
        try:
            lost = await self._run()
        except Fenced:
            lost = _FENCED
            _log.info("run fenced")
        except Exception:
            _log.exception("run failed")
            await self._fail()
        finally:
            self._cancel_all()
            if self._admission is not None and self.runtime.limits is not None:
                self.runtime.limits.release(self._admission)  # of a parked run, too: it takes no place while it waits
            if self._begun is not None:
                self._approvals.close()
                self._spans.run.end("fenced" if lost == _FENCED else "")
            self._outlet.close(lost)

    async def _run(self) -> str:
        """Returns why the stream breaks, "" where it ends."""
        if (refused := await self._admit()) is not None:
            self._outlet.emit(error=refused)
            return ""
        begun = await begin(self.runtime, self._wanted)
        if isinstance(begun, Finished):
            self._outlet.send(told_again(begun.final))
            return ""
        if isinstance(begun, NotBegun):
            self._outlet.emit(error=begun.error)
            if begun.claim is not None:
                final = agent.ConverseEvent(run_id=self._wanted.run_id, error=begun.error).SerializeToString()
                self.runtime.ledger.finish(begun.claim.key, "failed", final)
            return ""
        await self._admit_known(begun.claim.run.asker.email)
        self._take(begun)
        timer = asyncio.get_running_loop().call_later(self._clock.left(), self._inbox.put, flow.DeadlineReached())
        try:
            actions = begun.actions
            while True:
                if await self._obey_all(actions):
                    return ""
                event = await self._inbox.get()
                if isinstance(event, Lost):
                    raise Fenced
                if isinstance(event, HandOver):
                    return await self._give_up()
                actions = ()
                if not isinstance(event, Again):
                    self._state, actions = run.advance(self._state, event, self._clock.now())
        finally:
            timer.cancel()

    async def _admit(self) -> agent.Error | None:
        """Count a new run, before anything is stored of it. None: it may begin, as far as the tenant's limits go."""
        limits, new = self.runtime.limits, self._wanted.new
        if limits is None or new is None or self._wanted.lost_worker:
            return None
        try:
            self._admission = await limits.admit(new.asker.email)
        except ModelLimited as error:
            return problems.limited(str(error))
        return None

    async def _admit_known(self, user: str) -> None:
        """Count a run that goes on here: it was admitted when it began, so nothing refuses it now."""
        if self.runtime.limits is not None and self._admission is None:
            self._admission = await self.runtime.limits.admit(user, forced=True)

    def _take(self, begun: Begun) -> None:
        runtime, claim = self.runtime, begun.claim
        self._claim, self._state = claim, begun.state
        self._clock = RunClock(begun.claimed_at, claim.elapsed, claim.parked_seconds, begun.state.deadline)
        self._events = RunEvents(runtime.events, runtime.config, self._worker, claim.run)
        token = self._wanted.user_token
        self._writes = Writes(
            runtime.ledger, claim.key, claim.run, runtime.toolset, self._clock.deadline, self._buried, token
        )
        self._approvals = Approvals(
            runtime.ledger, claim.key, self._outlet, self._events, self._inbox.put, self._waiting
        )
        self._teller = Teller(self._outlet, self._events)
        self._spans = RunSpans(self._tracing, runtime.config, claim.run, self._wanted.trace)
        self._thinking = Thinking(
            runtime, claim, self._clock, self._spans, self._events, self._inbox.put, begun.state.usage
        )
        self._calls = Calls(
            runtime.toolset,
            self._writes,
            self._teller,
            self._spans,
            self._clock,
            claim.run.asker.email,
            self._inbox.put,
            lambda: self._inbox.put(Lost()),
            token,
        )
        self._ending = Ending(runtime, claim, self._clock, self._writes, self._outlet, self._events)
        self._begun = begun
        structlog.contextvars.bind_contextvars(session=claim.run.session_id, **self._spans.run.ids)
        if not begun.resumed:
            config = runtime.config
            self._outlet.emit(
                accepted=agent.Accepted(session_id=claim.run.session_id, revision=config.revision, worker=self._worker)
            )
            self._events.publish(run_started=events.RunStarted(text=claim.run.text[:200]))
            return
        self._teller.took_over(begun.state.steps)
        self._writes.take_over(claim.writes, begun.state.steps, begun.settling)
        reason = "Another agent goes on with your request: the one before it was interrupted."
        if not self._wanted.lost_worker and any(record.approved is not None for record in claim.approvals):
            reason = "Your request goes on: what it waited for is decided."
        self._tell_where_it_stands(reason)
        self._teller.why_resumed(reason)

    def _tell_where_it_stands(self, reason: str) -> None:
        self._teller.resumed(self._worker, self.runtime.config.revision, reason, self._state.steps)

    # --- actions ------------------------------------------------------------------------------------------------------
    async def _obey_all(self, actions: tuple[flow.Action, ...]) -> bool:
        """True: the run has ended here."""
        questions: list[flow.AskApproval] = []
        # a step that starts in the same breath is told as started, not as planned before
        starting = {action.step.id for action in actions if isinstance(action, flow.StartTool)}
        for action in actions:
            match action:
                case flow.ShowText():
                    self._teller.planned()
                    self._outlet.text(action.text)
                case flow.Record():
                    self.runtime.ledger.record(self._claim.key, journal.encode(action.entry))
                case flow.ShowPlan():
                    self._teller.planned()
                    if steps := tuple(step for step in action.steps if step.id not in starting):
                        self._teller.plan(steps)
                case flow.StartTool():
                    self._calls.start(action)
                case flow.FinishStep():
                    self._finish_step(action)
                case flow.CallModel():
                    if self._state.rounds == 0:
                        self._teller.planning()
                    self._spawn(self._thinking.think(action))
                case flow.SettleTool():
                    self._calls.settle(action)
                case flow.CancelTool():
                    self._calls.cancel(action.step)
                case flow.AskApproval():
                    questions.append(action)
                case flow.Park():
                    pass  # seen in the state, below: what could not be parked is tried again
                case flow.Answer():
                    self._teller.planned()
                    await self._answer(action)
                    return True
                case flow.Fail():
                    self._teller.planned()
                    self._cancel_all()
                    last = agent.ConverseEvent(error=problems.model_failed(action))
                    await self._ending.end(last, self._thinking.spent, "failed")
                    return True
        if questions:
            self._spawn(self._ask(questions))
        return self._waits_for_people() and await self._park()

    async def _ask(self, questions: list[flow.AskApproval]) -> None:
        if questions:
            try:
                await self._approvals.ask(questions)
            except Fenced:
                self._inbox.put(Lost())

    async def _park(self) -> bool:
        """Nothing is left to do but wait for people. True: parked, nobody here waits."""
        while self._tasks:  # questions and decisions that are still being recorded
            await asyncio.wait(tuple(self._tasks))
        if len(self._inbox):
            return False
        try:
            decided = await self.runtime.ledger.park(self._claim.key)
        except LedgerUnavailable as error:
            # it stays here until the ledger is back; another worker finds it if this one dies
            _log.warning("run not parked", error=str(error))
            asyncio.get_running_loop().call_later(_PARK_AGAIN_SECONDS, self._inbox.put, Again())
            return False
        if decided is not None:
            for record in decided:
                self._approvals.decided(record, publish=not record.decided_by)
            return False
        waiting, expires = self._approvals.parked()
        parked = agent.Parked(approval_ids=waiting)
        if expires is not None:
            parked.expires.FromDatetime(expires)
        self._outlet.emit(parked=parked)
        self._events.publish(run_parked=events.RunParked(approval_ids=waiting))
        _log.info("run parked", approvals=len(waiting))
        return True

    def _waits_for_people(self) -> bool:
        steps = self._state.steps[self._state.round_start :]
        asking = any(step.status is flow.StepStatus.ASKING for step in steps)
        running = any(step.status is flow.StepStatus.RUNNING for step in steps)
        return self._state.phase is flow.Phase.ACTING and asking and not running

    # --- ends ---------------------------------------------------------------------------------------------------------
    async def _answer(self, answer: flow.Answer) -> None:
        self._cancel_all()
        await self._thinking.ended()  # a call that is cut off now costs something, too
        await self._ending.answer(replace(answer, usage=self._thinking.spent))

    async def _fail(self) -> None:
        """Something is wrong in here. What was sent and has no outcome is in doubt."""
        last = agent.ConverseEvent(error=problems.internal())
        if self._begun is None:
            self._outlet.send(last)
            return
        with contextlib.suppress(Exception):  # the client must get its end, whatever is broken
            for step in self._state.steps:
                self._writes.cut(step, ToolResult(Outcome.UNKNOWN, f"{step.title}: its outcome is not known."))
            self._cancel_all()
            await self._thinking.ended()
            await self._ending.end(last, self._thinking.spent, "failed")

    async def _give_up(self) -> str:
        """Hand the run over: writes that are under way come back first, everything else begins anew elsewhere."""
        self._cancel_all(but_writes=True)
        await self._calls.writes_back()
        while len(self._inbox):
            event = self._inbox.take()
            if isinstance(event, Lost):
                raise Fenced
            if not isinstance(event, flow.ToolFinished):
                continue
            self._state, actions = run.advance(self._state, event, self._clock.now())
            for action in actions:
                if isinstance(action, flow.Record):
                    self.runtime.ledger.record(self._claim.key, journal.encode(action.entry))
                elif isinstance(action, flow.FinishStep):
                    self._finish_step(action)
                elif isinstance(action, flow.Answer):
                    await self._answer(action)
                    return ""
        await self._writes.buried()
        with contextlib.suppress(LedgerUnavailable, TimeoutError):  # its lease runs out, then
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self.runtime.ledger.settled(self._claim.key)
                await self.runtime.ledger.release(self._claim.key)
        _log.info("run handed over")
        return _HANDED_OVER

    # --- small things -------------------------------------------------------------------------------------------------
    def _finish_step(self, action: flow.FinishStep) -> None:
        note = ""
        if action.step.writes and (note := self._writes.cut(action.step, action.result)):
            self._ending.notes.append(note)
        self._teller.finished(action.step, action.result, note)

    def _waiting(self, count: int) -> None:
        """Approvals that are open: their time counts as waited for people."""
        if bool(count) is not self._people_asked:
            self._people_asked = bool(count)
            (self._clock.begin if count else self._clock.end)(Cause.APPROVAL)

    def _buried(self, letter: DeadLetterRecord) -> None:
        self._events.publish(
            dead_lettered=events.DeadLettered(id=letter.id, tool=letter.tool, error=letter.error[:300])
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel_all(self, *, but_writes: bool = False) -> None:
        current = asyncio.current_task()
        for task in tuple(self._tasks):
            if task is not current:
                task.cancel()
        if self._begun is not None:
            self._calls.cancel_all(but_writes=but_writes)
