"""One run: a question sent to a worker, its events handed on, and every way in which it can end.

    waiting ──lease──▶ streaming ──final/error──▶ ended
       │                  ├──stream cut, Pod gone, silence──▶ error WORKER_LOST
       │                  ├──no first event, over the deadline, stop not honoured──▶ error DEADLINE_EXCEEDED
       └──no worker in time──▶ error NO_WORKER;   stop while waiting ──▶ final (partial)

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

from pilothouse_dataplane.gateway.channels import WorkerLink
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.identity import Identity
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.problems import Problem, worker_lost
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.wire import TERMINAL, event_json
from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_proto.agent.v1 import agent_pb2_grpc

log = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], Awaitable[None]]
Call = grpc.aio.StreamStreamCall[pb.ConverseRequest, pb.ConverseEvent]


class _Lost(Exception):
    """The worker is gone."""


class Run:
    """One question of one session; use once."""

    def __init__(
        self,
        *,
        run_id: str,
        session_id: str,
        identity: Identity,
        text: str,
        dispatcher: Dispatcher,
        settings: Settings,
        metrics: Metrics,
        emit: Emit,
    ) -> None:
        self.run_id = run_id
        self._ask = pb.Ask(
            tenant=identity.tenant,
            session_id=session_id,
            run_id=run_id,
            user=pb.User(subject=identity.subject, email=identity.email, display_name=identity.display_name),
            text=text,
        )
        self._email = identity.email
        self._dispatcher = dispatcher
        self._settings = settings
        self._metrics = metrics
        self._emit = emit
        self._call: Call | None = None
        self._writing = asyncio.Lock()
        self._sequence = 0
        self._steps: dict[str, str] = {}
        self._approvals: set[str] = set()
        self._stop_reason: str | None = None
        self._stopped = asyncio.Event()
        self._deadline = time.monotonic() + settings.run_deadline
        self._over = f"The answer took longer than {settings.run_deadline:.0f} s and was cut off."

    async def execute(self) -> dict[str, Any]:
        """Run to the end; returns the last event (``final`` or ``error``). Raises only what ``emit`` raises."""
        began = time.monotonic()
        self._metrics.runs_in_flight.inc()
        try:
            last = await self._lease_and_stream(began)
        except Problem as problem:
            last = problem.event(run_id=self.run_id, sequence=self._sequence + 1)
        finally:
            self._metrics.runs_in_flight.dec()
        self._metrics.runs.labels(outcome=str(last["type"])).inc()
        if last["type"] == "error":
            self._metrics.errors.labels(code=str(last["code"])).inc()
        return last

    async def _lease_and_stream(self, began: float) -> dict[str, Any]:
        async with self._dispatcher.lease(self._ask.tenant, self._ask.session_id) as link:
            if self._stopped.is_set():
                return self._stopped_before_start()
            # Fail fast instead of waiting for a reconnection: what was sent may already have been acted upon.
            self._call = agent_pb2_grpc.AgentStub(link.channel).Converse(wait_for_ready=False)
            try:
                return await self._stream(self._call, link, began)
            except (_Lost, grpc.aio.AioRpcError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and (refusal := _refusal(error)) is not None:
                    raise refusal from error
                log.warning("run %s: worker %s lost: %s", self.run_id, link.worker.name, _brief(error))
                self._dispatcher.avoid(link.worker)
                raise worker_lost(list(self._steps.values())) from error
            finally:
                # A run that is over has answered; a run that is not is cut, and the worker sees the cancellation.
                self._call.cancel()

    async def _stream(self, call: Call, link: WorkerLink, began: float) -> dict[str, Any]:
        await self._write(pb.ConverseRequest(ask=self._ask))
        lost = asyncio.create_task(link.lost.wait())
        stopped = asyncio.create_task(self._stopped.wait())
        reading: asyncio.Task[Any] | None = None
        try:
            while True:
                reading = asyncio.create_task(_read(call))
                await self._wait(reading, lost, stopped)
                if reading.cancelled():  # what gRPC raises where the channel was closed under the call
                    raise _Lost("the channel was closed")
                event = await reading
                if not isinstance(event, pb.ConverseEvent):
                    raise _Lost("the stream ended without a last event")
                link.alive()
                if not self._sequence:
                    self._metrics.first_event.observe(time.monotonic() - began)
                self._sequence = max(self._sequence + 1, event.sequence)
                body = event_json(event)
                if body is None:
                    continue
                self._note(event)
                if body["type"] in TERMINAL:
                    return body
                await self._emit(body)
        finally:
            for task in (reading, lost, stopped):
                if task is not None:
                    task.cancel()

    async def _wait(self, reading: asyncio.Task[Any], lost: asyncio.Task[bool], stopped: asyncio.Task[bool]) -> None:
        """Until the next event is there; raises where it will not come."""
        bound, why = self._deadline, self._over
        if not self._sequence:
            bound = min(bound, time.monotonic() + self._settings.accept_timeout)
            why = (
                f"The worker did not begin within {self._settings.accept_timeout:.0f} s. The question was not answered."
            )
        waiting: set[asyncio.Task[Any]] = {reading, lost}
        if not stopped.done():
            waiting.add(stopped)
        while not reading.done():
            done, _ = await asyncio.wait(
                waiting, timeout=max(0.0, bound - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            if reading in done:
                return
            if lost in done:
                raise _Lost("no sign of life")
            if stopped in done:
                waiting.discard(stopped)
                self._deadline = min(self._deadline, time.monotonic() + self._settings.stop_grace)
                self._over = "The worker did not confirm the stop and was cut off. The answer was not finished."
                bound, why = self._deadline, self._over
            elif not done:
                raise Problem(
                    pb.ERROR_CODE_DEADLINE_EXCEEDED,
                    why,
                    f"Check whether this was done: {'; '.join(self._steps.values())}." if self._steps else "Ask again.",
                    retryable=True,
                )

    def _note(self, event: pb.ConverseEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "step_started":
            self._steps[event.step_started.step_id] = event.step_started.summary or event.step_started.tool
        elif kind == "step_finished":
            self._steps.pop(event.step_finished.step_id, None)
        elif kind == "approval_required":
            self._approvals.add(event.approval_required.approval_id)

    async def _write(self, request: pb.ConverseRequest) -> None:
        call = self._call
        if call is None:
            return
        async with self._writing:
            try:
                async with asyncio.timeout(2):
                    await call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
                # The reading side finds out why and tells the user.
                log.debug("run %s: could not write: %s", self.run_id, _brief(error))

    async def stop(self, reason: str) -> None:
        """Ask the worker to end the run; it is cut off after ``stop_grace`` seconds."""
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stopped.set()
            await self._write(pb.ConverseRequest(stop=pb.Stop(reason=reason)))

    async def decide(self, approval_id: str, *, approved: bool) -> bool:
        """Hand on the user's decision; False where this run has not asked for it (or it was decided already)."""
        if approval_id not in self._approvals:
            return False
        self._approvals.discard(approval_id)
        decision = pb.ApprovalDecision(approval_id=approval_id, approved=approved, decided_by=self._email)
        await self._write(pb.ConverseRequest(decision=decision))
        return True

    def _stopped_before_start(self) -> dict[str, Any]:
        final = pb.ConverseEvent(sequence=1, run_id=self.run_id, final=pb.Final(partial=True))
        return event_json(final) or {}


async def _read(call: Call) -> Any:
    return await call.read()


def _refusal(error: grpc.aio.AioRpcError) -> Problem | None:
    """A worker that lives and says no; None where the status means that it is gone."""
    detail = f"The worker refused: {error.details() or error.code().name}. The question was not answered."
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Problem(pb.ERROR_CODE_RATE_LIMITED, detail, "Wait a moment and ask again.", retryable=True)
    if error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE}:
        return Problem(pb.ERROR_CODE_INVALID_REQUEST, detail, "Change the question and ask again.")
    if error.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}:
        return Problem(pb.ERROR_CODE_PERMISSION_DENIED, detail, "Ask your administrator for access.")
    if error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION}:
        return Problem(pb.ERROR_CODE_INTERNAL, detail, "Tell your platform operator; ask again once it is repaired.")
    return None


def _brief(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
