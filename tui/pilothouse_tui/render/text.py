"""Durations, money and counts as a person reads them, in few characters."""

from __future__ import annotations

from datetime import datetime


def money(micros: int) -> str:
    """Micro-dollars as dollars: four decimals below a dollar, two above, so that small costs don't read as nothing."""
    if 0 < micros < 1_000_000:
        return f"${(micros + 50) // 100 / 10_000:.4f}"
    return f"${(micros + 5_000) // 10_000 / 100:,.2f}"


def count(number: int) -> str:
    """A count in at most five characters: ``950``, ``12.3k``, ``4.1M``."""
    for limit, divisor, unit in (
        (1_000_000_000, 1_000_000_000, "G"),
        (1_000_000, 1_000_000, "M"),
        (10_000, 1_000, "k"),
    ):
        if number >= limit:
            return f"{number / divisor:.1f}{unit}"
    return f"{number:,}"


def duration(milliseconds: int) -> str:
    """``35 ms``, ``1.2 s``, ``2 min 5 s``."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {seconds} s"


def age(since: datetime | None, now: datetime) -> str:
    """``4s``, ``3m``, ``2h``, ``5d``, as kubectl writes it; a clock that runs behind reads as ``0s``."""
    if since is None:
        return "–"
    seconds = max(0, int((now - since).total_seconds()))
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // divisor}{unit}"
    return f"{seconds // 86_400}d"


def one_line(text: str) -> str:
    """Text without line breaks or control characters: a session's words may hold terminal escapes."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
