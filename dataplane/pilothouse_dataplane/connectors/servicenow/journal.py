"""Comments and work notes: journal fields, whose entries stand in ``sys_journal_field``.

An entry has no field for a key of ours, so a short reference stands at the end of its text: the only thing that tells
two equal comments apart. Who may not read ``sys_journal_field`` is shown the record's own journal, one long text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, ConnectorError, Refused
from pilothouse_dataplane.connectors.servicenow import query, values
from pilothouse_dataplane.connectors.servicenow.client import SYS_ID
from pilothouse_dataplane.connectors.servicenow.instance import Instance

_TABLE = "sys_journal_field"
_FIELDS = ("element_id", "element", "value", "sys_created_by", "sys_created_on")
_LOOKED_AT = 50
_SHOWN = 8
_JOURNAL_LIMIT = 200_000
_REFERENCE = re.compile(r"\s*\(ref [0-9a-f]{12}\)")


def reference(key: str) -> str:
    """What stands at the end of an entry."""
    return f"(ref {hashlib.sha256(key.encode()).hexdigest()[:12]})"


async def add(
    instance: Instance, context: CallContext, record: Mapping[str, Any], element: str, text: str
) -> tuple[dict[str, Any], bool | None]:
    """Adds an entry to an incident; the record, and whether the entry is there (None: the user is shown no journal).
    An access rule drops a journal field without a word, so success alone proves nothing. Raises ConnectorError."""
    sys_id = values.raw(record, "sys_id")
    if not SYS_ID.fullmatch(sys_id):
        raise values.unreadable()
    ref = reference(context.key)
    # code tags would be read as HTML by the platform
    clean = text.replace("[code]", "[ code]").replace("[/code]", "[ /code]")
    now = await instance.client.write(
        "PATCH", "incident", context, {element: f"{clean}\n\n{ref}"}, ("sys_id", "number", element), sys_id
    )
    if ref in values.shown(now, element, _JOURNAL_LIMIT):
        return now, True
    try:
        return now, await has(instance, context, sys_id, element)
    except ConnectorError:  # the entry was accepted; only the look after it failed
        return now, None


async def has(instance: Instance, context: CallContext, sys_id: str, element: str) -> bool | None:
    """Whether the incident has this call's entry; None: that can't be told. Raises ConnectorError."""
    ref = reference(context.key)
    readable = False
    try:
        where = query.every(
            query.equals("element_id", sys_id), query.equals("element", element), newest="sys_created_on"
        )
        page = await instance.client.rows(_TABLE, context, where=where, fields=_FIELDS, limit=_LOOKED_AT)
        own = [r for r in page.records if values.raw(r, "element_id") == sys_id and values.raw(r, "element") == element]
        if any(ref in values.raw(r, "value", _JOURNAL_LIMIT) for r in own):
            return True
        if own:
            return None if page.more else False
        # nothing: is there nothing, or may the user not read these at all?
        other = await instance.client.find(
            _TABLE, context, where=query.equals("element", element), fields=("element", "element_id")
        )
        readable = other is not None and values.raw(other, "element") == element
    except Refused:
        readable = False
    record = await instance.client.get("incident", context, sys_id, ("sys_id", element))
    text = values.shown(record, element, _JOURNAL_LIMIT)
    if ref in text:
        return True
    return False if text or readable else None


async def latest(instance: Instance, context: CallContext, table: str, sys_id: str) -> list[dict[str, str]]:
    """The newest entries that the user may read, newest first. Raises SystemUnavailable."""
    try:
        where = query.every(
            query.equals("element_id", sys_id),
            query.one_of("element", ["comments", "work_notes"]),
            newest="sys_created_on",
        )
        page = await instance.client.rows(_TABLE, context, where=where, fields=_FIELDS, limit=_SHOWN)
        entries = [
            _entry(
                values.raw(r, "element", 40),
                values.shown(r, "sys_created_by", 100),
                values.shown(r, "sys_created_on", 40),
                values.raw(r, "value", 2_000),
            )
            for r in page.records
            if values.raw(r, "element_id") == sys_id
        ]
        if entries:
            return entries
    except Refused:
        pass
    record = await instance.client.get(table, context, sys_id, ("sys_id", "comments"))
    text = values.shown(record, "comments", 6_000)
    return [_entry("comments", "", "", text)] if text else []


def _entry(kind: str, author: str, created: str, text: str) -> dict[str, str]:
    return {"kind": kind, "author": author, "created_at": created, "text": _REFERENCE.sub("", text)}
