"""One run as a state machine: ``(state, event, now) → (state, actions)``. The data is in ``state.py``.

::

                 ┌───────────────────── every step of the round has ended ◀────────────────────────┐
                 ▼                                                                                 │
    start ──▶ THINKING ── the plan is complete ──▶ ACTING ── nothing runs, somebody must decide ──▶ PARKED
                 │  │  (reads start while it is        │  ▲                                        │
                 │  │   still being written)           │  └──────────── a decision ◀───────────────┘
                 │  │                                  │
                 │  └─ text without calls ─▶ DONE ◀────┴─ every step succeeded, and the plan brought its answer along
                 │                            ▲
                 └── deadline, stop, budget, bounds, model down: DONE, with an answer that says what was done

    a step:  PENDING ──▶ RUNNING ──▶ ENDED
                │  ▲        ▲
                ▼  │        │           PENDING: waits for a result, for the plan's end (writes), for its turn
             ASKING └──▶ APPROVED       every state ──▶ ENDED on refusal, stop, deadline

PARKED is ACTING with nothing under way: the action ``Park`` says so, and no worker needs to hold the run.

Bounds: ``max_steps`` rounds of calls, then one model call without tools; ``max_calls_per_round``; ``parallel_calls``;
the budget; the deadline. Each ends in an answer that says what was done and what was not.

What must survive the worker is said by ``Record``. ``resume`` gives the actions that are pending in a state that was
made again from those records; what the machine decided once, it decides the same way in a replay.

Time model: ``now`` and ``deadline`` are seconds of one clock that begins with the run and stands still while it is
parked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pilothouse_dataplane.core.approvals import ApprovalRequest, arguments_hash
from pilothouse_dataplane.core.catalog import SHOWN, Catalog
from pilothouse_dataplane.core.messages import (
    Approver,
    By,
    Citation,
    Effect,
    Message,
    Outcome,
    Situation,
    Tool,
    ToolCall,
    ToolResult,
)
from pilothouse_dataplane.core.plan import Resolved, Unresolved, needs, render, resolve
from pilothouse_dataplane.core.provenance import ArgumentOrigin, ToolOutput, foreign_values
from pilothouse_dataplane.core.report import StepReport, bounded_data, partial_answer, step_summary
from pilothouse_dataplane.core.schema import ArgumentsError, parse_arguments
from pilothouse_dataplane.core.state import (
    Action,
    Answer,
    AskApproval,
    Asking,
    CallArrived,
    CallModel,
    CancelTool,
    DeadlineReached,
    Decided,
    Event,
    Fail,
    FinishStep,
    Limits,
    ModelFailed,
    ModelFinished,
    ModelRestarted,
    Park,
    Phase,
    Record,
    RunState,
    SettleTool,
    ShowPlan,
    ShowText,
    StartTool,
    Step,
    StepStatus,
    StopRequested,
    TextArrived,
    ToolFinished,
    Transition,
)

MAX_CITATIONS = 10
_EMPTY_NUDGE = "Your last reply was empty. Answer the user now, in one or two sentences."
_TOO_LATE = "I ran out of time"
_BROKE_OFF = "\n\n(That answer broke off. Here it begins anew:)\n\n"
REPLY = Tool(
    "reply",
    "Give the answer together with the calls, where you know already how it will read once they have succeeded: a "
    "confirmation, or one or two values. Put the values in as {{s1.field}}. It is sent only if every call succeeds; "
    "else you are asked again. Don't use it where the results must be read, compared or summed up first.",
    {
        "type": "object",
        "properties": {"text": {"type": "string", "minLength": 1, "maxLength": 4000}},
        "required": ["text"],
        "additionalProperties": False,
    },
    Effect.READ,
)
"""Not a connector's tool: the run itself keeps what it is given."""
FIND = Tool(
    "tools.find",
    "Find further tools, where none of those that you have does what the user wants. They can be called in your next "
    "turn.",
    {
        "type": "object",
        "properties": {
            "words": {"type": "string", "minLength": 1, "maxLength": 300, "description": "What to do, and where"}
        },
        "required": ["words"],
        "additionalProperties": False,
    },
    Effect.READ,
)
"""Not a connector's tool either: the run looks into its own catalog."""


