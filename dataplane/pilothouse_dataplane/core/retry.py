"""When and how long to wait before trying a safe call again: exponential backoff with full jitter.

Full jitter: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Safe are calls that change nothing, and
writes whose request never left or is proven to have done nothing; a write whose outcome is unknown is looked up by its
key (``find_by_key``), never repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds of the waiting."""

    attempts: int = 3
    """Tries in all, the first one included."""
    base_seconds: float = 0.1
    cap_seconds: float = 2.0
    retry_after_cap_seconds: float = 5.0
    """A longer ``Retry-After`` is not waited for: the user would rather hear of it."""


def wait_before_retry(
    backoff: Backoff, *, attempt: int, random: float, retry_after: float | None, remaining: float
) -> float | None:
    """Seconds to wait before try ``attempt + 1``, or None where it should not be tried again.

    ``attempt`` counts tries made (1 after the first), ``random`` is uniform in 0..1, ``retry_after`` what the server
    asked for in seconds, ``remaining`` the seconds left to the run: a wait that would not fit in is not begun.
    """
    if attempt >= backoff.attempts:
        return None
    wait: float = random * min(backoff.cap_seconds, backoff.base_seconds * 2.0 ** (attempt - 1))
    if retry_after is not None:
        if retry_after > backoff.retry_after_cap_seconds:
            return None
        wait += max(0.0, retry_after)  # jitter on top, so that clients told the same second don't come together
    return wait if wait < remaining else None


def parse_retry_after(value: str | None, now: float) -> float | None:
    """``Retry-After`` in seconds, from a number or an HTTP date (RFC 9110, 10.2.3); None where absent or unreadable.

    ``now`` is epoch seconds.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            # a date without a zone is UTC here, as everywhere in HTTP; Python would read it as local time
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None  # "nan" is a float too
