"""JQL built from typed arguments, so that no text of a user or a model is ever read as JQL. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TEXT_SPECIAL = re.compile(r"[^\w\s.@'-]+")
ME = "me"
NOBODY = "nobody"


def quote(value: str) -> str:
    """A JQL string: in double quotes, backslash and quote escaped, control characters gone."""
    clean = "".join(c if c.isprintable() else " " for c in value)
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def person(field: str, who: str) -> str:
    """``who``: ``me``, ``nobody``, or an account id."""
    if who == ME:
        return f"{field} = currentUser()"
    return f"{field} is EMPTY" if who == NOBODY else f"{field} = {quote(who)}"


def search(
    *,
    text: str = "",
    project: str = "",
    mine: bool = False,
    open_only: bool = False,
    status: str = "",
    issue_type: str = "",
    label: str = "",
    assignee: str = "",
    reporter: str = "",
    updated_days: int = 0,
) -> str:
    """The query of issue.search. Jira refuses a query without any restriction, so one over time is set then."""
    clauses = []
    if project:
        clauses.append(f"project = {quote(project)}")
    # text search has operators of its own (Lucene's: signs, and AND, OR, NOT in capitals); words are all that is wanted
    words = " ".join(_TEXT_SPECIAL.sub(" ", text).replace("-", " ").lower().split())
    if words:
        clauses.append(f"text ~ {quote(words)}")
    if mine:
        clauses.append("(assignee = currentUser() OR reporter = currentUser())")
    clauses.extend(
        f"{field} = {quote(value)}"
        for field, value in (("status", status), ("issuetype", issue_type), ("labels", label))
        if value
    )
    clauses.extend(person(field, who) for field, who in (("assignee", assignee), ("reporter", reporter)) if who)
    if updated_days:
        clauses.append(f'updated >= "-{int(updated_days)}d"')
    if open_only:
        clauses.append("statusCategory != Done")
    return " AND ".join(clauses or ["updated >= -90d"]) + " ORDER BY updated DESC"


def recent_by_me(days: int) -> str:
    """What the user has created in the last days, newest first. The reporter may change later, the creator can't."""
    return f'creator = currentUser() AND created >= "-{days}d" ORDER BY created DESC'


def newest_of(project: str) -> str:
    """A project's issues, newest first."""
    return f"project = {quote(project)} ORDER BY created DESC"


def issue_ids(ids: Sequence[str]) -> list[int]:
    """Ids for ``reconcileIssues``: numbers, at most 50."""
    return [int(i) for i in ids if i.isascii() and i.isdigit()][-50:]
