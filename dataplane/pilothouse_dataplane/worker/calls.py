"""The tool calls of one run that are under way on this worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from pilothouse_dataplane.connectors.base import CallContext, SecretText
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.core.state import SettleTool, StartTool, Step, ToolFinished
from pilothouse_dataplane.core.timing import Cause
from pilothouse_dataplane.ledger.base import Fenced
from pilothouse_dataplane.worker.clock import RunClock
from pilothouse_dataplane.worker.telling import Teller
from pilothouse_dataplane.worker.tracing import ACCOUNT, RunSpans
from pilothouse_dataplane.worker.writes import Writes

_log = structlog.get_logger()


class Calls:
    """Starts, settles and cancels tool calls; each result goes to ``put``."""

    def __init__(
        self,
        toolset: Toolset,
        writes: Writes,
        teller: Teller,
        spans: RunSpans,
        clock: RunClock,
        user_email: str,
        put: Callable[[ToolFinished], None],
        fenced: Callable[[], None],
        user_token: SecretText | None = None,
    ) -> None:
        """``fenced`` is called where a write learns that another worker has the run: nothing of it was sent.
        ``user_token``: what the user signed in with, for connectors that exchange it."""
        self._toolset = toolset
        self._writes = writes
        self._teller = teller
        self._spans = spans
        self._clock = clock
        self._user_email = user_email
        self._put = put
        self._fenced = fenced
        self._user_token = user_token
        self._under_way: dict[tuple[str, int], tuple[Step, asyncio.Task[None]]] = {}
        """By step and serial."""

    def start(self, action: StartTool) -> None:
        """Call a tool."""
        step = action.step
        if step.writes:
            self._begin(step, self._writes.send(step, action.key, lambda: self._teller.started(step)))
        else:
            self._teller.started(step)
            self._begin(step, self._read(step, action.key))

    def settle(self, action: SettleTool) -> None:
        """Find out what came of a write that another worker sent."""
        step = action.step
        self._teller.started(step)
        self._begin(step, self._writes.settle(step, action.key, lambda: None))

    def cancel(self, step: Step) -> None:
        """Give one call up."""
        if (entry := self._under_way.get((step.id, step.serial))) is not None:
            entry[1].cancel()

    def cancel_all(self, *, but_writes: bool = False) -> None:
        """Give all up, down to the socket."""
        current = asyncio.current_task()
        for step, task in tuple(self._under_way.values()):
            if task is not current and not (but_writes and step.writes):
                task.cancel()

    async def writes_back(self) -> None:
        """Wait until no write is under way. They are bounded by their own time-outs."""
        while writing := [task for step, task in self._under_way.values() if step.writes]:
            await asyncio.wait(writing)

    def _begin(self, step: Step, work: Coroutine[Any, Any, ToolResult]) -> None:
        key = (step.id, step.serial)
        task = asyncio.create_task(self._call(step, work))
        self._under_way[key] = (step, task)

        def ended(_: asyncio.Task[None]) -> None:
            self._under_way.pop(key, None)
            work.close()  # a task that was cancelled before it began has never awaited it

        task.add_done_callback(ended)

    async def _call(self, step: Step, work: Coroutine[Any, Any, ToolResult]) -> None:
        span = self._spans.tool(step)
        self._clock.begin(Cause.TOOLS)
        error = "cancelled"
        try:
            result = await work
            error = "" if result.outcome is Outcome.SUCCEEDED else result.outcome.value
            if result.account:
                span.set({ACCOUNT: result.account})
            self._put(ToolFinished(step.id, result, step.serial))
        except Fenced:
            error = "fenced"
            self.cancel_all()  # nothing more leaves, not even before the run's loop comes to it
            self._fenced()
        finally:
            self._clock.end(Cause.TOOLS)
            span.end(error)

    async def _read(self, step: Step, key: str) -> ToolResult:
        assert step.tool is not None  # only steps with a tool are started
        context = CallContext(self._user_email, key, self._clock.deadline, user_token=self._user_token)
        try:
            report = await self._toolset.call(step.tool, step.arguments, context)
        except Exception:
            _log.exception("tool call failed", tool=step.name)
            return ToolResult(Outcome.FAILED, f"{step.title} failed.")
        return report.result
