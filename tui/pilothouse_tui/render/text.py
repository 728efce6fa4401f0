"""Durations, money, counts and JSON as a person reads them, in few characters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from pilothouse_tui.model import TimeSplit


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


def until(moment: datetime | None, now: datetime) -> str:
    """``4m``, as ``age`` but ahead: the time that is left; ``now`` where there is none."""
    if moment is None:
        return "–"
    return "now" if moment <= now else age(now, moment)


def visible(text: str) -> str:
    """One line in which a character that does not show (a control, a change of writing direction) is spelled out.

    Who approves a write must see each character of it; ``one_line`` would hide what is there.
    """
    return "".join(c if c.isprintable() else _spelled(c) for c in text)


def _spelled(character: str) -> str:
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return known.get(character) or (
        f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
    )


def json_lines(text: str) -> list[str]:
    """JSON text indented, a line each; what is no JSON stays as it is, in one line."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return [visible(text)]
    return [visible(line) for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n")]


def short_ids(ids: Iterable[str], least: int = 8) -> dict[str, str]:
    """Each id's shortest beginning, of ``least`` characters or more, that no other one has."""
    ordered = sorted(set(ids))
    shared = [0] * (len(ordered) + 1)
    for i in range(1, len(ordered)):
        a, b = ordered[i - 1], ordered[i]
        shared[i] = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return {id: id[: max(least, shared[i] + 1, shared[i + 1] + 1)] for i, id in enumerate(ordered)}


def time_split(time: TimeSplit) -> str:
    """``model 1.4 s (65%) · tools 700 ms (33%) · approval – · Pilothouse 14 ms (1%)``."""
    total = max(1, time.total_ms)

    def part(word: str, milliseconds: int) -> str:
        return f"{word} {duration(milliseconds)} ({100 * milliseconds / total:.0f}%)" if milliseconds else f"{word} –"

    return " · ".join(
        (
            part("model", time.model_ms),
            part("tools", time.tools_ms),
            part("approval", time.approval_ms),
            part("Pilothouse", time.pilothouse_ms),
        )
    )
