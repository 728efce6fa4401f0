"""Obeys a run's actions: model calls, tool calls, what the user sees, what is remembered and published.

One task a run; everything that comes back goes through one queue into ``core.run.advance``, which decides. When the run
ends, whatever is still under way is cancelled at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import structlog

from pilothouse_dataplane.connectors.base import CallContext
from pilothouse_dataplane.core import run as flow
from pilothouse_dataplane.core.messages import Effect, ModelRequest, Outcome, ToolCall, ToolResult, Usage
from pilothouse_dataplane.memory.short_term import MemoryUnavailable
from pilothouse_dataplane.models.base import ModelDenied, ModelError, ModelRejected, ModelText, ModelToolCall
from pilothouse_dataplane.models.gateway import ModelCallRecord
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.prompt import opening
from pilothouse_dataplane.worker.runtime import Runtime
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as events

TEXT_BATCH_SECONDS = 0.03
_NOT_SAVED = "\n\n(This answer could not be saved to our conversation; a follow-up may not know of it.)"
_log = structlog.get_logger()


class RunDriver:
    """One run, from the stored question to ``final`` or ``error``."""

    def __init__(self, runtime: Runtime, ask: agent.Ask, worker: str) -> None:
        self._runtime = runtime
        self._ask = ask
        self._worker = worker
        self._began = time.monotonic()
        self._inbox: asyncio.Queue[flow.Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._step_began: dict[str, float] = {}
        self._sequence = 0
        self._text: list[str] = []
        self._text_timer: asyncio.TimerHandle | None = None
        self.out: asyncio.Queue[agent.ConverseEvent | None] = asyncio.Queue()
        """What goes to the client; None is the end. Bounded by the run's own bounds."""

    def stop(self, reason: str) -> None:
        """End the run with what there is. ``reason`` begins the sentence that the user reads."""
        self._inbox.put_nowait(flow.StopRequested(reason))

    async def run(self) -> None:
        """Drive the run to its end. Never raises, except when it is cancelled itself."""
        structlog.contextvars.bind_contextvars(run=self._ask.run_id, session=self._ask.session_id)
        try:
            await self._drive()
        except Exception:
            _log.exception("run failed")
            self._emit(error=wire.internal())
            self._finished(events.RUN_OUTCOME_FAILED, Usage(), "internal error")
        finally:
            self._cancel_tasks()
            self._flush_text()
            self.out.put_nowait(None)

    async def _drive(self) -> None:
        ask, config = self._ask, self._runtime.config
        try:
            earlier = await self._runtime.memory.begin(ask.session_id, ask.run_id, ask.text)
        except MemoryUnavailable as error:
            _log.warning("message not saved", error=str(error))
            self._emit(error=wire.not_saved())
            return
        self._emit(accepted=agent.Accepted(session_id=ask.session_id, revision=config.revision, worker=self._worker))
        self._publish(run_started=events.RunStarted(text=ask.text[:200]))
        user = ask.user.display_name or ask.user.email
        begin = opening(config.agent.instructions, config.display_name, user, earlier, ask.text)
        limits = flow.Limits(max_steps=config.agent.max_steps)
        deadline = self._began + config.agent.deadline_seconds
        state, actions = flow.start(ask.run_id, begin, self._runtime.toolset.tools, limits, deadline)
        while True:
            for action in actions:
                await self._obey(action, state)
            if state.phase is flow.Phase.DONE:
                return
            state, actions = flow.advance(state, await self._next(deadline), time.monotonic())

    async def _next(self, deadline: float) -> flow.Event:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await self._inbox.get()
        except TimeoutError:
            return flow.DeadlineReached()

    async def _obey(self, action: flow.Action, state: flow.RunState) -> None:
        match action:
            case flow.CallModel():
                self._spawn(self._think(action, state))
            case flow.ShowText():
                self._show(action.text)
            case flow.ShowPlan():
                plan = wire.planned(action.steps)
                self._emit(plan=plan)
                self._publish(plan=plan)
            case flow.StartTool():
                self._start_step(action.step)
                self._spawn(self._act(action, state.deadline))
            case flow.FinishStep():
                self._finish_step(action)
            case flow.Answer():
                await self._answer(action)
            case flow.Fail():
                self._cancel_tasks()
                self._emit(error=wire.model_failed(action))
                self._finished(events.RUN_OUTCOME_FAILED, action.usage, action.message)

    async def _think(self, action: flow.CallModel, state: flow.RunState) -> None:
        calls: list[ToolCall] = []
        spent = Usage()

        def on_call(record: ModelCallRecord) -> None:
            nonlocal spent
            spent += record.usage
            self._publish(
                model_called=events.ModelCalled(
                    provider=record.provider,
                    model=record.model,
                    tier=record.tier,
                    usage=wire.usage(record.usage),
                    duration_ms=round(record.duration_seconds * 1000),
                )
            )

        request = ModelRequest(action.messages, tuple(state.tools.values()), allow_tools=action.offer_tools)
        try:
            stream = self._runtime.models.stream(request, deadline=state.deadline, on_call=on_call)
            async with aclosing(stream) as answer:
                async for event in answer:
                    if isinstance(event, ModelText):
                        self._inbox.put_nowait(flow.TextArrived(event.text))
                    elif isinstance(event, ModelToolCall):
                        calls.append(event.call)
            self._inbox.put_nowait(flow.ModelFinished(tuple(calls), spent))
        except ModelError as error:
            _log.warning("model call failed", error=str(error))
            retryable = not isinstance(error, (ModelDenied, ModelRejected))
            self._inbox.put_nowait(flow.ModelFailed(str(error), retryable, spent))
        except Exception:
            _log.exception("model call failed")
            self._inbox.put_nowait(flow.ModelFailed("The model could not be asked", True, spent))

    async def _act(self, action: flow.StartTool, deadline: float) -> None:
        step = action.step
        assert step.tool is not None  # only steps with a tool are started
        context = CallContext(self._ask.user.email, action.key)
        try:
            result = await self._runtime.toolset.call(step.tool, step.arguments, context, deadline)
        except Exception:
            _log.exception("tool call failed", tool=step.name)
            read = step.tool.effect is Effect.READ
            result = ToolResult(
                Outcome.FAILED if read else Outcome.UNKNOWN,
                f"{step.name} failed." if read else f"{step.name} failed; whether it took effect is not known.",
            )
        self._inbox.put_nowait(flow.ToolFinished(step.id, result))

    async def _answer(self, answer: flow.Answer) -> None:
        self._cancel_tasks()
        text = answer.text
        try:
            await self._runtime.memory.finish(self._ask.session_id, self._ask.run_id, text)
        except MemoryUnavailable as error:
            _log.warning("answer not saved", error=str(error))
            text += _NOT_SAVED
        self._emit(final=wire.final(answer, text))
        outcome = events.RUN_OUTCOME_ANSWERED
        if answer.partial:
            outcome = events.RUN_OUTCOME_STOPPED if answer.stopped else events.RUN_OUTCOME_PARTIAL
        self._finished(outcome, answer.usage, "")

    def _start_step(self, step: flow.Step) -> None:
        self._step_began[step.id] = time.monotonic()
        started = agent.StepStarted(step_id=step.id, tool=step.name, summary=wire.step_summary(step))
        self._emit(step_started=started)
        self._publish(step_started=started)

    def _finish_step(self, action: flow.FinishStep) -> None:
        began = self._step_began.pop(action.step.id, time.monotonic())
        finished = agent.StepFinished(
            step_id=action.step.id,
            tool=action.step.name,
            outcome=wire.OUTCOMES[action.result.outcome],
            summary=action.result.summary,
            duration_ms=round((time.monotonic() - began) * 1000),
        )
        self._emit(step_finished=finished)
        self._publish(step_finished=finished)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel_tasks(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()

    def _show(self, text: str) -> None:
        """Text goes out in pieces of about 30 ms: each message costs as much as a short model chunk."""
        self._text.append(text)
        if self._text_timer is None:
            self._text_timer = asyncio.get_running_loop().call_later(TEXT_BATCH_SECONDS, self._flush_text)

    def _flush_text(self) -> None:
        if self._text_timer is not None:
            self._text_timer.cancel()
            self._text_timer = None
        if self._text:
            text = "".join(self._text)
            self._text.clear()
            self._send(agent.ConverseEvent(text_delta=agent.TextDelta(text=text)))

    def _emit(self, **event: Any) -> None:
        self._flush_text()
        self._send(agent.ConverseEvent(**event))

    def _send(self, event: agent.ConverseEvent) -> None:
        self._sequence += 1
        event.sequence = self._sequence
        event.run_id = self._ask.run_id
        event.time.GetCurrentTime()
        self.out.put_nowait(event)

    def _publish(self, **event: Any) -> None:
        ask, config = self._ask, self._runtime.config
        message = events.RunEvent(
            tenant=config.tenant,
            session_id=ask.session_id,
            run_id=ask.run_id,
            revision=config.revision,
            worker=self._worker,
            user=ask.user.email,
            **event,
        )
        message.time.GetCurrentTime()
        self._runtime.events.publish(message.SerializeToString())

    def _finished(self, outcome: events.RunOutcome.ValueType, usage: Usage, error: str) -> None:
        seconds = time.monotonic() - self._began
        self._publish(
            run_finished=events.RunFinished(
                outcome=outcome, usage=wire.usage(usage), duration_ms=round(seconds * 1000), error=error
            )
        )
        _log.info("run finished", outcome=events.RunOutcome.Name(outcome), seconds=round(seconds, 3), error=error)
