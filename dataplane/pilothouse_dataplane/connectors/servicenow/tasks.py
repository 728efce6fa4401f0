"""Incidents, changes and requests: the tables that extend ``task``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.prelude import nothing_changed_yet
from pilothouse_dataplane.connectors.servicenow import journal, query, values
from pilothouse_dataplane.connectors.servicenow.client import SYS_ID, number
from pilothouse_dataplane.connectors.servicenow.instance import CORRELATION_DISPLAY, Instance, correlation_id
from pilothouse_dataplane.core.messages import Outcome, ToolResult

Arguments = Mapping[str, Any]
_LONG = 6_000
_RESOLVED, _CLOSED, _CANCELLED = "6", "7", "8"
_CLOSE_CODE = "Solution provided"


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and what of it is shown: our name → its field."""

    name: str
    prefix: str
    noun: str
    columns: Mapping[str, str]
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("sys_id", "number", *self.columns.values())))

    @property
    def all_fields(self) -> tuple[str, ...]:
        return (*self.fields, *self.details.values())


_COMMON = {"number": "number", "sys_id": "sys_id", "short_description": "short_description", "state": "state"}
_WORK = {"assignment_group": "assignment_group", "assigned_to": "assigned_to"}
INCIDENT = Table(
    "incident",
    "INC",
    "incident",
    {
        **_COMMON,
        **_WORK,
        "priority": "priority",
        "urgency": "urgency",
        "impact": "impact",
        "category": "category",
        "caller": "caller_id",
        "opened_at": "opened_at",
        "updated_at": "sys_updated_on",
    },
    {"description": "description", "close_code": "close_code", "close_notes": "close_notes"},
)
REQUEST = Table(
    "sc_request",
    "REQ",
    "request",
    {
        **_COMMON,
        "state": "request_state",
        "stage": "stage",
        "approval": "approval",
        "requested_for": "requested_for",
        "price": "price",
        "opened_at": "opened_at",
        "due_date": "due_date",
    },
)
CHANGE = Table(
    "change_request",
    "CHG",
    "change",
    {
        **_COMMON,
        **_WORK,
        "type": "type",
        "risk": "risk",
        "impact": "impact",
        "approval": "approval",
        "start_date": "start_date",
        "end_date": "end_date",
    },
    {
        "description": "description",
        "justification": "justification",
        "implementation_plan": "implementation_plan",
        "backout_plan": "backout_plan",
    },
)


