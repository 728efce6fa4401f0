"""One run as a state machine of plain data: ``(state, event, now) → (state, actions)``.

::

                    ┌──────────────────────── every tool call is back ───────────────┐
                    ▼                                                                │
    start ──▶ THINKING ── the model asks for tools ──▶ ACTING (all calls in parallel) ┘
                    │                                     │
                    │ the model answers                   │ deadline, stop
                    ▼                                     ▼
                  DONE ◀── deadline, stop, model down, bounds ── DONE (partial, says what was done)

Bounds: at most ``max_steps`` rounds of tool calls, then one model call without tools; ``max_calls_per_round`` tool
calls in a round; ``deadline`` for the whole. Every bound ends in an answer that says what was done and what was not.

Time model: ``now`` and ``deadline`` are seconds of one monotonic clock.

Seams: a ledger records each ``StartTool`` of a write before the driver obeys it and replays ``ToolFinished``
from its records; an approval puts a wait between ``ModelFinished`` and ``StartTool``; early start feeds a tool call
before ``ModelFinished``. Each of them is one more event or phase here; drivers only obey actions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from pilothouse_dataplane.core.messages import (
    Citation,
    Effect,
    JsonObject,
    Message,
    Outcome,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from pilothouse_dataplane.core.report import StepReport, bounded_data, partial_answer
from pilothouse_dataplane.core.schema import ArgumentsError, parse_arguments

MAX_CITATIONS = 10
_EMPTY_NUDGE = "Your last reply was empty. Answer the user now, in one or two sentences."


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run."""

    max_steps: int = 8
    """Rounds of tool calls."""
    max_calls_per_round: int = 16
    max_answer_chars: int = 64_000
    result_bytes: int = 16_384
    """Of one tool's result, as the model reads it."""


class Phase(Enum):
    """Where a run stands."""

    THINKING = "thinking"
    ACTING = "acting"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Step:
    """One tool call of the run."""

    id: str
    call: ToolCall
    tool: Tool | None
    """None: the model named a tool that isn't there."""
    arguments: JsonObject
    fingerprint: str
    """Tool and canonical arguments: two writes with the same fingerprint are the same write."""
    result: ToolResult | None = None

    @property
    def name(self) -> str:
        return self.tool.name if self.tool else self.call.name[:80]


@dataclass(frozen=True, slots=True)
class RunState:
    """All there is to know about a run. Make it with ``start``."""

    run_id: str
    tools: Mapping[str, Tool]
    """By ``Tool.model_name``."""
    limits: Limits
    deadline: float
    messages: tuple[Message, ...]
    phase: Phase = Phase.THINKING
    rounds: int = 0
    """Rounds of tool calls begun."""
    steps: tuple[Step, ...] = ()
    text: str = ""
    """What the present model call has written so far."""
    empty_answers: int = 0
    usage: Usage = field(default_factory=Usage)


# --- events -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TextArrived:
    """The model wrote some text."""

    text: str


