"""What business rules and data policies of the base system do when a record is written; pure over the store."""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse_sim.servicenow.errors import ServiceNowError, aborted, data_policy
from pilothouse_sim.servicenow.schema import fields_of
from pilothouse_sim.servicenow.store import Record, Store, User, timestamp

_INCIDENT_MOVES = {
    "1": {"2", "3", "6", "7", "8"},
    "2": {"1", "3", "6", "7", "8"},
    "3": {"1", "2", "6", "7", "8"},
    "6": {"2", "1", "7"},
    "7": set(),
    "8": set(),
}
_CHANGE_MOVES = {
    "-5": {"-4", "4"},
    "-4": {"-3", "4"},
    "-3": {"-2", "4"},
    "-2": {"-1", "4"},
    "-1": {"0", "4"},
    "0": {"3", "4"},
    "3": set(),
    "4": set(),
}
_CLOSED_APPROVALS = {"approved", "rejected", "cancelled", "not_required"}


def priority(impact: str, urgency: str) -> str:
    """The base system's look-up: 1 where both are high, 5 where both are low."""
    try:
        return str(max(1, min(5, int(impact) + int(urgency) - 1)))
    except ValueError:
        return "5"


def checked(table: str, given: Mapping[str, object]) -> dict[str, str]:
    """The values as the platform stores them: strings, cut to the field's length. Fields that the table does not have
    are dropped, as the Table API does. Raises ServiceNowError 400 for a nested value."""
    known = fields_of(table)
    values: dict[str, str] = {}
    for name, value in given.items():
        if isinstance(value, dict) and "value" in value:
            value = value["value"]
        if isinstance(value, dict | list):
            raise ServiceNowError(400, "Exception while reading request", f"Invalid value for field '{name}'.")
        field = known.get(name)
        if field is None:
            continue
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if field.kind == "integer" and text and not text.lstrip("-").isdigit():
            # The platform does not store what is no number in a numeric field.
            continue
        if field.kind == "boolean":
            text = "true" if text.lower() in ("true", "1") else "false"
        values[name] = text[: field.max_length] if field.max_length else text
    return values


def before_insert(record: Record, user: User, store: Store, now: float) -> None:
    """Completes a new record. Raises ServiceNowError."""
    table = record["sys_class_name"]
    when = timestamp(now)
    record["opened_by"] = user.sys_id
    record["opened_at"] = when
    if table == "incident":
        if not record["short_description"].strip():
            raise data_policy("Short description")
        _same_state(record, {})
        _choice("incident", record, "state")
        record["priority"] = priority(record["impact"], record["urgency"])
        _finish_incident(record, user, when)
    if table == "change_request":
        record["requested_by"] = record["requested_by"] or user.sys_id
        if record["state"] != "-5":
            raise aborted(table, "State model - Can change state?")
        if record["type"] == "standard":
            raise aborted(table, "Std Change - Must be made from a template")
    _references(record, store)


def before_update(record: Record, old: Mapping[str, str], user: User, store: Store, now: float) -> list[Record]:
    """Completes a changed record; what else changes with it is given back. Raises ServiceNowError."""
    table = record["sys_class_name"]
    when = timestamp(now)
    also: list[Record] = []
    if table == "incident":
        _same_state(record, old)
        _choice("incident", record, "state")
        if record["state"] != old["state"] and record["state"] not in _INCIDENT_MOVES[old["state"]]:
            raise aborted(table, "Incident state model")
        record["priority"] = priority(record["impact"], record["urgency"])
        if old["state"] == "6" and record["state"] in ("1", "2"):
            record["reopen_count"] = str(int(old["reopen_count"] or 0) + 1)
            record["resolved_at"] = record["resolved_by"] = ""
        _finish_incident(record, user, when)
    elif table == "change_request" and record["state"] != old["state"]:
        _choice(table, record, "state")
        if record["state"] not in _CHANGE_MOVES[old["state"]]:
            raise aborted(table, "State model - Can change state?")
        if record["state"] == "-2" and record["approval"] != "approved":
            raise aborted(table, "State model - Can change state?")
        if record["state"] == "3":
            _mandatory(record, "close_code", "close_notes")
        if record["state"] in ("3", "4"):
            record.update(active="false", closed_at=when, closed_by=user.sys_id)
    elif table == "sysapproval_approver" and record["state"] != old["state"]:
        _choice(table, record, "state")
        if old["state"] in _CLOSED_APPROVALS:
            raise aborted(table, "Approval is already decided")
        also = _decide(record, user, store, when)
    _references(record, store)
    return also


def _same_state(record: Record, old: Mapping[str, str]) -> None:
    """Incident state is a copy of state; whichever was changed counts."""
    if record["incident_state"] != old.get("incident_state", "1") and record["state"] == old.get("state", "1"):
        record["state"] = record["incident_state"]
    record["incident_state"] = record["state"]


def _choice(table: str, record: Record, name: str) -> None:
    if record[name] not in fields_of(table)[name].choices:
        raise aborted(table, f"Invalid value for {fields_of(table)[name].label}")


def _mandatory(record: Record, *names: str) -> None:
    known = fields_of(record["sys_class_name"])
    missing = [known[name].label for name in names if not record.get(name, "").strip()]
    if missing:
        raise data_policy(*missing)


def _finish_incident(record: Record, user: User, when: str) -> None:
    if record["state"] == "3":
        _mandatory(record, "hold_reason")
    if record["state"] in ("6", "7"):
        _mandatory(record, "close_code", "close_notes")
        _choice("incident", record, "close_code")
        record["resolved_at"] = record["resolved_at"] or when
        record["resolved_by"] = record["resolved_by"] or user.sys_id
    if record["state"] in ("7", "8"):
        record.update(active="false", closed_at=when, closed_by=user.sys_id)


def _references(record: Record, store: Store) -> None:
    """A reference to what is not there is stored empty."""
    for field in fields_of(record["sys_class_name"]).values():
        if field.kind == "reference" and record.get(field.name) and not store.find(field.reference, record[field.name]):
            record[field.name] = ""


def _decide(approval: Record, user: User, store: Store, when: str) -> list[Record]:
    """What an approver's decision does to the task and to the other approvals of it."""
    task = store.find("task", approval["sysapproval"])
    if task is None:
        return []
    others = [
        record
        for record in store.all_of("sysapproval_approver")
        if record["sysapproval"] == task["sys_id"] and record["sys_id"] != approval["sys_id"]
    ]
    changed = dict(task)
    changed.update(sys_updated_on=when, sys_updated_by=user.user_name, approval=approval["state"])
    changed["sys_mod_count"] = str(int(task["sys_mod_count"]) + 1)
    if task["sys_class_name"] == "sc_request":
        changed["request_state"] = "in_process" if approval["state"] == "approved" else "closed_rejected"
    if approval["state"] == "rejected":
        changed["active"] = "true" if task["sys_class_name"] == "change_request" else "false"
    also = [changed]
    for record in others:
        if record["state"] == "requested":
            also.append({**record, "state": "not_required", "sys_updated_on": when, "sys_updated_by": user.user_name})
    return also


def journal_entries(record: Record, values: Mapping[str, str], user: User, store: Store, now: float) -> list[Record]:
    """The journal's records for what was written into journal fields."""
    entries: list[Record] = []
    for name, field in fields_of(record["sys_class_name"]).items():
        if field.kind != "journal_input" or not values.get(name, "").strip():
            continue
        entry = store.new_record("sys_journal_field", user, now)
        entry.update(name=record["sys_class_name"], element_id=record["sys_id"], element=name, value=values[name])
        entries.append(entry)
    return entries