def row(instance: Instance, table: Table, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as models read it."""
    shown = {ours: values.shown(record, theirs, 255) for ours, theirs in table.columns.items()}
    shown["sys_id"] = values.raw(record, "sys_id", 32)
    return {**shown, "url": instance.link(table.name, shown["sys_id"])}


async def _search(
    instance: Instance, context: CallContext, table: Table, where: str, arguments: Arguments
) -> ToolResult:
    wanted = int(arguments.get("max_results", 10))
    page = await instance.client.search(table.name, context, where=where, fields=table.fields, limit=wanted)
    rows = [row(instance, table, record) for record in page.records]
    count = f"{'at least ' if page.more else ''}{len(rows)} {table.noun}{'' if len(rows) == 1 else 's'}"
    cited = tuple(instance.cite(f"{r['number']} {r['short_description']}", r["url"]) for r in rows[:5])
    data = {f"{table.noun}s": rows, "more": page.more}
    return ToolResult(Outcome.SUCCEEDED, f"Found {count} in ServiceNow.", data, cited)


async def _mine(instance: Instance, context: CallContext, *fields: str) -> str:
    me = await instance.me(context)
    return query.either(*(query.equals(name, me.sys_id) for name in fields))


async def search_incidents(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    where = query.every(
        query.text_in(("short_description", "description"), str(arguments.get("text", ""))),
        await _mine(instance, context, "caller_id", "opened_by") if arguments.get("mine") else "",
        *(query.differs("state", s) for s in (_RESOLVED, _CLOSED, _CANCELLED) if arguments.get("open")),
        newest="sys_updated_on",
    )
    return await _search(instance, context, INCIDENT, where, arguments)


async def search_requests(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    where = query.every(
        query.text_in(("short_description",), str(arguments.get("text", ""))),
        await _mine(instance, context, "requested_for", "opened_by") if arguments.get("mine", True) else "",
        query.equals("active", "true") if arguments.get("open") else "",
        newest="sys_updated_on",
    )
    return await _search(instance, context, REQUEST, where, arguments)


async def search_changes(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    where = query.every(
        query.text_in(("short_description", "description"), str(arguments.get("text", ""))),
        query.equals("active", "true") if arguments.get("open") else "",
        newest="sys_updated_on",
    )
    return await _search(instance, context, CHANGE, where, arguments)


async def _get(
    instance: Instance, arguments: Arguments, context: CallContext, table: Table
) -> tuple[dict[str, Any], ToolResult]:
    key = number(arguments.get("number"), table.prefix)
    record = await instance.client.get(table.name, context, key, table.all_fields)
    data = row(instance, table, record)
    data.update({ours: values.shown(record, theirs, _LONG) for ours, theirs in table.details.items()})
    summary = f"{data['number']} is in the state {data['state']}: {data['short_description']}"
    cited = (instance.cite(f"{data['number']} {data['short_description']}", data["url"]),)
    return data, ToolResult(Outcome.SUCCEEDED, summary, data, cited)


async def get_incident(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    data, result = await _get(instance, arguments, context, INCIDENT)
    data["journal"] = await journal.latest(instance, context, INCIDENT.name, data["sys_id"])
    return result


async def get_change(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    return (await _get(instance, arguments, context, CHANGE))[1]


async def get_request(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    """A request with its items, by its own number or that of one of the items."""
    key = number(arguments.get("number"), "REQ", "RITM")
    if key.startswith("RITM"):
        item = await instance.client.get("sc_req_item", context, key, ("number", "request"))
        arguments = {"number": values.raw(item, "request")}
        if not SYS_ID.fullmatch(arguments["number"]):
            raise values.unreadable()
    data, result = await _get(instance, arguments, context, REQUEST)
    fields = ("number", "cat_item", "short_description", "state", "stage", "quantity", "due_date", "request")
    where = query.equals("request", data["sys_id"])
    page = await instance.client.rows("sc_req_item", context, where=where, fields=fields, limit=50)
    data["items"] = [
        {
            "number": values.shown(r, "number", 40),
            "item": values.shown(r, "cat_item", 255) or values.shown(r, "short_description", 255),
            **{name: values.shown(r, name, 100) for name in ("state", "stage", "quantity", "due_date")},
        }
        for r in page.records
        if values.raw(r, "request") == data["sys_id"]
    ]
    return result


async def _group(instance: Instance, context: CallContext, name: str) -> str:
    found = await instance.client.find(
        "sys_user_group", context, where=query.equals("name", name.strip()), fields=("sys_id", "name")
    )
    if found is None or values.raw(found, "name").casefold() != name.strip().casefold():
        raise Refused(f"ServiceNow has no group “{name[:100]}” that you may see, so nothing was changed.")
    return values.raw(found, "sys_id")


async def _watchers(instance: Instance, context: CallContext, emails: list[str]) -> str:
    """Users by sys_id, others by their e-mail: a watch list holds both."""
    wanted = [e.strip().casefold() for e in emails]
    for email in wanted:
        if not _is_email(email):
            raise Refused(f"“{email[:64]}” is not an e-mail address, so nothing was changed.", asked=False)
    page = await instance.client.rows(
        "sys_user", context, where=query.one_of("email", wanted), fields=("sys_id", "email"), limit=50
    )
    known = {values.raw(r, "email").casefold(): values.raw(r, "sys_id") for r in page.records}
    return ",".join(known.get(email) or email for email in wanted)


def _is_email(text: str) -> bool:
    name, at, host = text.partition("@")
    return bool(at and name and "." in host) and text.isprintable() and not any(c in text for c in ' ,;"<>()^')


async def _fields(instance: Instance, context: CallContext, arguments: Arguments, *plain: str) -> dict[str, str]:
    """The arguments as fields of the table: names of groups and people become sys_ids."""
    body = {name: str(arguments[name]) for name in plain if name in arguments}
    if "short_description" in body:
        body["short_description"] = " ".join(body["short_description"].split())
    looked: dict[str, Any] = {}
    if arguments.get("assignment_group"):
        looked["assignment_group"] = _group(instance, context, str(arguments["assignment_group"]))
    if arguments.get("watch_list"):
        looked["watch_list"] = _watchers(instance, context, [str(e) for e in arguments["watch_list"]])
    found = await asyncio.gather(*looked.values(), return_exceptions=True)
    for value in found:
        if isinstance(value, BaseException):
            raise value
    return {**body, **{name: str(value) for name, value in zip(looked, found, strict=True)}}


def _written(instance: Instance, table: Table, record: Mapping[str, Any], summary: str) -> ToolResult:
    sys_id, shown_number = values.raw(record, "sys_id", 32), values.shown(record, "number", 40)
    url = instance.link(table.name, sys_id)
    data = {"number": shown_number, "sys_id": sys_id, "url": url}
    return ToolResult(Outcome.SUCCEEDED, summary, data, (instance.cite(shown_number, url),))


async def _create(instance: Instance, context: CallContext, table: Table, body: dict[str, str]) -> ToolResult:
    key = correlation_id(context.key)
    sent = {**body, "correlation_id": key, "correlation_display": CORRELATION_DISPLAY}
    record = await instance.client.write("POST", table.name, context, sent, (*table.fields, "correlation_id"))
    if not SYS_ID.fullmatch(values.raw(record, "sys_id")):
        raise values.unreadable(may_have_acted=True)
    instance.learn_keeping(table.name, context, kept=values.raw(record, "correlation_id") == key)
    return _created(instance, table, record)


def _created(instance: Instance, table: Table, record: Mapping[str, Any]) -> ToolResult:
    return _written(instance, table, record, f"Created {values.shown(record, 'number', 40)} in ServiceNow.")


async def _find_created(instance: Instance, context: CallContext, table: Table) -> ToolResult | None:
    key = correlation_id(context.key)
    where = query.every(query.equals("correlation_id", key), query.equals("correlation_display", CORRELATION_DISPLAY))
    fields = ("sys_id", "number", "correlation_id")
    record = await instance.client.find(table.name, context, where=where, fields=fields)
    if record is not None and values.raw(record, "correlation_id") == key:
        return _created(instance, table, record)
    if record is not None or not await instance.keeps_keys(table.name, context):
        raise SystemUnavailable(f"ServiceNow does not tell whether the {table.noun} was created.", may_have_acted=False)
    return None


_INCIDENT_PLAIN = ("short_description", "description", "urgency", "impact", "category")
_CHANGE_PLAIN = ("short_description", "description", "type", "justification", "implementation_plan", "backout_plan",
                 "start_date", "end_date")  # fmt: skip


async def create_incident(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    with nothing_changed_yet():
        me = await instance.me(context)
        body = await _fields(instance, context, arguments, *_INCIDENT_PLAIN)
    return await _create(instance, context, INCIDENT, {**body, "caller_id": me.sys_id})


async def find_incident(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult | None:
    return await _find_created(instance, context, INCIDENT)


async def create_change(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    with nothing_changed_yet():
        me = await instance.me(context)
        body = await _fields(instance, context, arguments, *_CHANGE_PLAIN)
    return await _create(instance, context, CHANGE, {"type": "normal", **body, "requested_by": me.sys_id})


async def find_change(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult | None:
    return await _find_created(instance, context, CHANGE)


def _same(sent: str, there: str) -> bool:
    """ServiceNow writes lines its own way, and lists in any order."""
    if " ".join(sent.split()) == " ".join(there.split()):
        return True
    return "," in sent and sorted(sent.split(",")) == sorted(part.strip() for part in there.split(","))


def _not_taken(record: Mapping[str, Any], sent: Mapping[str, str]) -> list[str]:
    return [name for name, value in sent.items() if not _same(value, values.raw(record, name, len(value) + 1_000))]


async def _change(
    instance: Instance, context: CallContext, record: Mapping[str, Any], body: Mapping[str, str], done: str
) -> ToolResult:
    """Changes an incident. An access rule drops a field without a word: what was not taken is told."""
    key = values.raw(record, "sys_id")
    if not SYS_ID.fullmatch(key):
        raise values.unreadable()
    now = await instance.client.write("PATCH", "incident", context, body, (*INCIDENT.all_fields, "watch_list"), key)
    lost = _not_taken(now, body)
    name = values.shown(now, "number", 40) or key
    names = ", ".join(lost)
    if len(lost) == len(body):
        raise Refused(
            f"ServiceNow did not change {names} of {name}. It takes the permission “write on incident.{lost[0]}”, or a "
            "rule of the instance forbids it; ask a ServiceNow administrator."
        )
    but = f" It did not take {names}: you lack the permission, or a rule of the instance forbids it." if lost else ""
    return _written(instance, INCIDENT, now, f"{done.format(name)}{but}")


async def update_incident(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    with nothing_changed_yet():
        record, body = await _update_of(instance, arguments, context)
    return await _change(instance, context, record, body, "Changed {}.")


async def _update_of(
    instance: Instance, arguments: Arguments, context: CallContext
) -> tuple[dict[str, Any], dict[str, str]]:
    key = number(arguments.get("number"), "INC")
    body = await _fields(instance, context, arguments, *_INCIDENT_PLAIN)
    if not body:
        raise Refused(f"Nothing was named that should change in {key}.", asked=False)
    return await instance.client.get("incident", context, key, (*INCIDENT.all_fields, "watch_list")), body


async def find_update(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult | None:
    record, body = await _update_of(instance, arguments, context)
    if _not_taken(record, body):
        return None
    return _written(instance, INCIDENT, record, f"{values.shown(record, 'number', 40)} has these values.")


async def resolve_incident(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    key = number(arguments.get("number"), "INC")
    body = {
        "state": _RESOLVED,
        "close_code": str(arguments.get("close_code") or _CLOSE_CODE),
        "close_notes": str(arguments["close_notes"]),
    }
    with nothing_changed_yet():
        record = await instance.client.get("incident", context, key, INCIDENT.fields)
    return await _change(instance, context, record, body, "Resolved {}.")


async def find_resolved(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult | None:
    key = number(arguments.get("number"), "INC")
    record = await instance.client.get("incident", context, key, INCIDENT.fields)
    if values.raw(record, "state") not in (_RESOLVED, _CLOSED):
        return None
    state = values.shown(record, "state", 100)
    return _written(instance, INCIDENT, record, f"{values.shown(record, 'number', 40)} is in the state {state}.")


async def comment(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    return await _note(instance, arguments, context, "comments", "comment")


async def find_comment(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult | None:
    return await _find_note(instance, arguments, context, "comments", "comment")


async def work_note(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult:
    return await _note(instance, arguments, context, "work_notes", "work note")


async def find_work_note(instance: Instance, arguments: Arguments, context: CallContext) -> ToolResult | None:
    return await _find_note(instance, arguments, context, "work_notes", "work note")


async def _note(instance: Instance, arguments: Arguments, context: CallContext, element: str, noun: str) -> ToolResult:
    key = number(arguments.get("number"), "INC")
    with nothing_changed_yet():
        record = await instance.client.get("incident", context, key, ("sys_id", "number"))
        name = values.shown(record, "number", 40)
    now, kept = await journal.add(instance, context, record, element, str(arguments["text"]))
    if kept is False:
        raise Refused(
            f"ServiceNow did not keep the {noun} on {name}. It takes the permission “write on incident.{element}”; ask "
            "a ServiceNow administrator."
        )
    unseen = "" if kept else " It is not shown to you, so that it can't be said for certain."
    return _written(instance, INCIDENT, now, f"Added a {noun} to {name}.{unseen}")


async def _find_note(
    instance: Instance, arguments: Arguments, context: CallContext, element: str, noun: str
) -> ToolResult | None:
    key = number(arguments.get("number"), "INC")
    record = await instance.client.get("incident", context, key, ("sys_id", "number"))
    name = values.shown(record, "number", 40)
    there = await journal.has(instance, context, values.raw(record, "sys_id"), element)
    if there is None:
        raise SystemUnavailable(f"ServiceNow does not tell whether {name} has the {noun}.", may_have_acted=False)
    return _written(instance, INCIDENT, record, f"Added a {noun} to {name}.") if there else None
