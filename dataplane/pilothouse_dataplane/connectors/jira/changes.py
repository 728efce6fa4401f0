"""Writing issues, and finding what an earlier write did. How each is kept from happening twice: see ``tools.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse_dataplane.connectors.base import CallContext, Refused, SystemUnavailable
from pilothouse_dataplane.connectors.jira import adf, issues, jql, lookup
from pilothouse_dataplane.connectors.jira.client import issue_key, mapping, name, objects, project_key, text, unreadable
from pilothouse_dataplane.connectors.jira.lookup import PROPERTY
from pilothouse_dataplane.connectors.jira.site import Site
from pilothouse_dataplane.connectors.prelude import nothing_changed_yet
from pilothouse_dataplane.core.messages import Outcome, ToolResult

Arguments = Mapping[str, Any]
_SHOWN_NAMES = 50
_COMPARED = 20_000


def _changed(site: Site, key: str, summary: str) -> ToolResult:
    return ToolResult(Outcome.SUCCEEDED, summary, {"key": key, "url": site.link(key)}, site.cite(key))


def _property(context: CallContext) -> list[dict[str, Any]]:
    return [{"key": PROPERTY, "value": {"idempotencyKey": context.key}}]


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _labels(value: object) -> list[str]:
    labels = [str(label) for label in value] if isinstance(value, list) else []
    for label in labels:
        if not label or any(c.isspace() for c in label):
            raise Refused(f"“{label[:64]}” can't be a label in Jira, which takes no blanks.", asked=False)
    return labels


def _fields(arguments: Arguments) -> dict[str, Any]:
    """What create and edit have in common."""
    fields: dict[str, Any] = {}
    if "summary" in arguments:
        fields["summary"] = _one_line(arguments["summary"])
    if arguments.get("description"):
        fields["description"] = adf.from_text(str(arguments["description"]))
    if arguments.get("priority"):
        fields["priority"] = {"name": str(arguments["priority"])}
    if "labels" in arguments:
        fields["labels"] = _labels(arguments["labels"])
    return fields


async def create(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Creates an issue."""
    fields = {
        "project": {"key": project_key(arguments.get("project"))},
        "issuetype": {"name": str(arguments.get("issue_type") or "Task")},
        **_fields(arguments),
    }
    # the key goes with the create itself: set afterwards, a crash in between would leave an issue without it
    body = {"fields": fields, "properties": _property(context)}
    created = await site.client.call("POST", "/issue", context, needs="Create Issues", body=body)
    if not isinstance(created, dict) or not text(created.get("key")):
        raise unreadable(may_have_acted=True)
    site.remember(context, issue_id=text(created.get("id")))
    return _created(site, text(created["key"]))


def _created(site: Site, key: str) -> ToolResult:
    return _changed(site, key, f"Created {key} in Jira.")


async def find_created(site: Site, arguments: Arguments, context: CallContext) -> ToolResult | None:
    try:
        project = project_key(arguments.get("project"))
    except Refused:
        return None  # such a project was refused, so nothing was created
    issue = await lookup.created_issue(site.client, context, context.key, project)
    if issue is None:
        return None
    site.remember(context, issue_id=text(issue.get("id")))
    return _created(site, text(issue.get("key")))


