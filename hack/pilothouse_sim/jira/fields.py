"""How issues, users and projects look in the REST API, and the checks of what a client may set. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pilothouse_sim.jira import adf
from pilothouse_sim.jira.errors import INVALID_PAYLOAD, JiraError
from pilothouse_sim.jira.store import (
    CATEGORIES,
    LINK_TYPES,
    PRIORITIES,
    Comment,
    Issue,
    Link,
    Project,
    Status,
    Store,
    User,
    status_named,
)

SYSTEM_FIELDS: Mapping[str, tuple[str, str]] = {
    "summary": ("Summary", "string"),
    "description": ("Description", "string"),
    "issuetype": ("Issue Type", "issuetype"),
    "project": ("Project", "project"),
    "status": ("Status", "status"),
    "resolution": ("Resolution", "resolution"),
    "resolutiondate": ("Resolved", "datetime"),
    "priority": ("Priority", "priority"),
    "labels": ("Labels", "array"),
    "assignee": ("Assignee", "user"),
    "reporter": ("Reporter", "user"),
    "creator": ("Creator", "user"),
    "created": ("Created", "datetime"),
    "updated": ("Updated", "datetime"),
    "comment": ("Comment", "comments-page"),
    "issuelinks": ("Linked Issues", "array"),
    "attachment": ("Attachment", "array"),
}
NOT_ADF = "Operation value must be an Atlassian Document (see the Atlassian Document Format)"


def timestamp(seconds: float) -> str:
    """Jira's form of a time: ``2026-10-05T08:12:00.000+0000``."""
    return (
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds * 1000) % 1000:03d}+0000"
    )


def user_view(user: User | None, base: str) -> dict[str, Any] | None:
    """A user as the API shows it; None stays None (unassigned)."""
    if user is None:
        return None
    return {
        "self": f"{base}/rest/api/3/user?accountId={user.account_id}",
        "accountId": user.account_id,
        "accountType": "atlassian",
        "emailAddress": user.email,
        "displayName": user.name,
        "active": True,
        "timeZone": "Etc/UTC",
    }


def project_view(project: Project, base: str) -> dict[str, Any]:
    """A project as the API shows it inside of an issue and in lists."""
    return {
        "self": f"{base}/rest/api/3/project/{project.id}",
        "id": project.id,
        "key": project.key,
        "name": project.name,
        "projectTypeKey": "software",
        "simplified": False,
        "style": "classic",
        "isPrivate": False,
    }


def issue_type_view(project: Project, name: str, base: str) -> dict[str, Any]:
    """An issue type of a project."""
    number = project.issue_type_id(name)
    return {
        "self": f"{base}/rest/api/3/issuetype/{number}",
        "id": number,
        "name": name,
        "description": "",
        "subtask": False,
        "hierarchyLevel": 0,
    }


def status_view(status: Status, base: str) -> dict[str, Any]:
    """A status with its category."""
    number, name = CATEGORIES[status.category]
    return {
        "self": f"{base}/rest/api/3/status/{status.id}",
        "id": status.id,
        "name": status.name,
        "statusCategory": {"id": number, "key": status.category, "name": name},
    }


def comment_view(
    comment: Comment, issue: Issue, store: Store, base: str, *, properties: bool = False
) -> dict[str, Any]:
    """A comment with its ADF body, and its properties where they are expanded."""
    author = user_view(store.user_by_id(comment.author), base)
    return {
        "self": f"{base}/rest/api/3/issue/{issue.id}/comment/{comment.id}",
        "id": comment.id,
        "author": author,
        "updateAuthor": author,
        "body": comment.body,
        "created": timestamp(comment.created),
        "updated": timestamp(comment.created),
        "jsdPublic": True,
        **({"properties": comment.properties} if properties else {}),
    }


def link_type_view(kind: tuple[str, str, str, str], base: str) -> dict[str, Any]:
    """A type of link."""
    number, name, inward, outward = kind
    link = f"{base}/rest/api/3/issueLinkType/{number}"
    return {"id": number, "name": name, "inward": inward, "outward": outward, "self": link}


