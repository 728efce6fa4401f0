"""The organization's state: users with their profiles, records of all objects.

Every change is one line of the journal (the whole record as JSON), flushed to the operating system before the change is
answered: a killed process loses nothing, a lost machine may. At start the seed is read, then the journal. Changes
between ``begin`` and ``commit`` are written at once at ``commit``, or taken back by ``rollback``.

A record is a mapping of field to JSON value, null where it is empty. In the seed a value ``@key`` refers to the record
with ``"_key": "key"``. A deleted record stays, with ``IsDeleted`` true, as in the recycle bin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pilothouse_sim.salesforce.schema import OBJECTS, long_id

Record = dict[str, Any]
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Profile:
    """What users may do. ``objects``: object → letters of c, r, u, d; ``hidden``, ``read_only``: ``Object.Field``;
    ``view_all``: objects all of whose records they see; ``permissions``: such as ``RunReports``."""

    name: str
    objects: Mapping[str, str]
    hidden: frozenset[str]
    read_only: frozenset[str]
    view_all: frozenset[str]
    permissions: frozenset[str]


@dataclass(frozen=True)
class User:
    """One who can sign in; ``token`` is the fixed development access token."""

    id: str
    email: str
    name: str
    token: str
    profile: Profile


def timestamp(now: float) -> str:
    """Epoch seconds as the API writes a time (UTC, milliseconds)."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def _base62(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 62)
        text = _DIGITS[digit] + text
    return text.rjust(6, "0")


