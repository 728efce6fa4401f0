"""What a system says of its own rate limit, in the headers of any answer. Pure.

Dialects: ``X-RateLimit-*`` (Jira, ServiceNow, many others; the reset as Unix seconds, ISO 8601 or seconds from now),
``X-Rate-Limit-*`` (Okta; Unix seconds), and the IETF's ``RateLimit-*`` in its three drafts
(draft-ietf-httpapi-ratelimit-headers: fields of their own; one field with ``limit, remaining, reset``; and
``"name";r=…;t=…``), whose reset is seconds from now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from pilothouse_dataplane.connectors.base import CallContext, RateLimit

MAX_RESET_SECONDS = 86_400.0
"""A reset that is further away is nonsense, or of no use to a call."""
_PREFIXES = ("X-RateLimit", "X-Rate-Limit", "RateLimit")
_EPOCH = 1e9
"""A reset above it is a date, not a span: thirty years."""
_WHOLE = re.compile(r"\s*(\d{1,15})(?:\.\d+)?\s*(?:[,;].*)?")
_PART = re.compile(r"\b(remaining|reset|r|t)\s*=\s*(\d{1,15})")


def parse_rate_limit(headers: Mapping[str, str], now: float) -> RateLimit | None:
    """The limit that the headers tell of; None where they tell of none, or can't be read. ``now`` is Unix seconds.
    ``headers`` finds names in any case, or has them as the vendors write them."""
    for prefix in _PREFIXES:
        remaining = _whole(headers.get(f"{prefix}-Remaining"))
        if remaining is not None:
            return RateLimit(remaining, _seconds(headers.get(f"{prefix}-Reset"), now))
    told = headers.get("RateLimit")
    if told is None:
        return None
    # of several policies the one with the least left counts
    found = [limit for limit in map(_policy, _policies(told)) if limit is not None]
    return min(found, key=lambda limit: (limit.remaining, -limit.reset_seconds), default=None)


def note_limit(headers: Mapping[str, str], context: CallContext, now: float) -> None:
    """Put it where the rate limit's wrapper looks for it."""
    context.record.limit = parse_rate_limit(headers, now) or context.record.limit


def _policies(told: str) -> list[str]:
    if "remaining" in told:  # one policy whose parts are separated by commas
        return [told[:1000]]
    return told[:1000].split(",")


def _policy(text: str) -> RateLimit | None:
    parts = {name: float(value) for name, value in _PART.findall(text)}
    remaining = parts.get("remaining", parts.get("r"))
    if remaining is None:
        return None
    return RateLimit(int(remaining), min(MAX_RESET_SECONDS, parts.get("reset", parts.get("t", 0.0))))


def _whole(value: str | None) -> int | None:
    match = _WHOLE.fullmatch(value) if value is not None else None
    return int(match[1]) if match is not None else None


def _seconds(value: str | None, now: float) -> float:
    """From now; 0 where it can't be told."""
    if value is None:
        return 0.0
    number = _whole(value)
    if number is None:
        try:
            date = datetime.fromisoformat(value.strip())
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            return 0.0
    elif number > 1000 * _EPOCH:
        seconds = number / 1000 - now
    else:
        seconds = number - now if number > _EPOCH else float(number)
    return min(MAX_RESET_SECONDS, max(0.0, seconds))