def linked_view(issue: Issue, store: Store, base: str) -> dict[str, Any]:
    """An issue as a link shows it."""
    return {
        "id": issue.id,
        "key": issue.key,
        "self": f"{base}/rest/api/3/issue/{issue.id}",
        "fields": {
            "summary": issue.summary,
            "status": status_view(status_named(issue.status), base),
            "priority": {"id": str(PRIORITIES.index(issue.priority) + 1), "name": issue.priority},
            "issuetype": issue_type_view(store.projects[issue.project], issue.issue_type, base),
        },
    }


def link_view(link: Link, store: Store, base: str, *, seen_from: Issue | None = None) -> dict[str, Any]:
    """A link: with the issue at its other end, or (``seen_from`` None) with both."""
    kind = next(kind for kind in LINK_TYPES if kind[0] == link.type)
    view: dict[str, Any] = {
        "id": link.id,
        "self": f"{base}/rest/api/3/issueLink/{link.id}",
        "type": link_type_view(kind, base),
    }
    source, target = store.by_id(link.source), store.by_id(link.target)
    assert source is not None
    assert target is not None
    if seen_from is None:
        return {
            **view,
            "inwardIssue": linked_view(source, store, base),
            "outwardIssue": linked_view(target, store, base),
        }
    # From its source a link shows its target as the outward issue, and the other way round.
    if seen_from.id == link.source:
        return {**view, "outwardIssue": linked_view(target, store, base)}
    return {**view, "inwardIssue": linked_view(source, store, base)}


def attachment_view(attachment: Mapping[str, Any], store: Store, base: str) -> dict[str, Any]:
    """An attachment's metadata."""
    number = attachment["id"]
    return {
        "self": f"{base}/rest/api/3/attachment/{number}",
        "id": number,
        "filename": attachment["filename"],
        "author": user_view(store.user_by_id(attachment["author"]), base),
        "created": timestamp(attachment["created"]),
        "size": attachment["size"],
        "mimeType": attachment["mimeType"],
        "content": f"{base}/rest/api/3/attachment/content/{number}",
    }


def issue_view(
    issue: Issue,
    store: Store,
    base: str,
    fields: Iterable[str],
    properties: Iterable[str] = (),
    *,
    user: User | None = None,
) -> dict[str, Any]:
    """An issue with the named fields (``*all``, ``*navigable``, ``-name`` as in Jira; ``id`` alone: no fields).

    Of links, ``user`` sees those whose other end she may browse; without a user none is shown.
    """
    project = store.projects[issue.project]
    comments = [comment_view(comment, issue, store, base) for comment in issue.comments]
    everything: dict[str, Any] = {
        "summary": issue.summary,
        "description": issue.description,
        "issuetype": issue_type_view(project, issue.issue_type, base),
        "project": project_view(project, base),
        "status": status_view(status_named(issue.status), base),
        "resolution": {"id": "10000", "name": "Done", "description": "Work has been completed."}
        if issue.resolved
        else None,
        "resolutiondate": timestamp(issue.resolved) if issue.resolved else None,
        "priority": {"id": str(PRIORITIES.index(issue.priority) + 1), "name": issue.priority},
        "labels": issue.labels,
        "assignee": user_view(store.user_by_id(issue.assignee), base),
        "reporter": user_view(store.user_by_id(issue.reporter), base),
        "creator": user_view(store.user_by_id(issue.creator), base),
        "created": timestamp(issue.created),
        "updated": timestamp(issue.updated),
        "issuelinks": [
            link_view(link, store, base, seen_from=issue)
            for link in store.links_of(issue)
            if user is not None and all(store.find(user, end) for end in (link.source, link.target))
        ],
        "attachment": [attachment_view(attachment, store, base) for attachment in issue.attachments],
        "comment": {"comments": comments, "maxResults": len(comments), "total": len(comments), "startAt": 0},
    }
    shown: set[str] = set()
    for name in fields:
        if name in ("*all", "*navigable"):
            shown |= set(everything) - ({"comment", "attachment"} if name == "*navigable" else set())
        elif name.startswith("-"):
            shown.discard(name[1:])
        else:
            shown.add(name)
    view: dict[str, Any] = {
        "expand": "renderedFields,names,schema,operations,editmeta,changelog,versionedRepresentations",
        "id": issue.id,
        "self": f"{base}/rest/api/3/issue/{issue.id}",
        "key": issue.key,
    }
    if chosen := {name: value for name, value in everything.items() if name in shown}:
        view["fields"] = chosen
    wanted = set(properties)
    if wanted:
        view["properties"] = {k: v for k, v in issue.properties.items() if k in wanted or "*all" in wanted}
    return view


