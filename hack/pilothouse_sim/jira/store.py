"""The site's state: users, projects, issues; and what search sees of it.

Every change is one line of the journal (the whole issue as JSON, ``{"deleted": key, "id": id}``, ``{"link": …}`` or
``{"unlinked": id}``), flushed to the operating system before the change is answered: a killed process loses nothing, a
lost machine may. At start the seed is read, then the journal.

Search sees an issue as it was when last indexed. A change is indexed ``delay`` seconds after it was made; times are
seconds of the clock that the caller passes as ``now`` (epoch).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pilothouse_sim.jira import adf

PERMISSIONS = {
    "BROWSE_PROJECTS": "Browse Projects",
    "CREATE_ISSUES": "Create Issues",
    "EDIT_ISSUES": "Edit Issues",
    "ADD_COMMENTS": "Add Comments",
    "TRANSITION_ISSUES": "Transition Issues",
    "ASSIGN_ISSUES": "Assign Issues",
    "MODIFY_REPORTER": "Modify Reporter",
    "LINK_ISSUES": "Link Issues",
    "DELETE_ISSUES": "Delete Issues",
    "ASSIGNABLE_USER": "Assignable User",
}
USER_PICKER = "USER_PICKER"
"""The global permission “Browse users and groups”."""


@dataclass(frozen=True)
class User:
    """One account; ``token`` is its fixed development access token."""

    account_id: str
    email: str
    name: str
    token: str


@dataclass(frozen=True)
class Status:
    """A workflow status; ``category`` is Jira's key: new, indeterminate or done."""

    id: str
    name: str
    category: str
    transition_id: str
    transition_name: str


STATUSES = (
    Status("10000", "To Do", "new", "11", "To Do"),
    Status("10001", "In Progress", "indeterminate", "21", "In Progress"),
    Status("10002", "Done", "done", "31", "Done"),
)
LINK_TYPES = (
    ("10000", "Blocks", "is blocked by", "blocks"),
    ("10001", "Cloners", "is cloned by", "clones"),
    ("10002", "Duplicate", "is duplicated by", "duplicates"),
    ("10003", "Relates", "relates to", "relates to"),
)
"""(id, name, inward, outward)."""
CATEGORIES = {"new": (2, "To Do"), "indeterminate": (4, "In Progress"), "done": (3, "Done")}
PRIORITIES = ("Highest", "High", "Medium", "Low", "Lowest")


@dataclass(frozen=True)
class Project:
    """A project; ``grants`` maps a user's e-mail to the permission keys that the user has in it."""

    id: str
    key: str
    name: str
    issue_types: tuple[str, ...]
    grants: Mapping[str, frozenset[str]]

    def issue_type_id(self, name: str) -> str:
        """Jira's id of an issue type of this project."""
        return f"{self.id}{self.issue_types.index(name) + 1}"


@dataclass
class Comment:
    """A comment; ``body`` is ADF, ``created`` epoch seconds."""

    id: str
    author: str
    body: dict[str, Any]
    created: float
    properties: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Issue:
    """An issue; users are account ids, times epoch seconds, ``description`` ADF or None."""

    id: str
    key: str
    project: str
    summary: str
    issue_type: str
    reporter: str
    creator: str
    created: float
    updated: float
    status: str = "To Do"
    description: dict[str, Any] | None = None
    assignee: str | None = None
    priority: str = "Medium"
    labels: list[str] = field(default_factory=list)
    resolved: float | None = None
    comments: list[Comment] = field(default_factory=list)
    properties: dict[str, Any] = field(default_factory=dict)
    attachments: list[dict[str, Any]] = field(default_factory=list)
    """``{id, filename, author (account id), created (epoch seconds), size (bytes), mimeType}``."""

    @property
    def number(self) -> int:
        """The number in the key."""
        return int(self.key.rpartition("-")[2])

    def text(self) -> str:
        """All that JQL's ``text`` looks into."""
        return "\n".join([self.summary, adf.plain(self.description), *(adf.plain(c.body) for c in self.comments)])

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Issue:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**value, "comments": [Comment(**comment) for comment in value.get("comments", [])]})


