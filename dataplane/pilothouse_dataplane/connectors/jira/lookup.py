"""Finds what an earlier write did, by the idempotency key that the write left in an entity property.

Comments are read from the issue itself: what is not there does not exist. Issues are found by search, whose index lags
behind by seconds to minutes; so the keys that follow the newest issue that search knows are read one by one as well
(Jira numbers a project's issues in order, and reading by key is not delayed).
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, ConnectorError, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.jira import jql
from pilothouse_dataplane.connectors.jira.client import JiraClient, objects

PROPERTY = "pilothouse"
"""Entity property of issues and comments that we write: ``{"idempotencyKey": …}``."""
_LOOK_BACK_DAYS = 14
"""As long as a write that failed may be replayed."""
_PAGE = 50
_MAX_ISSUE_PAGES = 4
_MAX_COMMENT_PAGES = 20
_PROBES = 4
"""Keys that are read at a time."""
_MAX_PROBES = 16
_NUMBERED = re.compile(r"([A-Z][A-Z0-9_]{0,31})-([0-9]{1,12})")


def _ours(value: object, key: str) -> bool:
    return isinstance(value, dict) and value.get("idempotencyKey") == key


def _carries(issue: dict[str, Any], key: str) -> bool:
    properties = issue.get("properties")
    return isinstance(properties, dict) and _ours(properties.get(PROPERTY), key)


async def created_issue(client: JiraClient, context: CallContext, key: str, project: str) -> dict[str, Any] | None:
    """The issue (``id``, ``key``) that a create with this idempotency key made. Raises ConnectorError."""
    found: dict[str, Any] | None
    newest: str
    found, newest = await asyncio.gather(
        _search(client, context, jql.recent_by_me(_LOOK_BACK_DAYS), key, _MAX_ISSUE_PAGES),
        _newest_key(client, context, project),
    )
    if found is not None:
        return found
    match = _NUMBERED.fullmatch(newest)
    if match is None:
        return None
    following = int(match[2]) + 1
    for start in range(following, following + _MAX_PROBES, _PROBES):
        keys = [f"{project}-{number}" for number in range(start, start + _PROBES)]
        issues: list[dict[str, Any]] = [
            i for i in await asyncio.gather(*(_read(client, context, k) for k in keys)) if i is not None
        ]
        for issue in issues:
            if _carries(issue, key):
                return issue
        if not issues:
            return None
    return None


async def _search(client: JiraClient, context: CallContext, query: str, key: str, pages: int) -> dict[str, Any] | None:
    # a property that no app has indexed can't be searched for: it is read from the user's newest issues
    body: dict[str, Any] = {"jql": query, "maxResults": _PAGE, "fields": ["summary"], "properties": [PROPERTY]}
    for _ in range(pages):
        page = await client.call("POST", "/search/jql", context, needs="Browse Projects", body=body)
        for issue in objects(page, "issues"):
            if _carries(issue, key):
                return issue
        following = page.get("nextPageToken")
        if not following:
            break
        body["nextPageToken"] = following
    return None


async def _newest_key(client: JiraClient, context: CallContext, project: str) -> str:
    """The key of the newest issue that search knows; "" where that can't be told."""
    body = {"jql": jql.newest_of(project), "maxResults": 1, "fields": ["summary"]}
    try:
        page = await client.call("POST", "/search/jql", context, needs="Browse Projects", body=body)
        issues = objects(page, "issues")
    except ConnectorError:
        return ""
    # an empty project's first issue has the number 1
    return str(issues[0].get("key", "")) if issues else f"{project}-0"


async def _read(client: JiraClient, context: CallContext, issue_key: str) -> dict[str, Any] | None:
    query = {"fields": "summary", "properties": PROPERTY}
    try:
        issue = await client.call("GET", f"/issue/{issue_key}", context, needs="Browse Projects", query=query)
    except Refused:
        return None
    return issue if isinstance(issue, dict) else None


async def has_comment(client: JiraClient, context: CallContext, issue_key: str, key: str) -> bool:
    """Whether the issue has the comment with this idempotency key. Raises ConnectorError where that can't be told."""
    for number in range(_MAX_COMMENT_PAGES):
        query = {
            "orderBy": "-created",
            "startAt": str(number * _PAGE),
            "maxResults": str(_PAGE),
            "expand": "properties",
        }
        path = f"/issue/{issue_key}/comment"
        page = await client.call("GET", path, context, needs="Browse Projects", query=query)
        comments = objects(page, "comments")
        for comment in comments:
            properties = comment.get("properties")
            for entry in properties if isinstance(properties, list) else ():
                if isinstance(entry, dict) and entry.get("key") == PROPERTY and _ours(entry.get("value"), key):
                    return True
        if comments and not any("properties" in comment for comment in comments):
            break  # a site that doesn't show properties can't prove that ours is not there
        if len(comments) < _PAGE:
            return False
    raise SystemUnavailable(f"Jira does not tell whether {issue_key} has the comment.", may_have_acted=False)
