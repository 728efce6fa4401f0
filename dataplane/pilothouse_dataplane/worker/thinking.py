"""A run's calls of the model: what is asked with which situation, turned into the run's events as it streams, and told.

Which tier is asked is no part of the run's journal: a run that another worker takes over may be routed differently,
and decides the same from what the model said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from pilothouse_api.workerconfig import Tier
from pilothouse_dataplane.core import state as flow
from pilothouse_dataplane.core.messages import ModelRequest, Situation, ToolCall, Usage
from pilothouse_dataplane.core.timing import Cause
from pilothouse_dataplane.ledger.base import BookedCall, Claim
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelError,
    ModelLimited,
    ModelOverBudget,
    ModelRejected,
    ModelRestarted,
    ModelText,
    ModelToolCall,
    Stop,
)
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_dataplane.models.gateway import ModelGateway
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.clock import RunClock
from pilothouse_dataplane.worker.permissions import permissions_of
from pilothouse_dataplane.worker.publish import RunEvents
from pilothouse_dataplane.worker.runtime import Runtime
from pilothouse_dataplane.worker.tracing import RunSpans, Span

_WILL_FAIL_AGAIN = (ModelDenied, ModelRejected, ModelOverBudget)
_END_SECONDS = 0.5
_CUT: dict[Stop, str] = {
    "length": "\n\n(The answer was cut off here: it reached the length that one answer may have. Ask for the rest.)",
    "filter": "\n\n(The answer was cut off here by the model provider's filter.)",
}
_log = structlog.get_logger()


class Thinking:
    """The model calls of one run on one worker."""

    def __init__(
        self,
        runtime: Runtime,
        claim: Claim,
        clock: RunClock,
        spans: RunSpans,
        sink: RunEvents,
        put: Callable[[flow.Event], None],
        spent: Usage,
    ) -> None:
        """``spent``: by the workers that had the run before."""
        self._runtime = runtime
        self._claim = claim
        self._clock = clock
        self._spans = spans
        self._sink = sink
        self._put = put
        self._calls = 0
        self._permissions: str | None = None
        self._over = asyncio.Event()
        """No call is under way."""
        self._over.set()
        self._planned_by: Tier | None = None
        self._least: Tier | None = None
        self.spent = spent
        """By the whole run, calls that were cut off included."""

    async def think(self, action: flow.CallModel) -> None:
        """One turn of the model. Never raises, but for CancelledError."""
        span = self._spans.plan()
        self._clock.begin(Cause.MODEL)
        error = "cancelled"
        self._over.clear()
        try:
            request = ModelRequest(
                action.messages,
                action.tools,
                allow_tools=action.offer_tools,
                situation=await self._situation(action.situation),
            )
            error = await think(
                self._runtime.models,
                request,
                self._clock.deadline,
                action.budget_micros,
                self._put,
                lambda record: self._called(record, span),
            )
        finally:
            self._clock.end(Cause.MODEL)
            span.end(error)
            self._over.set()

    async def ended(self) -> None:
        """Until a call that was cancelled has closed its stream, and said what it cost; for at most half a second."""
        if not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await self._over.wait()

    async def _situation(self, known: Situation) -> Situation:
        asker = self._claim.run.asker
        if self._permissions is None:
            cached = self._runtime.config.route.cache_seconds > 0  # nothing else needs them
            self._permissions = await permissions_of(self._runtime, asker) if cached else ""
        return replace(
            known,
            user_email=asker.email,
            groups=asker.groups,
            permissions=self._permissions,
            planned_by=self._planned_by,
            least=self._least,
        )

    def _called(self, record: ModelCallRecord, span: Span) -> None:
        self._calls += 1
        self.spent += record.usage
        if not record.aborted:
            self._planned_by = record.tier
            if record.escalated:
                self._least = record.tier
        self._spans.called(span, record)
        key, run = self._claim.key, self._claim.run
        call_id = f"{key.run_id}/{key.fence}.{self._calls}"
        at = datetime.now(UTC)  # one moment for both: whoever adds the ledger's sum and later events splits them by it
        self._runtime.ledger.book(
            BookedCall(call_id, at, key.run_id, run.session_id, run.asker.email, self._runtime.config.revision, record)
        )
        self._sink.publish(at, model_called=wire.model_called(call_id, record))


async def think(
    models: ModelGateway,
    request: ModelRequest,
    deadline: float,
    budget_micros: int | None,
    put: Callable[[flow.Event], None],
    on_call: Callable[[ModelCallRecord], None],
) -> str:
    """Stream one turn into ``put``: texts and calls as they come, then ModelFinished or ModelFailed.

    ``deadline`` is on ``time.monotonic``. Returns the class of error, "" where it went well. Never raises, but for
    CancelledError.
    """
    calls: list[ToolCall] = []
    spent = Usage()

    def record(made: ModelCallRecord) -> None:
        nonlocal spent
        spent += made.usage
        on_call(made)

    try:
        stream = models.stream(request, deadline=deadline, on_call=record, budget_micros=budget_micros)
        async with aclosing(stream) as answer:
            async for event in answer:
                if isinstance(event, ModelText):
                    put(flow.TextArrived(event.text))
                elif isinstance(event, ModelToolCall):
                    calls.append(event.call)
                    put(flow.CallArrived(event.call))
                elif isinstance(event, ModelRestarted):
                    calls.clear()
                    put(flow.ModelRestarted(event.after_text))
                elif not calls and (note := _CUT.get(event.stop)):
                    put(flow.TextArrived(note))
    except ModelError as error:
        _log.warning("model call failed", error=str(error))
        limited = isinstance(error, ModelLimited)
        put(flow.ModelFailed(str(error), not isinstance(error, _WILL_FAIL_AGAIN), spent, limited))
        return type(error).__name__
    except Exception:
        _log.exception("model call failed")
        put(flow.ModelFailed("The model could not be asked", True, spent))
        return "internal"
    put(flow.ModelFinished(tuple(calls), spent))
    return ""
