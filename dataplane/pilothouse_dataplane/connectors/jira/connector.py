"""The Jira connector: search, get, create, comment, transition, and the look-up of an earlier write by its key."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused, SecretText, SystemUnavailable
from pilothouse_dataplane.connectors.http import JsonClient
from pilothouse_dataplane.connectors.jira import adf, jql, lookup
from pilothouse_dataplane.connectors.jira.client import JiraClient
from pilothouse_dataplane.connectors.jira.lookup import PROPERTY, objects, unreadable
from pilothouse_dataplane.connectors.jira.tools import jira_tools
from pilothouse_dataplane.core.messages import Citation, Outcome, Tool, ToolResult

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}-[0-9]{1,12}")
_PROJECT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_FIELDS = ["summary", "status", "issuetype", "assignee", "reporter", "priority", "updated", "project"]
_MAX_PAGES = 5
_RECENT_USERS = 1000
_RECENT_ISSUES = 50
_KNOWN_ISSUES = 2000
_SHOWN_LABELS = 50


def _name(value: object) -> str:
    """Display name of one of Jira's nested objects."""
    return str(value.get("displayName") or value.get("name") or "")[:255] if isinstance(value, dict) else ""


def _object(value: object) -> dict[str, Any]:
    """The object, or an empty one: no field of Jira's is trusted to have its type."""
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value[:255] if isinstance(value, str) else ""


def _issue_key(arguments: Mapping[str, Any]) -> str:
    """The key, checked: it becomes a part of an address. Raises Refused."""
    key = str(arguments["key"])
    if not _KEY.fullmatch(key):
        raise Refused(f"“{key[:64]}” is not the key of a Jira issue.", asked=False)
    return key