def chosen_project(value: object, store: Store, user: User) -> Project:
    """The project that a create names, if the user may create in it. Raises ``JiraError``."""
    wanted = value if isinstance(value, dict) else {}
    project = next(
        (
            p
            for p in store.projects.values()
            if p.key == wanted.get("key") or (wanted.get("id") and p.id == str(wanted["id"]))
        ),
        None,
    )
    if project is None or not store.allowed(user, project.key, "BROWSE_PROJECTS"):
        raise JiraError(400, errors={"project": "Specify a valid project ID or key"})
    if not store.allowed(user, project.key, "CREATE_ISSUES"):
        raise JiraError(403, "You do not have permission to create issues in this project.")
    return project


def checked(fields: object, project: Project, store: Store, user: User, *, creating: bool) -> dict[str, Any]:
    """The values to set on an issue, by ``Issue``'s attribute. Raises ``JiraError`` that names every bad field."""
    if not isinstance(fields, dict):
        raise JiraError(400, INVALID_PAYLOAD)
    errors: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            if name == "project" and creating:
                continue
            if name in ("summary", "description", "issuetype", "labels", "priority", "assignee", "reporter"):
                values["issue_type" if name == "issuetype" else name] = _value(name, value, project, store, user)
            else:
                errors[name] = f"Field '{name}' cannot be set. It is not on the appropriate screen, or unknown."
        except ValueError as error:
            errors[name] = str(error)
    if creating and "summary" not in fields:
        errors["summary"] = "You must specify a summary of the issue."
    if creating and "issuetype" not in fields:
        errors["issuetype"] = "Specify an issue type"
    if errors:
        raise JiraError(400, errors=errors)
    return values


def _value(name: str, value: Any, project: Project, store: Store, user: User) -> Any:
    if name == "summary":
        return _summary(value)
    if name == "description":
        if value is not None and not adf.valid(value):
            raise ValueError(NOT_ADF)
        return value
    if name == "labels":
        if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
            raise ValueError("data was not an array")
        for label in value:
            if " " in label or not label:
                raise ValueError(f"The label '{label}' contains spaces which is invalid.")
        return sorted(set(value))
    if name in ("assignee", "reporter"):
        return _person(name, value, project, store, user)
    wanted = value if isinstance(value, dict) else {}
    if name == "priority":
        found = next(
            (p for n, p in enumerate(PRIORITIES, 1) if p == wanted.get("name") or str(n) == wanted.get("id")), None
        )
        if found is None:
            raise ValueError("Specify the Priority (id or name) in the string format")
        return found
    for kind in project.issue_types:
        if kind == wanted.get("name") or project.issue_type_id(kind) == str(wanted.get("id")):
            return kind
    raise ValueError("Specify a valid issue type")


def _summary(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("Operation value must be a string")  # noqa: TRY004 - becomes the field's sentence
    if not value.strip():
        raise ValueError("You must specify a summary of the issue.")
    if len(value) > 255:
        raise ValueError("Summary can't exceed 255 characters.")
    if "\n" in value or "\r" in value:
        raise ValueError("The summary is invalid because it contains newline characters.")
    return value


def _person(name: str, value: object, project: Project, store: Store, user: User) -> str | None:
    if value is None and name == "assignee":
        return None
    account = value.get("accountId", value.get("id")) if isinstance(value, dict) else None
    found = store.user_by_id(str(account))
    if found is None:
        raise ValueError("Specify a valid value for " + name)
    if found != user or name == "assignee":
        permission = "ASSIGN_ISSUES" if name == "assignee" else "MODIFY_REPORTER"
        if not store.allowed(user, project.key, permission):
            raise ValueError(f"Field '{name}' cannot be set. It is not on the appropriate screen, or unknown.")
    if name == "assignee" and not store.allowed(found, project.key, "ASSIGNABLE_USER"):
        raise ValueError(f"User '{found.account_id}' cannot be assigned issues.")
    return found.account_id
