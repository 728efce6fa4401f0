"""From the core's plain data to the protocol's messages. Pure. The errors that a user reads are in ``problems.py``."""

from __future__ import annotations

import dataclasses
import time
from typing import Protocol

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse_api.names import PLAN_STEP
from pilothouse_dataplane.core.approvals import ApprovalRequest
from pilothouse_dataplane.core.breaker import BreakerMode, BreakerState
from pilothouse_dataplane.core.messages import By, JsonObject, Outcome, Usage
from pilothouse_dataplane.core.report import step_summary, step_title
from pilothouse_dataplane.core.state import Answer, Step
from pilothouse_dataplane.core.timing import TimeSplit
from pilothouse_dataplane.ledger.base import ApprovalRecord, Asker, CostBy, CostSum, DeadLetterRecord, Verdict
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.events.v1 import events_pb2 as events

OUTCOMES = {
    Outcome.SUCCEEDED: agent.STEP_OUTCOME_SUCCEEDED,
    Outcome.REFUSED: agent.STEP_OUTCOME_REFUSED,
    Outcome.FAILED: agent.STEP_OUTCOME_FAILED,
    Outcome.UNKNOWN: agent.STEP_OUTCOME_UNKNOWN,
}
BREAKER_STATES = {
    BreakerState.CLOSED: events.BREAKER_STATE_CLOSED,
    BreakerState.OPEN: events.BREAKER_STATE_OPEN,
    BreakerState.HALF_OPEN: events.BREAKER_STATE_HALF_OPEN,
    BreakerState.FORCED_OPEN: events.BREAKER_STATE_FORCED_OPEN,
    BreakerState.DISABLED: events.BREAKER_STATE_DISABLED,
}
BREAKER_MODES = {
    agent.BREAKER_MODE_AUTOMATIC: BreakerMode.AUTOMATIC,
    agent.BREAKER_MODE_FORCED_OPEN: BreakerMode.FORCED_OPEN,
    agent.BREAKER_MODE_DISABLED: BreakerMode.DISABLED,
}
APPROVERS = {
    By.USER: agent.APPROVER_USER,
    By.MANAGER: agent.APPROVER_MANAGER,
    By.GROUP: agent.APPROVER_GROUP,
}
VERDICTS = {
    Verdict.DECIDED: agent.DECIDE_OUTCOME_DECIDED,
    Verdict.ALREADY_DECIDED: agent.DECIDE_OUTCOME_ALREADY_DECIDED,
    Verdict.EXPIRED: agent.DECIDE_OUTCOME_EXPIRED,
    Verdict.NOT_ALLOWED: agent.DECIDE_OUTCOME_NOT_ALLOWED,
    Verdict.NOT_FOUND: agent.DECIDE_OUTCOME_NOT_FOUND,
}
VERDICT_MESSAGES = {
    Verdict.DECIDED: "Your decision is recorded.",
    Verdict.ALREADY_DECIDED: "Somebody has decided this before you; nothing changed.",
    Verdict.EXPIRED: "The time for this decision is over: it counts as refused. Ask the agent again if it is wanted.",
    Verdict.NOT_ALLOWED: "You are not the one who is asked here; nothing changed.",
    Verdict.NOT_FOUND: "There is no such question; nothing changed.",
}
LETTER_STATES = {
    "open": agent.DEAD_LETTER_STATE_OPEN,
    "replayed": agent.DEAD_LETTER_STATE_REPLAYED,
    "discarded": agent.DEAD_LETTER_STATE_DISCARDED,
}


class _Timed(Protocol):
    """A message with ``google.protobuf.Timestamp time``."""

    @property
    def time(self) -> Timestamp: ...


def stamp(message: _Timed) -> None:
    """Set the time of an event to now; ``GetCurrentTime`` costs ten times as much."""
    now = time.time_ns()
    message.time.seconds = now // 1_000_000_000
    message.time.nanos = now % 1_000_000_000


def plan(steps: tuple[Step, ...]) -> agent.Plan:
    """Steps that are new."""
    return agent.Plan(
        steps=[
            agent.PlannedStep(step_id=step.id, tool=step.name, summary=step_summary(step.name, step.arguments))
            for step in steps
        ]
    )


def step_started(step: Step) -> agent.StepStarted:
    return agent.StepStarted(step_id=step.id, tool=step.name, summary=step_summary(step.name, step.arguments))


def step_finished(step: Step, outcome: Outcome, summary: str, seconds: float, account: str = "") -> agent.StepFinished:
    return agent.StepFinished(
        step_id=step.id,
        tool=step.name,
        outcome=OUTCOMES[outcome],
        summary=summary,
        duration_ms=round(seconds * 1000),
        account=account,
    )


def planning() -> agent.StepStarted:
    """The model begins to plan."""
    return agent.StepStarted(step_id=PLAN_STEP, tool=PLAN_STEP, summary="Working out what to do")