def start(
    run_id: str,
    messages: tuple[Message, ...],
    catalog: Catalog,
    limits: Limits,
    asking: Asking,
    deadline: float,
) -> Transition:
    """A run that begins: its first action is the plan's model call."""
    said = [message.content for message in messages if message.role in ("user", "assistant")]
    state = RunState(
        run_id,
        catalog,
        catalog.choose(said[-1] if said else "", said[:-1]),
        limits,
        asking,
        deadline,
        messages,
        user_texts=tuple(message.content for message in messages if message.role == "user"),
        earlier_answers=tuple(message.content for message in messages if message.role == "assistant"),
    )
    return _think(state)


def resume(state: RunState, intended: Mapping[str, ToolResult | None]) -> Transition:
    """What is pending in a state that was replayed.

    ``intended`` holds the writes that had an intent, by step id, with their outcome where it was recorded: they are
    never started again.
    """
    if state.phase is not Phase.ACTING:
        return (state, ()) if state.phase is Phase.DONE else _think(state)
    actions: list[Action] = []
    for step in state.steps[state.round_start :]:
        if step.result is not None:
            continue
        if step.id in intended:
            outcome = intended[step.id]
            state = _put(state, replace(step, status=StepStatus.RUNNING))
            if outcome is None:
                actions.append(SettleTool(replace(step, status=StepStatus.RUNNING), _key(state, step)))
            else:
                state, more = _settle(state, ToolFinished(step.id, outcome))
                actions.extend(more)
        elif step.status is StepStatus.RUNNING:
            actions.append(StartTool(step, _key(state, step)))
        elif step.status is StepStatus.ASKING:
            assert step.request is not None
            actions.append(AskApproval(step, step.approval_id, step.request))  # asking twice is asking once
    state, more = _go_on(state)
    return state, (*actions, *more)


def advance(state: RunState, event: Event, now: float) -> Transition:
    """The state after an event and what is to be done. Events that no longer matter change nothing."""
    if state.phase is Phase.DONE:
        return state, ()
    if isinstance(event, StopRequested):
        return _end(state, event.reason, stopped=True)
    if isinstance(event, DeadlineReached) or now >= state.deadline:
        # a result that comes together with the deadline is still worth telling
        told: tuple[Action, ...] = ()
        if isinstance(event, ToolFinished):
            state, told = _settle(state, event)
        state, actions = _end(state, _TOO_LATE)
        return state, told + actions
    match event:
        case ToolFinished():
            state, actions = _settle(state, event)
            if not actions:
                return state, ()
            state, more = _go_on(state)
            return state, actions + more
        case Decided():
            return _decided(state, event)
    if state.phase is not Phase.THINKING:
        return state, ()
    match event:
        case TextArrived():
            return _text(state, event)
        case CallArrived():
            return _call_arrived(state, event.call)
        case ModelRestarted():
            return _restarted(state, event)
        case ModelFinished():
            return _decide(replace(state, usage=state.usage + event.usage), event)
        case ModelFailed():
            state = replace(state, usage=state.usage + event.usage)
            if state.steps or state.text.strip():
                return _end(state, event.message)
            return replace(state, phase=Phase.DONE), (Fail(event.message, event.retryable, state.usage, event.limited),)
    return state, ()


# --- the model's turn -------------------------------------------------------------------------------------------------
def _think(state: RunState) -> Transition:
    offer = bool(state.shown) and state.rounds < state.limits.max_steps
    situation = _situation(state)
    state = replace(
        state, phase=Phase.THINKING, text="", reply=None, drafted=(), known_reads={}, round_start=len(state.steps)
    )
    more = (FIND,) if len(state.shown) < len(state.catalog.tools) else ()
    tools = (*state.shown, *more, REPLY) if state.shown else ()
    budget = state.limits.budget_micros
    left = None if budget is None else max(0, budget - state.usage.cost_micros)
    return state, (CallModel(state.messages, tools, offer, situation, left),)


def _situation(state: RunState) -> Situation:
    """Where the run stands, at the end of a round."""
    return Situation(
        state.user_texts[-1] if state.user_texts else "",
        state.asking.email,
        earlier_turns=max(0, len(state.user_texts) + len(state.earlier_answers) - 1),
        rounds=state.rounds,
        systems=tuple(dict.fromkeys(tool.name.partition(".")[0] for tool in state.shown)),
        effects=tuple(dict.fromkeys(tool.effect for tool in state.shown)),
        writes=sum(step.writes and _may_have_written(step) for step in state.steps),
        failed_calls=sum(step.unusable for step in state.steps[state.round_start :]),
    )


