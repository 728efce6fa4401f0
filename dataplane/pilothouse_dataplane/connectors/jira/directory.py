"""Projects, issue types, fields and people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused
from pilothouse_dataplane.connectors.jira.client import listed, mapping, objects, project_key, text
from pilothouse_dataplane.connectors.jira.site import Site, person_row
from pilothouse_dataplane.core.messages import Outcome, ToolResult

Arguments = Mapping[str, Any]
_PAGE = 50
_MAX_PAGES = 5
_MAX_FIELDS = 100


def _found(noun: str, rows: list[dict[str, Any]], *, more: bool, name: str = "") -> ToolResult:
    count = f"{'at least ' if more else ''}{len(rows)} {noun}{'' if len(rows) == 1 else 's'}"
    return ToolResult(Outcome.SUCCEEDED, f"Found {count} in Jira.", {name or f"{noun}s": rows, "more": more})


async def search_projects(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    wanted = int(arguments.get("max_results", 20))
    query = {"maxResults": str(wanted), "startAt": "0", "orderBy": "key"}
    if arguments.get("text"):
        query["query"] = str(arguments["text"])
    page = await site.client.call("GET", "/project/search", context, needs="Browse Projects", query=query)
    rows = [
        {
            "key": text(p.get("key")),
            "name": text(p.get("name")),
            "type": text(p.get("projectTypeKey")),
            "url": site.link(text(p.get("key"))),
        }
        for p in objects(page, "values")[:wanted]
    ]
    return _found("project", rows, more=page.get("isLast") is False)


async def issue_types(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """What the user may create; with the name of a type, the fields of its create screen, too."""
    project = project_key(arguments.get("project"))
    path = f"/issue/createmeta/{project}/issuetypes"
    found = await _pages(site, context, path, "issueTypes")
    types = [
        {"id": text(t.get("id")), "name": text(t.get("name")), "description": text(t.get("description"))} for t in found
    ]
    if not types:
        raise Refused(
            f"Jira offers you no type of issue in {project}. It takes the permission “Create Issues”; ask a Jira "
            "administrator."
        )
    names = ", ".join(t["name"] for t in types)
    data: dict[str, Any] = {"issue_types": types}
    summary = f"In {project} you may create: {names}."
    if wanted := str(arguments.get("issue_type", "")).strip():
        chosen = next((t for t in types if t["name"].casefold() == wanted.casefold()), None)
        if chosen is None or not chosen["id"].isascii() or not chosen["id"].isdigit():
            raise Refused(f"{project} has no type of issue “{wanted[:100]}”. Possible: {names}.")
        data["fields"] = [
            {
                "id": text(f.get("fieldId")) or text(f.get("key")),
                "name": text(f.get("name")),
                "type": text(mapping(f.get("schema")).get("type")),
                "required": f.get("required") is True,
            }
            for f in (await _pages(site, context, f"{path}/{chosen['id']}", "fields"))[:_MAX_FIELDS]
        ]
        needed = ", ".join(f["name"] for f in data["fields"] if f["required"])
        summary = f"A {chosen['name']} in {project} needs: {needed or 'nothing special'}."
    return ToolResult(Outcome.SUCCEEDED, summary, data)


async def _pages(site: Site, context: CallContext, path: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(_MAX_PAGES):
        query = {"startAt": str(number * _PAGE), "maxResults": str(_PAGE)}
        page = await site.client.call("GET", path, context, needs="Create Issues", query=query)
        items = objects(page, name)
        found.extend(items)
        if len(items) < _PAGE:
            break
    return found


async def search_fields(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Jira gives all fields at once; they are filtered here."""
    wanted = int(arguments.get("max_results", 20))
    part = str(arguments.get("text", "")).strip().casefold()
    rows = [
        {
            "id": text(f.get("id")),
            "name": text(f.get("name")),
            "type": text(mapping(f.get("schema")).get("type")),
            "custom": f.get("custom") is True,
        }
        for f in listed(await site.client.call("GET", "/field", context, needs="Browse Projects"))
        if part in text(f.get("name")).casefold() or part in text(f.get("id")).casefold()
    ]
    return _found("field", rows[:wanted], more=len(rows) > wanted)


async def search_users(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    wanted = int(arguments.get("max_results", 10))
    query = {"query": str(arguments["text"]).strip(), "maxResults": str(wanted), "startAt": "0"}
    if not query["query"]:
        raise Refused("The search has no word in it, so nothing was sent.", asked=False)
    page = await site.client.call("GET", "/user/search", context, needs="Browse users and groups", query=query)
    people = listed(page)
    return _found("user", [person_row(p) for p in people[:wanted]], more=len(people) >= wanted)


async def me(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    shown = person_row(await site.me(context))
    return ToolResult(Outcome.SUCCEEDED, f"In Jira you are {shown['name']}.", shown)
