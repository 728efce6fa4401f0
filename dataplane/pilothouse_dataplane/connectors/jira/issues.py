"""Reading issues: search and get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext
from pilothouse_dataplane.connectors.jira import adf, jql
from pilothouse_dataplane.connectors.jira.client import issue_key, mapping, name, objects, text, unreadable
from pilothouse_dataplane.connectors.jira.site import FIELDS, Site
from pilothouse_dataplane.core.messages import Outcome, ToolResult

Arguments = Mapping[str, Any]
_MAX_PAGES = 5
_SHOWN_LABELS = 50
_SHOWN_LINKS = 30
_SHOWN_COMMENTS = 5


async def search(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Issues by typed arguments; each page is asked for by the token of the one before."""
    wanted = int(arguments.get("max_results", 10))
    people = {}
    for field in ("assignee", "reporter"):
        if who := str(arguments.get(field, "")).strip():
            plain = who.casefold() in (jql.ME, jql.NOBODY)
            people[field] = who.casefold() if plain else await site.account_of(context, who)
    body: dict[str, Any] = {
        "jql": jql.search(
            text=str(arguments.get("text", "")),
            project=str(arguments.get("project", "")),
            mine=bool(arguments.get("mine", False)),
            open_only=bool(arguments.get("open", False)),
            status=str(arguments.get("status", "")),
            issue_type=str(arguments.get("issue_type", "")),
            label=str(arguments.get("label", "")),
            assignee=people.get("assignee", ""),
            reporter=people.get("reporter", ""),
            updated_days=int(arguments.get("updated_days", 0)),
        ),
        "maxResults": wanted,
        "fields": list(FIELDS),
    }
    if recent := site.recent(context):
        body["reconcileIssues"] = recent
    issues: list[dict[str, Any]] = []
    more = False
    for _ in range(_MAX_PAGES):
        page = await site.client.call("POST", "/search/jql", context, needs="Browse Projects", body=body)
        issues.extend(objects(page, "issues"))
        next_page = page.get("nextPageToken")
        more = bool(next_page)
        if not next_page or len(issues) >= wanted:
            break
        body["nextPageToken"] = next_page
    found = [row(site, issue) for issue in issues[:wanted]]
    more = more or len(issues) > wanted
    count = f"{'at least ' if more else ''}{len(found)} issue{'' if len(found) == 1 else 's'}"
    cited = tuple(citation for r in found[:5] for citation in site.cite(r["key"], r["summary"]))
    return ToolResult(Outcome.SUCCEEDED, f"Found {count} in Jira.", {"issues": found, "more": more}, cited)


def row(site: Site, issue: Mapping[str, Any]) -> dict[str, Any]:
    """An issue as models read it."""
    site.seen(issue)
    fields = mapping(issue.get("fields"))
    key = text(issue.get("key"))
    return {
        "key": key,
        "summary": text(fields.get("summary")),
        "status": name(fields.get("status")),
        "type": name(fields.get("issuetype")),
        "priority": name(fields.get("priority")),
        "assignee": name(fields.get("assignee")),
        "reporter": name(fields.get("reporter")),
        "updated": text(fields.get("updated")),
        "url": site.link(key),
    }


async def read(site: Site, key: str, context: CallContext, *more: str) -> dict[str, Any]:
    """The issue with the usual fields and ``more``. Raises ConnectorError."""
    query = {"fields": ",".join((*FIELDS, *more))}
    issue = await site.client.call("GET", f"/issue/{key}", context, needs="Browse Projects", query=query)
    if not isinstance(issue, dict):
        raise unreadable()
    return issue


async def get(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """One issue with its text, latest comments and links."""
    key = issue_key(arguments.get("key"))
    issue = await read(site, key, context, "description", "comment", "labels", "issuelinks")
    shown = row(site, issue)
    fields = mapping(issue.get("fields"))
    comments = mapping(fields.get("comment")).get("comments")
    labels = fields.get("labels")
    data = {
        **shown,
        "description": adf.to_text(fields.get("description"), 6000),
        "labels": [text(label) for label in labels[:_SHOWN_LABELS]] if isinstance(labels, list) else [],
        "comments": [
            {
                "author": name(c.get("author")),
                "created": text(c.get("created")),
                "body": adf.to_text(c.get("body"), 1000),
            }
            for c in (comments[-_SHOWN_COMMENTS:] if isinstance(comments, list) else ())
            if isinstance(c, dict)
        ],
        "links": [_link_row(link) for link in links_of(issue)[:_SHOWN_LINKS]],
    }
    summary = f"{shown['key']} is in the status {shown['status']}: {shown['summary']}"
    return ToolResult(Outcome.SUCCEEDED, summary, data, site.cite(shown["key"], shown["summary"]))


def links_of(issue: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The issue's links, as Jira has them."""
    links = mapping(issue.get("fields")).get("issuelinks")
    return [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []


def _link_row(link: Mapping[str, Any]) -> dict[str, str]:
    outward = isinstance(link.get("outwardIssue"), dict)
    other = mapping(link.get("outwardIssue" if outward else "inwardIssue"))
    fields = mapping(other.get("fields"))
    return {
        "relation": text(mapping(link.get("type")).get("outward" if outward else "inward")),
        "key": text(other.get("key")),
        "summary": text(fields.get("summary")),
        "status": name(fields.get("status")),
    }