class JiraConnector:
    """One Jira Cloud site."""

    def __init__(self, name: str, http: JsonClient) -> None:
        self._url = http.base_url
        self._client = JiraClient(http)
        self._tools = jira_tools(name)
        # Search is eventually consistent; what a user has just changed is named in reconcileIssues, so that
        # the user's next search sees it. Bounded: users by last use, issues a user.
        self._recent: OrderedDict[str, list[str]] = OrderedDict()
        self._ids: OrderedDict[str, str] = OrderedDict()
        """Ids by key, of the issues read last: writes answer without them."""

    def describe_tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def aclose(self) -> None:
        await self._client.aclose()

    async def probe(self) -> None:
        await self._client.call("GET", "/serverInfo", None, needs="none")

    async def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        token = context.token
        verb = tool.name.rpartition(".")[2]
        if verb == "search":
            return await self._search(arguments, context, token)
        if verb == "create":
            return await self._create(arguments, context, token)
        key = _issue_key(arguments)
        if verb == "get":
            return await self._get(key, token)
        if verb == "comment":
            return await self._comment(key, arguments, context, token)
        return await self._transition(key, str(arguments["status"]), context, token)

    async def find_by_key(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult | None:
        token = context.token
        verb = tool.name.rpartition(".")[2]
        if verb == "create":
            project = str(arguments["project"]).upper()
            if not _PROJECT.fullmatch(project):
                return None  # Jira refuses such a project, so nothing was created
            issue = await lookup.created_issue(self._client, token, context.key, project)
            if issue is None:
                return None
            self._remember(context, str(issue.get("id", "")))
            return self._created(_text(issue.get("key")))
        key = _issue_key(arguments)
        if verb == "comment":
            there = await lookup.has_comment(self._client, token, key, context.key)
            return self._changed(key, f"Added a comment to {key}.") if there else None
        return await self._find_transition(key, str(arguments["status"]), token)

    async def _find_transition(self, key: str, wanted: str, token: SecretText) -> ToolResult | None:
        """The issue's status is the proof. Where a transition was named, the status that it leads to is compared."""
        status = _name(_object((await self._read(key, token)).get("fields")).get("status"))
        found = self._changed(key, f"{key} is in the status {status}.")
        if status.casefold() == wanted.casefold():
            return found
        chosen = self._choose(await self._transitions(key, token), wanted)
        if chosen is None:
            raise SystemUnavailable(f"Jira does not tell whether {key} was moved to “{wanted}”.", may_have_acted=False)
        return found if status and _name(chosen.get("to")).casefold() == status.casefold() else None

    def _property(self, context: CallContext) -> list[dict[str, Any]]:
        return [{"key": PROPERTY, "value": {"idempotencyKey": context.key}}]

    async def _search(self, arguments: Mapping[str, Any], context: CallContext, token: SecretText) -> ToolResult:
        wanted = int(arguments.get("max_results", 10))
        body: dict[str, Any] = {
            "jql": jql.search(
                text=str(arguments.get("text", "")),
                project=str(arguments.get("project", "")),
                mine=bool(arguments.get("mine", False)),
                open_only=bool(arguments.get("open", False)),
            ),
            "maxResults": wanted,
            "fields": _FIELDS,
        }
        if recent := jql.issue_ids(self._recent.get(context.user_email, [])):
            body["reconcileIssues"] = recent
        issues: list[dict[str, Any]] = []
        more = False
        for _ in range(_MAX_PAGES):
            page = await self._client.call("POST", "/search/jql", token, needs="Browse Projects", body=body)
            issues.extend(objects(page, "issues"))
            next_page = page.get("nextPageToken")
            more = bool(next_page)
            if not next_page or len(issues) >= wanted:
                break
            body["nextPageToken"] = next_page
        found = [self._row(issue) for issue in issues[:wanted]]
        more = more or len(issues) > wanted
        count = f"{'at least ' if more else ''}{len(found)} issue{'' if len(found) == 1 else 's'}"
        citations = tuple(self._cite(row["key"], row["summary"]) for row in found[:5])
        return ToolResult(Outcome.SUCCEEDED, f"Found {count} in Jira.", {"issues": found, "more": more}, citations)

    async def _read(self, key: str, token: SecretText) -> dict[str, Any]:
        query = {"fields": ",".join([*_FIELDS, "description", "comment", "labels"])}
        issue = await self._client.call("GET", f"/issue/{key}", token, needs="Browse Projects", query=query)
        if not isinstance(issue, dict):
            raise unreadable()
        return issue

    async def _get(self, key: str, token: SecretText) -> ToolResult:
        issue = await self._read(key, token)
        row = self._row(issue)
        fields = _object(issue.get("fields"))
        comments = _object(fields.get("comment")).get("comments")
        labels = fields.get("labels")
        data = {
            **row,
            "description": adf.to_text(fields.get("description"), 6000),
            "labels": [_text(label) for label in labels[:_SHOWN_LABELS]] if isinstance(labels, list) else [],
            "comments": [
                {
                    "author": _name(c.get("author")),
                    "created": _text(c.get("created")),
                    "body": adf.to_text(c.get("body"), 1000),
                }
                for c in (comments[-5:] if isinstance(comments, list) else ())
                if isinstance(c, dict)
            ],
        }
        summary = f"{row['key']} is in the status {row['status']}: {row['summary']}"
        return ToolResult(Outcome.SUCCEEDED, summary, data, (self._cite(row["key"], row["summary"]),))

    async def _create(self, arguments: Mapping[str, Any], context: CallContext, token: SecretText) -> ToolResult:
        fields: dict[str, Any] = {
            "project": {"key": str(arguments["project"]).upper()},
            "issuetype": {"name": str(arguments.get("issue_type") or "Task")},
            "summary": " ".join(str(arguments["summary"]).split()),
        }
        if arguments.get("description"):
            fields["description"] = adf.from_text(str(arguments["description"]))
        # the key goes with the create itself: set afterwards, a crash in between would leave an issue without it
        body = {"fields": fields, "properties": self._property(context)}
        created = await self._client.call("POST", "/issue", token, needs="Create Issues", body=body)
        if not isinstance(created, dict) or not created.get("key"):
            raise unreadable(may_have_acted=True)
        self._remember(context, str(created.get("id", "")))
        return self._created(str(created["key"]))

    async def _comment(
        self, key: str, arguments: Mapping[str, Any], context: CallContext, token: SecretText
    ) -> ToolResult:
        body = {"body": adf.from_text(str(arguments["body"])), "properties": self._property(context)}
        await self._client.call("POST", f"/issue/{key}/comment", token, needs="Add Comments", body=body)
        self._remember(context, self._ids.get(key.upper(), ""))
        return self._changed(key, f"Added a comment to {key}.")

    async def _transition(self, key: str, status: str, context: CallContext, token: SecretText) -> ToolResult:
        try:
            transitions = await self._transitions(key, token)
        except SystemUnavailable as error:
            # only the list was asked for: nothing has been changed
            raise SystemUnavailable(
                str(error), may_have_acted=False, retry_after=error.retry_after, lasting=error.lasting
            ) from error
        chosen = self._choose(transitions, status)
        if chosen is None:
            names = [_name(t.get("to")) or _text(t.get("name")) for t in transitions]
            if not names:
                raise Refused(f"Jira offers you no status for {key}. It takes the permission “Transition Issues”.")
            raise Refused(f"{key} can't go to “{status}”. Possible: {', '.join(names[:_SHOWN_LABELS])}.")
        body = {"transition": {"id": str(chosen.get("id"))}}
        await self._client.call("POST", f"/issue/{key}/transitions", token, needs="Transition Issues", body=body)
        self._remember(context, self._ids.get(key.upper(), ""))
        return self._changed(key, f"Moved {key} to {_name(chosen.get('to')) or status}.")

    async def _transitions(self, key: str, token: SecretText) -> list[dict[str, Any]]:
        listed = await self._client.call("GET", f"/issue/{key}/transitions", token, needs="Browse Projects")
        return objects(listed, "transitions")

    @staticmethod
    def _choose(transitions: list[dict[str, Any]], wanted: str) -> dict[str, Any] | None:
        """The transition to a status of that name, or else of that name itself."""
        name = wanted.casefold()
        to_status = (t for t in transitions if _name(t.get("to")).casefold() == name)
        return next(to_status, next((t for t in transitions if _text(t.get("name")).casefold() == name), None))

    def _row(self, issue: Mapping[str, Any]) -> dict[str, Any]:
        fields = _object(issue.get("fields"))
        key = _text(issue.get("key"))
        self._ids[key] = _text(issue.get("id"))
        while len(self._ids) > _KNOWN_ISSUES:
            self._ids.popitem(last=False)
        return {
            "key": key,
            "summary": _text(fields.get("summary")),
            "status": _name(fields.get("status")),
            "type": _name(fields.get("issuetype")),
            "priority": _name(fields.get("priority")),
            "assignee": _name(fields.get("assignee")),
            "reporter": _name(fields.get("reporter")),
            "updated": _text(fields.get("updated")),
            "url": f"{self._url}/browse/{key}",
        }

    def _cite(self, key: str, title: str = "") -> Citation:
        return Citation(f"{key} {title}".strip(), f"{self._url}/browse/{key}")

    def _created(self, key: str) -> ToolResult:
        data = {"key": key, "url": f"{self._url}/browse/{key}"}
        return ToolResult(Outcome.SUCCEEDED, f"Created {key} in Jira.", data, (self._cite(key),))

    def _changed(self, key: str, summary: str) -> ToolResult:
        data = {"key": key, "url": f"{self._url}/browse/{key}"}
        return ToolResult(Outcome.SUCCEEDED, summary, data, (self._cite(key),))

    def _remember(self, context: CallContext, issue_id: str) -> None:
        if not issue_id:
            return
        recent = self._recent.setdefault(context.user_email, [])
        recent.append(issue_id)
        del recent[:-_RECENT_ISSUES]
        self._recent.move_to_end(context.user_email)
        while len(self._recent) > _RECENT_USERS:
            self._recent.popitem(last=False)
