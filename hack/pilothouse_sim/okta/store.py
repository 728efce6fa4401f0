"""The organization's state: users, factors, groups, apps, the system log; what a role may do; and what search sees.

The state is one JSON document, ``<state>/okta.json``, replaced as a whole at each change. Lists by ``search``,
``filter`` and ``q`` see a user as she was when last indexed: Okta's search is eventually consistent, by
``index_delay_seconds`` of the faults. Times are epoch seconds of the clock that comes in as ``now``.

A user's permissions are those of Okta's custom administrator roles, each with the people it reaches: ``self``,
``reports`` (those whose ``managerId`` she is), ``all``; and for ``okta.users.read`` also ``basic``: everybody, but of
others only the attributes that a directory shows.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

READ_USERS = "okta.users.read"


def timestamp(seconds: float) -> str:
    """Okta's form of a time: ``2026-10-05T08:12:00.000Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds * 1000) % 1000:03d}Z"


@dataclass
class User:
    """A user; ``permissions`` maps a permission to the people it reaches."""

    id: str
    status: str
    profile: dict[str, Any]
    created: float
    status_changed: float
    updated: float
    password_changed: float
    permissions: dict[str, str] = field(default_factory=dict)

    @property
    def login(self) -> str:
        return str(self.profile["login"])


@dataclass
class Factor:
    """An enrolled factor of a user."""

    id: str
    user: str
    type: str
    provider: str
    vendor: str
    status: str
    profile: dict[str, Any]
    created: float


@dataclass
class Group:
    """A group; ``members`` are user ids, ``everyone`` a group that all are in."""

    id: str
    type: str
    profile: dict[str, Any]
    members: list[str]
    created: float
    membership_updated: float
    everyone: bool = False


@dataclass
class App:
    """An app; ``users`` maps a user's id to when it was assigned."""

    id: str
    name: str
    label: str
    status: str
    sign_on: str
    users: dict[str, float]
    created: float


@dataclass
class Event:
    """An entry of the system log. ``actor`` and ``targets`` are user ids; ``object``: what else it was about."""

    uuid: str
    published: float
    type: str
    message: str
    actor: str
    targets: list[str]
    outcome: str
    reason: str = ""
    object: dict[str, str] = field(default_factory=dict)


_SEEDED = datetime(2026, 9, 1, 8, tzinfo=UTC).timestamp()


