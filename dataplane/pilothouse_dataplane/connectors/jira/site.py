"""One Jira site: what its tools share. Nothing in it is a secret; it is bounded."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, ConnectorError, Refused
from pilothouse_dataplane.connectors.jira import jql
from pilothouse_dataplane.connectors.jira.client import JiraClient, listed, mapping, site_in, site_of, text, unreadable
from pilothouse_dataplane.core.messages import Citation

FIELDS = ("summary", "status", "issuetype", "assignee", "reporter", "priority", "updated", "project")
"""What is read of every issue."""
_RECENT_USERS = 1000
_RECENT_ISSUES = 50
_KNOWN_ISSUES = 2000
_ACCOUNT_ID = re.compile(r"[0-9]{1,12}:[A-Za-z0-9-]{1,64}|[0-9a-f]{24}")
_CANDIDATES = 20
_NAMED = 5


class Site:
    """A site and what was learned of it."""

    def __init__(self, client: JiraClient) -> None:
        self.client = client
        self._url = site_of(client.base_url)
        # Search is eventually consistent; what a user has just changed is named in reconcileIssues, so that
        # the user's next search sees it. Bounded: users by last use, issues a user.
        self._recent: OrderedDict[str, list[str]] = OrderedDict()
        self._ids: OrderedDict[str, str] = OrderedDict()
        """Ids by key, of the issues read last: writes answer without them."""

    async def learn_address(self, context: CallContext) -> None:
        """Where people find the site, asked once where the connector goes through Atlassian's API gateway. Raises
        nothing: without it, links are left out."""
        if self._url is None:
            try:
                self._url = site_in(await self.client.call("GET", "/serverInfo", context, needs="Browse Projects"))
            except ConnectorError:
                return

    def link(self, key: str) -> str:
        """Where people see the issue, or the project; "" where that is not known."""
        return f"{self._url}/browse/{key}" if self._url and key else ""

    def cite(self, key: str, title: str = "") -> tuple[Citation, ...]:
        url = self.link(key)
        return (Citation(f"{key} {title}".strip(), url),) if url else ()

    def remember(self, context: CallContext, *, key: str = "", issue_id: str = "") -> None:
        """The user has just changed this issue."""
        issue_id = issue_id or self._ids.get(key, "")
        if not issue_id:
            return
        recent = self._recent.setdefault(context.user_email, [])
        recent.append(issue_id)
        del recent[:-_RECENT_ISSUES]
        self._recent.move_to_end(context.user_email)
        while len(self._recent) > _RECENT_USERS:
            self._recent.popitem(last=False)

    def recent(self, context: CallContext) -> list[int]:
        """Ids of what the user has just changed."""
        return jql.issue_ids(self._recent.get(context.user_email, []))

    def seen(self, issue: Mapping[str, Any]) -> None:
        """The issue was read."""
        self._ids[text(issue.get("key"))] = text(issue.get("id"))
        while len(self._ids) > _KNOWN_ISSUES:
            self._ids.popitem(last=False)

    async def me(self, context: CallContext) -> dict[str, Any]:
        """The user whose token it is. Raises ConnectorError."""
        found = await self.client.call("GET", "/myself", context, needs="Browse users and groups")
        if not isinstance(found, dict) or not text(found.get("accountId")):
            raise unreadable()
        return found

    async def account_of(self, context: CallContext, who: str, issue: str = "") -> str:
        """The account id of a person by e-mail, name or account id, or of the user (``me``). With ``issue``, of those
        whom it can be assigned to. Raises ConnectorError; Refused where none or several fit."""
        wanted = who.strip()
        if wanted.casefold() == jql.ME:
            return text((await self.me(context)).get("accountId"))
        if _ACCOUNT_ID.fullmatch(wanted):
            return wanted
        path, needs = "/user/search", "Browse users and groups"
        query = {"query": wanted, "maxResults": str(_CANDIDATES)}
        if issue:
            path, needs = "/user/assignable/search", "Assign Issues"
            query["issueKey"] = issue
        people = listed(await self.client.call("GET", path, context, needs=needs, query=query))
        people = [p for p in people if p.get("active") is not False and text(p.get("accountId"))]
        exact = [
            p for p in people if wanted.casefold() in (_email(p).casefold(), text(p.get("displayName")).casefold())
        ]
        found = exact or people
        if len(found) == 1:
            return text(found[0]["accountId"])
        if not found:
            where = f" to whom {issue} can be assigned" if issue else ""
            raise Refused(
                f"Jira shows you nobody called “{wanted[:100]}”{where}. If that person is there, you lack the "
                f"permission “{needs}”."
            )
        names = ", ".join(f"{text(p.get('displayName'))} {_email(p)}".strip() for p in found[:_NAMED])
        raise Refused(f"Several people in Jira fit “{wanted[:100]}”: {names}. Name one by her e-mail.")


def _email(person: Mapping[str, Any]) -> str:
    return text(person.get("emailAddress"))


def person_row(person: object) -> dict[str, Any]:
    """A person as models read her; many hide their e-mail."""
    found = mapping(person)
    return {
        "account_id": text(found.get("accountId")),
        "name": text(found.get("displayName")),
        "email": _email(found),
        "active": found.get("active") is not False,
    }
