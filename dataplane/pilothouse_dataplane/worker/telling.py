"""What a run says of its steps: to the client, and to whoever reads the tenant's events."""

from __future__ import annotations

import time
from collections.abc import Iterable

from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.core.state import Step
from pilothouse_dataplane.worker import messages as wire
from pilothouse_dataplane.worker.publish import RunEvents
from pilothouse_dataplane.worker.stream import Outlet
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as events


class Teller:
    """Tells of one run's steps, and remembers how they ended for a client that comes later."""

    def __init__(self, outlet: Outlet, sink: RunEvents) -> None:
        self._outlet = outlet
        self._sink = sink
        self._began: dict[str, float] = {}
        self._ended: dict[str, tuple[Outcome, str, float, str]] = {}
        """By step: how it ended, its summary, the seconds it took, as whom it was done. A message would take a
        kilobyte."""
        self._planning_since: float | None = None

    def planning(self) -> None:
        """The model begins to plan: a model takes its time to the first word, and a person wants to see that it works.
        It is told once, as a step of the tool ``plan``."""
        if self._planning_since is None:
            self._planning_since = time.monotonic()
            self._tell_started(wire.planning())

    def planned(self) -> None:
        """The first part of the plan, or of an answer, is there."""
        if self._planning_since is not None:
            took = time.monotonic() - self._planning_since
            self._planning_since = None
            self._tell_finished(wire.planned(took))

    def plan(self, steps: tuple[Step, ...]) -> None:
        message = wire.plan(steps)
        self._outlet.emit(plan=message)
        self._sink.publish(plan=message)

    def started(self, step: Step) -> None:
        self._began[step.id] = time.monotonic()
        self._tell_started(wire.step_started(step))

    def finished(self, step: Step, result: ToolResult, summary: str = "") -> None:
        """``summary`` stands for the result's own."""
        now = time.monotonic()
        took = now - self._began.pop(step.id, now)
        ended = self._ended[step.id] = (result.outcome, summary or result.summary, took, result.account)
        self._tell_finished(wire.step_finished(step, *ended))

    def took_over(self, steps: Iterable[Step]) -> None:
        """These ended on another worker."""
        for step in steps:
            if step.result is not None:
                self._ended[step.id] = (step.result.outcome, step.result.summary, 0.0, step.result.account)

    def resumed(self, worker: str, revision: str, reason: str, steps: tuple[Step, ...]) -> None:
        """Where the run stands: what has ended, then what is still planned."""
        ended = [wire.step_finished(step, *self._ended[step.id]) for step in steps if step.id in self._ended]
        self._outlet.emit(resumed=agent.Resumed(worker=worker, revision=revision, reason=reason, steps=ended))
        if planned := tuple(step for step in steps if step.result is None):
            self._outlet.emit(plan=wire.plan(planned))
        for step in planned:
            if step.id in self._began:
                self._outlet.emit(step_started=wire.step_started(step))

    def why_resumed(self, reason: str) -> None:
        """For those who read events."""
        self._sink.publish(run_resumed=events.RunResumed(reason=reason))

    def _tell_started(self, message: agent.StepStarted) -> None:
        self._outlet.emit(step_started=message)
        self._sink.publish(step_started=message)

    def _tell_finished(self, message: agent.StepFinished) -> None:
        self._outlet.emit(step_finished=message)
        self._sink.publish(step_finished=message)