def _text(state: RunState, event: TextArrived) -> Transition:
    room = state.limits.max_answer_chars - len(state.text)
    state = replace(state, text=state.text + event.text[:room])
    shown: tuple[Action, ...] = (ShowText(event.text[:room]),) if room > 0 and event.text else ()
    if len(event.text) > room:
        state, actions = _end(state, "The answer grew too long")
        return state, shown + actions
    return state, shown


def _call_arrived(state: RunState, call: ToolCall) -> Transition:
    """A call is known before the plan is complete: if it only reads, it begins now."""
    if state.rounds >= state.limits.max_steps or len(state.drafted) >= state.limits.max_calls_per_round:
        return state, ()
    state, shown = _add(state, call)
    state = replace(state, drafted=(*state.drafted, call))
    state, actions = _schedule(state)
    return state, shown + actions


def _restarted(state: RunState, event: ModelRestarted) -> Transition:
    """Another target begins the turn anew. What reads have returned is kept: they need not be made again."""
    actions: list[Action] = [ShowText(_BROKE_OFF)] if event.after_text else []
    known = dict(state.known_reads)
    for step in state.steps[state.round_start :]:
        if step.result is None:
            if step.status is StepStatus.RUNNING:
                actions.append(CancelTool(step))
            actions.append(FinishStep(step, ToolResult(Outcome.REFUSED, f"{step.title} was not needed after all.")))
        elif step.result.outcome is Outcome.SUCCEEDED:
            known[step.fingerprint] = step.result
    steps = state.steps[: state.round_start]
    return replace(state, steps=steps, drafted=(), reply=None, text="", known_reads=known), tuple(actions)


def _decide(state: RunState, event: ModelFinished) -> Transition:
    """The model's turn is over: an answer, calls, or nothing at all."""
    state = replace(state, text=state.text or event.text)
    budget = state.limits.budget_micros
    spent = budget is not None and state.usage.cost_micros >= budget
    if event.tool_calls:
        if state.rounds >= state.limits.max_steps:
            return _end(state, f"I stopped after {state.limits.max_steps} rounds of steps")
        if spent:
            return _end(state, "What one request may cost is spent")
        return _act(state, event)
    if state.text.strip():
        answer = Answer(state.text, partial=False, stopped=False, citations=_citations(state), usage=state.usage)
        return replace(state, phase=Phase.DONE), (answer,)
    if state.empty_answers == 0 and not spent:
        return _think(replace(state, empty_answers=1, messages=(*state.messages, Message("user", _EMPTY_NUDGE))))
    return _end(state, "The model gave no answer")


def _act(state: RunState, event: ModelFinished) -> Transition:
    limit = state.limits.max_calls_per_round
    calls = event.tool_calls[:limit]
    named = tuple(replace(call, id=call.id or f"call_{state.rounds}_{i}") for i, call in enumerate(calls))
    actions: list[Action] = []
    for call in calls[len(state.drafted) :]:
        state, shown = _add(state, call)
        actions.extend(shown)
    messages = (*state.messages, Message("assistant", state.text, tool_calls=named))
    if len(event.tool_calls) > limit:
        dropped = f"Of your {len(event.tool_calls)} calls only the first {limit} were made."
        messages = (*messages, Message("user", dropped))
    for finished in event.observed:
        state, shown = _settle(state, finished)
        actions.extend(shown)
    observed = tuple(ToolFinished(s.id, s.result) for s in state.steps[state.round_start :] if s.result is not None)
    actions.append(Record(ModelFinished(calls, event.usage, state.text, observed)))
    if state.text.strip():
        actions.append(ShowText("\n\n"))  # what the model writes next is another paragraph
    # A provider may give a call its id only with the turn's end.
    ids = iter([call for call in named if call.name != REPLY.name])
    fresh = tuple(replace(step, call=next(ids)) for step in state.steps[state.round_start :])
    state = replace(
        state,
        phase=Phase.ACTING,
        rounds=state.rounds + 1,
        steps=(*state.steps[: state.round_start], *fresh),
        messages=messages,
        drafted=(),
        known_reads={},
        text="",
    )
    state, more = _go_on(state)
    return state, (*actions, *more)


