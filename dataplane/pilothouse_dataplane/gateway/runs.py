"""One run: a question (or a decision that a parked run waited for) sent to a worker, its events handed on, and every
way in which it can end.

              ┌──────── the worker is gone: ask another one (bounded) ────────┐
              ▼                                                               │
    start ─▶ waiting ──lease──▶ streaming ──stream cut, Pod gone, silence, handed over
       │                         ├──final / error──▶ ended
       │                         ├──parked──▶ ended here; goes on by a Resume, on any worker
       │                         └──no first event, over the deadline, stop not honoured──▶ error DEADLINE_EXCEEDED
       ├──no worker in time──▶ error NO_WORKER, or WORKER_LOST where one had begun
       └──stop before a worker had it──▶ final (partial)

A takeover sends the same Ask with a higher ``attempt``; the worker's journal knows what was done. A stop and decisions
that the lost worker may not have noted are sent again to the next one.

:meth:`Run.execute` emits all events but the last and *returns* that one, so that the session is free again before the
client reads it and may ask the next question.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from pilothouse_api.names import PLAN_STEP
from pilothouse_dataplane.gateway.channels import WorkerLink
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.problems import Problem, worker_lost
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.stream import Lost, Stream, brief, lost, refusal
from pilothouse_dataplane.gateway.takeover import Takeover
from pilothouse_dataplane.gateway.wire import TERMINAL, event_json
from pilothouse_dataplane.gateway.workers import Worker
from pilothouse_proto.agent.v1 import agent_pb2 as pb

log = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], Awaitable[None]]
_PAUSE = 0.1
"""Seconds before the next takeover where the last one led to no event at all; doubles each time."""
_FULL_PAUSE = 0.25
"""Seconds until a worker that has no room for a run which lost its own is asked again."""


class Unwanted(Exception):
    """``emit`` raises it where nobody takes the events any more: the run is stopped."""


class Run:
    """One run of one session; use once."""

    def __init__(
        self,
        opening: pb.Ask | pb.Resume,
        *,
        dispatcher: Dispatcher,
        settings: Settings,
        metrics: Metrics,
        emit: Emit,
        sequence: int = 0,
    ) -> None:
        """``sequence`` of the last event that the client has seen of this run, where it is resumed."""
        self.run_id = opening.run_id
        self.tenant = opening.tenant
        self.session_id = opening.session_id
        self.sequence = sequence
        self.live = False
        self._opening = opening
        self._dispatcher = dispatcher
        self._settings = settings
        self._metrics = metrics
        self._emit = emit
        self._stream: Stream | None = None
        self._heard = False
        self._begun = False
        """An earlier worker had the run, or it was parked."""
        self._steps: dict[str, str] = {}
        self._approvals: set[str] = set()
        self._decisions: dict[str, pb.ApprovalDecision] = {}
        self._stop_reason: str | None = None
        self._stopped = asyncio.Event()
        self._began = time.monotonic()
        self._deadline = self._began + settings.run_deadline
        self._over = f"The answer took longer than {settings.run_deadline:.0f} s and was cut off."
        self._lost_at: float | None = None

    async def execute(self) -> dict[str, Any]:
        """Run to the end; returns the last event (``final``, ``error``, ``parked``). Raises what ``emit`` raises."""
        self._metrics.runs_in_flight.inc()
        self.live = True
        try:
            last = await self._until_over()
        except Problem as problem:
            self.sequence += 1
            last = problem.event(run_id=self.run_id, sequence=self.sequence)
        finally:
            self.live = False
            self._metrics.runs_in_flight.dec()
        self._metrics.runs.labels(outcome=str(last["type"])).inc()
        if last["type"] == "error":
            self._metrics.errors.labels(code=str(last["code"])).inc()
        return last

    async def _until_over(self) -> dict[str, Any]:
        chase = Takeover(self._settings.takeover_wait, self._began + self._settings.no_worker_wait, self._began)
        while True:
            worker: Worker | None = None
            try:
                async with self._dispatcher.lease(
                    self.tenant,
                    self.session_id,
                    lost=chase.gone,
                    elsewhere=chase.elsewhere,
                    until=self._until(chase),
                ) as link:
                    if chase.gone is None and self._stopped.is_set():
                        return self._stopped_before_start()
                    worker = link.worker
                    return await self._converse(link, chase)
            except Problem as problem:
                if worker is not None or problem.code != pb.ERROR_CODE_NO_WORKER:
                    raise
                if chase.gone is not None:
                    raise worker_lost(list(self._steps.values())) from problem
                if self._stopped.is_set():
                    return self._stopped_before_start()
                raise
            except Lost as error:
                if worker is None:
                    raise
                await self._after(error, worker, chase)

    async def _after(self, error: Lost, worker: Worker, chase: Takeover) -> None:
        """Prepare the next try. Raises :class:`Problem` WORKER_LOST where there is none."""
        now = time.monotonic()
        over = now >= self._deadline
        if error.cause == "full" and now < chase.patience and not over:
            await asyncio.sleep(_FULL_PAUSE)
            return
        if error.cause == "held" and chase.held(worker, now) and not over:
            log.info("run %s: %s says another worker has it", self.run_id, worker.name)
            await asyncio.sleep(_PAUSE)
            return
        log.warning("run %s: worker %s lost: %s", self.run_id, worker.name, error)
        if error.cause in {"full", "held"} or over or chase.count >= self._settings.max_takeovers:
            raise worker_lost(list(self._steps.values())) from error
        self._dispatcher.avoid(worker)
        self._metrics.takeovers.labels(cause=error.cause).inc()
        self._lost_at = now
        pause = _PAUSE * 2**chase.count if chase.count and not self._heard else 0.0
        chase.lost(worker, heard=self._heard, now=now)
        await asyncio.sleep(pause)

    def _until(self, chase: Takeover) -> Callable[[], float]:
        """How long to look for a worker. A stop ends the wait of a run that no worker has begun."""
        first = chase.gone is None
        return lambda: 0.0 if first and self._stopped.is_set() else min(chase.patience, self._deadline)

    async def _converse(self, link: WorkerLink, chase: Takeover) -> dict[str, Any]:
        stream, self._heard = Stream(link, self.run_id), False
        self._begun = chase.gone is not None or isinstance(self._opening, pb.Resume)
        try:
            await stream.write(self._request(chase))
            self._stream = stream
            if self._stop_reason is not None:
                await stream.write(pb.ConverseRequest(stop=pb.Stop(reason=self._stop_reason)))
            return await self._events(stream)
        except Unwanted:
            await stream.leave("the client went away")
            raise
        except Problem as problem:
            await stream.leave(problem.code_name)
            raise
        except grpc.aio.AioRpcError as error:
            refused = refusal(error)
            if refused is None:
                raise lost(error) from error
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and self._begun:
                raise Lost(brief(error), "full") from error
            raise refused from error
        finally:
            self._stream = None
            stream.cut()

    def _request(self, chase: Takeover) -> pb.ConverseRequest:
        if isinstance(self._opening, pb.Resume):
            resume = pb.Resume()
            resume.CopyFrom(self._opening)
            resume.lost_worker = chase.lost_worker
            return pb.ConverseRequest(resume=resume)
        ask = pb.Ask()
        ask.CopyFrom(self._opening)
        ask.attempt, ask.lost_worker = chase.attempt, chase.lost_worker
        return pb.ConverseRequest(ask=ask)

    async def _events(self, stream: Stream) -> dict[str, Any]:
        silent = asyncio.create_task(stream.link.lost.wait())
        stopped = asyncio.create_task(self._stopped.wait())
        reading: asyncio.Task[pb.ConverseEvent] | None = None
        accept = time.monotonic() + self._settings.accept_timeout
        try:
            while True:
                reading = asyncio.create_task(stream.read())
                await self._wait(reading, silent, stopped, accept)
                if reading.cancelled():  # what gRPC raises where the channel was closed under the call
                    raise Lost("the channel was closed")
                event = await reading
                if not self._heard:
                    self._give_back(event)
                    await self._first(stream)
                self.sequence = max(self.sequence + 1, event.sequence)
                self._note(event)
                body = event_json(event, self.sequence)
                if body is None:
                    continue
                if body["type"] in TERMINAL:
                    return body
                await self._emit(body)
        finally:
            for task in (reading, silent, stopped):
                if task is not None:
                    task.cancel()

    def _give_back(self, event: pb.ConverseEvent) -> None:
        """Raises :class:`Lost` where a worker says of a run that was begun elsewhere that it can't have it."""
        code = event.error.code if event.HasField("error") and self._begun else pb.ERROR_CODE_UNSPECIFIED
        if code == pb.ERROR_CODE_RATE_LIMITED:
            raise Lost(event.error.message, "full")
        if code == pb.ERROR_CODE_WORKER_LOST:
            raise Lost(event.error.message, "held")

    async def _first(self, stream: Stream) -> None:
        """A worker has begun: it now takes the decisions that a lost one may not have noted."""
        now = time.monotonic()
        if self._lost_at is not None:
            self._metrics.takeover_time.observe(now - self._lost_at)
            self._lost_at = None
        elif not self.sequence:
            self._metrics.first_event.observe(now - self._began)
        self._heard = True
        for decision in list(self._decisions.values()):
            await stream.write(pb.ConverseRequest(decision=decision))

    async def _wait(
        self, reading: asyncio.Task[Any], silent: asyncio.Task[bool], stopped: asyncio.Task[bool], accept: float
    ) -> None:
        """Until the next event is there; raises where it will not come."""
        waiting: set[asyncio.Task[Any]] = {reading, silent}
        if not stopped.done():
            waiting.add(stopped)
        while not reading.done():
            bound, why = self._deadline, self._over
            if not self._heard and accept < bound:
                bound = accept
                why = (
                    f"The worker did not begin within {self._settings.accept_timeout:.0f} s. "
                    "The question was not answered."
                )
            done, _ = await asyncio.wait(
                waiting, timeout=max(0.0, bound - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            if reading in done:
                return
            if silent in done:
                raise Lost("no sign of life")
            if stopped in done:
                waiting.discard(stopped)
            elif not done:
                raise Problem(
                    pb.ERROR_CODE_DEADLINE_EXCEEDED,
                    why,
                    f"Check whether this was done: {'; '.join(self._steps.values())}." if self._steps else "Ask again.",
                    retryable=True,
                )

    def _note(self, event: pb.ConverseEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "step_started" and event.step_started.step_id != PLAN_STEP:
            self._steps[event.step_started.step_id] = event.step_started.summary or event.step_started.tool
        elif kind == "step_finished":
            self._steps.pop(event.step_finished.step_id, None)
        elif kind == "resumed":
            for step in event.resumed.steps:
                self._steps.pop(step.step_id, None)
        elif kind == "approval_required":
            asked = event.approval_required
            # What others decide is none of this stream's: a worker judges them by what the front door has verified.
            if asked.by in {pb.APPROVER_USER, pb.APPROVER_UNSPECIFIED} and asked.approval_id not in self._decisions:
                self._approvals.add(asked.approval_id)
        elif kind == "approval_decided":
            self._approvals.discard(event.approval_decided.approval_id)
            self._decisions.pop(event.approval_decided.approval_id, None)

    async def stop(self, reason: str) -> None:
        """Ask the worker to end the run; it is cut off after ``stop_grace`` seconds."""
        if self._stop_reason is not None:
            return
        self._stop_reason = reason
        self._deadline = min(self._deadline, time.monotonic() + self._settings.stop_grace)
        self._over = "The worker did not confirm the stop and was cut off. The answer was not finished."
        self._stopped.set()
        if self._stream is not None:
            await self._stream.write(pb.ConverseRequest(stop=pb.Stop(reason=reason)))

    async def decide(self, approval_id: str, *, approved: bool, user: pb.User) -> bool:
        """Hand on the asking user's decision; False where this run has not asked this user (or it was decided)."""
        if approval_id not in self._approvals:
            return False
        self._approvals.discard(approval_id)
        decision = pb.ApprovalDecision(approval_id=approval_id, approved=approved, decided_by=user.email, decider=user)
        self._decisions[approval_id] = decision
        if self._stream is not None and self._heard:
            await self._stream.write(pb.ConverseRequest(decision=decision))
        return True

    def confirmed(self, approval_id: str) -> bool:
        """Whether a worker has told what became of a decision that was handed on."""
        return approval_id not in self._decisions

    def unconfirmed(self) -> list[pb.ApprovalDecision]:
        """Decisions that no worker has confirmed. Where the run parked meanwhile, they must be made anew."""
        return list(self._decisions.values())

    def _stopped_before_start(self) -> dict[str, Any]:
        self.sequence += 1
        final = pb.ConverseEvent(run_id=self.run_id, final=pb.Final(partial=True))
        return event_json(final, self.sequence) or {}