async def edit(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Sets fields; the same values again change nothing more."""
    key = issue_key(arguments.get("key"))
    fields = _fields(arguments)
    if "description" in arguments and "description" not in fields:
        fields["description"] = None  # an empty text takes the description away
    if not fields:
        raise Refused(f"Nothing was named that should change in {key}.", asked=False)
    await site.client.call("PUT", f"/issue/{key}", context, needs="Edit Issues", body={"fields": fields})
    site.remember(context, key=key)
    return _changed(site, key, f"Changed {', '.join(sorted(fields))} of {key}.")


async def find_edited(site: Site, arguments: Arguments, context: CallContext) -> ToolResult | None:
    key = issue_key(arguments.get("key"))
    there = mapping((await issues.read(site, key, context, "description", "labels")).get("fields"))
    labels = there.get("labels")
    same = (
        ("summary" not in arguments or text(there.get("summary")) == _one_line(arguments["summary"]))
        and ("description" not in arguments or _same_text(str(arguments["description"]), there.get("description")))
        and (
            not arguments.get("priority") or name(there.get("priority")).casefold() == arguments["priority"].casefold()
        )
        and (
            "labels" not in arguments
            or (isinstance(labels, list) and {text(label) for label in labels} == set(_labels(arguments["labels"])))
        )
    )
    return _changed(site, key, f"{key} has these values.") if same else None


def _same_text(sent: str, there: object) -> bool:
    wanted = adf.to_text(adf.from_text(sent), _COMPARED)
    return " ".join(wanted.split()) == " ".join(adf.to_text(there, _COMPARED).split())


async def _assignee(site: Site, arguments: Arguments, context: CallContext, key: str) -> str | None:
    """An account id, or None for nobody."""
    who = str(arguments.get("assignee", "")).strip()
    if not who:
        raise Refused(f"It was not said who {key} should be assigned to.", asked=False)
    return None if who.casefold() == jql.NOBODY else await site.account_of(context, who, key)


async def assign(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Assigns; the same person again changes nothing more."""
    key = issue_key(arguments.get("key"))
    with nothing_changed_yet():
        account = await _assignee(site, arguments, context, key)
    path = f"/issue/{key}/assignee"
    await site.client.call("PUT", path, context, needs="Assign Issues", body={"accountId": account})
    site.remember(context, key=key)
    return _assigned(site, arguments, key)


def _assigned(site: Site, arguments: Arguments, key: str) -> ToolResult:
    who = str(arguments["assignee"]).strip()[:254]
    whom = {jql.ME: "you", jql.NOBODY: "nobody"}.get(who.casefold(), who)
    return _changed(site, key, f"Assigned {key} to {whom}.")


async def find_assigned(site: Site, arguments: Arguments, context: CallContext) -> ToolResult | None:
    key = issue_key(arguments.get("key"))
    account = await _assignee(site, arguments, context, key)
    there = mapping((await issues.read(site, key, context)).get("fields")).get("assignee")
    same = there is None if account is None else text(mapping(there).get("accountId")) == account
    return _assigned(site, arguments, key) if same else None


async def comment(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Adds a comment."""
    key = issue_key(arguments.get("key"))
    body = {"body": adf.from_text(str(arguments["body"])), "properties": _property(context)}
    await site.client.call("POST", f"/issue/{key}/comment", context, needs="Add Comments", body=body)
    site.remember(context, key=key)
    return _changed(site, key, f"Added a comment to {key}.")


async def find_comment(site: Site, arguments: Arguments, context: CallContext) -> ToolResult | None:
    key = issue_key(arguments.get("key"))
    there = await lookup.has_comment(site.client, context, key, context.key)
    return _changed(site, key, f"Added a comment to {key}.") if there else None


async def _transitions(site: Site, key: str, context: CallContext) -> list[dict[str, Any]]:
    path = f"/issue/{key}/transitions"
    return objects(await site.client.call("GET", path, context, needs="Browse Projects"), "transitions")


def _choose(transitions: list[dict[str, Any]], wanted: str) -> dict[str, Any] | None:
    """The transition to a status of that name, or else of that name itself."""
    plain = wanted.casefold()
    to_status = (t for t in transitions if name(t.get("to")).casefold() == plain)
    return next(to_status, next((t for t in transitions if text(t.get("name")).casefold() == plain), None))


async def transition(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Moves an issue to another status."""
    key, status = issue_key(arguments.get("key")), str(arguments["status"])
    with nothing_changed_yet():
        transitions = await _transitions(site, key, context)
    chosen = _choose(transitions, status)
    if chosen is None:
        names = [name(t.get("to")) or text(t.get("name")) for t in transitions]
        if not names:
            raise Refused(f"Jira offers you no status for {key}. It takes the permission “Transition Issues”.")
        raise Refused(f"{key} can't go to “{status}”. Possible: {', '.join(names[:_SHOWN_NAMES])}.")
    body = {"transition": {"id": str(chosen.get("id"))}}
    await site.client.call("POST", f"/issue/{key}/transitions", context, needs="Transition Issues", body=body)
    site.remember(context, key=key)
    return _changed(site, key, f"Moved {key} to {name(chosen.get('to')) or status}.")


async def find_transition(site: Site, arguments: Arguments, context: CallContext) -> ToolResult | None:
    """The issue's status is the proof. Where a transition was named, the status that it leads to is compared."""
    key, wanted = issue_key(arguments.get("key")), str(arguments["status"])
    status = name(mapping((await issues.read(site, key, context)).get("fields")).get("status"))
    found = _changed(site, key, f"{key} is in the status {status}.")
    if status.casefold() == wanted.casefold():
        return found
    chosen = _choose(await _transitions(site, key, context), wanted)
    if chosen is None:
        raise SystemUnavailable(f"Jira does not tell whether {key} was moved to “{wanted}”.", may_have_acted=False)
    return found if status and name(chosen.get("to")).casefold() == status.casefold() else None


@dataclass(frozen=True, slots=True)
class _Link:
    """``source`` (relation) ``target``, by the link type's outward words."""

    type: str
    source: str
    target: str
    words: str


async def _link(site: Site, arguments: Arguments, context: CallContext) -> _Link:
    """What is to be linked how. Raises ConnectorError."""
    key, other = issue_key(arguments.get("key")), issue_key(arguments.get("other"))
    relation = _one_line(arguments.get("relation", "")).casefold()
    if key == other:
        raise Refused(f"{key} can't be linked to itself.", asked=False)
    types = objects(await site.client.call("GET", "/issueLinkType", context, needs="Browse Projects"), "issueLinkTypes")
    for kind in types:
        named, outward, inward = (text(kind.get(n)) for n in ("name", "outward", "inward"))
        if relation in (outward.casefold(), named.casefold()):
            return _Link(named, key, other, outward)
        if relation == inward.casefold():
            return _Link(named, other, key, outward)
    known = ", ".join(dict.fromkeys(w for t in types for w in (text(t.get("outward")), text(t.get("inward"))) if w))
    raise Refused(f"Jira has no link “{relation[:100]}”. Possible: {known[:500] or 'none, linking is switched off'}.")


async def link(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Links two issues; a link that is there already is answered as if it were made."""
    with nothing_changed_yet():
        wanted = await _link(site, arguments, context)
    # Jira stores the link from the inward to the outward issue: the inward one shows the outward words
    body = {
        "type": {"name": wanted.type},
        "inwardIssue": {"key": wanted.source},
        "outwardIssue": {"key": wanted.target},
    }
    await site.client.call("POST", "/issueLink", context, needs="Link Issues", body=body)
    site.remember(context, key=wanted.source)
    return _linked(site, wanted)


def _linked(site: Site, made: _Link) -> ToolResult:
    return _changed(site, made.source, f"Linked: {made.source} {made.words} {made.target}.")


async def find_link(site: Site, arguments: Arguments, context: CallContext) -> ToolResult | None:
    wanted = await _link(site, arguments, context)
    for there in issues.links_of(await issues.read(site, wanted.source, context, "issuelinks")):
        same_type = text(mapping(there.get("type")).get("name")).casefold() == wanted.type.casefold()
        if same_type and text(mapping(there.get("outwardIssue")).get("key")) == wanted.target:
            return _linked(site, wanted)
    return None


async def delete(site: Site, arguments: Arguments, context: CallContext) -> ToolResult:
    """Deletes an issue; subtasks are not taken along, and Jira refuses an issue that has some."""
    key = issue_key(arguments.get("key"))
    with nothing_changed_yet():  # so that one that the user never saw is refused, and not told as deleted
        issue = await issues.read(site, key, context)
    await site.client.call("DELETE", f"/issue/{key}", context, needs="Delete Issues", query={"deleteSubtasks": "false"})
    title = text(mapping(issue.get("fields")).get("summary"))
    return ToolResult(Outcome.SUCCEEDED, f"Deleted {key} from Jira: {title}", {"key": key})


async def find_deleted(site: Site, arguments: Arguments, context: CallContext) -> ToolResult | None:
    key = issue_key(arguments.get("key"))
    try:
        await issues.read(site, key, context)
    except Refused as refusal:
        if "found nothing" not in str(refusal):
            raise
        return ToolResult(Outcome.SUCCEEDED, f"{key} is not in Jira any more.", {"key": key})
    return None