def _add(state: RunState, call: ToolCall) -> Transition:
    """One more step of the present round; refused at once where it can't be made."""
    if call.name == REPLY.name:
        try:
            return replace(state, reply=parse_arguments(REPLY.parameters, call.arguments)["text"]), ()
        except ArgumentsError:
            return replace(state, reply=""), ()  # leads nowhere, and so to another model call
    step_id = f"s{len(state.steps) + 1}"
    tool = FIND if call.name == FIND.model_name else state.catalog.by_model_name.get(call.name)
    step, problem = Step(step_id, call, tool, {}), ""
    if tool is None:
        problem = f"There is no tool {call.name[:80]!r}."
    else:
        try:
            arguments = _arguments(tool, call.arguments)
            refers = needs(arguments)
            step = replace(step, arguments=arguments, needs=refers, fingerprint=arguments_hash(tool.name, arguments))
            if missing := sorted(other for other in refers if state.step(other) is None):
                problem = f"{step.title} was not called: there is no step {missing[0]} before it."
        except ArgumentsError as error:
            problem = f"{step.title} was not called: {error}."
    state = replace(state, steps=(*state.steps, replace(step, unusable=bool(problem))))
    result = ToolResult(Outcome.REFUSED, problem) if problem else None
    if result is None and tool is FIND:
        if step.needs:
            result = ToolResult(Outcome.REFUSED, "Tools are found by plain words, not by another step's result.")
        else:
            state, result = _find(state, str(step.arguments["words"]))
    if result is not None:
        state, actions = _settle(state, ToolFinished(step.id, result))
        return state, (ShowPlan((step,)), *actions)
    return state, (ShowPlan((step,)),)


def _find(state: RunState, words: str) -> tuple[RunState, ToolResult]:
    """Show the model the tools that fit, in place of those that it has had no use for."""
    found = state.catalog.find(words)
    names = {tool.name for tool in found}
    used = {step.tool.name for step in state.steps if step.tool is not None}
    kept = [tool for tool in state.shown if tool.name in used - names]
    others = [tool for tool in state.shown if tool.name not in used | names]
    shown = (*found, *kept, *others)[: max(SHOWN, len(found) + len(kept))]
    data = {"tools": [{"name": tool.model_name, "what": tool.description} for tool in found]}
    count = f"{len(found)} tool{'' if len(found) == 1 else 's'}"
    return replace(state, shown=shown), ToolResult(Outcome.SUCCEEDED, f"Found {count} for “{words[:80]}”.", data)


def _arguments(tool: Tool, text: str) -> dict[str, Any]:
    """As an object; checked against the schema now only where no reference has to be filled in first."""
    if "{{" in text:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArgumentsError("the arguments are not valid JSON") from error
        if isinstance(value, dict) and needs(value):
            return value
    return parse_arguments(tool.parameters, text)


# --- steps ------------------------------------------------------------------------------------------------------------
def _go_on(state: RunState) -> Transition:
    """Start what can start; when the round is over, answer or think again; when only people are waited for, park."""
    state, actions = _schedule(state)
    if state.phase is not Phase.ACTING:
        return state, actions
    steps = state.steps[state.round_start :]
    if all(step.result is not None for step in steps):
        state, more = _round_over(state)
        return state, actions + more
    if not any(step.status is StepStatus.RUNNING for step in steps):
        waiting = tuple(step.approval_id for step in steps if step.status is StepStatus.ASKING)
        return state, (*actions, Park(waiting))
    return state, actions


def _schedule(state: RunState) -> Transition:
    """Start every step of the round that can start. Refusals may free others, so it looks until nothing changes."""
    actions: list[Action] = []
    changed = True
    while changed:
        changed = False
        running = sum(step.status is StepStatus.RUNNING for step in state.steps[state.round_start :])
        for step in state.steps[state.round_start :]:
            if step.status not in (StepStatus.PENDING, StepStatus.APPROVED):
                continue
            if step.writes and state.phase is Phase.THINKING:
                continue
            if running >= state.limits.parallel_calls:
                break
            state, more = _try_start(state, step)
            actions.extend(more)
            running += any(isinstance(action, StartTool) for action in more)
            changed = changed or bool(more)
    return state, tuple(actions)


