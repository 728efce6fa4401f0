"""Decisions about what runs wait for, and the runs that go on after them.

A parked run is held by no worker and by no connection. Whoever decides, from wherever (the asking user's own
conversation, her manager's, an SRE through Fleet), the decision goes to any worker of the tenant, which judges whether
this person may. Where it says that nothing of the run waits any more, the run is resumed here, in the background: it
goes on even where the decider closes the page. Its events reach the conversations of its session that are open at this
gateway; its answer is stored by the worker, so the next question finds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any

import grpc
import grpc.aio

from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.problems import Problem
from pilothouse_dataplane.gateway.runs import Emit, Run, Unwanted
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.stream import brief
from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_proto.events.v1 import events_pb2 as ev

log = logging.getLogger(__name__)

_REMEMBERED = 10_000
"""Parked runs whose last sequence number is kept, about 200 bytes each; the worker's own number serves for others."""

_BEGUN = 1
"""Sequence number of a parked run that this gateway has not seen: at least one event came before, so that a client can
tell a run that goes on from the one of its own question, which begins with 1."""


class Approvals:
    """Decides, lists, resumes. One for the whole gateway."""

    def __init__(self, *, dispatcher: Dispatcher, settings: Settings, metrics: Metrics) -> None:
        self._dispatcher = dispatcher
        self._settings = settings
        self._metrics = metrics
        self._calls = WorkerCalls(dispatcher)
        self._sequences: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._audience: dict[tuple[str, str], list[Emit]] = {}
        self._resumed: dict[tuple[str, str], Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, tenant: str, session_id: str, emit: Emit) -> None:
        """Tell this conversation of the session's resumed runs. The caller has verified whose session it is."""
        self._audience.setdefault((tenant, session_id), []).append(emit)

    def leave(self, tenant: str, session_id: str, emit: Emit) -> None:
        """Tell it no more. The runs go on."""
        audience = self._audience.get((tenant, session_id), [])
        if emit in audience:
            audience.remove(emit)
        if not audience:
            self._audience.pop((tenant, session_id), None)

    def live(self, tenant: str, session_id: str) -> list[Run]:
        """The session's runs that were resumed here and go on now."""
        return [r for (t, _), r in self._resumed.items() if t == tenant and r.session_id == session_id]

    async def decide(
        self,
        tenant: str,
        approval_id: str,
        *,
        approved: bool,
        decider: pb.User,
        override: bool = False,
        wait: float | None = None,
    ) -> pb.DecideResponse:
        """Have a worker decide. The caller tells the outcome and then calls :meth:`resume`.

        ``decider``: as the front door has verified; ``override``: Kubernetes lets the decider answer for others;
        ``wait`` in seconds for a worker, by default as long as a question waits.
        Raises :class:`Problem` NO_WORKER, and AioRpcError where a worker did not answer: then the decision may stand.
        """
        request = pb.DecideRequest(
            tenant=tenant, approval_id=approval_id, approved=approved, decider=decider, override=override
        )
        # An approval is decided once: told twice, the second telling changes nothing.
        return await self._calls.call(
            tenant,
            "Decide",
            request,
            pb.DecideResponse,
            wait=self._settings.no_worker_wait if wait is None else wait,
            timeout=self._settings.decide_timeout,
            again=True,
        )

    async def waiting(self, tenant: str, decider: pb.User) -> list[pb.PendingApproval]:
        """What waits for this user's decision. Raises :class:`Problem`."""
        try:
            response = await self._calls.call(
                tenant,
                "ListApprovals",
                pb.ListApprovalsRequest(tenant=tenant, decider=decider),
                pb.ListApprovalsResponse,
                wait=self._settings.no_worker_wait,
                timeout=self._settings.decide_timeout,
                again=True,
            )
        except grpc.aio.AioRpcError as error:
            log.warning("the approvals of %s could not be listed: %s", tenant, brief(error))
            raise Problem(
                pb.ERROR_CODE_INTERNAL,
                "What waits for your decision could not be read. Nothing was decided.",
                "Try again in a moment. If it lasts, tell your platform operator.",
                retryable=True,
            ) from error
        return list(response.approvals)

    def parked(self, run: Run, *, decided: bool = False) -> None:
        """A run has parked: remember how far its client has read, and make again what it had decided too late.

        The worker may have parked the run while a decision was on its way up the stream. ``decided``: it has even
        confirmed that, and nothing is waited for any more; then the run goes on at once, under its client's eyes.
        """
        self._remember(run)
        if decided:
            self._go_on(run.tenant, run.session_id, run.run_id)
            return
        for made in run.unconfirmed():
            self._background(self._again(run, made), f"decide-{run.run_id}")

    def _remember(self, run: Run) -> None:
        key = (run.tenant, run.run_id)
        self._sequences[key] = run.sequence
        self._sequences.move_to_end(key)
        if len(self._sequences) > _REMEMBERED:
            self._sequences.popitem(last=False)

    async def _again(self, run: Run, made: pb.ApprovalDecision) -> None:
        try:
            response = await self.decide(run.tenant, made.approval_id, approved=made.approved, decider=made.decider)
        except (Problem, grpc.aio.AioRpcError) as error:
            log.warning("run %s: a decision could not be made again: %s", run.run_id, brief(error))
            return
        # Decided twice: the worker did hear it, and goes on by itself. Then this is how the client reads on.
        if response.resume or response.outcome == pb.DECIDE_OUTCOME_ALREADY_DECIDED:
            self._go_on(run.tenant, run.session_id, run.run_id)

    def heard(self, event: ev.RunEvent) -> None:
        """An event of any tenant's stream. A parked run of a conversation that is open here may have ended unseen:
        decided through another gateway, or lapsed. Its answer is then asked for."""
        key = (event.tenant, event.run_id)
        if event.HasField("run_finished") and key in self._sequences:
            if (event.tenant, event.session_id) in self._audience:
                self._go_on(event.tenant, event.session_id, event.run_id)
            else:
                self._sequences.pop(key, None)

    def resume(self, tenant: str, response: pb.DecideResponse) -> None:
        """Go on with the run of a decision, where the worker says so; at once and in the background."""
        if response.resume:
            self._go_on(tenant, response.session_id, response.run_id)

    def _go_on(self, tenant: str, session_id: str, run_id: str) -> None:
        key = (tenant, run_id)
        if key in self._resumed:
            return
        run = Run(
            pb.Resume(tenant=tenant, session_id=session_id, run_id=run_id),
            dispatcher=self._dispatcher,
            settings=self._settings,
            metrics=self._metrics,
            emit=lambda body: self._tell(tenant, session_id, body),
            sequence=self._sequences.pop(key, _BEGUN),
        )
        self._resumed[key] = run
        self._background(self._drive(run), f"resume-{run.run_id}")

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, run: Run) -> None:
        last: dict[str, Any] = {}
        try:
            last = await run.execute()
        except Exception:
            log.exception("run %s failed in the gateway after it was resumed", run.run_id)
            problem = Problem(
                pb.ERROR_CODE_INTERNAL,
                "The gateway failed while it went on with the run. Its answer was not shown.",
                "Ask what became of it: what was done is kept in the conversation.",
                retryable=True,
            )
            last = problem.event(run_id=run.run_id, sequence=run.sequence + 1)
        finally:
            # Before the last event is told: a decision that follows upon it may resume the run again.
            self._resumed.pop((run.tenant, run.run_id), None)
        if last["type"] == "error":
            log.warning("run %s was resumed and failed: %s", run.run_id, last["message"])
            if last["code"] == pb.ErrorCode.Name(pb.ERROR_CODE_WORKER_LOST):
                self._remember(run)  # a worker will find it by itself: its end is heard of
        await self._tell(run.tenant, run.session_id, last)
        if last["type"] == "parked":
            self.parked(run, decided=not last["approval_ids"])

    async def _tell(self, tenant: str, session_id: str, body: dict[str, Any]) -> None:
        for emit in list(self._audience.get((tenant, session_id), ())):
            try:
                await emit(body)
            except Unwanted:
                self.leave(tenant, session_id, emit)

    async def close(self) -> None:
        """Cut the streams of resumed runs; their workers finish them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
