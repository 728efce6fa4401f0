"""The site's state: users, projects, issues; and what search sees of it.

Every change is one line of the journal (the whole issue as JSON), flushed to the operating system before the change
is answered: a killed process loses nothing, a lost machine may. At start the seed is read, then the journal.

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
}


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
        self.issues: dict[str, Issue] = {}
        for entry in seed["issues"]:
            self._seed_issue(entry)
        self._pending: list[tuple[float, Issue]] = []
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
        )
        self.issues[issue.key] = issue

    def _replay(self, journal: Path) -> None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        if not journal.exists():
            return
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                issue = Issue.from_json(json.loads(line))
            except (ValueError, TypeError):
                # The line that was being written when the process was killed; its change was never answered.
                continue
            self.issues[issue.key] = issue
        # One line an issue from here on, so that the journal does not grow with every restart.
        fresh = journal.with_suffix(".new")
        fresh.write_text("".join(json.dumps(asdict(i)) + "\n" for i in self.issues.values()), encoding="utf-8")
        fresh.replace(journal)

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

    def find(self, user: User, id_or_key: str) -> Issue | None:
        """The issue of that key or id, if the user may see it."""
        issue = self.issues.get(id_or_key.upper())
        if issue is None:
            issue = next((i for i in self.issues.values() if i.id == id_or_key), None)
        return issue if issue and self.allowed(user, issue.project, "BROWSE_PROJECTS") else None

    def next_identity(self, project: str) -> tuple[str, str]:
        """Id and key of a new issue in the project."""
        number = max((i.number for i in self.issues.values() if i.project == project), default=0) + 1
        return str(max((int(i.id) for i in self.issues.values()), default=10000) + 1), f"{project}-{number}"

    def save(self, issue: Issue, now: float, delay: float) -> None:
        """Keeps a new or changed issue; search sees it after ``delay`` seconds. Raises OSError of the journal."""
        if self._journal:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(issue)) + "\n")
        self.issues[issue.key] = issue
        self._pending.append((now + delay, copy.deepcopy(issue)))

    def searchable(self, user: User, now: float, reconcile: Iterable[int]) -> list[Issue]:
        """What search sees and the user may browse; the issues with the ids in ``reconcile`` as they are now."""
        due = [entry for entry in self._pending if entry[0] <= now]
        self._pending = [entry for entry in self._pending if entry[0] > now]
        for _, issue in due:
            self._indexed[issue.key] = issue
        ids = {str(i) for i in reconcile}
        seen = {**self._indexed, **{i.key: i for i in self.issues.values() if i.id in ids}}
        return [issue for issue in seen.values() if self.allowed(user, issue.project, "BROWSE_PROJECTS")]
