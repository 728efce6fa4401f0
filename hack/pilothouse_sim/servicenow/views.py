"""Records as the Table API shows them: display values, references, dot-walked fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse_sim.servicenow import access
from pilothouse_sim.servicenow.errors import ServiceNowError
from pilothouse_sim.servicenow.query import walk
from pilothouse_sim.servicenow.schema import TABLES, Field
from pilothouse_sim.servicenow.store import Record, Store, User


@dataclass(frozen=True)
class Shape:
    """How records are shown; ``display`` is false, true or all; ``fields`` empty: all that may be read."""

    display: str
    exclude_link: bool
    fields: tuple[str, ...]
    base: str
    """Address of the Table API, without a slash at the end."""


def shape_of(query: Any, base: str) -> Shape:
    """From the request's parameters. Raises ServiceNowError."""
    display = query.get("sysparm_display_value", "false") or "false"
    if display not in ("true", "false", "all"):
        raise ServiceNowError(400, "Invalid value for sysparm_display_value", f"'{display}' is not true, false or all.")
    names = tuple(name.strip() for name in query.get("sysparm_fields", "").split(",") if name.strip())
    return Shape(display, query.get("sysparm_exclude_reference_link", "false") == "true", names, base)


def record_view(record: Record, shape: Shape, store: Store, user: User) -> dict[str, Any]:
    """One record; fields that are not there or not readable are left out."""
    readable = access.readable_fields(user, record)
    names: Sequence[str] = shape.fields or sorted(readable)
    view: dict[str, Any] = {}
    for name in names:
        path = name.split(".")
        if path[0] == "variables" and len(path) == 2 and record["sys_class_name"] == "sc_req_item":
            view[name] = _pair(_variable(record, path[1]), "", shape)
            continue
        if path[0] not in readable:
            continue
        end, field = walk(record, record["sys_class_name"], path, store)
        if field is None:
            continue
        if end is not None and end is not record and not _may_see(user, end, path[-1], store):
            continue
        view[name] = _value(end, field, shape, store)
    return view


def _may_see(user: User, record: Record, name: str, store: Store) -> bool:
    return access.may_read(user, record, store) and name in access.readable_fields(user, record)


def _variable(record: Record, name: str) -> str:
    return record.get(f"_variables.{name}", "")


def _pair(value: str, display: str, shape: Shape) -> Any:
    if shape.display == "all":
        return {"display_value": display or value, "value": value}
    return value if shape.display == "false" else display or value


def _value(record: Record | None, field: Field, shape: Shape, store: Store) -> Any:
    value = record.get(field.name, "") if record else ""
    if field.kind == "journal_input":
        shown = journal_text(record, field, store) if record else ""
        if shape.display == "all":
            return {"display_value": shown, "value": ""}
        return shown if shape.display == "true" else ""
    if field.kind == "reference":
        return _reference(value, field, shape, store)
    if field.kind == "glide_list":
        shown = ", ".join(store.display(field.reference, part) or part for part in value.split(",") if part)
    elif field.kind == "sys_class_name":
        shown = TABLES[value].label if value in TABLES else value
    else:
        shown = field.choices.get(value, value)
    if shape.display == "all":
        return {"display_value": shown, "value": value}
    return shown if shape.display == "true" else value


def _reference(value: str, field: Field, shape: Shape, store: Store) -> Any:
    shown = store.display(field.reference, value) if value else ""
    link = {} if shape.exclude_link or not value else {"link": f"{shape.base}/{field.reference}/{value}"}
    if shape.display == "all":
        return {"display_value": shown, "value": value, **link}
    text = shown if shape.display == "true" else value
    if not link:
        return text
    return {"display_value": shown, **link} if shape.display == "true" else {**link, "value": value}


def journal_text(record: Record, field: Field, store: Store) -> str:
    """The entries of a journal field, newest first, as a form shows them."""
    names = {entry["user_name"]: entry["name"] for entry in store.all_of("sys_user")}
    parts = [
        f"{entry['sys_created_on']} - {names.get(entry['sys_created_by'], entry['sys_created_by'])} "
        f"({field.label})\n{entry['value']}\n\n"
        for entry in store.journal_of(record, field.name)
    ]
    return "".join(parts)
