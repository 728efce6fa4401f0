"""``pilothouse tools`` and ``pilothouse accounts``: tables of tools and of linked accounts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pilothouse_tui.model import LinkedAccount, LinkState, Tool
from pilothouse_tui.render.plain import columns
from pilothouse_tui.render.text import age, one_line

_DESCRIPTION = 70
_STATES = {
    LinkState.LINKED: "● linked",
    LinkState.NOT_LINKED: "○ not linked",
    LinkState.EXPIRED: "✗ link again",
    LinkState.NOT_NEEDED: "– nothing to link",
    LinkState.BY_ADMINISTRATOR: "– by your administrator",
}


def tools_text(tools: Sequence[Tool], nothing: str) -> str:
    """A table of tools, by name."""
    rows = [
        [
            one_line(tool.name),
            one_line(tool.connector),
            tool.effect,
            tool.approval or "–",
            one_line(tool.key_by) or ("idempotent" if tool.idempotent and tool.effect != "read" else "–"),
            _cut(one_line(tool.description)),
        ]
        for tool in sorted(tools, key=lambda tool: tool.name)
    ]
    return columns(["TOOL", "CONNECTOR", "EFFECT", "APPROVED BY", "ONCE BY", "WHAT IT DOES"], rows, nothing)


def accounts_text(accounts: Sequence[LinkedAccount], now: datetime) -> str:
    """A table of an employee's linked accounts."""
    rows = [
        [
            one_line(a.system or a.connector),
            one_line(a.connector),
            _STATES.get(a.state, "? not known"),
            one_line(a.account) or "–",
            age(a.linked, now) if a.linked else "–",
            _cut(one_line(" ".join(a.scopes))) or "–",
        ]
        for a in accounts
    ]
    head = ["SYSTEM", "CONNECTOR", "STATE", "AS", "SINCE", "MAY"]
    return columns(head, rows, "No system is connected.")


def _cut(text: str) -> str:
    return text if len(text) <= _DESCRIPTION else text[: _DESCRIPTION - 1] + "…"