class Store:
    """Users and records of one organization."""

    def __init__(self, seed: Mapping[str, Any], state_dir: Path | None) -> None:
        self.org_id = long_id("00D5g00000SimOr")
        self.reports: dict[str, Mapping[str, Any]] = {}
        """What a report has beside its record: object, columns, filter, grouping."""
        self.daily_requests = int(seed.get("dailyApiRequests", 15_000))
        self._records: dict[str, dict[str, Record]] = {name: {} for name in OBJECTS}
        self._pending: list[Record] | None = None
        self._before: dict[str, Record | None] = {}
        self._ids: dict[str, str] = {}
        for name, entries in seed["records"].items():
            for number, entry in enumerate(entries, 1):
                self._ids[f"@{entry.get('_key', f'{name}:{number}')}"] = self._make_id(name, number)
        for name, entries in seed["records"].items():
            for number, entry in enumerate(entries, 1):
                self._seed_record(name, number, entry)
        for entry in seed["records"].get("Report", []):
            self.reports[self._ids[f"@{entry['_key']}"]] = entry["_definition"]
        profiles = {name: _profile(name, entry) for name, entry in seed["profiles"].items()}
        self.users = {
            record["Email"]: User(record["Id"], record["Email"], record["Name"], account["token"],
                                  profiles[account["profile"]])
            for account in seed["accounts"]
            for record in [self._records["User"][self._ids[account["user"]]]]
        }  # fmt: skip
        self._journal = state_dir / "journal.jsonl" if state_dir else None
        if self._journal:
            self._replay(self._journal)

    def _make_id(self, name: str, number: int) -> str:
        return long_id(f"{OBJECTS[name].prefix}5g0000{_base62(number)}")

    def _seed_record(self, name: str, number: int, entry: Mapping[str, Any]) -> None:
        sobject = OBJECTS[name]
        created = entry.get("CreatedDate", "2026-09-01T08:00:00.000+0000")
        record: Record = {f.name: f.default if f.kind != "boolean" else bool(f.default) for f in sobject.fields}
        for key, value in entry.items():
            if key.startswith("_"):
                continue
            if key not in record:
                raise ValueError(f"seed: {name} has no field {key!r}")
            if isinstance(value, str) and value.startswith("@"):
                if value not in self._ids:
                    raise ValueError(f"seed: {name}.{key} refers to {value!r}, which is not there")
                value = self._ids[value]
            record[key] = value
        record["Id"] = self._make_id(name, number)
        record["CreatedDate"] = record["LastModifiedDate"] = record["SystemModstamp"] = created
        record["CreatedById"] = record["LastModifiedById"] = record.get("OwnerId") or record["Id"]
        complete(name, record)
        self._records[name][record["Id"]] = record

    def _replay(self, journal: Path) -> None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        if not journal.exists():
            return
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                self._records[entry["type"]][entry["record"]["Id"]] = entry["record"]
            except (ValueError, KeyError, TypeError):
                # The line that was being written when the process was killed; its change was never answered.
                continue
        # One line a record from here on, so that the journal does not grow with every restart.
        fresh = journal.with_suffix(".new")
        fresh.write_text(
            "".join(_line(r) for found in self._records.values() for r in found.values()), encoding="utf-8"
        )
        fresh.replace(journal)

    def user_by_email(self, email: str) -> User | None:
        """The account of that e-mail."""
        return self.users.get(email)

    def all_of(self, name: str) -> Iterator[Record]:
        """The object's records that are not deleted, in the order of their creation."""
        return (record for record in self._records[name].values() if not record["IsDeleted"])

    def find(self, name: str, record_id: str) -> Record | None:
        """The record of that id (15 or 18 characters), deleted or not."""
        return self._records[name].get(long_id(record_id))

    def new_id(self, name: str) -> str:
        """The next id of the object."""
        return self._make_id(name, len(self._records[name]) + 1)

    def next_case_number(self) -> str:
        """Eight digits."""
        return f"{len(self._records['Case']) + 1000 + 1:08d}"

    def save(self, *records: Record) -> None:
        """Keeps new or changed records, all of them or none. Raises OSError of the journal."""
        if self._pending is None:
            self._write(records)
        for record in records:
            found = self._records[type_of(record)]
            if self._pending is not None:
                self._before.setdefault(record["Id"], found.get(record["Id"]))
                self._pending.append(record)
            found[record["Id"]] = record

    def _write(self, records: tuple[Record, ...] | list[Record]) -> None:
        if self._journal and records:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write("".join(_line(record) for record in records))

    def begin(self) -> bool:
        """Starts a transaction; False where one is under way, which goes on."""
        if self._pending is not None:
            return False
        self._pending, self._before = [], {}
        return True

    def commit(self) -> None:
        """Keeps what was saved since ``begin``."""
        pending, self._pending = self._pending or [], None
        self._write(pending)

    def rollback(self) -> None:
        """Takes back what was saved since ``begin``."""
        self._pending = None
        for record_id, before in self._before.items():
            found = next(records for records in self._records.values() if record_id in records)
            if before is None:
                del found[record_id]
            else:
                found[record_id] = before


def type_of(record: Mapping[str, Any]) -> str:
    """The object's name, from the id's prefix."""
    return next(name for name, entry in OBJECTS.items() if entry.prefix == record["Id"][:3])


def complete(name: str, record: Record) -> None:
    """Sets the fields that follow from others."""
    if name in ("Contact", "Lead", "User"):
        record["Name"] = " ".join(part for part in (record["FirstName"], record["LastName"]) if part)
    if name == "Opportunity":
        record["IsClosed"] = str(record["StageName"]).startswith("Closed")
        record["IsWon"] = record["StageName"] == "Closed Won"
    if name == "Case":
        record["IsClosed"] = record["Status"] == "Closed"
    if name == "Task":
        record["IsClosed"] = record["Status"] == "Completed"


def _line(record: Record) -> str:
    return json.dumps({"type": type_of(record), "record": record}) + "\n"


def _profile(name: str, entry: Mapping[str, Any]) -> Profile:
    return Profile(
        name,
        entry["objects"],
        frozenset(entry.get("hidden", [])),
        frozenset(entry.get("readOnly", [])),
        frozenset(entry.get("viewAll", [])),
        frozenset(entry.get("permissions", [])),
    )
