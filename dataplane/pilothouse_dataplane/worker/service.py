"""The Agent service: takes asks in, streams runs' events out, and holds the configuration in use.

A run is driven by one task of its own, whether or not a client listens: a stream that breaks without a ``Stop`` leaves
the run to end by itself, and the same run asked again here attaches to it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
import structlog

from pilothouse_dataplane.core.guard import BreakerChange, GuardRegistry
from pilothouse_dataplane.credentials.tokens import usable_token
from pilothouse_dataplane.ledger.base import LedgerUnavailable, NewRun, Verdict
from pilothouse_dataplane.worker import accounts, admin, problems, status, tracing
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.begin import Wanted
from pilothouse_dataplane.worker.config import ConfigWatcher, LoadedConfig
from pilothouse_dataplane.worker.driver import RunDriver
from pilothouse_dataplane.worker.runtime import Runtime, RuntimeFactory, StoreKeeper
from pilothouse_dataplane.worker.stream import ClientStream
from pilothouse_dataplane.worker.sweeper import Sweeper
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.agent.v1 import agent_pb2_grpc
from pilothouse_proto.events.v1 import events_pb2 as events

MAX_TEXT_CHARS = 16_000
_FIRST_MESSAGE_SECONDS = 10.0
_WRITES_SECONDS = 20.0
"""How long a draining worker waits at most for writes that are under way; connectors' time-outs are shorter."""
_ID = re.compile(r"^[A-Za-z0-9_.:-]{1,128}$")
"""Session and run ids stand in Redis keys, whose braces have a meaning."""
_Answer = TypeVar("_Answer")
_TRACE_HEADERS = ("traceparent", "tracestate")
_log = structlog.get_logger()


def _credentials(runtime: Runtime | None) -> dict[str, Any]:
    """GetStatus' fields about the credentials' store."""
    if runtime is None or runtime.credentials is None:
        return {}
    store = runtime.credentials.status()
    until = None if store.until is None else datetime.fromtimestamp(store.until, UTC)
    return {"credentials_error": store.error, "credentials_until": until}


