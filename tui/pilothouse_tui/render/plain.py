"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from rich.cells import cell_len, set_cell_size

from pilothouse_tui.model import Approval, Breaker, DeadLetter, FleetSnapshot, LinkedAccount, Tool
from pilothouse_tui.render.approvals import asked
from pilothouse_tui.render.style import breaker_mark, letter_mark, session_mark
from pilothouse_tui.render.text import age, count, money, one_line, until

_ERROR = 60
"""Characters of an error in a table; ``show`` has all of it."""


def as_json(what: str, snapshot: FleetSnapshot) -> str:
    """A JSON list of ``sessions``, ``breakers`` or ``costs``; money in micro-dollars, times in RFC 3339."""
    return json_text([dataclasses.asdict(item) for item in getattr(snapshot, what)])


def approval_json(approval: Approval) -> dict[str, Any]:
    """An approval for a program: its arguments as an object."""
    return dataclasses.asdict(approval) | {"arguments": _parsed(approval.arguments)}


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for a program: its arguments as an object."""
    return dataclasses.asdict(letter) | {"arguments": _parsed(letter.arguments)}


def tool_json(tool: Tool) -> dict[str, Any]:
    """A tool for a program: its arguments' schema as an object."""
    return dataclasses.asdict(tool) | {"parameters": _parsed(tool.parameters)}


def account_json(account: LinkedAccount) -> dict[str, Any]:
    """A linked account for a program."""
    return dataclasses.asdict(account)


def json_text(value: object) -> str:
    """JSON of plain data, enums and times."""

    def plain(value: object) -> object:
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, Enum):
            return value.value
        raise TypeError(f"{type(value).__name__} has no JSON form")

    return json.dumps(value, indent=2, default=plain, ensure_ascii=False)


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
        return breakers_text(snapshot.breakers, now)
    else:
        head = ["TENANT", "TODAY", "SAVED", "RUNS", "TOKENS IN", "TOKENS OUT", "CONFIRMED"]
        rows = [
            [
                c.tenant,
                money(c.cost_micros),
                money(c.saved_micros),
                count(c.runs),
                count(c.input_tokens),
                count(c.output_tokens),
                f"{age(c.reconciled, now)} ago" if c.reconciled else "not yet",
            ]
            for c in sorted(snapshot.costs, key=lambda c: (-c.cost_micros, c.tenant))
        ]
        total, saved = sum(c.cost_micros for c in snapshot.costs), sum(c.saved_micros for c in snapshot.costs)
        rows.append(["total", money(total), money(saved), count(sum(c.runs for c in snapshot.costs)), "", "", ""])
    return columns(head, rows, f"There are no {what}.")


def breakers_text(breakers: Sequence[Breaker], now: datetime) -> str:
    """A table of breakers."""
    rows = [
        [
            b.tenant,
            b.name,
            " ".join(breaker_mark(b.state)[:2]),
            f"{b.failure_rate_percent:.0f}%",
            f"{b.slow_rate_percent:.0f}%",
            age(b.since, now),
            one_line(b.reason) or "–",
        ]
        for b in sorted(breakers, key=lambda b: b.key)
    ]
    head = ["TENANT", "NAME", "STATE", "FAILURES", "SLOW", "SINCE", "REASON"]
    return columns(head, rows, "There are no breakers: they show with the first calls.")


def approvals_text(approvals: Sequence[Approval], ids: Mapping[str, str], now: datetime, nothing: str) -> str:
    """A table of approvals, the next to expire first; ``ids`` gives each id as it is typed."""
    rows = [
        [
            ids.get(a.approval_id, a.approval_id),
            a.tenant,
            one_line(a.user),
            one_line(a.tool),
            asked(a),
            until(a.expires, now),
            age(a.created, now),
            _cut(one_line(a.summary)) or "–",
        ]
        for a in sorted(approvals, key=lambda a: (a.expires is None, a.expires or now, a.key))
    ]
    return columns(["ID", "TENANT", "ASKS", "TOOL", "DECIDES", "EXPIRES", "AGE", "WHAT"], rows, nothing)


def letters_text(letters: Sequence[DeadLetter], ids: Mapping[str, str], now: datetime, nothing: str) -> str:
    """A table of dead letters in the given order; ``ids`` gives each id as it is typed."""
    rows = [
        [
            ids.get(d.id, d.id),
            d.tenant,
            age(d.created, now),
            one_line(d.user),
            one_line(d.tool),
            " ".join(letter_mark(d.state)[:2]),
            count(d.attempts),
            "yes" if d.in_doubt else "–",
            _cut(one_line(d.error)) or "–",
        ]
        for d in letters
    ]
    head = ["ID", "TENANT", "AGE", "USER", "TOOL", "STATE", "ATTEMPTS", "IN DOUBT", "ERROR"]
    return columns(head, rows, nothing)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> str:
    """A table as kubectl writes one; ``nothing`` where it has no row."""
    if not rows:
        return nothing
    widths = [max(cell_len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "   ".join(set_cell_size(c, w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )


def _cut(text: str) -> str:
    return text if len(text) <= _ERROR else text[: _ERROR - 1] + "…"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
