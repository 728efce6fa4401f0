"""``pilothouse get``: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from enum import Enum

from pilothouse_tui.model import FleetSnapshot
from pilothouse_tui.render.style import breaker_mark, session_mark
from pilothouse_tui.render.text import age, count, money, one_line


def as_json(what: str, snapshot: FleetSnapshot) -> str:
    """A JSON list of ``sessions``, ``breakers`` or ``costs``; money in micro-dollars, times in RFC 3339."""

    def plain(value: object) -> object:
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, Enum):
            return value.value
        raise TypeError(f"{type(value).__name__} has no JSON form")

    rows = [dataclasses.asdict(item) for item in getattr(snapshot, what)]
    return json.dumps(rows, indent=2, default=plain, ensure_ascii=False)


def as_table(what: str, snapshot: FleetSnapshot, now: datetime) -> str:
    """A table of ``sessions``, ``breakers`` or ``costs``, as kubectl writes one."""
    if what == "sessions":
        head = ["TENANT", "SESSION", "USER", "STATE", "STEP", "RUNS", "COST", "AGE"]
        rows = [
            [
                s.tenant,
                s.session_id,
                s.user,
                " ".join(session_mark(s)[:2]),
                one_line(s.current_step) or "–",
                count(s.runs),
                money(s.cost_micros),
                age(s.last_event, now),
            ]
            for s in sorted(snapshot.sessions, key=lambda s: (not s.active, s.tenant, s.session_id))
        ]
    elif what == "breakers":
        head = ["TENANT", "NAME", "STATE", "FAILURES", "SINCE", "REASON"]
        rows = [
            [
                b.tenant,
                b.name,
                " ".join(breaker_mark(b.state)[:2]),
                f"{b.failure_rate_percent:.0f}%",
                age(b.since, now),
                one_line(b.reason) or "–",
            ]
            for b in sorted(snapshot.breakers, key=lambda b: (b.tenant, b.name))
        ]
    else:
        head = ["TENANT", "COST", "RUNS", "TOKENS IN", "TOKENS OUT"]
        rows = [
            [c.tenant, money(c.cost_micros), count(c.runs), count(c.input_tokens), count(c.output_tokens)]
            for c in sorted(snapshot.costs, key=lambda c: (-c.cost_micros, c.tenant))
        ]
        total = sum(c.cost_micros for c in snapshot.costs)
        rows.append(["total", money(total), count(sum(c.runs for c in snapshot.costs)), "", ""])
    if not rows:
        return f"There are no {what}."
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows])
