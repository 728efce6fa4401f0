"""The errors that a user reads: what happened, what was not done, what to do now. Pure."""

from __future__ import annotations

from pilothouse_dataplane.core.state import Fail
from pilothouse_proto.agent.v1 import agent_pb2 as agent


def invalid(message: str) -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_INVALID_REQUEST, message=message, user_action="Correct the request and send it again."
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


def not_resumed() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_INTERNAL,
        message="What was done so far can't be read at the moment, so your request was not gone on with. "
        "Nothing is done twice; it goes on by itself later.",
        user_action="Come back in a minute, and check what was done before you ask for it again.",
        retryable=True,
    )


def held() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_WORKER_LOST,
        message="Another agent still works on this request; it was not started a second time.",
        user_action="Wait a few seconds for its answer.",
        retryable=True,
    )


def unknown_run() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_INVALID_REQUEST,
        message="There is no such request that could be gone on with; nothing was done.",
        user_action="Ask anew.",
    )


def unreadable() -> agent.Error:
    return agent.Error(
        code=agent.ERROR_CODE_INTERNAL,
        message="Your request was interrupted, and what was done so far can't be read by this release of the agent. "
        "It was not gone on with.",
        user_action="Check what was done before you ask again, and tell your administrator.",
    )


def limited(message: str) -> agent.Error:
    """``message`` says what is used up, that nothing was done, and when to come back."""
    return agent.Error(
        code=agent.ERROR_CODE_RATE_LIMITED,
        message=message,
        user_action="Ask again when that time is over.",
        retryable=True,
    )


def model_failed(fail: Fail) -> agent.Error:
    if fail.limited:
        return limited(fail.message)
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
