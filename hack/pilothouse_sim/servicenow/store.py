"""The instance's state: users with their roles, records of all tables, attachments' bytes.

Every change is one line of the journal (the whole record as JSON), flushed to the operating system before the change is
answered: a killed process loses nothing, a lost machine may. At start the seed is read, then the journal.

A record is a mapping of field to string. In the seed a value ``@key`` refers to the record with ``"_key": "key"``.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pilothouse_sim.servicenow.schema import TABLES, classes, fields_of, lineage

Record = dict[str, str]


@dataclass(frozen=True)
class User:
    """One account; ``token`` is its fixed development access token, ``roles`` are the platform's role names."""

    sys_id: str
    user_name: str
    email: str
    name: str
    token: str
    roles: frozenset[str]

    def has(self, *roles: str) -> bool:
        """Whether the user has one of the roles."""
        return not self.roles.isdisjoint(roles)


def timestamp(now: float) -> str:
    """Epoch seconds as the platform's API writes a time (UTC)."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S")


def sys_id_of(key: str) -> str:
    """The sys_id of a seeded record: the same at every start."""
    return hashlib.sha256(f"servicenow:{key}".encode()).hexdigest()[:32]


class Store:
    """Users and records of one instance."""

    def __init__(self, seed: Mapping[str, Any], state_dir: Path | None, rng: random.Random) -> None:
        self.properties: Mapping[str, str] = seed.get("properties", {})
        self._rng = rng
        self._tables: dict[str, dict[str, Record]] = {name: {} for name in TABLES}
        self._blobs: dict[str, str] = {}
        self._roles: dict[str, Mapping[str, Any]] = {}
        self.items: dict[str, Mapping[str, Any]] = {}
        """What a catalog item has beside its record: variables, approver, order."""
        keys = [entry["_key"] for entries in seed["records"].values() for entry in entries if "_key" in entry]
        ids = {f"@{key}": sys_id_of(key) for key in keys}
        for table, entries in seed["records"].items():
            for number, entry in enumerate(entries):
                self._seed_record(table, entry, ids, f"{table}:{number}")
        for account in seed["accounts"]:
            self._roles[ids[account["user"]]] = account
        for key, extra in seed.get("catalog", {}).items():
            approver = {"approver": ids[extra["approver"]]} if "approver" in extra else {}
            self.items[ids[key]] = {**extra, **approver}
        self._deleted: list[tuple[str, str]] = []
        self._seeded = {sys_id for found in self._tables.values() for sys_id in found}
        self._journal = state_dir / "journal.jsonl" if state_dir else None
        if self._journal:
            self._replay(self._journal)

    def _seed_record(self, table: str, entry: Mapping[str, Any], ids: Mapping[str, str], name: str) -> None:
        known = fields_of(table)
        created = entry.get("sys_created_on", "2026-09-01 08:00:00")
        record: Record = {field.name: field.default for field in known.values()}
        record.update(
            sys_id=sys_id_of(entry.get("_key", name)),
            sys_class_name=table,
            sys_created_on=created,
            sys_created_by="system",
            sys_updated_on=created,
            sys_updated_by="system",
            sys_mod_count="0",
        )
        for field, value in entry.items():
            if field == "_key":
                continue
            if field not in known:
                raise ValueError(f"seed: {table} has no field {field!r}")
            parts = [ids.get(part, part) for part in str(value).split(",")] if str(value).startswith("@") else [value]
            if any(str(part).startswith("@") for part in parts):
                raise ValueError(f"seed: {table}.{field} refers to {value!r}, which is not there")
            record[field] = ",".join(str(part) for part in parts)
        self._tables[table][record["sys_id"]] = record

    def _replay(self, journal: Path) -> None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        if not journal.exists():
            return
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                self._apply(json.loads(line))
            except (ValueError, KeyError, TypeError):
                # The line that was being written when the process was killed; its change was never answered.
                continue
        # One line a record from here on, so that the journal does not grow with every restart.
        fresh = journal.with_suffix(".new")
        lines = [
            {"table": table, "record": record} for table, found in self._tables.items() for record in found.values()
        ]
        blobs = [{"blob": sys_id, "content": content} for sys_id, content in self._blobs.items()]
        gone = [{"table": table, "delete": sys_id} for table, sys_id in self._deleted if sys_id in self._seeded]
        fresh.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *blobs, *gone]), encoding="utf-8")
        fresh.replace(journal)

    def _apply(self, change: Mapping[str, Any]) -> None:
        if "blob" in change:
            self._blobs[change["blob"]] = change["content"]
        elif "delete" in change:
            self._tables[change["table"]].pop(change["delete"], None)
            self._blobs.pop(change["delete"], None)
            self._deleted.append((change["table"], change["delete"]))
        else:
            self._tables[change["table"]][change["record"]["sys_id"]] = change["record"]

    def _write(self, *changes: Mapping[str, Any]) -> None:
        if self._journal:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(change) + "\n" for change in changes))
        for change in changes:
            self._apply(change)

    # --- users

    def users(self) -> list[User]:
        """All that can sign in."""
        return [self._user(sys_id) for sys_id in self._roles]

    def _user(self, sys_id: str) -> User:
        record, account = self._tables["sys_user"][sys_id], self._roles[sys_id]
        return User(
            sys_id, record["user_name"], record["email"], record["name"], account["token"], frozenset(account["roles"])
        )

    def user_by_token(self, token: str) -> User | None:
        """The account whose fixed access token this is."""
        return next((user for user in self.users() if token and user.token == token), None)

    def user_by_email(self, email: str) -> User | None:
        """The account of that e-mail."""
        return next((user for user in self.users() if user.email == email), None)

    # --- records

    def find(self, table: str, sys_id: str) -> Record | None:
        """The record, of the table or of one that extends it."""
        return next((self._tables[name][sys_id] for name in classes(table) if sys_id in self._tables[name]), None)

    def all_of(self, table: str) -> Iterator[Record]:
        """All records of the table and of those that extend it, in the order of their creation."""
        for name in classes(table):
            yield from self._tables[name].values()

    def display(self, table: str, sys_id: str) -> str:
        """What a reference to this record shows; "" where there is none."""
        record = self.find(table, sys_id) if table in TABLES else None
        if record is None:
            return ""
        field = fields_of(record["sys_class_name"]).get(TABLES[record["sys_class_name"]].display)
        text = record.get(field.name, "") if field else ""
        if field and field.kind == "reference":
            return self.display(field.reference, text)
        return field.choices.get(text, text) if field else text

    def new_sys_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._rng.getrandbits(128):032x}"

    def next_number(self, table: str) -> str:
        """The next number of the table, such as INC0010001."""
        prefix = TABLES[table].prefix
        numbers = (record.get("number", "")[len(prefix) :] for record in self._tables[table].values())
        return f"{prefix}{max([10000, *(int(number) for number in numbers if number.isdigit())]) + 1:07d}"

    def save(self, *records: Record) -> None:
        """Keeps new or changed records, all of them or none. Raises OSError of the journal."""
        self._write(*({"table": record["sys_class_name"], "record": dict(record)} for record in records))

    def delete(self, record: Record) -> None:
        """Removes a record."""
        self._write({"table": record["sys_class_name"], "delete": record["sys_id"]})

    def new_record(self, table: str, user: User, now: float) -> Record:
        """A record with the table's defaults and its system fields; not kept yet."""
        record: Record = {field.name: field.default for field in fields_of(table).values()}
        when = timestamp(now)
        record.update(
            sys_id=self.new_sys_id(), sys_class_name=table, sys_created_on=when, sys_created_by=user.user_name,
            sys_updated_on=when, sys_updated_by=user.user_name, sys_mod_count="0",
        )  # fmt: skip
        if TABLES[table].prefix and "number" in record:
            record["number"] = self.next_number(table)
        return record

    def journal_of(self, record: Record, element: str | None = None) -> list[Record]:
        """Comments or work notes of a record, newest first."""
        found = [
            entry
            for entry in self._tables["sys_journal_field"].values()
            if entry["element_id"] == record["sys_id"] and element in (None, entry["element"])
        ]
        found.sort(key=lambda entry: entry["sys_created_on"])
        found.reverse()  # of one second: the later one first, too
        return found

    def groups_of(self, user_id: str) -> set[str]:
        """Sys ids of the groups that the user is in."""
        return {row["group"] for row in self._tables["sys_user_grmember"].values() if row["user"] == user_id}

    # --- attachments' bytes

    def save_attachment(self, record: Record, content: str) -> None:
        """Keeps an attachment with its bytes (base64)."""
        self._write({"table": "sys_attachment", "record": dict(record)}, {"blob": record["sys_id"], "content": content})

    def content_of(self, sys_id: str) -> str:
        """An attachment's bytes (base64)."""
        return self._blobs.get(sys_id, "")

    def table_of(self, sys_id: str) -> str | None:
        """The class of the record with this id, of whatever table."""
        return next((name for name, found in self._tables.items() if sys_id in found), None)


def is_task(record: Mapping[str, str]) -> bool:
    """Whether the record's class extends task."""
    return "task" in lineage(record["sys_class_name"])