@dataclass(frozen=True)
class Link:
    """``source`` (outward words of the type) ``target``; both are ids of issues. Jira's API calls the source of a new
    link its inward issue."""

    id: str
    type: str
    source: str
    target: str


def status_named(name: str) -> Status:
    """The status of that name; KeyError where there is none."""
    for status in STATUSES:
        if status.name.lower() == name.lower():
            return status
    raise KeyError(name)


class Store:
    """Users, projects and issues of one site."""

    def __init__(self, seed: Mapping[str, Any], state_dir: Path | None) -> None:
        self.users = {u["email"]: User(u["accountId"], u["email"], u["displayName"], u["token"]) for u in seed["users"]}
        self.projects = {
            p["key"]: Project(
                p["id"],
                p["key"],
                p["name"],
                tuple(p["issueTypes"]),
                {email: frozenset(keys) for email, keys in p["permissions"].items()},
            )
            for p in seed["projects"]
        }
        self._global = {key: frozenset(emails) for key, emails in seed.get("globalPermissions", {}).items()}
        self.issues: dict[str, Issue] = {}
        self.links: dict[str, Link] = {}
        self._deleted: dict[str, str] = {}
        self._last_link = 10000
        for entry in seed["issues"]:
            self._seed_issue(entry)
        self._pending: list[tuple[float, str, Issue | None]] = []
        self._journal = state_dir / "journal.jsonl" if state_dir else None
        if self._journal:
            self._replay(self._journal)
        self._indexed = copy.deepcopy(self.issues)

    def _seed_issue(self, entry: Mapping[str, Any]) -> None:
        created = datetime.fromisoformat(entry["created"]).astimezone(UTC).timestamp()
        status = status_named(entry.get("status", "To Do"))
        reporter = self.users[entry["reporter"]].account_id
        issue = Issue(
            id=str(10000 + len(self.issues) + 1),
            key=entry["key"],
            project=entry["key"].rpartition("-")[0],
            summary=entry["summary"],
            issue_type=entry.get("type", "Task"),
            reporter=reporter,
            creator=reporter,
            created=created,
            updated=created,
            status=status.name,
            description=adf.paragraph(entry["description"]) if entry.get("description") else None,
            assignee=self.users[entry["assignee"]].account_id if entry.get("assignee") else None,
            priority=entry.get("priority", "Medium"),
            labels=list(entry.get("labels", [])),
            resolved=created if status.category == "done" else None,
            attachments=[
                {**item, "author": self.users[item["author"]].account_id, "created": created}
                for item in entry.get("attachments", [])
            ],
        )
        self.issues[issue.key] = issue

    def _replay(self, journal: Path) -> None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        if not journal.exists():
            return
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                self._apply(json.loads(line))
            except (ValueError, TypeError, KeyError):
                # The line that was being written when the process was killed; its change was never answered.
                continue
        # One line an issue from here on, so that the journal does not grow with every restart.
        fresh = journal.with_suffix(".new")
        lines: list[dict[str, Any]] = [asdict(issue) for issue in self.issues.values()]
        lines += [{"deleted": key, "id": number} for key, number in self._deleted.items()]
        lines += [{"link": asdict(link)} for link in self.links.values()]
        fresh.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        fresh.replace(journal)

    def _apply(self, line: dict[str, Any]) -> None:
        """One line of the journal."""
        if "deleted" in line:
            self._forget(line["deleted"], line["id"])
        elif "link" in line:
            link = Link(**line["link"])
            self.links[link.id] = link
            self._last_link = max(self._last_link, int(link.id))
        elif "unlinked" in line:
            self.links.pop(line["unlinked"], None)
        else:
            issue = Issue.from_json(line)
            self.issues[issue.key] = issue

    def _forget(self, key: str, number: str) -> None:
        self.issues.pop(key, None)
        self._deleted[key] = number
        self.links = {i: link for i, link in self.links.items() if number not in (link.source, link.target)}

    def _write(self, line: dict[str, Any]) -> None:
        if self._journal:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def user_by_token(self, token: str) -> User | None:
        """The account whose access token this is."""
        return next((user for user in self.users.values() if user.token == token), None)

    def user_by_id(self, account_id: str | None) -> User | None:
        """The account of that id."""
        return next((user for user in self.users.values() if user.account_id == account_id), None)

    def allowed(self, user: User, project: str, permission: str) -> bool:
        """Whether the user has the permission in the project; False where there is no such project."""
        found = self.projects.get(project)
        return found is not None and permission in found.grants.get(user.email, frozenset())

    def allowed_globally(self, user: User, permission: str) -> bool:
        """Whether the user has the global permission."""
        return user.email in self._global.get(permission, frozenset())

    def find(self, user: User, id_or_key: str) -> Issue | None:
        """The issue of that key or id, if the user may see it."""
        issue = self.issues.get(id_or_key.upper())
        if issue is None:
            issue = next((i for i in self.issues.values() if i.id == id_or_key), None)
        return issue if issue and self.allowed(user, issue.project, "BROWSE_PROJECTS") else None

    def next_identity(self, project: str) -> tuple[str, str]:
        """Id and key of a new issue in the project."""
        # A deleted issue's key and id are never given out again.
        keys = [*self.issues, *self._deleted]
        numbers = [int(key.rpartition("-")[2]) for key in keys if key.rpartition("-")[0] == project]
        ids = [int(issue.id) for issue in self.issues.values()] + [int(i) for i in self._deleted.values()]
        return str(max(ids, default=10000) + 1), f"{project}-{max(numbers, default=0) + 1}"

    def save(self, issue: Issue, now: float, delay: float) -> None:
        """Keeps a new or changed issue; search sees it after ``delay`` seconds. Raises OSError of the journal."""
        self._write(asdict(issue))
        self.issues[issue.key] = issue
        self._pending.append((now + delay, issue.key, copy.deepcopy(issue)))

    def delete(self, issue: Issue, now: float, delay: float) -> None:
        """Removes an issue with its links; search forgets it after ``delay`` seconds. Raises OSError."""
        self._write({"deleted": issue.key, "id": issue.id})
        self._forget(issue.key, issue.id)
        self._pending.append((now + delay, issue.key, None))

    def links_of(self, issue: Issue) -> list[Link]:
        """The links that begin or end at the issue."""
        return [link for link in self.links.values() if issue.id in (link.source, link.target)]

    def link(self, kind: str, source: Issue, target: Issue) -> Link:
        """The link of that type (its id) between the two: a new one, or the one that is there. Raises OSError."""
        for link in self.links.values():
            if (link.type, link.source, link.target) == (kind, source.id, target.id):
                return link
        self._last_link += 1
        link = Link(str(self._last_link), kind, source.id, target.id)
        self._write({"link": asdict(link)})
        self.links[link.id] = link
        return link

    def unlink(self, link: Link) -> None:
        """Removes a link. Raises OSError."""
        self._write({"unlinked": link.id})
        del self.links[link.id]

    def by_id(self, number: str) -> Issue | None:
        """The issue of that id, whoever asks."""
        return next((issue for issue in self.issues.values() if issue.id == number), None)

    def searchable(self, user: User, now: float, reconcile: Iterable[int]) -> list[Issue]:
        """What search sees and the user may browse; the issues with the ids in ``reconcile`` as they are now."""
        due = [entry for entry in self._pending if entry[0] <= now]
        self._pending = [entry for entry in self._pending if entry[0] > now]
        for _, key, issue in due:
            if issue is None:
                self._indexed.pop(key, None)
            else:
                self._indexed[key] = issue
        ids = {str(i) for i in reconcile}
        gone = {key for key, number in self._deleted.items() if number in ids}
        seen = {key: issue for key, issue in self._indexed.items() if key not in gone}
        seen |= {i.key: i for i in self.issues.values() if i.id in ids}
        return [issue for issue in seen.values() if self.allowed(user, issue.project, "BROWSE_PROJECTS")]
