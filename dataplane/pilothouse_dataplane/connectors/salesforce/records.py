"""Objects and their records: describing, reading, creating, changing, deleting."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote

from pilothouse_dataplane.connectors.base import ConnectorError, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.salesforce.call import (
    Call,
    Finder,
    Handler,
    clean,
    done,
    id_of,
    name_of,
    names_of,
    values_of,
)
from pilothouse_dataplane.connectors.salesforce.client import Denied
from pilothouse_dataplane.connectors.salesforce.keys import KeyFields, value_of
from pilothouse_dataplane.connectors.shape import mapping, mappings, objects, text, unreadable, whole
from pilothouse_dataplane.core.messages import Citation, ToolResult

_MAX_FIELDS_TOLD = 300
_MAX_CHOICES = 40
_CASE_FIELDS = {
    "subject": "Subject",
    "description": "Description",
    "priority": "Priority",
    "origin": "Origin",
    "type": "Type",
    "account": "AccountId",
    "contact": "ContactId",
}


async def object_list(call: Call) -> ToolResult:
    wanted, words = whole(call.arguments, "max_results", 50, 200), call.word("text").casefold()
    listed = mapping(await call.ask("GET", "/sobjects", needs="API Enabled", large=True))
    rows = [
        {
            "name": text(found.get("name")),
            "label": text(found.get("label")),
            "custom": found.get("custom") is True,
            "createable": found.get("createable") is True,
        }
        for found in objects(listed.get("sobjects"), "Salesforce")
        if found.get("queryable") is True
    ]
    rows = [row for row in rows if words in str(row["name"]).casefold() or words in str(row["label"]).casefold()]
    more = len(rows) > wanted
    count = f"{'at least ' if more else ''}{len(rows[:wanted])} object{'' if len(rows) == 1 else 's'}"
    return done(f"Found {count} in Salesforce.", {"objects": rows[:wanted], "more": more})


async def _describe(call: Call, name: str, needs: str) -> Any:
    return await call.ask("GET", f"/sobjects/{name}/describe", needs=needs, large=True)


async def object_describe(call: Call) -> ToolResult:
    name, words = call.object_name(), call.word("text").casefold()
    found = mapping(await _describe(call, name, f"Read on {name}"))
    rows = [_field(field) for field in objects(found.get("fields"), "Salesforce")]
    rows = [row for row in rows if words in row["name"].casefold() or words in row["label"].casefold()]
    label = text(found.get("label")) or name
    data = {
        "object": name,
        "label": label,
        "fields": rows[:_MAX_FIELDS_TOLD],
        "more": len(rows) > _MAX_FIELDS_TOLD,
        **{right: found.get(right) is True for right in ("createable", "updateable", "deletable")},
    }
    return done(f"{label} has {len(rows)} such field{'' if len(rows) == 1 else 's'} in Salesforce.", data)


def _field(field: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": text(field.get("name")),
        "label": text(field.get("label")),
        "type": text(field.get("type")),
        "required": field.get("nillable") is False
        and field.get("defaultedOnCreate") is not True
        and field.get("createable") is True,
        "updateable": field.get("updateable") is True,
    }
    choices = [text(c.get("value")) for c in mappings(field.get("picklistValues")) if c.get("active") is True]
    if choices:
        row["choices"] = choices[:_MAX_CHOICES]
    leads_to = field.get("referenceTo")
    if isinstance(leads_to, list) and leads_to:
        row["refers_to"] = [text(target) for target in leads_to[:10]]
    return row


async def get(call: Call) -> ToolResult:
    name, record_id = call.object_name(), id_of(call.arguments.get("id"))
    fields = names_of(call.arguments.get("fields", []), "“fields”", 100)
    query = {"fields": ",".join(fields)} if fields else None
    path = f"/sobjects/{name}/{record_id}"
    found = await call.ask("GET", path, needs=f"Read on {name}", query=query, large=True)
    if not isinstance(found, dict):
        raise unreadable("Salesforce")
    record = {
        field: clean(value, 8000, 1)
        for field, value in found.items()
        if field != "attributes" and (fields or value is not None)
    }
    title = text(record.get("Name") or record.get("CaseNumber") or record.get("Subject") or record_id)
    data = {"object": name, "id": record_id, "record": record, "url": call.url(record_id)}
    return done(f"Read {name} {title} in Salesforce.", data, Citation(f"{name} {title}", call.url(record_id)))


# -- creating ---------------------------------------------------------------------------------------------------------


async def create(call: Call) -> ToolResult:
    name = call.object_name()
    return await _create(call, name, values_of(call.arguments.get("fields")))


def _case(call: Call) -> dict[str, Any]:
    fields = {field: call.word(argument) for argument, field in _CASE_FIELDS.items() if call.word(argument)}
    for argument, what in (("account", "an account"), ("contact", "a contact")):
        if call.word(argument):
            id_of(call.word(argument), what)
    return values_of(fields)


async def case_create(call: Call) -> ToolResult:
    return await _create(call, "Case", _case(call))


async def _carries_key(call: Call, name: str) -> bool:
    # who may not even see the object is told what the creation takes
    describe = partial(_describe, call, name, f"Create on {name}")
    return await call.keys.carried_by(call.context.user_email, name, describe)


async def _create(call: Call, name: str, fields: dict[str, Any]) -> ToolResult:
    needs = f"Create on {name}"
    if await _carries_key(call, name):
        path = f"/sobjects/{name}/{KeyFields.FIELD}/{value_of(call.context.key)}"
        answer = await call.ask("PATCH", path, needs=needs, body=fields)
    else:
        answer = await call.ask("POST", f"/sobjects/{name}", needs=needs, body=fields)
    record_id = text(mapping(answer).get("id"))
    if not record_id.isalnum():
        raise unreadable("Salesforce", may_have_acted=True)
    return await _created(call, name, record_id)


async def _created(call: Call, name: str, record_id: str) -> ToolResult:
    number = ""
    if name == "Case":  # people speak of a case by its number, which only a read tells
        with suppress(ConnectorError):  # it is created; without a number it is told by its id
            path, query = f"/sobjects/Case/{id_of(record_id)}", {"fields": "CaseNumber"}
            number = text(mapping(await call.ask("GET", path, needs="Read on Case", query=query)).get("CaseNumber"))
    url = call.url(record_id)
    title = f"{name} {number or record_id}"
    data = {"object": name, "id": record_id, "url": url} | ({"number": number} if number else {})
    return done(f"Created {title} in Salesforce.", data, Citation(title, url))


async def find_created(call: Call) -> ToolResult | None:
    return await _find_created(call, call.object_name())


async def find_case(call: Call) -> ToolResult | None:
    return await _find_created(call, "Case")


async def _find_created(call: Call, name: str) -> ToolResult | None:
    if not await _carries_key(call, name):
        raise Refused(
            f"Salesforce can't tell whether the {name} was created: its field {KeyFields.FIELD} is missing, or you "
            "may not see it.",
            asked=False,
        )
    path = f"/sobjects/{name}/{KeyFields.FIELD}/{value_of(call.context.key)}"
    try:
        found = await call.ask("GET", path, needs=f"Read on {name}", query={"fields": "Id"})
    except Denied as refusal:
        if "NOT_FOUND" in refusal.codes:
            return None
        raise
    record_id = text(mapping(found).get("Id"))
    if not record_id.isalnum():
        raise unreadable("Salesforce")
    return await _created(call, name, record_id)


# -- changing and deleting --------------------------------------------------------------------------------------------


def _changed(call: Call, name: str, record_id: str, how: str) -> ToolResult:
    url = call.url(record_id)
    data = {"object": name, "id": record_id, "url": url}
    return done(f"{how} {name} {record_id} in Salesforce.", data, Citation(f"{name} {record_id}", url))


async def update(call: Call) -> ToolResult:
    name, record_id = call.object_name(), id_of(call.arguments.get("id"))
    fields = values_of(call.arguments.get("fields"))
    await call.ask("PATCH", f"/sobjects/{name}/{record_id}", needs=f"Edit on {name}", body=fields)
    return _changed(call, name, record_id, "Changed")


async def find_updated(call: Call) -> ToolResult | None:
    """The fields' values are the proof; other values prove nothing, as somebody may have changed them since."""
    name, record_id = call.object_name(), id_of(call.arguments.get("id"))
    fields = values_of(call.arguments.get("fields"))
    there = await _has(call, f"/sobjects/{name}/{record_id}", name, fields)
    return _changed(call, name, record_id, "Changed") if there is not None else None