def _try_start(state: RunState, step: Step) -> Transition:
    """Start the step, ask for approval, refuse it, or leave it waiting (no action)."""
    assert step.tool is not None  # a step without a tool has ended
    sources: Mapping[str, str] = {}
    if step.needs:
        needed = [other for name in sorted(step.needs) if (other := state.step(name)) is not None]
        failed = next((o for o in needed if o.result and o.result.outcome is not Outcome.SUCCEEDED), None)
        if failed is not None:
            return _refuse(
                state, step, f"{step.title} was not called: it needs the result of {failed.title} ({failed.id})."
            )
        if any(other.result is None for other in needed):
            return state, ()
        try:
            resolved = _resolved(state, step)
        except (Unresolved, ArgumentsError) as error:
            state = _put(state, replace(step, unusable=True))
            return _refuse(state, step, f"{step.title} was not called: {error}.")
        sources = resolved.sources
        fingerprint = arguments_hash(step.tool.name, resolved.arguments)
        step = replace(step, arguments=resolved.arguments, needs=frozenset(), fingerprint=fingerprint)
    if not step.writes:
        if step.fingerprint in state.known_reads:
            return _settle(state, ToolFinished(step.id, state.known_reads[step.fingerprint]))
        return _start(state, step)
    return _start_write(state, step, sources)


def _resolved(state: RunState, step: Step) -> Resolved:
    """Arguments with results filled in and checked. Raises Unresolved, ArgumentsError."""
    assert step.tool is not None
    results = {other.id: other.result for other in state.steps if other.result is not None}
    filled = resolve(step.arguments, results)
    return replace(filled, arguments=parse_arguments(step.tool.parameters, json.dumps(filled.arguments)))


def _start_write(state: RunState, step: Step, sources: Mapping[str, str]) -> Transition:
    for other in state.steps:
        if other.id != step.id and other.writes and other.fingerprint == step.fingerprint and _may_have_written(other):
            return _refuse(state, step, "This exact change was already sent in this run; it was not sent again.")
    if step.status is StepStatus.APPROVED:
        return _start(state, step)
    assert step.tool is not None
    origins = _origins(state, step, sources)
    approver = step.tool.approver or (Approver(By.USER) if origins else None)
    if approver is None:
        return _start(state, step)
    who = {By.USER: state.asking.email, By.MANAGER: state.asking.manager_email, By.GROUP: approver.group}[approver.by]
    if not who:
        return _refuse(
            state, step, f"{step.title} was not done: your manager must approve it, and nobody is known as such."
        )
    request = ApprovalRequest(
        step_id=step.id,
        tool=step.name,
        summary=step_summary(step.name, step.arguments),
        arguments=step.arguments,
        arguments_hash=step.fingerprint,
        by=approver.by,
        approver=who,
        reason=_why_asked(step, origins),
        origins=origins,
        expires_in=state.limits.approval_seconds,
    )
    # bound to the run, the step and exactly these arguments; the same again after a replay
    bound = f"{state.run_id}/{step.id}/{step.fingerprint}"
    approval_id = f"a-{hashlib.sha256(bound.encode()).hexdigest()[:20]}"
    step = replace(step, status=StepStatus.ASKING, approval_id=approval_id, request=request)
    return _put(state, step), (AskApproval(step, approval_id, request),)


def _why_asked(step: Step, origins: tuple[ArgumentOrigin, ...]) -> str:
    if step.tool is not None and step.tool.approver is not None:
        return f"{step.title} waits for approval by your organisation's policy."
    values = "A value of this change comes" if len(origins) == 1 else f"{len(origins)} values of this change come"
    return f"{values} from another system, not from the person who asked."


def _origins(state: RunState, step: Step, sources: Mapping[str, str]) -> tuple[ArgumentOrigin, ...]:
    assert step.tool is not None
    outputs = {
        other.id: ToolOutput(other.id, other.name, bounded_data(other.result, state.limits.result_bytes))
        for other in state.steps
        if other.result is not None and other.result.data is not None
    }
    read = [outputs[other.id] for other in state.steps[: state.round_start] if other.id in outputs]
    references = {path: outputs[source] for path, source in sources.items() if source in outputs}
    # who the user is, and who her manager is, has been verified at her sign-in: as good as said by herself
    own = (*state.user_texts, *filter(None, (state.asking.email, state.asking.manager_email)))
    return foreign_values(step.arguments, step.tool.parameters, own, read, state.earlier_answers, references)