class Store:
    """All of one organization."""

    def __init__(self, seed: Mapping[str, Any], state_dir: Path | None) -> None:
        self._seed = seed
        self._file = state_dir / "okta.json" if state_dir else None
        self.tokens = {u["token"]: u["profile"]["login"] for u in seed["users"] if "token" in u}
        self.permissions = {u["id"]: dict(u.get("permissions", {})) for u in seed["users"]}
        self._pending: list[tuple[float, User]] = []
        self._load(json.loads(self._file.read_text("utf-8")) if self._file and self._file.exists() else None)

    def reset(self) -> None:
        """Back to the seed."""
        self._load(None)
        self._write()

    def _load(self, kept: Mapping[str, Any] | None) -> None:
        if kept is None:
            self._load_seed()
        else:
            # A role is the seed's to give, also where the state is older than the seed.
            self.users = {
                u["id"]: User(**{**u, "permissions": self.permissions.get(u["id"], {})}) for u in kept["users"]
            }
            self.factors = {f["id"]: Factor(**f) for f in kept["factors"]}
            self.groups = {g["id"]: Group(**g) for g in kept["groups"]}
            self.apps = {a["id"]: App(**a) for a in kept["apps"]}
            self.events = [Event(**e) for e in kept["events"]]
        self._pending = []
        self._indexed = {user.id: copy.deepcopy(user) for user in self.users.values()}

    def _load_seed(self) -> None:
        then, seed = _SEEDED, self._seed
        self.users = {
            u["id"]: User(u["id"], u["status"], dict(u["profile"]), then, then, then, then, self.permissions[u["id"]])
            for u in seed["users"]
        }
        self.factors = {
            f["id"]: Factor(
                f["id"], f["user"], f["factorType"], f["provider"], f["vendorName"], f["status"], f["profile"], then
            )
            for f in seed["factors"]
        }
        self.groups = {
            g["id"]: Group(
                g["id"],
                g["type"],
                dict(g["profile"]),
                [] if g["members"] == "*" else list(g["members"]),
                then,
                then,
                everyone=g["members"] == "*",
            )
            for g in seed["groups"]
        }
        self.apps = {
            a["id"]: App(
                a["id"], a["name"], a["label"], a["status"], a["signOnMode"], dict.fromkeys(a["users"], then), then
            )
            for a in seed["apps"]
        }
        self.events = [
            Event(
                f"seed-{number:04d}",
                datetime.fromisoformat(e["published"]).timestamp(),
                e["eventType"],
                e["displayMessage"],
                e["actor"],
                list(e["target"]),
                e["outcome"],
                e.get("reason", ""),
            )
            for number, e in enumerate(seed["events"], 1)
        ]

    def find(self, wanted: str) -> User | None:
        """The user by id, login, or the login's part before the @ where that is unambiguous."""
        if wanted in self.users:
            return self.users[wanted]
        name = wanted.casefold()
        found = [user for user in self.users.values() if user.login.casefold() == name]
        found = found or [user for user in self.users.values() if user.login.casefold().partition("@")[0] == name]
        return found[0] if len(found) == 1 else None

    def reaches(self, actor: User, permission: str, target: User) -> bool:
        """Whether the permission lets the actor act on (or read of) the target."""
        reach = {part.strip() for part in actor.permissions.get(permission, "").split(",")}
        if "all" in reach or ("basic" in reach and permission == READ_USERS):
            return True
        if actor.id == target.id:
            return "self" in reach
        return "reports" in reach and target.profile.get("managerId") == actor.id

    def everywhere(self, actor: User, permission: str) -> bool:
        """Whether the permission reaches what belongs to no user: groups, apps, the log, the list of users."""
        return actor.permissions.get(permission) in ("all", "basic")

    def sees_all_of(self, actor: User, target: User) -> bool:
        """Whether the actor sees more of the target than the directory shows."""
        return actor.id == target.id or actor.permissions.get(READ_USERS) == "all"

    def save(self, now: float, delay: float, *changed: User) -> None:
        """Keeps what was changed in place; search sees ``changed`` users after ``delay`` seconds. Raises OSError."""
        for user in changed:
            user.updated = now
            self._pending.append((now + delay, copy.deepcopy(user)))
        self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        kept = {
            name: [asdict(item) for item in items]
            for name, items in (
                ("users", self.users.values()),
                ("factors", self.factors.values()),
                ("groups", self.groups.values()),
                ("apps", self.apps.values()),
                ("events", self.events),
            )
        }
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(kept), encoding="utf-8")
        fresh.replace(self._file)

    def searchable(self, now: float) -> list[User]:
        """The users as search sees them, by id."""
        due = [user for when, user in self._pending if when <= now]
        self._pending = [entry for entry in self._pending if entry[0] > now]
        for user in due:
            self._indexed[user.id] = user
        return sorted(self._indexed.values(), key=lambda user: user.id)

    def members(self, group: Group) -> list[User]:
        """The group's users who are not deactivated, by id."""
        ids = sorted(self.users) if group.everyone else sorted(group.members)
        return [self.users[i] for i in ids if self.users[i].status != "DEPROVISIONED"]

    def factors_of(self, user: User) -> list[Factor]:
        """The user's factors, as enrolled."""
        return [factor for factor in self.factors.values() if factor.user == user.id]

    def note(self, uuid: str, now: float, kind: str, message: str, actor: User, target: User, **about: str) -> None:
        """Adds to the system log; keep it with ``save``."""
        self.events.append(Event(uuid, now, kind, message, actor.id, [target.id], "SUCCESS", object=about))
