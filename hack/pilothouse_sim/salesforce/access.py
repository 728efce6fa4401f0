"""Who may do what: object permissions, field-level security, sharing; pure over the store.

A record is shared by its owner, those above her (``ManagerId``), the object's organization-wide default, or its parent.
"""

from __future__ import annotations

from pilothouse_sim.salesforce.schema import OBJECTS, Field, SObject, object_of_id
from pilothouse_sim.salesforce.store import Record, Store, User, type_of

_DEEPEST = 5


def allowed(user: User, name: str, letter: str) -> bool:
    """Whether the profile gives c, r, u or d on the object."""
    return letter in user.profile.objects.get(name, "")


def field_visible(user: User, sobject: SObject, field: Field) -> bool:
    """Field-level security: whether the user may read the field."""
    return f"{sobject.name}.{field.name}" not in user.profile.hidden


def field_editable(user: User, sobject: SObject, field: Field) -> bool:
    """Field-level security: whether the user may write the field."""
    return field_visible(user, sobject, field) and f"{sobject.name}.{field.name}" not in user.profile.read_only


def may_read(user: User, record: Record, store: Store, depth: int = 0) -> bool:
    """Whether the record is shared with the user."""
    name = type_of(record)
    sobject = OBJECTS[name]
    if not allowed(user, name, "r"):
        return False
    if name == "Knowledge__kav" and record["PublishStatus"] != "Online":
        return bool(record["OwnerId"] == user.id)
    if sobject.sharing in ("read", "write") or name in user.profile.view_all:
        return True
    if sobject.sharing.startswith("parent:") and depth < _DEEPEST:
        parent = related(store, record, sobject.sharing.removeprefix("parent:"))
        return parent is not None and may_read(user, parent, store, depth + 1)
    return _owns(user, record, store)


def may_edit(user: User, record: Record, store: Store, letter: str = "u", depth: int = 0) -> bool:
    """Whether the user may change (u) or delete (d) the record."""
    name = type_of(record)
    sobject = OBJECTS[name]
    if not allowed(user, name, letter):
        return False
    if sobject.sharing == "write" or name in user.profile.view_all:
        return True
    if sobject.sharing.startswith("parent:") and depth < _DEEPEST:
        parent = related(store, record, sobject.sharing.removeprefix("parent:"))
        return parent is not None and may_edit(user, parent, store, "u", depth + 1)
    return _owns(user, record, store)


def related(store: Store, record: Record, field: str) -> Record | None:
    """The record that a reference of this one points to."""
    sobject = object_of_id(str(record.get(field) or ""))
    found = store.find(sobject.name, record[field]) if sobject else None
    return found if found and not found["IsDeleted"] else None


def _owns(user: User, record: Record, store: Store) -> bool:
    """Whether the owner (or the creator, where there is none) is the user or reports to her."""
    person = str(record.get("OwnerId") or record["CreatedById"])
    for _ in range(_DEEPEST):
        if person == user.id:
            return True
        found = store.find("User", person)
        if found is None or not found["ManagerId"]:
            return False
        person = found["ManagerId"]
    return False
