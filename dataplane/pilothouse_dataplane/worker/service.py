"""The Agent service: takes asks in, streams a run's events out, and holds the configuration in use.

A run that is asked again (same run_id) while it is under way is refused; attaching to it comes with the ledger.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import structlog

from pilothouse_dataplane.core.guard import BreakerChange, GuardRegistry
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.config import ConfigWatcher, LoadedConfig
from pilothouse_dataplane.worker.driver import RunDriver
from pilothouse_dataplane.worker.runtime import Runtime, RuntimeFactory
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.agent.v1 import agent_pb2_grpc
from pilothouse_proto.events.v1 import events_pb2 as events

MAX_TEXT_CHARS = 16_000
_FIRST_MESSAGE_SECONDS = 10.0
_ID = re.compile(r"^[A-Za-z0-9_.:-]{1,128}$")
"""Session and run ids stand in Redis keys, whose braces have a meaning."""
_log = structlog.get_logger()


class AgentService(agent_pb2_grpc.AgentServicer):
    """One worker's service."""

    def __init__(self, worker: str, factory: RuntimeFactory) -> None:
        self._worker = worker
        self._factory = factory
        self._guards = GuardRegistry(time.monotonic, self._breaker_changed)
        self._runtime: Runtime | None = None
        self._runs: dict[str, tuple[RunDriver, asyncio.Task[None]]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.watcher: ConfigWatcher | None = None
        self.draining = False

    # --- configuration ------------------------------------------------------------------------------------------------
    async def apply(self, loaded: LoadedConfig) -> None:
        """Use this configuration for new runs. Raises ConfigError, and then the old one stays."""
        fresh = self._factory(loaded, self._guards)
        old, self._runtime = self._runtime, fresh
        if old is not None:
            old.retired = True
            self._close_unused(old)

    def _close_unused(self, runtime: Runtime) -> None:
        if runtime.retired and runtime.users == 0:
            task = asyncio.create_task(runtime.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _breaker_changed(self, change: BreakerChange) -> None:
        _log.info("breaker changed", name=change.name, state=change.state.value, reason=change.reason)
        runtime = self._runtime
        if runtime is None:
            return
        event = events.RunEvent(
            tenant=runtime.config.tenant,
            revision=runtime.config.revision,
            worker=self._worker,
            breaker_changed=events.BreakerChanged(
                name=change.name,
                state=wire.BREAKER_STATES[change.state],
                failure_rate_percent=change.failure_rate_percent,
                reason=change.reason[:300],
            ),
        )
        event.time.GetCurrentTime()
        runtime.events.publish(event.SerializeToString())

    @property
    def loaded(self) -> bool:
        """A configuration is in use."""
        return self._runtime is not None

    @property
    def active_runs(self) -> int:
        return len(self._runs)

    # --- the service --------------------------------------------------------------------------------------------------
    async def GetStatus(self, request: agent.GetStatusRequest, context: object) -> agent.GetStatusResponse:
        runtime = self._runtime
        return agent.GetStatusResponse(
            tenant=runtime.config.tenant if runtime else "",
            revision=runtime.config.revision if runtime else "",
            config_hash=runtime.hash if runtime else "",
            draining=self.draining,
            active_runs=len(self._runs),
            config_error=self.watcher.error if self.watcher else "",
        )

    async def Converse(
        self, request_iterator: AsyncIterator[agent.ConverseRequest], context: object
    ) -> AsyncIterator[agent.ConverseEvent]:
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
                first = await anext(aiter(request_iterator))
        except (TimeoutError, StopAsyncIteration):
            yield self._refusal("", wire.invalid("The conversation must begin with an ask."))
            return
        if (error := self._check(first)) is not None:
            yield self._refusal(first.ask.run_id, error)
            return
        driver = self._begin(first.ask)
        reader = asyncio.create_task(self._read(request_iterator, driver))
        ended = False
        try:
            while (event := await driver.out.get()) is not None:
                yield event
            ended = True
        finally:
            reader.cancel()
            if not ended:  # the client went away, or cancelled: nobody reads on, so nothing goes on
                driver.stop("The connection was closed")

    def _refusal(self, run_id: str, error: agent.Error) -> agent.ConverseEvent:
        event = agent.ConverseEvent(sequence=1, run_id=run_id, error=error)
        event.time.GetCurrentTime()
        return event

    def _check(self, request: agent.ConverseRequest) -> agent.Error | None:
        """Why an ask can't be taken; None where it can."""
        ask, runtime = request.ask, self._runtime
        if request.WhichOneof("request") != "ask":
            return wire.invalid("The conversation must begin with an ask.")
        if self.draining:
            return wire.unavailable("is shutting down")
        if runtime is None:
            return wire.unavailable("has no configuration yet")
        if ask.tenant != runtime.config.tenant:
            return wire.wrong_tenant()
        if not ask.user.email:
            return wire.unauthenticated()
        if not _ID.match(ask.session_id) or not _ID.match(ask.run_id):
            return wire.invalid("The session's or the run's id is missing or has characters that are not allowed.")
        if not ask.text.strip() or len(ask.text) > MAX_TEXT_CHARS:
            return wire.invalid(f"The text must have 1 to {MAX_TEXT_CHARS:,} characters.")
        if ask.run_id in self._runs:
            return wire.already_running()
        if len(self._runs) >= runtime.config.concurrent_runs:
            return wire.too_many(runtime.config.concurrent_runs)
        return None

    def _begin(self, ask: agent.Ask) -> RunDriver:
        runtime = self._runtime
        assert runtime is not None  # checked by the caller, and nothing was awaited since
        runtime.users += 1
        driver = RunDriver(runtime, ask, self._worker)
        task = asyncio.create_task(driver.run(), name=f"run {ask.run_id}")
        self._runs[ask.run_id] = (driver, task)

        def ended(_task: asyncio.Task[None]) -> None:
            del self._runs[ask.run_id]
            runtime.users -= 1
            self._close_unused(runtime)

        task.add_done_callback(ended)
        return driver

    async def _read(self, requests: AsyncIterator[agent.ConverseRequest], driver: RunDriver) -> None:
        async for request in requests:
            if request.WhichOneof("request") == "stop":
                driver.stop("You stopped this")
                return

    # --- the end ------------------------------------------------------------------------------------------------------
    async def drain(self, grace_seconds: float) -> None:
        """Take nothing new; let what runs finish, and after ``grace_seconds`` end it with what there is."""
        self.draining = True
        tasks = [task for _, task in self._runs.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_seconds)
            for driver, task in tuple(self._runs.values()):
                if task in late:
                    driver.stop("This agent had to shut down")
            if late:
                await asyncio.wait(late, timeout=3.5)

    async def aclose(self) -> None:
        """Close what the configuration opened."""
        if self._runtime is not None:
            await self._runtime.aclose()
        if self._closing:
            await asyncio.wait(self._closing, timeout=3.0)
