"""From the core's plain data to the protocol's messages, and the errors that a user reads. Pure."""

from __future__ import annotations

from pilothouse_dataplane.core import run as flow
from pilothouse_dataplane.core.breaker import BreakerState
from pilothouse_dataplane.core.messages import Outcome, Usage
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
}
_SHOWN_ARGUMENT_CHARS = 60


def step_summary(step: flow.Step) -> str:
    """One sentence for the user: what a step is about to do."""
    system, _, what = step.name.partition(".")
    noun, _, verb = what.partition(".")
    shown = ", ".join(
        name if value is True else f"{name}: {str(value)[:_SHOWN_ARGUMENT_CHARS]}"
        for name, value in step.arguments.items()
        if value is not False
    )
    return f"{system.capitalize()}: {verb} {noun}".rstrip() + (f" ({shown})" if shown else "")


def planned(steps: tuple[flow.Step, ...]) -> agent.Plan:
    """A round's steps."""
    return agent.Plan(
        steps=[agent.PlannedStep(step_id=step.id, tool=step.name, summary=step_summary(step)) for step in steps]
    )


def usage(value: Usage) -> agent.Usage:
    return agent.Usage(
        input_tokens=value.input_tokens, output_tokens=value.output_tokens, cost_micros=value.cost_micros
    )


def final(answer: flow.Answer, text: str) -> agent.Final:
    return agent.Final(
        text=text,
        usage=usage(answer.usage),
        citations=[agent.Citation(title=c.title, url=c.url) for c in answer.citations],
        partial=answer.partial,
    )


def invalid(message: str) -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_INVALID_REQUEST, message=message, user_action="Correct the request and send it again."
    )


def already_running() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_INVALID_REQUEST,
        message="This request is already being worked on; it was not started a second time.",
        user_action="Wait for its answer.",
    )


def wrong_tenant() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_PERMISSION_DENIED,
        message="This agent serves another organisation; nothing was done.",
        user_action="Open the chat of your own organisation.",
    )


def unauthenticated() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_UNAUTHENTICATED,
        message="It is not known who is asking; nothing was done.",
        user_action="Sign in and ask again.",
    )


def unavailable(why: str) -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_WORKER_LOST,
        message=f"This agent {why}; nothing was done.",
        user_action="Ask again; another one takes over.",
        retryable=True,
    )


def too_many(limit: int) -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_RATE_LIMITED,
        message=f"This agent already works on {limit} requests; yours was not started.",
        user_action="Ask again in a few seconds.",
        retryable=True,
    )


def not_saved() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_INTERNAL,
        message="Your message could not be saved; nothing was done.",
        user_action="Ask again in a few seconds.",
        retryable=True,
    )


def model_failed(fail: flow.Fail) -> agent.Error:
    action = "Ask again in a minute." if fail.retryable else "Tell your administrator; asking again does not help."
    return agent.Error(
        code=agent.ERROR_CODE_MODEL_UNAVAILABLE,
        message=f"{fail.message.rstrip('.')}. Nothing was done.",
        user_action=action,
        retryable=fail.retryable,
    )


def internal() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_INTERNAL,
        message="Something failed in the agent. Steps that were shown as finished were done; nothing else was.",
        user_action="Check what was done, then ask again; tell your administrator if it happens twice.",
    )
