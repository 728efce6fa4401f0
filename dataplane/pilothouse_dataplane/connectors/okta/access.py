"""Groups, apps and the system log: who is in what, who has what, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pilothouse_dataplane.connectors.base import Refused
from pilothouse_dataplane.connectors.okta import scim
from pilothouse_dataplane.connectors.okta.call import (
    READ_APPS,
    READ_GROUPS,
    READ_USERS,
    Call,
    Finder,
    Handler,
    app_row,
    done,
    group_row,
    read_user,
    row,
    the_app,
    the_group,
    the_user,
)
from pilothouse_dataplane.connectors.shape import mapping, mappings, text, whole
from pilothouse_dataplane.core.messages import ToolResult

MEMBERS = "okta.groups.members.manage"
ASSIGN = "okta.users.appAssignment.manage"
LOGS = "okta.logs.read"
_DEFAULT_HOURS = 24
_MAX_HOURS = 24 * 90
"""Okta keeps its log for ninety days."""


def _found(rows: list[dict[str, Any]], more: bool, noun: str) -> str:
    return f"Found {'at least ' if more else ''}{len(rows)} {noun}{'' if len(rows) == 1 else 's'} in Okta."


async def group_search(call: Call) -> ToolResult:
    wanted = whole(call.arguments, "max_results", 10, 50)
    words = call.word("text")
    query = {"limit": str(wanted)} | ({"search": f"profile.name sw {scim.quote(words)}"} if words else {})
    found, more = await call.pages("/groups", needs=READ_GROUPS, query=query, wanted=wanted)
    rows = [group_row(group) for group in found]
    return done(_found(rows, more, "group"), {"groups": rows, "more": more})


async def group_members(call: Call) -> ToolResult:
    wanted = whole(call.arguments, "max_results", 50, 200)
    group = await the_group(call)
    path, query = f"/groups/{group['id']}/users", {"limit": str(wanted)}
    found, more = await call.pages(path, needs=READ_GROUPS, query=query, wanted=wanted)
    keep = ("id", "login", "email", "name", "title", "department", "status")
    rows = [{name: member[name] for name in keep} for member in map(row, found)]
    count = f"{'at least ' if more else ''}{len(rows)} member{'' if len(rows) == 1 else 's'}"
    summary = f"The group {group['name']} has {count}."
    return done(summary, {"group": group["name"], "members": rows, "more": more})


async def group_add(call: Call) -> ToolResult:
    group, user = await the_group(call, MEMBERS), await the_user(call, MEMBERS)
    await call.ask("PUT", f"/groups/{group['id']}/users/{user['id']}", needs=MEMBERS)
    return _membership(group, user, "is in")


async def group_remove(call: Call) -> ToolResult:
    group, user = await the_group(call, MEMBERS), await the_user(call, MEMBERS)
    await call.ask("DELETE", f"/groups/{group['id']}/users/{user['id']}", needs=MEMBERS)
    return _membership(group, user, "is no longer in")


def _membership(group: Mapping[str, Any], user: Mapping[str, Any], how: str) -> ToolResult:
    data = {"group": group["name"], "group_id": group["id"], "user": user["email"], "name": user["name"]}
    return done(f"{user['name']} {how} the group {group['name']} in Okta.", data)


async def _is_member(call: Call) -> tuple[dict[str, Any], dict[str, Any], bool | None]:
    """The group, the user, and whether she is in it, read from her own groups; None where that can't be read to the
    end."""
    group, user = await the_group(call, MEMBERS), await the_user(call, MEMBERS)
    path, query = f"/users/{user['id']}/groups", {"limit": "200"}
    groups, more = await call.pages(path, needs=READ_USERS, query=query, wanted=2000)
    if any(text(found.get("id")) == group["id"] for found in groups):
        return group, user, True
    return group, user, None if more else False


async def find_added(call: Call) -> ToolResult | None:
    group, user, member = await _is_member(call)
    return _membership(group, user, "is in") if member else None


async def find_removed(call: Call) -> ToolResult | None:
    group, user, member = await _is_member(call)
    return _membership(group, user, "is no longer in") if member is False else None


async def app_search(call: Call) -> ToolResult:
    wanted = whole(call.arguments, "max_results", 10, 50)
    words = call.word("text")
    query = {"limit": str(wanted)} | ({"q": words} if words else {})
    found, more = await call.pages("/apps", needs=READ_APPS, query=query, wanted=wanted)
    rows = [app_row(app) for app in found]
    return done(_found(rows, more, "app"), {"apps": rows, "more": more})


async def app_assign(call: Call) -> ToolResult:
    app, user = await the_app(call, ASSIGN), await the_user(call, ASSIGN)
    body = {"id": user["id"], "scope": "USER"}
    await call.client.call("POST", f"/apps/{app['id']}/users", call.context, needs=ASSIGN, body=body)
    return _assignment(app, user, "is assigned")


async def app_unassign(call: Call) -> ToolResult:
    app, user = await the_app(call, ASSIGN), await the_user(call, ASSIGN)
    await call.ask("DELETE", f"/apps/{app['id']}/users/{user['id']}", needs=ASSIGN)
    return _assignment(app, user, "is no longer assigned")


def _assignment(app: Mapping[str, Any], user: Mapping[str, Any], how: str) -> ToolResult:
    data = {"app": app["name"], "app_id": app["id"], "user": user["email"], "name": user["name"]}
    return done(f"{user['name']} {how} the app {app['name']} in Okta.", data)


async def _assigned(call: Call) -> tuple[dict[str, Any], dict[str, Any], bool]:
    app, user = await the_app(call, ASSIGN), await the_user(call, ASSIGN)
    try:
        await call.ask("GET", f"/apps/{app['id']}/users/{user['id']}", needs=READ_APPS)
    except Refused as refusal:
        if "E0000007" not in str(refusal):  # not found; anything else tells nothing
            raise
        return app, user, False
    return app, user, True


async def find_assigned(call: Call) -> ToolResult | None:
    app, user, assigned = await _assigned(call)
    return _assignment(app, user, "is assigned") if assigned else None


async def find_unassigned(call: Call) -> ToolResult | None:
    app, user, assigned = await _assigned(call)
    return None if assigned else _assignment(app, user, "is no longer assigned")


async def log_search(call: Call) -> ToolResult:
    wanted = whole(call.arguments, "max_results", 20, 100)
    hours = whole(call.arguments, "hours", _DEFAULT_HOURS, _MAX_HOURS)
    user = call.word("user")
    login = row(await read_user(call, user, LOGS))["login"] if user else ""
    until = datetime.fromtimestamp(call.client.clock(), UTC)
    query = {
        "since": _instant(until - timedelta(hours=hours)),
        # without an end, Okta's list has none either
        "until": _instant(until),
        "sortOrder": "DESCENDING",
        "limit": str(wanted),
    }
    if expression := scim.events(login, call.word("event_type"), call.word("outcome")):
        query["filter"] = expression
    if words := call.word("text"):
        query["q"] = words
    found, more = await call.pages("/logs", needs=LOGS, query=query, wanted=wanted)
    rows = [_event(event) for event in found]
    return done(_found(rows, more, "event"), {"events": rows, "more": more})


def _instant(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    actor, outcome = mapping(event.get("actor")), mapping(event.get("outcome"))
    client = mapping(event.get("client"))
    return {
        "time": text(event.get("published")),
        "event": text(event.get("eventType")),
        "message": text(event.get("displayMessage"), 500),
        "outcome": text(outcome.get("result")),
        "reason": text(outcome.get("reason"), 500),
        "actor": text(actor.get("alternateId")) or text(actor.get("displayName")),
        "targets": [
            text(target.get("alternateId")) or text(target.get("displayName"))
            for target in mappings(event.get("target"))[:10]
        ],
        "ip": text(client.get("ipAddress")),
        "city": text(mapping(client.get("geographicalContext")).get("city")),
    }


CALLS: Mapping[str, Handler] = {
    "group.search": group_search,
    "group.members": group_members,
    "group.add_user": group_add,
    "group.remove_user": group_remove,
    "app.search": app_search,
    "app.assign": app_assign,
    "app.unassign": app_unassign,
    "log.search": log_search,
}
FINDS: Mapping[str, Finder] = {
    "group.add_user": find_added,
    "group.remove_user": find_removed,
    "app.assign": find_assigned,
    "app.unassign": find_unassigned,
}
