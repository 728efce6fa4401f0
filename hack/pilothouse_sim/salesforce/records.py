"""Reading and writing single records: checks in Salesforce's order and words; pure over the store.

Order of a write's checks: object permission, unknown fields, JSON types, field-level security, required fields, values,
references, uniqueness, validation rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pilothouse_sim.salesforce import access, dates
from pilothouse_sim.salesforce.errors import SalesforceError, no_access, not_found, parser_error
from pilothouse_sim.salesforce.evaluate import Session, start
from pilothouse_sim.salesforce.schema import Field, SObject, long_id, object_named, object_of_id
from pilothouse_sim.salesforce.store import Record, complete, timestamp

_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def visible_object(session: Session, name: str) -> SObject:
    """The object, if the user may read it. Raises 404."""
    sobject = object_named(name)
    if sobject is None or not access.allowed(session.user, sobject.name, "r"):
        raise not_found()
    return sobject


def find(session: Session, sobject: SObject, record_id: str) -> Record:
    """The record, if the user may read it. Raises SalesforceError."""
    if not _ID.fullmatch(record_id):
        raise SalesforceError(
            404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {record_id}"
        )
    if not record_id.startswith(sobject.prefix):
        raise SalesforceError(400, "MALFORMED_ID", "malformed id " + record_id)
    record = session.store.find(sobject.name, record_id)
    if record is None:
        raise not_found()
    if record["IsDeleted"]:
        raise SalesforceError(404, "ENTITY_IS_DELETED", "entity is deleted")
    if not access.may_read(session.user, record, session.store):
        raise not_found()
    return record


def find_by_key(session: Session, sobject: SObject, name: str, value: str) -> Record | None:
    """The record with this value in an external id field; None where there is none. Raises SalesforceError."""
    field = sobject.field_named(name)
    if field is None or not (field.external_id or field.kind == "id"):
        raise SalesforceError(
            404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {name}"
        )
    found = [r for r in session.store.all_of(sobject.name) if str(r[field.name] or "").lower() == value.lower()]
    return found[0] if found else None


def view(session: Session, sobject: SObject, record: Record, names: list[str]) -> dict[str, Any]:
    """The record with the named fields (none: all that the user may read). Raises SalesforceError INVALID_FIELD."""
    shown = start(session, sobject, record)
    if not names:
        visible = (f for f in sobject.fields if access.field_visible(session.user, sobject, f))
        return {**shown, **{field.name: record.get(field.name) for field in visible}}
    for name in names:
        field = sobject.field_named(name)
        if field is None or not access.field_visible(session.user, sobject, field):
            raise SalesforceError(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {sobject.name}")
        shown[field.name] = record.get(field.name)
    return shown


def create(session: Session, sobject: SObject, values: Mapping[str, Any]) -> Record:
    """Creates a record. Raises SalesforceError."""
    if not access.allowed(session.user, sobject.name, "c"):
        raise SalesforceError(
            400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", f"entity type cannot be inserted: {sobject.label}"
        )
    given = _checked(session, sobject, values, creating=True)
    record: Record = {f.name: f.default if f.kind != "boolean" else bool(f.default) for f in sobject.fields}
    record.update({name: value for name, value in given.items() if value is not None or name not in record})
    record["Id"] = session.store.new_id(sobject.name)
    when = timestamp(session.now)
    record.update(CreatedDate=when, LastModifiedDate=when, SystemModstamp=when)
    record.update(CreatedById=session.user.id, LastModifiedById=session.user.id)
    if "OwnerId" in record:
        record["OwnerId"] = record["OwnerId"] or session.user.id
    if sobject.name == "Case":
        record["CaseNumber"] = session.store.next_case_number()
    _required(sobject, record)
    _settle(session, sobject, record)
    session.store.save(record)
    return record


def update(session: Session, sobject: SObject, record: Record, values: Mapping[str, Any]) -> Record:
    """Changes the given fields. Raises SalesforceError."""
    if not access.may_edit(session.user, record, session.store):
        raise no_access()
    changed = {**record, **_checked(session, sobject, values, creating=False)}
    _required(sobject, changed)
    _settle(session, sobject, changed)
    when = timestamp(session.now)
    changed.update(LastModifiedDate=when, SystemModstamp=when, LastModifiedById=session.user.id)
    session.store.save(changed)
    return changed


def delete(session: Session, record: Record) -> None:
    """Moves the record into the recycle bin. Raises SalesforceError."""
    if not access.may_edit(session.user, record, session.store, "d"):
        raise no_access()
    session.store.save({**record, "IsDeleted": True})


def upsert(session: Session, sobject: SObject, name: str, value: str, values: Mapping[str, Any]) -> tuple[Record, bool]:
    """Creates or changes the record with this value in an external id field; the record, and whether it is new."""
    found = find_by_key(session, sobject, name, value)
    field = sobject.field_named(name)
    assert field is not None
    for given in values:
        if given.lower() in (field.name.lower(), "id"):
            raise SalesforceError(
                400, "INVALID_FIELD", f"The {given} field should not be specified in the sobject data."
            )
    if found is not None:
        if not access.may_read(session.user, found, session.store):
            raise no_access()
        return update(session, sobject, found, values), False
    if field.kind == "id":
        raise not_found()
    return create(session, sobject, {**values, field.name: value}), True


def _checked(session: Session, sobject: SObject, values: Mapping[str, Any], *, creating: bool) -> dict[str, Any]:
    given: dict[Field, Any] = {}
    for name, value in values.items():
        if name == "attributes":
            continue
        field = sobject.field_named(name)
        if field is None or not access.field_visible(session.user, sobject, field):
            raise SalesforceError(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {sobject.name}")
        given[field] = value
    for field, value in given.items():
        _json_type(field, value)
    if locked := [
        field.name
        for field in given
        if not (field.createable if creating else field.updateable)
        or not access.field_editable(session.user, sobject, field)
    ]:
        raise SalesforceError(
            400,
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            f"Unable to create/update fields: {', '.join(locked)}. Please check the security settings of this field "
            "and verify that it is read/write for your profile or permission set.",
            *locked,
        )
    return {field.name: _value(session, field, value) for field, value in given.items()}


def _json_type(field: Field, value: Any) -> None:
    """Raises JSON_PARSER_ERROR where the value's JSON type is not the field's."""
    if value is None:
        return
    token = (
        "VALUE_TRUE" if value is True else "VALUE_FALSE" if value is False
        else "VALUE_NUMBER_INT" if isinstance(value, int) else "VALUE_NUMBER_FLOAT" if isinstance(value, float)
        else "VALUE_STRING" if isinstance(value, str) else "START_ARRAY" if isinstance(value, list) else "START_OBJECT"
    )  # fmt: skip
    if field.kind == "boolean":
        if not isinstance(value, bool):
            raise parser_error("boolean", token, value)
    elif field.kind in ("currency", "double", "percent", "int"):
        kind = "int" if field.kind == "int" else "double"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or (kind == "int" and not isinstance(value, int)):
            raise parser_error(kind, token, value)
    elif not isinstance(value, str):
        raise parser_error("string", token, value)
    elif field.kind == "date" and not (_DATE.fullmatch(value) and dates.seconds_of(value) is not None):
        raise parser_error("date", token, value)
    elif field.kind == "datetime" and dates.seconds_of(value) is None:
        raise parser_error("datetime", token, value)


def _value(session: Session, field: Field, value: Any) -> Any:
    """The value as it is stored. Raises SalesforceError."""
    if value is None or value == "":
        return False if field.kind == "boolean" else None
    if field.kind == "reference":
        return _reference(session, field, value)
    if field.kind == "email" and not _EMAIL.fullmatch(value):
        raise SalesforceError(
            400, "INVALID_EMAIL_ADDRESS", f"{field.label}: invalid email address: {value}", field.name
        )
    if isinstance(value, str) and field.length and len(value) > field.length:
        shown = f"{value[:80]}…" if len(value) > 80 else value
        sentence = f"{field.label}: data value too large: {shown} (max length={field.length})"
        raise SalesforceError(400, "STRING_TOO_LONG", sentence, field.name)
    if field.restricted and value not in field.values:
        sentence = f"{field.label}: bad value for restricted picklist field: {value}"
        raise SalesforceError(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", sentence, field.name)
    return value


def _reference(session: Session, field: Field, value: str) -> str:
    target = object_of_id(value) if _ID.fullmatch(value) else None
    # Who and What of a task point to several objects.
    several = {"WhatId": {"Account", "Case", "Opportunity"}, "WhoId": {"Contact", "Lead"}}
    fitting = several.get(field.name, {field.refers})
    if target is None or target.name not in fitting:
        sentence = f"{field.label}: id value of incorrect type: {value[:40]}"
        raise SalesforceError(400, "MALFORMED_ID", sentence, field.name)
    record = session.store.find(target.name, value)
    if record is None or record["IsDeleted"]:
        raise SalesforceError(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", field.name)
    if not access.may_read(session.user, record, session.store):
        raise SalesforceError(
            400,
            "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
            f"insufficient access rights on cross-reference id: {long_id(value)}",
        )
    return long_id(value)


def _required(sobject: SObject, record: Record) -> None:
    missing = [field.name for field in sobject.fields if field.required and record.get(field.name) in (None, "")]
    if missing:
        sentence = f"Required fields are missing: [{', '.join(missing)}]"
        raise SalesforceError(400, "REQUIRED_FIELD_MISSING", sentence, *missing)


def _settle(session: Session, sobject: SObject, record: Record) -> None:
    """What follows from the values, uniqueness, and the organization's validation rules. Raises SalesforceError."""
    complete(sobject.name, record)
    if sobject.name == "Case" and record["IsClosed"]:
        record["ClosedDate"] = record["ClosedDate"] or timestamp(session.now)
    for field in sobject.fields:
        if not field.external_id or not record[field.name]:
            continue
        for other in session.store.all_of(sobject.name):
            if other["Id"] != record["Id"] and str(other[field.name] or "").lower() == str(record[field.name]).lower():
                raise SalesforceError(
                    400,
                    "DUPLICATE_VALUE",
                    f"duplicate value found: {field.name} duplicates value on record with id: {other['Id'][:15]}",
                )
    if sobject.name == "Case" and record["Status"] == "Closed" and not record["Resolution__c"]:
        sentence = "A case is closed only with a resolution."
        raise SalesforceError(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", sentence, "Resolution__c")
    if sobject.name == "Opportunity" and record["StageName"] == "Closed Won" and not record["Amount"]:
        sentence = "An opportunity is won only with an amount."
        raise SalesforceError(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", sentence, "Amount")