class AgentService(agent_pb2_grpc.AgentServicer):
    """One worker's service."""

    def __init__(self, worker: str, factory: RuntimeFactory, tracing_: tracing.Tracing | None = None) -> None:
        self._worker = worker
        self._factory = factory
        self._tracing = tracing_ or tracing.NoTracing()
        self._guards = GuardRegistry(time.monotonic, self._breaker_changed)
        self._keeper = StoreKeeper(worker, self._guards)
        self._runtime: Runtime | None = None
        self._runs: dict[str, tuple[RunDriver, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweeper = Sweeper(
            lambda: self._runtime.ledger if self._runtime else None,
            self._free,
            lambda run_id: self._drive_alone(run_id),
        )
        self._sweeping: asyncio.Task[None] | None = None
        self.watcher: ConfigWatcher | None = None
        self.draining = False

    # --- configuration ------------------------------------------------------------------------------------------------
    async def apply(self, loaded: LoadedConfig) -> None:
        """Use this configuration for new runs. Raises ConfigError, and then the old one stays."""
        fresh = self._factory(loaded, self._guards, self._keeper)
        old = self._runtime
        await fresh.start(old)
        self._runtime = fresh
        if old is not None:
            old.retired = True
            self._close_unused(old)
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweeper.run(), name="sweeper")

    def _close_unused(self, runtime: Runtime) -> None:
        if runtime.retired and runtime.users == 0:
            self._spawn(runtime.aclose())

    def _spawn(self, work: Coroutine[Any, Any, _Answer]) -> asyncio.Task[_Answer]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _breaker_changed(self, change: BreakerChange) -> None:
        _log.info("breaker changed", name=change.name, state=change.state.value, reason=change.reason)
        runtime = self._runtime
        if runtime is None or change.origin:  # the worker that found it says so
            return
        event = events.RunEvent(
            tenant=runtime.config.tenant,
            revision=runtime.config.revision,
            worker=self._worker,
            breaker_changed=events.BreakerChanged(
                name=change.name,
                state=wire.BREAKER_STATES[change.state],
                failure_rate_percent=change.failure_rate_percent,
                slow_rate_percent=change.slow_rate_percent,
                reason=change.reason[:300],
            ),
        )
        wire.stamp(event)
        runtime.events.publish(event.SerializeToString())

    @property
    def loaded(self) -> bool:
        """A configuration is in use."""
        return self._runtime is not None

    @property
    def active_runs(self) -> int:
        return len(self._runs)

    def _free(self) -> int:
        if self._runtime is None or self.draining:
            return 0
        return self._runtime.config.concurrent_runs - len(self._runs)

    # --- conversations ------------------------------------------------------------------------------------------------
    async def Converse(
        self, request_iterator: AsyncIterator[agent.ConverseRequest], context: Any
    ) -> AsyncIterator[agent.ConverseEvent]:
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
                first = await context.read()
        except TimeoutError:
            first = grpc.aio.EOF
        if first is grpc.aio.EOF:
            yield self._refusal("", problems.invalid("The conversation must begin with an ask."))
            return
        if self._runtime is None or self.draining:
            why = "is shutting down" if self.draining else "has no configuration yet"
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"this agent {why}; nothing was done")
        resume = first.WhichOneof("request") == "resume"
        wanted = self._resume(first.resume) if resume else self._ask(first)
        if isinstance(wanted, agent.Error):
            yield self._refusal(first.resume.run_id or first.ask.run_id, wanted)
            return
        if self._tracing.enabled:
            headers = {key: value for key, value in context.invocation_metadata() or () if key in _TRACE_HEADERS}
            wanted = replace(wanted, trace=headers)
        del first  # an event or a request takes a kilobyte, and a run waits for most of its time
        stream = ClientStream(wanted.run_id)
        driver = self._drive(wanted, stream)
        reader = asyncio.create_task(self._read(context, driver))
        try:
            async for event in stream:
                yield event
                del event
        finally:
            reader.cancel()
            driver.detach(stream)
        if stream.lost:
            await context.abort(grpc.StatusCode.UNAVAILABLE, stream.lost)

    def _refusal(self, run_id: str, error: agent.Error) -> agent.ConverseEvent:
        event = agent.ConverseEvent(sequence=1, run_id=run_id, error=error)
        wire.stamp(event)
        return event

    def _ask(self, request: agent.ConverseRequest) -> Wanted | agent.Error:
        """What an ask wants, or why it can't be taken."""
        ask, runtime = request.ask, self._runtime
        assert runtime is not None
        if request.WhichOneof("request") != "ask":
            return problems.invalid("The conversation must begin with an ask.")
        if ask.tenant != runtime.config.tenant:
            return problems.wrong_tenant()
        if not ask.user.email:
            return problems.unauthenticated()
        if not _ID.match(ask.session_id) or not _ID.match(ask.run_id):
            return problems.invalid("The session's or the run's id is missing or has characters that are not allowed.")
        if not ask.text.strip() or len(ask.text) > MAX_TEXT_CHARS:
            return problems.invalid(f"The text must have 1 to {MAX_TEXT_CHARS:,} characters.")
        if ask.run_id not in self._runs and self._free() <= 0:
            return problems.too_many(runtime.config.concurrent_runs)
        new = NewRun(ask.run_id, ask.session_id, wire.asker(ask.user), ask.text, runtime.config.revision)
        lost = ask.lost_worker if ask.attempt > 1 else ""
        return Wanted(ask.run_id, new, lost, user_token=usable_token(ask.user_token))

    def _resume(self, request: agent.Resume) -> Wanted | agent.Error:
        runtime = self._runtime
        assert runtime is not None
        if request.tenant != runtime.config.tenant:
            return problems.wrong_tenant()
        if not _ID.match(request.run_id):
            return problems.invalid("The run's id is missing or has characters that are not allowed.")
        if request.run_id not in self._runs and self._free() <= 0:
            return problems.too_many(runtime.config.concurrent_runs)
        return Wanted(request.run_id, lost_worker=request.lost_worker)

    def _drive(self, wanted: Wanted, stream: ClientStream | None) -> RunDriver:
        """Begin a run, or attach to the one that is under way."""
        if (entry := self._runs.get(wanted.run_id)) is not None and not entry[1].done():
            if stream is not None:
                entry[0].attach(stream)
            return entry[0]
        runtime = self._runtime
        assert runtime is not None  # checked by the caller, and nothing was awaited since
        runtime.users += 1
        driver = RunDriver(runtime, wanted, self._worker, self._tracing, stream)
        task = asyncio.create_task(driver.run(), name=f"run {wanted.run_id}")
        self._runs[wanted.run_id] = (driver, task)

        def ended(task: asyncio.Task[None]) -> None:
            if self._runs.get(wanted.run_id, (None, None))[1] is task:
                del self._runs[wanted.run_id]
            runtime.users -= 1
            self._close_unused(runtime)

        task.add_done_callback(ended)
        return driver

    def _drive_alone(self, run_id: str) -> None:
        """Drive a run that the ledger knows, without a client."""
        if run_id not in self._runs and self._free() > 0:
            self._drive(Wanted(run_id), None)

    async def _read(self, context: Any, driver: RunDriver) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            kind = request.WhichOneof("request")
            if kind == "stop":
                driver.stop("You stopped this")
                return
            if kind == "decision":
                await self._live_decision(request.decision, driver)

    async def _live_decision(self, decision: agent.ApprovalDecision, driver: RunDriver) -> None:
        # who decides is told by the front door, which has verified it
        decider = wire.asker(decision.decider)
        if not decider.email:
            return
        taken = await driver.decide(decision.approval_id, approved=decision.approved, decider=decider)
        if taken is not None and taken.resume and taken.record is not None:
            self._drive_alone(taken.record.run_id)  # it was parked while the decision was under way

    # --- what front doors and SREs ask --------------------------------------------------------------------------------
    async def GetStatus(self, request: agent.GetStatusRequest, context: object) -> agent.GetStatusResponse:
        runtime = self._runtime
        return agent.GetStatusResponse(
            tenant=runtime.config.tenant if runtime else "",
            revision=runtime.config.revision if runtime else "",
            config_hash=runtime.hash if runtime else "",
            draining=self.draining,
            active_runs=len(self._runs),
            config_error=self.watcher.error if self.watcher else "",
            connectors=status.connector_statuses(runtime) if runtime else (),
            route_problems=runtime.route_problems if runtime else (),
            **_credentials(runtime),
        )

    async def ListTools(self, request: agent.ListToolsRequest, context: Any) -> agent.ListToolsResponse:
        return status.list_tools(await self._of_tenant(request.tenant, context))

    # --- accounts: what the gateway's page asks -----------------------------------------------------------------------
    async def ListAccounts(self, request: agent.ListAccountsRequest, context: Any) -> agent.ListAccountsResponse:
        runtime = await self._of_tenant(request.tenant, context)
        return await self._administer(accounts.list_accounts(runtime, request), context)

    async def BeginLink(self, request: agent.BeginLinkRequest, context: Any) -> agent.BeginLinkResponse:
        return await accounts.begin_link(await self._of_tenant(request.tenant, context), request)

    async def FinishLink(self, request: agent.FinishLinkRequest, context: Any) -> agent.FinishLinkResponse:
        runtime = await self._of_tenant(request.tenant, context)
        # a browser that goes away must not lose tokens that were given
        return await asyncio.shield(self._spawn(accounts.finish_link(runtime, request)))

    async def Unlink(self, request: agent.UnlinkRequest, context: Any) -> agent.UnlinkResponse:
        runtime = await self._of_tenant(request.tenant, context)
        return await asyncio.shield(self._spawn(accounts.unlink(runtime, request)))

    async def Decide(self, request: agent.DecideRequest, context: Any) -> agent.DecideResponse:
        runtime = await self._of_tenant(request.tenant, context)
        if not request.decider.email and not request.override:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "it is not known who decides; nothing changed")
        try:
            decision = await runtime.ledger.decide(
                request.approval_id,
                approved=request.approved,
                decider=wire.asker(request.decider),
                override=request.override,
            )
        except LedgerUnavailable as error:
            await self._no_ledger(error, context)
        record = decision.record
        if record is not None and decision.verdict is Verdict.DECIDED:
            self._publish_decision(runtime, request.decider.email, record)
            if (entry := self._runs.get(record.run_id)) is not None:
                entry[0].decided(decision)
        return agent.DecideResponse(
            outcome=wire.VERDICTS[decision.verdict],
            message=wire.VERDICT_MESSAGES[decision.verdict],
            session_id=record.session_id if record else "",
            run_id=record.run_id if record else "",
            resume=decision.resume,
        )

    def _publish_decision(self, runtime: Runtime, email: str, record: Any) -> None:
        event = events.RunEvent(
            tenant=runtime.config.tenant,
            session_id=record.session_id,
            run_id=record.run_id,
            revision=runtime.config.revision,
            worker=self._worker,
            user=record.user_email,
            approval_decided=wire.approval_decided(record),
        )
        wire.stamp(event)
        runtime.events.publish(event.SerializeToString())
        _log.info("approval decided", approval=record.approval_id, approved=record.approved, by=email)

    async def ListApprovals(self, request: agent.ListApprovalsRequest, context: Any) -> agent.ListApprovalsResponse:
        runtime = await self._of_tenant(request.tenant, context)
        return await self._administer(admin.list_approvals(runtime, request), context)

    async def ListDeadLetters(
        self, request: agent.ListDeadLettersRequest, context: Any
    ) -> agent.ListDeadLettersResponse:
        runtime = await self._of_tenant(request.tenant, context)
        return await self._administer(admin.list_dead_letters(runtime, request), context)

    async def ListCosts(self, request: agent.ListCostsRequest, context: Any) -> agent.ListCostsResponse:
        runtime = await self._of_tenant(request.tenant, context)
        return await self._administer(admin.list_costs(runtime, request, datetime.now(UTC)), context)

    async def ReplayDeadLetter(
        self, request: agent.ReplayDeadLetterRequest, context: Any
    ) -> agent.ReplayDeadLetterResponse:
        runtime = await self._of_tenant(request.tenant, context)
        # a client that goes away must not cut a write off
        work = self._spawn(admin.replay(runtime, request, time.monotonic()))
        return await self._administer(asyncio.shield(work), context)

    async def DiscardDeadLetter(
        self, request: agent.DiscardDeadLetterRequest, context: Any
    ) -> agent.DiscardDeadLetterResponse:
        runtime = await self._of_tenant(request.tenant, context)
        return await self._administer(admin.discard(runtime, request), context)

    async def SetBreaker(self, request: agent.SetBreakerRequest, context: Any) -> agent.SetBreakerResponse:
        runtime = await self._of_tenant(request.tenant, context)
        await self._administer(admin.set_breaker(runtime, request), context)
        return agent.SetBreakerResponse()

    async def _of_tenant(self, tenant: str, context: Any) -> Runtime:
        if self._runtime is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this agent has no configuration yet")
        assert self._runtime is not None
        if tenant != self._runtime.config.tenant:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this agent serves another organisation")
        return self._runtime

    async def _administer(self, work: Awaitable[_Answer], context: Any) -> _Answer:
        try:
            return await work
        except admin.Refusal as refusal:
            code = grpc.StatusCode.NOT_FOUND if refusal.missing else grpc.StatusCode.FAILED_PRECONDITION
            await context.abort(code, str(refusal))
            raise
        except LedgerUnavailable as error:
            await self._no_ledger(error, context)

    async def _no_ledger(self, error: LedgerUnavailable, context: Any) -> NoReturn:
        _log.warning("the ledger can't be asked", error=str(error))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the ledger can't be asked; nothing changed, try again")
        raise AssertionError("abort raises")

    # --- the end ------------------------------------------------------------------------------------------------------
    async def drain(self, grace_seconds: float) -> None:
        """Take nothing new; let what runs finish, and hand over to other workers what has not after ``grace_seconds``.
        Writes that are under way are waited for."""
        self.draining = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        tasks = [task for _, task in self._runs.values()]
        if not tasks:
            return
        if grace_seconds > 0:
            await asyncio.wait(tasks, timeout=grace_seconds)
        late = [(driver, task) for driver, task in self._runs.values() if not task.done()]
        for driver, _ in late:
            driver.hand_over()
        if late:
            await asyncio.wait([task for _, task in late], timeout=_WRITES_SECONDS)

    async def aclose(self) -> None:
        """Close what the configuration opened; what is queued for the ledger and as events is written."""
        if self._runtime is not None:
            await self._runtime.aclose()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=3.0)
        await self._tracing.aclose()
