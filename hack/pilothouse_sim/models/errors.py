"""How a provider fails: refusals in OpenAI's and Anthropic's words, and streams that go wrong. The names are those that
``/__sim/faults`` takes as ``error``, and a scripted answer, too.

Sources: https://platform.openai.com/docs/guides/error-codes, https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from aiohttp import web

from pilothouse_sim.models.exchange import Answer, BadRequest, SaidCall, Tokens

Dialect = Literal["openai", "anthropic"]
RETRY_AFTER_SECONDS = 2


@dataclass(frozen=True)
class Refusal:
    """A response that is an error. OpenAI: (status, type, code, message, param); Anthropic: (status, type, message)."""

    openai: tuple[int, str, str | None, str, str | None]
    anthropic: tuple[int, str, str]
    retry: bool = False
    """Says when to come back."""


_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in {} tokens. "
_LONG += "Please reduce the length of the messages."
_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_CREDIT = "Your credit balance is too low to access the Anthropic API. "
_CREDIT += "Please go to Plans & Billing to upgrade or purchase credits."
_INVALID = "invalid_request_error"

REFUSALS: dict[str, Refusal] = {
    "insufficient_quota": Refusal(
        (429, "insufficient_quota", "insufficient_quota", _QUOTA, None), (400, _INVALID, _CREDIT)
    ),
    "billing": Refusal(
        (402, "insufficient_balance", "insufficient_balance", "Insufficient Balance", None),
        (402, "billing_error", "Your organization's billing is not set up."),
    ),
    "billing_hard_limit": Refusal(
        (400, _INVALID, "billing_hard_limit_reached", "Billing hard limit has been reached", None),
        (400, _INVALID, "You have reached your specified API usage limits. You will regain access next month."),
    ),
    "context_length": Refusal(
        (400, _INVALID, "context_length_exceeded", _LONG.format(9000), "messages"),
        (400, _INVALID, "prompt is too long: 209000 tokens > 200000 maximum"),
    ),
    "rate_limit": Refusal(
        (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again in 2s.", None),
        (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
        retry=True,
    ),
    "overloaded": Refusal(
        (503, "service_unavailable_error", None, "The engine is currently overloaded, please try again later", None),
        (529, "overloaded_error", "Overloaded"),
    ),
    "invalid_key": Refusal(
        (401, _INVALID, "invalid_api_key", "Incorrect API key provided: none.", None),
        (401, "authentication_error", "invalid x-api-key"),
    ),
    "permission": Refusal(
        (403, _INVALID, "unsupported_country_region_territory", "Country, region, or territory not supported", None),
        (403, "permission_error", "Your API key does not have permission to use the specified resource."),
    ),
    "model_not_found": Refusal(
        (404, _INVALID, "model_not_found", "The model does not exist or you do not have access to it.", "model"),
        (404, "not_found_error", "model: no-such-model"),
    ),
    "too_large": Refusal(
        (413, _INVALID, None, "Request too large.", None),
        (413, "request_too_large", "Request exceeds the maximum size"),
    ),
    "server_error": Refusal(
        (500, "server_error", None, "The server had an error while processing your request. Sorry about that!", None),
        (500, "api_error", "Internal server error"),
    ),
    "prompt_filtered": Refusal(
        (400, _INVALID, "content_filter", "The response was filtered due to the content management policy.", "prompt"),
        (400, _INVALID, "Output blocked by content filtering policy"),
    ),
}
STREAMED = (
    "error_in_200",
    "error_mid_stream",
    "json_in_200",
    "html_in_200",
    "half_tool_call",
    "cut",
    "broken_event",
    "stall",
    "endless",
)
"""A stream, or a 200, that is none: an error inside; an error as JSON; a proxy's page; an end in the middle of a
call; a connection that is cut; an event that isn't JSON; silence; text without end."""
SPOILED = ("content_filter", "length", "empty", "unknown_tool", "wrong_arguments", "broken_arguments")
"""An answer of a proper shape that is of no use."""
LYING = ("lying_usage", "zero_usage", "negative_usage", "no_usage")
NAMES = frozenset((*REFUSALS, *STREAMED, *SPOILED, *LYING))


