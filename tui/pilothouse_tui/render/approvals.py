"""Approvals: the table, and all that who decides must see."""

from __future__ import annotations

from datetime import datetime

from pilothouse_tui.model import Approval, Approver, DecideOutcome
from pilothouse_tui.render.lines import Line, block, field, fields, shortened
from pilothouse_tui.render.style import DIM, PLAIN, STRONG, WARN
from pilothouse_tui.render.table import Cell, Column, Table
from pilothouse_tui.render.text import age, json_lines, one_line, until, visible

_FAR = float("inf")
_SOON = 120.0
"""Seconds before its end from which an approval is marked."""
_ROOM = 20_000
"""Characters of the arguments on a page that is painted again and again."""

RESULTS = {
    DecideOutcome.DECIDED: "",
    DecideOutcome.ALREADY_DECIDED: "Somebody else has decided it before; nothing was changed.",
    DecideOutcome.EXPIRED: "It has expired, which counts as a refusal; nothing was changed.",
    DecideOutcome.NOT_ALLOWED: "Somebody else is asked; nothing was changed.",
    DecideOutcome.NOT_FOUND: "There is no such approval; nothing was changed.",
    DecideOutcome.UNKNOWN: "The gateway's answer is of a newer version; look at the approvals again.",
}
"""What became of an answer, where the gateway sent no sentence of its own."""


def who_decides(approval: Approval, me: str = "") -> str:
    """Who may decide, in a few words; ``me`` is the reader's e-mail, who reads "you"."""
    name = visible(approval.approver)
    if me and approval.approver.casefold() == me.casefold() and approval.by is not Approver.GROUP:
        return "you"
    match approval.by:
        case Approver.USER:
            return name or visible(approval.user) or "the asking user"
        case Approver.MANAGER:
            return f"{name} (manager)" if name else "the user's manager, who is not known"
        case Approver.GROUP:
            return f"group {name}, not the user"
        case _:
            return name or "unknown"


def asked(approval: Approval) -> str:
    """Who is asked, as short as it gets: an e-mail, or a group."""
    name = visible(approval.approver)
    return f"group {name}" if approval.by is Approver.GROUP else name or who_decides(approval)


def asks_me(approval: Approval, me: str) -> bool:
    """Whether the asking user ``me`` (an e-mail) is the one who decides. A group never asks the user back."""
    if approval.by is Approver.USER:
        return True
    return approval.by is Approver.MANAGER and bool(me) and approval.approver.casefold() == me.casefold()


def approvals_table(now: datetime) -> Table[Approval]:
    """The table of approvals; ``now`` for how long each still waits."""

    def cells(approval: Approval) -> tuple[Cell, ...]:
        return (
            Cell(until(approval.expires, now), WARN if _left(approval, now) < _SOON else PLAIN),
            Cell(approval.tenant, STRONG),
            Cell(one_line(approval.user)),
            Cell(one_line(approval.tool)),
            Cell(one_line(approval.summary) or "–"),
            Cell(asked(approval)),
            Cell(str(len(approval.origins)) if approval.origins else "–", WARN if approval.origins else DIM),
            Cell(age(approval.created, now), DIM),
        )

    return Table(
        columns=(
            Column("Expires", 8, keep=9, right=True),
            Column("Tenant", 10, grow=1, keep=7),
            Column("Asks", 18, grow=1, keep=6),
            Column("Tool", 18, grow=1, keep=8),
            Column("What", 16, grow=6, keep=4),
            Column("Decides", 18, grow=1, keep=5),
            Column("Foreign", 7, keep=2, right=True),
            Column("Age", 4, keep=1, right=True),
        ),
        key=lambda a: a.key,
        cells=cells,
        text=lambda a: f"{a.tenant} {a.approval_id} {a.user} {a.tool} {a.summary} {who_decides(a)}",
        values=(
            lambda a: a.expires.timestamp() if a.expires else _FAR,
            lambda a: a.tenant,
            lambda a: a.user,
            lambda a: a.tool,
            lambda a: a.summary,
            asked,
            lambda a: -len(a.origins),
            lambda a: -a.created.timestamp() if a.created else _FAR,
        ),
    )


def approval_lines(approval: Approval, now: datetime, *, me: str = "", room: int = 0) -> list[Line]:
    """All of an approval. ``room``: at most about so many characters of arguments (0: all of them)."""
    arguments = json_lines(approval.arguments)
    if room:
        arguments = shortened(arguments, room, f"pilothouse approvals show {approval.approval_id}")
    lines = [
        [Cell(visible(approval.summary) or approval.tool, STRONG)],
        *fields(
            (
                ("tool", visible(approval.tool)),
                ("asks", visible(approval.user)),
                ("decides", who_decides(approval, me)),
                ("why", visible(approval.reason)),
            )
        ),
    ]
    if approval.expires:
        soon = _left(approval, now) < _SOON
        day = "" if approval.expires.date() == now.date() else f"{approval.expires:%Y-%m-%d} "
        when = f"in {until(approval.expires, now)} ({day}{approval.expires:%H:%M:%S} UTC)"
        text = when if approval.expires > now else "now: it counts as refused"
        lines.append(field("expires", text, WARN if soon else PLAIN))
    lines += block("arguments", arguments)
    if approval.origins:
        who = "You" if me and approval.user.casefold() == me.casefold() else "The user"
        lines.append([Cell(f"! {who} did not write these values; they come from what a tool returned:", WARN)])
    for origin in approval.origins:
        value = shortened([visible(origin.value)], room, "see above")[0] if room else visible(origin.value)
        lines.append(
            [
                Cell(f"  {visible(origin.path)} = "),
                Cell(value, WARN),
                Cell(f"  from {visible(origin.source)}", DIM),
            ]
        )
    return lines


def approval_page(approval: Approval, now: datetime) -> list[Line]:
    """An approval on a screen for SREs: as ``approval_lines``, and where it belongs."""
    return [
        *approval_lines(approval, now, room=_ROOM),
        [],
        [
            Cell(
                f"tenant {approval.tenant} · approval {approval.approval_id} · session {approval.session_id or '–'}"
                f" · run {approval.run_id or '–'} · step {approval.step_id or '–'}",
                DIM,
            )
        ],
    ]


def _left(approval: Approval, now: datetime) -> float:
    return (approval.expires - now).total_seconds() if approval.expires else _FAR
