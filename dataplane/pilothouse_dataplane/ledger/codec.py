"""Rows of the ledger ↔ its records. Pure.

Rows come as JSON objects (``row_to_json``), so a column that a newer schema adds is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from pilothouse_dataplane.core.approvals import ApprovalRequest
from pilothouse_dataplane.core.messages import By, Citation, Outcome, ToolResult
from pilothouse_dataplane.core.provenance import ArgumentOrigin
from pilothouse_dataplane.ledger.base import (
    ApprovalRecord,
    Asker,
    DeadLetterRecord,
    JsonRow,
    NewRun,
    WriteIntent,
    WriteRecord,
)


def clean(text: str) -> str:
    """``text`` without what PostgreSQL's ``text`` can't hold: NUL, and halves of surrogate pairs."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode() if any("\ud800" <= c <= "\udfff" for c in text) else text


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def to_json(value: object) -> str:
    """JSON text of anything; what JSON can't say becomes text."""
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        pass  # a number over 64 bits, half a surrogate pair, very deep nesting
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps("(this value can't be written as JSON)")


def from_json(text: str | None) -> Any:
    """The value; None for NULL."""
    if text is None:
        return None
    try:
        return json.loads(text)  # orjson would make a float of a number over 64 bits: the hash would not be true
    except RecursionError:
        return orjson.loads(text)


def asker_json(asker: Asker) -> str:
    return to_json(
        {
            "subject": asker.subject,
            "email": asker.email,
            "display_name": asker.display_name,
            "manager_email": asker.manager_email,
            "groups": asker.groups,
        }
    )


def asker_of(row: JsonRow) -> Asker:
    return Asker(
        subject=row["subject"],
        email=row["email"],
        display_name=row.get("display_name", ""),
        manager_email=row.get("manager_email", ""),
        groups=tuple(row.get("groups", ())),
    )


def run_of(run_id: str, row: JsonRow) -> NewRun:
    return NewRun(run_id, row["session_id"], asker_of(row["asker"]), row["text"], row["revision"])


def result_json(result: ToolResult) -> str:
    """``outcome`` has a column of its own."""
    citations = [[citation.title, citation.url] for citation in result.citations]
    account = {"account": result.account} if result.account else {}
    return to_json({"summary": result.summary, "data": result.data, "citations": citations, **account})


def _result_of(row: JsonRow) -> ToolResult | None:
    if row["outcome"] is None:
        return None
    kept = row["result"] if isinstance(row["result"], dict) else {}
    citations = tuple(Citation(title, url) for title, url in kept.get("citations", ()))
    return ToolResult(
        Outcome(row["outcome"]), kept.get("summary", ""), kept.get("data"), citations, kept.get("account", "")
    )


def write_of(row: JsonRow) -> WriteRecord:
    intent = WriteIntent(
        key=row["key"],
        step_id=row["step_id"],
        tool=row["tool"],
        arguments=row["arguments"],
        arguments_hash=row["arguments_hash"],
        user_email=row["user_email"],
        approval_id=row["approval_id"],
    )
    return WriteRecord(intent, _result_of(row))


def origins_json(origins: tuple[ArgumentOrigin, ...]) -> str:
    return to_json([[origin.path, origin.value, origin.source] for origin in origins])


def approval_of(row: JsonRow) -> ApprovalRecord:
    request = ApprovalRequest(
        step_id=row["step_id"],
        tool=row["tool"],
        summary=row["summary"],
        arguments=row["arguments"],
        arguments_hash=row["arguments_hash"],
        by=By(row["decide_by"]),
        approver=row["approver"],
        reason=row["reason"],
        origins=tuple(ArgumentOrigin(*origin) for origin in row["origins"]),
        expires_in=row["expires_in"],
    )
    return ApprovalRecord(
        approval_id=row["approval_id"],
        run_id=row["run_id"],
        session_id=row["session_id"],
        user_email=row["user_email"],
        request=request,
        created=datetime.fromisoformat(row["created"]),
        expires=datetime.fromisoformat(row["expires"]),
        approved=row["approved"],
        decided_by=row["decided_by"],
    )


def letter_of(row: JsonRow) -> DeadLetterRecord:
    return DeadLetterRecord(
        id=row["id"],
        run_id=row["run_id"],
        session_id=row["session_id"],
        step_id=row["step_id"],
        asker=asker_of(row["asker"]),
        tool=row["tool"],
        arguments=row["arguments"],
        key=row["key"],
        error=row["error"],
        attempts=row["attempts"],
        breaker_state=row["breaker_state"],
        in_doubt=row["in_doubt"],
        created=datetime.fromisoformat(row["created"]),
        state=row["state"],
        resolved=datetime.fromisoformat(row["resolved"]) if row["resolved"] else None,
        resolved_by=row["resolved_by"],
        resolution=row["resolution"],
    )