@dataclass(frozen=True, slots=True)
class ModelFinished:
    """The model's turn is complete; its text came as ``TextArrived``."""

    tool_calls: tuple[ToolCall, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """No provider answered. ``message`` is a sentence for the user."""

    message: str
    retryable: bool = True
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool call came back."""

    step_id: str
    result: ToolResult


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The run's time is over."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The user, or the worker's end, stops the run."""

    reason: str


Event = TextArrived | ModelFinished | ModelFailed | ToolFinished | DeadlineReached | StopRequested


# --- actions ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CallModel:
    """Call the model; ``offer_tools`` is False for the last call that the bounds allow."""

    messages: tuple[Message, ...]
    offer_tools: bool


@dataclass(frozen=True, slots=True)
class ShowPlan:
    """Tell the user what is about to be done."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class StartTool:
    """Call a tool. ``key`` is the same for the same step of the same run."""

    step: Step
    key: str


@dataclass(frozen=True, slots=True)
class FinishStep:
    """Tell the user how a step ended."""

    step: Step
    result: ToolResult


@dataclass(frozen=True, slots=True)
class ShowText:
    """Pass text on to the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The run ends with an answer; everything still under way is to be cancelled."""

    text: str
    partial: bool
    stopped: bool
    citations: tuple[Citation, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Fail:
    """The run ends without an answer: nothing was done."""

    message: str
    retryable: bool
    usage: Usage


Action = CallModel | ShowPlan | StartTool | FinishStep | ShowText | Answer | Fail
Transition = tuple[RunState, tuple[Action, ...]]


def start(
    run_id: str, messages: tuple[Message, ...], tools: tuple[Tool, ...], limits: Limits, deadline: float
) -> Transition:
    """A run that begins: its first action is the plan's model call."""
    state = RunState(run_id, {tool.model_name: tool for tool in tools}, limits, deadline, messages)
    return _think(state)


def advance(state: RunState, event: Event, now: float) -> Transition:
    """The state after an event and what is to be done. Events that no longer matter change nothing."""
    if state.phase is Phase.DONE:
        return state, ()
    if isinstance(event, StopRequested):
        return _end(state, event.reason, stopped=True)
    if isinstance(event, DeadlineReached) or now >= state.deadline:
        # a result that comes together with the deadline is still worth telling
        if isinstance(event, ToolFinished):
            state, actions = _settle(state, event)
            state, more = _end(state, "I ran out of time")
            return state, actions + more
        return _end(state, "I ran out of time")
    if isinstance(event, ToolFinished):
        return _observe(state, event)
    if state.phase is not Phase.THINKING:
        return state, ()
    if isinstance(event, TextArrived):
        return _text(state, event)
    if isinstance(event, ModelFinished):
        return _decide(replace(state, usage=state.usage + event.usage), event)
    state = replace(state, usage=state.usage + event.usage)
    if state.steps or state.text.strip():
        return _end(state, event.message)
    return replace(state, phase=Phase.DONE), (Fail(event.message, event.retryable, state.usage),)


def _think(state: RunState) -> Transition:
    offer = bool(state.tools) and state.rounds < state.limits.max_steps
    return replace(state, phase=Phase.THINKING, text=""), (CallModel(state.messages, offer),)


def _text(state: RunState, event: TextArrived) -> Transition:
    room = state.limits.max_answer_chars - len(state.text)
    state = replace(state, text=state.text + event.text[:room])
    shown: tuple[Action, ...] = (ShowText(event.text[:room]),) if room > 0 and event.text else ()
    if len(event.text) > room:
        state, actions = _end(state, "The answer grew too long")
        return state, shown + actions
    return state, shown


def _decide(state: RunState, event: ModelFinished) -> Transition:
    """The model's turn is over: an answer, tool calls, or nothing at all."""
    if event.tool_calls:
        if state.rounds >= state.limits.max_steps:
            return _end(state, f"I stopped after {state.limits.max_steps} rounds of steps")
        return _act(state, event.tool_calls)
    if state.text.strip():
        answer = Answer(state.text, partial=False, stopped=False, citations=_citations(state), usage=state.usage)
        return replace(state, phase=Phase.DONE), (answer,)
    if state.empty_answers == 0:
        nudged = (*state.messages, Message("user", _EMPTY_NUDGE))
        return _think(replace(state, empty_answers=1, messages=nudged))
    return _end(state, "The model gave no answer")


def _act(state: RunState, calls: tuple[ToolCall, ...]) -> Transition:
    kept = calls[: state.limits.max_calls_per_round]
    first = len(state.steps) + 1
    named = tuple(replace(call, id=call.id or f"call_{state.rounds}_{i}") for i, call in enumerate(kept))
    problems: dict[str, str] = {}
    fresh = []
    for offset, call in enumerate(named):
        step, problem = _step(state, f"s{first + offset}", call)
        fresh.append(step)
        if problem:
            problems[step.id] = problem
    spoken = Message("assistant", state.text, tool_calls=named)
    actions: list[Action] = [ShowPlan(tuple(fresh))]
    if state.text.strip():
        actions.append(ShowText("\n\n"))  # what the model writes next is another paragraph
    earlier = state.steps
    state = replace(
        state,
        phase=Phase.ACTING,
        rounds=state.rounds + 1,
        steps=(*earlier, *fresh),
        messages=(*state.messages, spoken),
        text="",
    )
    done: list[ToolFinished] = []
    writes = {step.fingerprint for step in earlier if _may_have_written(step)}
    for step in fresh:
        if step.id in problems:
            done.append(ToolFinished(step.id, ToolResult(Outcome.REFUSED, problems[step.id])))
        elif step.tool and step.tool.effect is not Effect.READ and step.fingerprint in writes:
            summary = "This exact change was already sent in this run; it was not sent again."
            done.append(ToolFinished(step.id, ToolResult(Outcome.REFUSED, summary)))
        else:
            if step.tool and step.tool.effect is not Effect.READ:
                writes.add(step.fingerprint)
            actions.append(StartTool(step, key=f"{state.run_id}/{step.id}"))
    for event in done:
        state, more = _observe(state, event)
        actions.extend(more)
    return state, tuple(actions)


def _step(state: RunState, step_id: str, call: ToolCall) -> tuple[Step, str]:
    """The step of a call and, where it can't be made, a sentence that says why."""
    tool = state.tools.get(call.name)
    if tool is None:
        return Step(step_id, call, None, {}, ""), f"There is no tool {call.name[:80]!r}."
    try:
        arguments = parse_arguments(tool.parameters, call.arguments)
    except ArgumentsError as error:
        return Step(step_id, call, tool, {}, ""), f"{tool.name} was not called: {error}."
    fingerprint = f"{tool.name}:{json.dumps(arguments, sort_keys=True)}"
    return Step(step_id, call, tool, arguments, fingerprint), ""


def _may_have_written(step: Step) -> bool:
    wrote = step.result is None or step.result.outcome in (Outcome.SUCCEEDED, Outcome.UNKNOWN)
    return wrote and bool(step.fingerprint)


def _settle(state: RunState, event: ToolFinished) -> Transition:
    """Note a step's result."""
    for index, step in enumerate(state.steps):
        if step.id == event.step_id and step.result is None:
            step = replace(step, result=event.result)
            steps = (*state.steps[:index], step, *state.steps[index + 1 :])
            return replace(state, steps=steps), (FinishStep(step, event.result),)
    return state, ()


def _observe(state: RunState, event: ToolFinished) -> Transition:
    state, actions = _settle(state, event)
    if not actions or any(step.result is None for step in state.steps):
        return state, actions
    # the results stand in the order of the calls, not in that of their coming back
    spoken = state.messages[-1]
    round_steps = state.steps[len(state.steps) - len(spoken.tool_calls) :]
    results = tuple(
        Message("tool", bounded_data(step.result, state.limits.result_bytes), tool_call_id=step.call.id)
        for step in round_steps
        if step.result is not None
    )
    state, more = _think(replace(state, messages=state.messages + results))
    return state, actions + more


def _citations(state: RunState) -> tuple[Citation, ...]:
    found: dict[str, Citation] = {}
    for step in state.steps:
        for citation in step.result.citations if step.result else ():
            found.setdefault(citation.url, citation)
    return tuple(found.values())[:MAX_CITATIONS]


def _end(state: RunState, why: str, *, stopped: bool = False) -> Transition:
    """End early: settle what is under way, then say what was done and what was not."""
    actions: list[Action] = []
    for step in state.steps:
        if step.result is None:
            writes = step.tool is not None and step.tool.effect is not Effect.READ
            result = (
                ToolResult(Outcome.UNKNOWN, f"{step.name} was cut off; whether it took effect is not known.")
                if writes
                else ToolResult(Outcome.FAILED, f"{step.name} was not finished.")
            )
            state, more = _settle(state, ToolFinished(step.id, result))
            actions.extend(more)
    reports = [StepReport(s.name, s.result.outcome, s.result.summary) for s in state.steps if s.result is not None]
    text = partial_answer(state.text, why, reports)
    actions.append(Answer(text, partial=True, stopped=stopped, citations=_citations(state), usage=state.usage))
    return replace(state, phase=Phase.DONE), tuple(actions)
