"""Both vendors' error dialects, and those of servers that speak their protocols, as our tree. Pure.

What decides, in this order: a redirect; the codes that the body names (``insufficient_quota``,
``context_length_exceeded``, …); where a vendor gives only a sentence, its words; the status. An error inside a stream
has no status: the code stands for one.

Sources: https://platform.openai.com/docs/guides/error-codes, https://docs.anthropic.com/en/api/errors, and the two
SDKs' ``_should_retry`` for 408, 409, ``x-should-retry``, ``retry-after-ms``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from pilothouse_dataplane.core.retry import parse_retry_after
from pilothouse_dataplane.models.base import (
    ModelDenied,
    ModelError,
    ModelExhausted,
    ModelOverflow,
    ModelRateLimited,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
)

_MAX_DETAIL_CHARS = 200
_MIN_SECRET_CHARS = 6
_EXHAUSTED = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "insufficient_credits",
        "billing_error",
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "linked_organization_spend_limit_reached",
    }
)
_OVERFLOW = frozenset({"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"})
_STATUS_OF_CODE = {
    "overloaded_error": 529,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "timeout_error": 504,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "billing_error": 402,
    "request_too_large": 413,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "content_filter": 400,
}
# vendors that answer 400 to both give no code of their own for it, only a sentence
_EXHAUSTED_WORDS = re.compile(
    r"credit balance is too low|insufficient (?:balance|credits?|funds|quota)|reached your specified api usage limits"
    r"|billing hard limit",
    re.IGNORECASE,
)
_OVERFLOW_WORDS = re.compile(
    r"maximum context length|context[ _](?:length|window|size|limit)[^.]{0,60}exceed|exceed[^.]{0,60}context"
    r"|prompt is too long|input is too long|longer than the model'?s context|exceeds the maximum number of tokens",
    re.IGNORECASE,
)
_KEY = re.compile(r"\b(?:sk|gsk|xai|key)-[A-Za-z0-9_*.\-]{4,}|\bBearer\s+\S+", re.IGNORECASE)
_REPEATED_INPUT = re.compile(r"""['"]input['"]\s*:.*|\binput_value=.*""", re.IGNORECASE | re.DOTALL)
"""Servers that check requests with pydantic repeat what did not fit: the prompt."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error's body says."""

    detail: str = ""
    """The server's own sentence, shortened."""
    codes: frozenset[str] = frozenset()
    """Its codes and types, in small letters."""
    status: int = 0
    """A status that the body names; 0: none."""


def read_fault(value: object, secrets: Iterable[str] = ()) -> Fault | None:
    """The error in a body, in whatever shape; None where it holds none. ``secrets`` are blanked in its sentence."""
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return None
    failure = value.get("error")
    if isinstance(failure, dict) and failure:
        inner = failure
    elif failure:
        inner = {"message": failure, **{name: value.get(name) for name in ("code", "type", "status", "message")}}
        inner["message"] = value.get("error_description") or value.get("message") or failure
    elif "message" in value or "detail" in value:
        inner = value
    else:
        return None
    message = inner.get("message") or inner.get("detail")
    details = inner.get("details")
    codes = [inner.get("code"), inner.get("type"), inner.get("status")]
    if isinstance(details, dict):
        codes.append(details.get("error_code"))
    status = next((code for code in codes if type(code) is int and 400 <= code < 600), 0)
    return Fault(
        _sentence(message, secrets), frozenset(code.lower() for code in codes if isinstance(code, str)), status
    )


def read_body(body: bytes, secrets: Iterable[str] = ()) -> Fault | None:
    """The error in the bytes of a response; a proxy's HTML page says nothing to a user."""
    try:
        return read_fault(orjson.loads(body), secrets)
    except orjson.JSONDecodeError:
        return None


def _sentence(message: object, secrets: Iterable[str]) -> str:
    if not isinstance(message, str):
        return ""
    text = message[:4096]
    for secret in secrets:
        if len(secret) >= _MIN_SECRET_CHARS:
            text = text.replace(secret, "…")
    text = _REPEATED_INPUT.sub("…", _KEY.sub("…", text))
    return " ".join(text.split())[:_MAX_DETAIL_CHARS]


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the server asks to wait, as both SDKs read them: milliseconds first. ``now`` is epoch seconds."""
    try:
        seconds = float(headers.get("retry-after-ms", "")) / 1000
    except ValueError:
        return parse_retry_after(headers.get("Retry-After"), now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def status_error(provider: str, status: int, fault: Fault | None, headers: Mapping[str, str], now: float) -> ModelError:
    """The error of a response that is not 200. ``now`` is epoch seconds."""
    if 300 <= status < 400:
        return ModelDenied(
            f"The model provider {provider} redirects to another address, which is not followed: a platform operator "
            "must correct its base URL"
        )
    fault = fault or Fault()
    said = f"The model provider {provider} answered {status}" + (f": {fault.detail}" if fault.detail else "")
    return _error(provider, status, fault, said, headers, now)


def event_error(provider: str, fault: Fault) -> ModelError:
    """An error that came as an event of a stream, or in the body of a 200."""
    status = fault.status or next((_STATUS_OF_CODE[code] for code in fault.codes if code in _STATUS_OF_CODE), 500)
    if fault.codes & _EXHAUSTED:
        status = 402
    elif fault.codes & _OVERFLOW:
        status = 400
    said = f"The model provider {provider} broke off: {fault.detail or 'it gave no reason'}"
    return _error(provider, status, fault, said, {}, 0.0)


def _error(provider: str, status: int, fault: Fault, said: str, headers: Mapping[str, str], now: float) -> ModelError:
    if status == 402 or (
        status in (400, 403, 429) and (fault.codes & _EXHAUSTED or _EXHAUSTED_WORDS.search(fault.detail))
    ):
        return ModelExhausted(
            f"The account at the model provider {provider} is used up, so it does not answer until a platform operator "
            f"has raised its quota or credit ({said})"
        )
    should_retry = headers.get("x-should-retry")
    wait = retry_after(headers, now)
    again = should_retry != "false"
    if status == 429:
        return ModelRateLimited(said, wait, again=again)
    if status in (408, 504):
        return ModelTimeout(said, wait, again=again)
    if status >= 500 or status == 409:
        return ModelUnavailable(said, wait, again=again)
    if fault.codes & _OVERFLOW or (status in (400, 413, 422) and _OVERFLOW_WORDS.search(fault.detail)):
        return ModelOverflow(said)
    if should_retry == "true":
        return ModelUnavailable(said, wait)
    return (ModelDenied if status in (401, 403, 404, 405, 407, 410) else ModelRejected)(said)