def _start(state: RunState, step: Step) -> Transition:
    state = replace(state, serial=state.serial + 1)
    step = replace(step, status=StepStatus.RUNNING, serial=state.serial)
    return _put(state, step), (StartTool(step, _key(state, step)),)


def _refuse(state: RunState, step: Step, why: str) -> Transition:
    return _settle(state, ToolFinished(step.id, ToolResult(Outcome.REFUSED, why)))


def _decided(state: RunState, event: Decided) -> Transition:
    step = state.step(event.step_id)
    if step is None or step.status is not StepStatus.ASKING:
        return state, ()
    recorded: tuple[Action, ...] = (Record(event),)
    if event.approved:
        state = _put(state, replace(step, status=StepStatus.APPROVED))
    else:
        state, told = _refuse(state, step, event.why or f"{step.title} was not done: it was refused.")
        recorded = (*recorded, *told)
    state, actions = _go_on(state)
    return state, recorded + actions


def _settle(state: RunState, event: ToolFinished) -> Transition:
    """Note a step's result; nothing where it has one, or where it is that of a call that was given up."""
    step = state.step(event.step_id)
    if step is None or step.result is not None or (event.serial and event.serial != step.serial):
        return state, ()
    step = replace(step, result=event.result, status=StepStatus.ENDED)
    shown: tuple[Action, ...] = (FinishStep(step, event.result),)
    if state.phase is Phase.ACTING:  # of what came earlier, the record follows with the plan
        shown = (Record(ToolFinished(step.id, event.result)), *shown)
    return _put(state, step), shown


def _round_over(state: RunState) -> Transition:
    steps = state.steps[state.round_start :]
    results = {step.id: step.result for step in state.steps if step.result is not None}
    looked = any(step.tool is FIND for step in steps)  # it looked for tools to call them
    done = all(step.result and step.result.outcome is Outcome.SUCCEEDED for step in steps)
    if state.reply is not None and done and not looked:
        text = render(state.reply, results)
        if text is not None:
            answer = Answer(text, partial=False, stopped=False, citations=_citations(state), usage=state.usage)
            return replace(state, phase=Phase.DONE, text=text), (ShowText(text), answer)
    # results stand in the order of the calls, not in that of their coming back
    at = max(index for index, message in enumerate(state.messages) if message.role == "assistant")
    spoken, rest = state.messages[at], state.messages[at + 1 :]
    ended = iter(steps)
    answers = []
    for call in spoken.tool_calls:
        if call.name == REPLY.name:
            content = '{"outcome":"refused","summary":"It was not sent. Read the results, then answer."}'
        else:
            step = next(ended)
            content = bounded_data(step.result, state.limits.result_bytes, step.id)
        answers.append(Message("tool", content, tool_call_id=call.id))
    return _think(replace(state, messages=(*state.messages[: at + 1], *answers, *rest)))


def _may_have_written(step: Step) -> bool:
    if step.result is None:
        return step.status in (StepStatus.RUNNING, StepStatus.ASKING, StepStatus.APPROVED)
    return step.result.outcome in (Outcome.SUCCEEDED, Outcome.UNKNOWN)


def _key(state: RunState, step: Step) -> str:
    return f"{state.run_id}/{step.id}"


def _put(state: RunState, step: Step) -> RunState:
    index = int(step.id[1:]) - 1
    return replace(state, steps=(*state.steps[:index], step, *state.steps[index + 1 :]))


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
            if step.status is not StepStatus.RUNNING:
                result = ToolResult(Outcome.REFUSED, f"{step.title} was not begun.")
            elif step.writes:
                result = ToolResult(Outcome.UNKNOWN, f"{step.title} was cut off; whether it took effect is not known.")
            else:
                result = ToolResult(Outcome.FAILED, f"{step.title} was not finished.")
            state, more = _settle(state, ToolFinished(step.id, result))
            actions.extend(more)
    reports = [StepReport(s.name, s.result.outcome, s.result.summary) for s in state.steps if s.result is not None]
    text = partial_answer(state.text, why, reports)
    actions.append(Answer(text, partial=True, stopped=stopped, citations=_citations(state), usage=state.usage))
    return replace(state, phase=Phase.DONE), tuple(actions)