async def _has(call: Call, path: str, name: str, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record, if it has these values."""
    query = {"fields": ",".join(["Id", *fields])}
    found = mapping(await call.ask("GET", path, needs=f"Read on {name}", query=query))
    return found if all(_same(value, found.get(field)) for field, value in fields.items()) else None


def _same(sent: object, kept: object) -> bool:
    """Whether Salesforce kept what was sent: it trims text, keeps none instead of "", and lengthens ids."""
    if isinstance(sent, str) and isinstance(kept, str):
        plain, there = " ".join(sent.split()), " ".join(kept.split())
        return plain == there or (len(plain) == 15 and len(there) == 18 and there.startswith(plain))
    return sent == kept or (sent in (None, "") and kept in (None, ""))


def _external(call: Call) -> tuple[str, str, str]:
    """Object, field and value of the external id. Raises Refused: nothing was sent."""
    name = call.object_name()
    field = name_of(call.arguments.get("external_field"), "a field")
    value = call.word("external_id")
    if not value.isprintable() or not value.strip(".") or len(value) > 255 or field in ("Id", KeyFields.FIELD):
        raise Refused(f"“{text(value, 60)}” can't be an external id here; nothing was sent.", asked=False)
    return name, field, value


async def upsert(call: Call) -> ToolResult:
    name, field, value = _external(call)
    fields = values_of(call.arguments.get("fields"))
    if field in fields:
        raise Refused(f"The field {field} is given by external_id already; nothing was sent.", asked=False)
    path = f"/sobjects/{name}/{field}/{quote(value, safe='')}"
    needs = f"Create and Edit on {name}"
    answer = mapping(await call.ask("PATCH", path, needs=needs, body=fields))
    record_id = text(answer.get("id"))
    if not record_id.isalnum():  # an update may be answered with nothing (204)
        record_id = ""
    how = "Created" if answer.get("created") is True else "Changed"
    return _upserted(call, name, value, record_id, how)


def _upserted(call: Call, name: str, value: str, record_id: str, how: str) -> ToolResult:
    data = {"object": name, "id": record_id, "created": how == "Created", "external_id": value}
    citations = [Citation(f"{name} {value}", call.url(record_id))] if record_id else []
    return done(f"{how} {name} {value} in Salesforce.", data, *citations)


async def find_upserted(call: Call) -> ToolResult | None:
    """Likewise, by the external id."""
    name, field, value = _external(call)
    fields = values_of(call.arguments.get("fields"))
    try:
        found = await _has(call, f"/sobjects/{name}/{field}/{quote(value, safe='')}", name, fields)
    except Denied as refusal:
        if "NOT_FOUND" in refusal.codes:
            return None
        raise
    return _upserted(call, name, value, text(found.get("Id")), "Changed") if found is not None else None


async def delete(call: Call) -> ToolResult:
    name, record_id = call.object_name(), id_of(call.arguments.get("id"))
    await call.ask("DELETE", f"/sobjects/{name}/{record_id}", needs=f"Delete on {name}")
    return _deleted(name, record_id)


async def find_deleted(call: Call) -> ToolResult | None:
    name, record_id = call.object_name(), id_of(call.arguments.get("id"))
    try:
        await call.ask("GET", f"/sobjects/{name}/{record_id}", needs=f"Read on {name}", query={"fields": "Id"})
    except Denied as refusal:
        if "ENTITY_IS_DELETED" in refusal.codes:
            return _deleted(name, record_id)
        # a record that is not found may be one that the user can't see
        message = f"Salesforce does not tell whether {name} {record_id} was deleted."
        raise SystemUnavailable(message, may_have_acted=False) from refusal
    return None


def _deleted(name: str, record_id: str) -> ToolResult:
    data = {"object": name, "id": record_id}
    return done(f"Deleted {name} {record_id} in Salesforce; it lies in the recycle bin for 15 days.", data)


CALLS: Mapping[str, Handler] = {
    "object.list": object_list,
    "object.describe": object_describe,
    "record.get": get,
    "record.create": create,
    "record.update": update,
    "record.upsert": upsert,
    "record.delete": delete,
    "case.create": case_create,
}
FINDS: Mapping[str, Finder] = {
    "record.create": find_created,
    "case.create": find_case,
    "record.update": find_updated,
    "record.upsert": find_upserted,
    "record.delete": find_deleted,
}
