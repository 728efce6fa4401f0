"""Access rules: who may read, create, change and delete what; pure over the store.

Roles of the base system: ``snc_internal`` (an employee), ``itil`` (works on tasks), ``approver_user``. Without
``snc_internal`` (an external person) there are no rights beyond one's own user record. What the rules say:

- A self-service employee creates incidents and reads those that she called, opened or watches, and the requests that
  are for her or that she opened. She may comment on and resolve her own incidents; other fields are the fulfiller's.
- ``itil`` reads and writes tasks and reads the CMDB and journals.
- Every employee reads the CMDB, the catalog, published knowledge and the directory's basic fields.
- An approval is its approver's to decide.

Lists leave unreadable records out after counting and paging, as the platform does; for tasks a query business rule
takes them out before. A field that may not be written is dropped without a word; one that may not be read is not in
the answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse_sim.servicenow.schema import fields_of, is_a
from pilothouse_sim.servicenow.store import Record, Store, User

_PRIVATE_USER_FIELDS = {"mobile_phone", "employee_number"}
_CALLER_MAY_WRITE = {
    "comments", "short_description", "description", "urgency", "impact", "category", "subcategory", "watch_list",
    "contact_type", "state", "incident_state", "close_code", "close_notes", "correlation_id", "correlation_display",
    "cmdb_ci", "business_service", "caller_id",
}  # fmt: skip
_CREATOR_MAY_WRITE = _CALLER_MAY_WRITE | {"assignment_group"}
_EVERY_EMPLOYEE_READS = {
    "sys_user_group", "sys_user_grmember", "cmn_location", "core_company", "kb_knowledge_base", "sc_catalog",
    "sc_category", "sc_cat_item", "sys_choice", "kb_knowledge", "incident", "sc_request", "sc_req_item", "task",
    "sysapproval_approver", "change_request", "sys_attachment",
}  # fmt: skip


def may_query(user: User, table: str) -> bool:
    """Whether the user may read the table's fields in some record."""
    if table == "sys_user":
        return True
    if table == "sys_journal_field":
        return user.has("itil")
    return user.has("snc_internal") and (table in _EVERY_EMPLOYEE_READS or is_a(table, "cmdb_ci"))


def in_query(user: User, record: Record, store: Store) -> bool:
    """Whether the query business rules leave a task to this user."""
    table = record["sys_class_name"]
    if not is_a(table, "task"):
        return True
    return may_read(user, record, store)


def may_read(user: User, record: Record, store: Store) -> bool:
    """Whether the user may read the record."""
    table = record["sys_class_name"]
    if table == "sys_user":
        return user.has("snc_internal") or record["sys_id"] == user.sys_id
    if table == "sysapproval_approver":
        return user.has("snc_internal") and (record["approver"] == user.sys_id or user.has("approval_admin"))
    if table == "sys_attachment":
        parent = store.find(record["table_name"], record["table_sys_id"])
        return parent is not None and may_read(user, parent, store)
    if table == "sys_journal_field":
        parent = store.find(record["name"], record["element_id"])
        return user.has("itil") and parent is not None and may_read(user, parent, store)
    if table == "kb_knowledge":
        published = record["workflow_state"] == "published" and record["active"] == "true"
        return user.has("snc_internal") and (published or user.has("knowledge") or record["author"] == user.sys_id)
    if is_a(table, "task"):
        return user.has("snc_internal") and (user.has("itil") or _concerns(user, record))
    return may_query(user, table)


def _concerns(user: User, record: Mapping[str, str]) -> bool:
    people = {record.get(name, "") for name in ("caller_id", "opened_by", "requested_for", "requested_by")}
    return user.sys_id in people or user.sys_id in record.get("watch_list", "").split(",")


def may_create(user: User, table: str) -> bool:
    """Whether the user may insert records into the table."""
    if table == "incident":
        return user.has("snc_internal")
    return table == "change_request" and user.has("itil")


def may_write(user: User, record: Record) -> bool:
    """Whether the user may change the record (some field of it)."""
    table = record["sys_class_name"]
    if table == "incident":
        if record["state"] in ("7", "8"):
            return False
        return user.has("itil") or (
            user.has("snc_internal") and user.sys_id in (record["caller_id"], record["opened_by"])
        )
    if table in ("change_request", "sc_request", "sc_req_item", "task"):
        if table != "change_request" and user.has("snc_internal") and _concerns(user, record):
            return True
        return user.has("itil") and record["active"] == "true"
    if table == "sysapproval_approver":
        return user.has("approver_user") and record["approver"] == user.sys_id
    return False


def may_delete(user: User, record: Record) -> bool:
    """Whether the user may delete the record: an administrator's right in every table here, but for attachments."""
    if record["sys_class_name"] == "sys_attachment":
        return record["sys_created_by"] == user.user_name
    return user.has("admin")


def readable_fields(user: User, record: Record) -> set[str]:
    """The record's fields that the user may read."""
    names = set(fields_of(record["sys_class_name"]))
    if record["sys_class_name"] == "sys_user" and record["sys_id"] != user.sys_id and not user.has("itil"):
        names -= _PRIVATE_USER_FIELDS
    if is_a(record["sys_class_name"], "task") and not user.has("itil"):
        names -= {"work_notes"}
    return names


def writable_fields(user: User, table: str, *, creating: bool) -> set[str]:
    """The table's fields that the user may write; what else is sent is dropped."""
    names = {name for name, field in fields_of(table).items() if not field.read_only}
    if table == "incident":
        # Priority follows impact and urgency.
        names -= {"priority", "opened_by", "opened_at", "resolved_by", "resolved_at", "closed_by", "approval"}
        if not user.has("itil"):
            names &= _CREATOR_MAY_WRITE if creating else _CALLER_MAY_WRITE
    elif table == "change_request":
        names -= {"opened_by", "opened_at", "closed_by", "approval"}
    elif table in ("sc_request", "sc_req_item") and not user.has("itil"):
        names &= {"comments", "watch_list"}
    elif table == "sysapproval_approver":
        names &= {"state", "comments"}
    return names