COST_BY: dict[agent.CostBy.ValueType, CostBy] = {
    agent.COST_BY_USER: "user",
    agent.COST_BY_TIER: "tier",
    agent.COST_BY_PROVIDER: "provider",
    agent.COST_BY_MODEL: "model",
    agent.COST_BY_REVISION: "revision",
}


def cost_sum(value: CostSum) -> agent.CostSum:
    return agent.CostSum(**dataclasses.asdict(value))


def planned(seconds: float) -> agent.StepFinished:
    """The first part of the plan, or of an answer, is there after so many seconds."""
    return agent.StepFinished(
        step_id=PLAN_STEP,
        tool=PLAN_STEP,
        outcome=agent.STEP_OUTCOME_SUCCEEDED,
        summary="Worked out what to do",
        duration_ms=round(seconds * 1000),
    )


def usage(value: Usage) -> agent.Usage:
    return agent.Usage(
        input_tokens=value.input_tokens,
        output_tokens=value.output_tokens,
        cost_micros=value.cost_micros,
        cached_input_tokens=value.cached_input_tokens,
    )


def model_called(call_id: str, record: ModelCallRecord) -> events.ModelCalled:
    return events.ModelCalled(
        id=call_id,
        provider=record.provider,
        model=record.model,
        tier=record.tier,
        usage=usage(record.usage),
        duration_ms=round(record.duration_seconds * 1000),
        reason=record.reason,
        cached=record.cached,
        fallback=record.fallback,
        aborted=record.aborted,
        escalated=record.escalated,
        first_token_ms=round(record.first_token_seconds * 1000),
        estimated=record.estimated,
        saved_micros=record.saved_micros,
    )


def time_split(split: TimeSplit) -> agent.TimeSplit:
    return agent.TimeSplit(
        model_ms=round(split.model * 1000),
        tools_ms=round(split.tools * 1000),
        approval_ms=round(split.approval * 1000),
        pilothouse_ms=round(split.own * 1000),
    )


def final(answer: Answer, text: str, split: TimeSplit) -> agent.Final:
    return agent.Final(
        text=text,
        usage=usage(answer.usage),
        citations=[agent.Citation(title=c.title, url=c.url) for c in answer.citations],
        partial=answer.partial,
        time=time_split(split),
    )


def json_text(value: JsonObject) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def approval_required(record: ApprovalRecord) -> agent.ApprovalRequired:
    request: ApprovalRequest = record.request
    message = agent.ApprovalRequired(
        approval_id=record.approval_id,
        tool=request.tool,
        summary=request.summary,
        arguments_json=json_text(request.arguments),
        by=APPROVERS[request.by],
        approver=request.approver,
        reason=request.reason,
        origins=[agent.ArgumentOrigin(path=o.path, value=o.value, source=o.source) for o in request.origins],
        step_id=request.step_id,
    )
    message.expires.FromDatetime(record.expires)
    return message


def approval_decided(record: ApprovalRecord) -> agent.ApprovalDecided:
    """Of a record that is decided."""
    tool = record.request.tool
    if record.approved:
        reason = f"{record.decided_by} approved {tool}."
    elif record.decided_by:
        reason = f"“{step_title(tool)}” was not done: {record.decided_by} refused it."
    else:
        within = _duration(record.request.expires_in)
        reason = f"“{step_title(tool)}” was not done: nobody decided within {within}, which counts as a refusal."
    return agent.ApprovalDecided(
        approval_id=record.approval_id,
        approved=bool(record.approved),
        decided_by=record.decided_by,
        reason=reason,
        step_id=record.request.step_id,
    )


def pending_approval(tenant: str, record: ApprovalRecord) -> agent.PendingApproval:
    message = agent.PendingApproval(
        tenant=tenant,
        session_id=record.session_id,
        run_id=record.run_id,
        user=record.user_email,
        request=approval_required(record),
    )
    message.created.FromDatetime(record.created)
    return message


def dead_letter(tenant: str, letter: DeadLetterRecord) -> agent.DeadLetter:
    message = agent.DeadLetter(
        id=letter.id,
        tenant=tenant,
        session_id=letter.session_id,
        run_id=letter.run_id,
        step_id=letter.step_id,
        user=letter.asker.email,
        tool=letter.tool,
        arguments_json=json_text(letter.arguments),
        idempotency_key=letter.key,
        error=letter.error,
        attempts=letter.attempts,
        breaker_state=letter.breaker_state,
        state=LETTER_STATES.get(letter.state, agent.DEAD_LETTER_STATE_UNSPECIFIED),
        resolved_by=letter.resolved_by,
        resolution=letter.resolution,
        in_doubt=letter.in_doubt,
    )
    message.created.FromDatetime(letter.created)
    if letter.resolved is not None:
        message.resolved.FromDatetime(letter.resolved)
    return message


def asker(user: agent.User) -> Asker:
    return Asker(user.subject, user.email, user.display_name, user.manager_email, tuple(user.groups))


def _duration(seconds: float) -> str:
    """For people: ``90 s``, ``60 minutes``, ``24 hours``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"
