"""What all handlers of the stand-in share: the state, a request's body and query, and the checks of both."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import web

from pilothouse_sim.faults import Sim
from pilothouse_sim.jira.errors import INVALID_PAYLOAD, JiraError, issue_not_found
from pilothouse_sim.jira.store import Comment, Issue, Store, User

API = "/rest/api/3"
MAX_PAGE = 100
MAX_PROPERTY_BYTES = 32768
READ, WRITE, PEOPLE = "read:jira-work", "write:jira-work", "read:jira-user"
"""The classic scopes that Atlassian's documentation names for the operations."""

Route = tuple[str, str, str, Callable[[web.Request, User], Awaitable[web.Response]]]
"""Method, path below the API's, scope, handler."""


async def read_body(request: web.Request, known: set[str] | None) -> Any:
    """The JSON body; ``known`` limits the keys of an object. Raises ``JiraError``."""
    if request.content_type != "application/json":
        raise JiraError(415, "Unsupported Media Type: send Content-Type: application/json.")
    try:
        content = json.loads(await request.text())
    except ValueError:
        raise JiraError(400, INVALID_PAYLOAD) from None
    if known is not None and (not isinstance(content, dict) or not set(content) <= known):
        raise JiraError(400, INVALID_PAYLOAD)
    return content


def base_of(request: web.Request) -> str:
    """The site's own address."""
    return f"{request.scheme}://{request.host}"


def typed(body: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    """A field of the body, of that type. Raises ``JiraError``."""
    value = body.get(name, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise JiraError(400, INVALID_PAYLOAD)
    return value


def query_number(request: web.Request, name: str, default: int) -> int:
    """A number of the query, of 0 or more. Raises ``JiraError``."""
    text = request.query.get(name, str(default))
    if not text.isdigit():
        raise JiraError(400, f"The '{name}' query parameter must be a number.")
    return int(text)


def read_properties(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The entity properties that a create sets, as ``[{key, value}]``. Raises ``JiraError``."""
    entries: list[dict[str, Any]] = typed(body, "properties", list, [])
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"key", "value"} or not isinstance(entry["key"], str):
            raise JiraError(400, INVALID_PAYLOAD)
        check_property(entry["key"], entry["value"])
    return entries


def check_property(key: str, value: object) -> None:
    """Refuses what can't be an entity property. Raises ``JiraError``."""
    if not key or len(key) > 255:
        raise JiraError(400, "The property key must have 1 to 255 characters.")
    if len(json.dumps(value)) > MAX_PROPERTY_BYTES:
        raise JiraError(400, f"The property value cannot be bigger than {MAX_PROPERTY_BYTES} bytes.")


class Handlers:
    """Base of the handlers; ``clock`` gives epoch seconds."""

    def __init__(self, store: Store, sim: Sim, clock: Callable[[], float]) -> None:
        self.store = store
        self.sim = sim
        self.clock = clock

    def _issue(self, request: web.Request, user: User) -> Issue:
        """A copy that a handler may change and then save. Raises 404."""
        return self._visible(user, request.match_info["issue"])

    def _visible(self, user: User, id_or_key: str) -> Issue:
        """A copy of the issue, if the user may browse it. Raises 404."""
        issue = self.store.find(user, id_or_key)
        if issue is None:
            raise issue_not_found()
        return copy.deepcopy(issue)

    def _add_comment(
        self, issue: Issue, user: User, document: dict[str, Any], properties: list[dict[str, Any]]
    ) -> Comment:
        """Adds to the copy ``issue``; save it."""
        taken = [int(c.id) for i in self.store.issues.values() for c in i.comments]
        comment = Comment(str(max(taken, default=9999) + 1), user.account_id, document, self.clock(), properties)
        issue.comments.append(comment)
        return comment

    def _save(self, issue: Issue) -> None:
        now = self.clock()
        self.store.save(replace(issue, updated=now), now, self.sim.faults.index_delay_seconds)

    def _needs(self, user: User, project: str, permission: str, doing: str) -> None:
        """Refuses a user without the project permission: 403 that says what was not done."""
        if not self.store.allowed(user, project, permission):
            raise JiraError(403, f"You do not have permission to {doing} in this project.")
