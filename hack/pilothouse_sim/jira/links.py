"""Links between issues and their types.

Jira calls the issue from which a new link goes out the *inward* issue: ``{type: Blocks, inwardIssue: A, outwardIssue:
B}`` reads “A blocks B”; A then shows B as its link's ``outwardIssue``.

Source: https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-links/
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from pilothouse_sim.jira import adf, fields
from pilothouse_sim.jira.errors import INVALID_PAYLOAD, JiraError, field_error, issue_not_found
from pilothouse_sim.jira.site import READ, WRITE, Handlers, Route, base_of, read_body, typed
from pilothouse_sim.jira.store import LINK_TYPES, Issue, Link, User


class Links(Handlers):
    """The handlers."""

    def routes(self) -> tuple[Route, ...]:
        """Where they answer."""
        return (
            ("GET", "/issueLinkType", READ, self.types),
            ("POST", "/issueLink", WRITE, self.create),
            ("GET", "/issueLink/{link}", READ, self.get),
            ("DELETE", "/issueLink/{link}", WRITE, self.delete),
        )

    async def types(self, request: web.Request, _user: User) -> web.Response:
        """All types of link."""
        base = base_of(request)
        return web.json_response({"issueLinkTypes": [fields.link_type_view(kind, base) for kind in LINK_TYPES]})

    async def create(self, request: web.Request, user: User) -> web.Response:
        """Links two issues, with a comment on the first where one is given; what is linked already stays so."""
        body = await read_body(request, {"type", "inwardIssue", "outwardIssue", "comment"})
        wanted = typed(body, "type", dict, {})
        kind = next((k for k in LINK_TYPES if k[0] == wanted.get("id") or k[1] == wanted.get("name")), None)
        if kind is None:
            name = wanted.get("name", wanted.get("id", ""))
            raise JiraError(404, f"No issue link type with name '{name}' found.")
        source, target = self._end(body, "inwardIssue", user), self._end(body, "outwardIssue", user)
        if source.id == target.id:
            raise JiraError(400, "You cannot link an issue to itself.")
        if not self.store.allowed(user, source.project, "LINK_ISSUES"):
            raise JiraError(404, f"No Link Issue Permission for issue '{source.key}'. You need the permission to link.")
        if "comment" in body:
            if not self.store.allowed(user, source.project, "ADD_COMMENTS"):
                raise field_error(comment=f"{user.name}, you do not have the permission to comment on this issue.")
            self._comment(source, user, typed(body, "comment", dict, {}))
        self.store.link(kind[0], source, target)
        for issue in (source, target):
            self._save(issue)
        return web.Response(status=201)

    def _comment(self, issue: Issue, user: User, comment: dict[str, Any]) -> None:
        if not set(comment) <= {"body", "visibility"} or not adf.valid(comment.get("body")):
            raise field_error(comment="Comment body is not valid!")
        self._add_comment(issue, user, comment["body"], [])

    def _end(self, body: dict[str, Any], name: str, user: User) -> Issue:
        """The issue at one end, that the user may browse. Raises JiraError."""
        value = typed(body, name, dict, {})
        wanted = value.get("key", value.get("id"))
        if not isinstance(wanted, str) or not set(value) <= {"key", "id"}:
            raise JiraError(400, INVALID_PAYLOAD)
        return self._visible(user, wanted)

    def _link(self, request: web.Request, user: User) -> Link:
        link = self.store.links.get(request.match_info["link"])
        if link is None:
            raise JiraError(404, f"No issue link with id '{request.match_info['link']}' exists.")
        if not all(self.store.find(user, end) for end in (link.source, link.target)):
            raise issue_not_found()
        return link

    async def get(self, request: web.Request, user: User) -> web.Response:
        """One link, with both its issues."""
        return web.json_response(fields.link_view(self._link(request, user), self.store, base_of(request)))

    async def delete(self, request: web.Request, user: User) -> web.Response:
        """Removes a link."""
        link = self._link(request, user)
        source = self._visible(user, link.source)
        if not self.store.allowed(user, source.project, "LINK_ISSUES"):
            raise JiraError(404, f"No Link Issue Permission for issue '{source.key}'. You need the permission to link.")
        self.store.unlink(link)
        return web.Response(status=204)