def checked(name: str) -> str:
    """The name of a fault, or "". Raises ValueError that names the known ones."""
    if name and name not in NAMES:
        raise ValueError(f"unknown error {name!r}; known are {', '.join(sorted(NAMES))}")
    return name


def body(name: str, dialect: Dialect, request_id: str | None = None) -> dict[str, Any]:
    """The JSON of a refusal; one of a stream's faults is told as an overload."""
    refusal = REFUSALS.get(name, REFUSALS["overloaded"])
    if dialect == "anthropic":
        _, kind, message = refusal.anthropic
        return anthropic_body(kind, message, request_id)
    _, kind, code, message, param = refusal.openai
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic_body(kind: str, message: str, request_id: str | None = None) -> dict[str, Any]:
    """Anthropic's shape of an error."""
    given = {"type": "error", "error": {"type": kind, "message": message}}
    return {**given, "request_id": request_id} if request_id else given


def refused(name: str, dialect: Dialect) -> web.Response:
    """The response of a named refusal."""
    refusal = REFUSALS[name]
    status = refusal.anthropic[0] if dialect == "anthropic" else refusal.openai[0]
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if refusal.retry else {}
    if dialect == "openai" and status == 401:
        headers["www-authenticate"] = "Bearer"
    request_id = f"req_{uuid.uuid4().hex[:24]}"
    return web.json_response(body(name, dialect, request_id), status=status, headers=headers)


_OPENAI_KINDS = {400: _INVALID, 404: _INVALID, 405: _INVALID, 413: _INVALID, 429: "rate_limit_error"}
_ANTHROPIC_KINDS = {
    400: _INVALID, 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    405: _INVALID, 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


def of_status(status: int, sentence: str, dialect: Dialect) -> web.Response:
    """An error of any status."""
    if dialect == "anthropic":
        given = anthropic_body(_ANTHROPIC_KINDS.get(status, "api_error"), sentence)
    else:
        kind = _OPENAI_KINDS.get(status, "server_error")
        given = {"error": {"message": sentence, "type": kind, "param": None, "code": None}}
    return web.json_response(given, status=status)


def bad_request(error: BadRequest, dialect: Dialect) -> web.Response:
    """A request that the vendor's validation refuses."""
    if dialect == "anthropic":
        return of_status(400, str(error), dialect)
    given = {"message": str(error), "type": _INVALID, "param": error.param, "code": error.code}
    return web.json_response({"error": given}, status=400)


def spoiled(name: str, answer: Answer) -> Answer:
    """The answer under one of SPOILED; any other name leaves it."""
    if name == "content_filter":
        return Answer(finish="content_filter")
    if name == "length":
        return answer.bounded(max(1, answer.tokens * 2 // 3))
    if name == "empty":
        return Answer()
    if name == "unknown_tool":
        calls = answer.calls or (SaidCall("", "{}"),)
        return replace(answer, text="", calls=tuple(replace(call, name="no__such__tool") for call in calls))
    if name == "wrong_arguments":
        return replace(answer, calls=tuple(replace(call, arguments='{"nonsense": [1]}') for call in answer.calls))
    if name == "broken_arguments":
        return replace(answer, calls=tuple(replace(call, arguments=call.arguments[:-2]) for call in answer.calls))
    return answer


def lying(name: str, tokens: Tokens) -> Tokens:
    """The usage under one of LYING; any other name leaves it."""
    changes: Mapping[str, Mapping[str, Any]] = {
        "lying_usage": {"prompt": 10**15, "completion": 10**15, "cached": 10**16},
        "zero_usage": {"prompt": 0, "completion": 0, "cached": 0, "stored": 0, "thoughts": 0},
        "negative_usage": {"prompt": -tokens.prompt, "completion": -tokens.completion},
        "no_usage": {"told": False},
    }
    return replace(tokens, **changes.get(name, {}))
