"""What the Jira connector offers to models. The parameters are a contract: planners name them.

How each write is kept from happening twice, and why that holds:

- ``issue.create``: the key goes with the create itself, in an entity property. Finding it rests on search, which lags
  behind by seconds to minutes: found is proof, not found is not (EVENTUAL).
- ``issue.comment``: the key is a property of the comment; comments are read from the issue itself, not from an index.
- ``issue.transition``, ``issue.edit``, ``issue.assign``: the issue's own fields are the proof. The latter two, sent
  again, change nothing more; a transition could be taken again by a workflow that leads back, so it is not idempotent.
- ``issue.link``: the issue's links are the proof, and Jira answers a link that exists already as if it were made.
- ``issue.delete``: an issue that reads as gone is gone; the call reads it first, so one that was never visible is
  refused before. Labels carry no key: they are the users' own.
"""

from __future__ import annotations

from typing import Any

from pilothouse_dataplane.core.messages import Effect, Lookup, Tool

_KEY: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 64, "description": "Issue key, e.g. IT-42"}
_TEXT = {"type": "string"}
_PERSON = "E-mail, name or account id; me"
_LABELS: dict[str, Any] = {
    "type": "array",
    "maxItems": 20,
    "items": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^\S+$"},
    "description": "Labels, without blanks",
}
_KEYS = (r"\b[A-Z][A-Z0-9_]{1,9}-\d{1,9}\b",)
"""What a request names an issue by."""
_ISSUE = ("key", "summary", "status", "type", "priority", "assignee", "reporter", "updated", "url")


def _text(description: str, maximum: int, minimum: int = 0) -> dict[str, Any]:
    return {"type": "string", "description": description, "maxLength": maximum, "minLength": minimum}


def _schema(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


def _limit(default: int = 10) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": 50, "description": f"Default {default}"}


def _record(*names: str, **more: Any) -> dict[str, Any]:
    """Of a result: an object with these texts, and ``more``."""
    properties = {**dict.fromkeys(names, _TEXT), **more}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(name: str, item: dict[str, Any]) -> dict[str, Any]:
    properties = {name: {"type": "array", "items": item}, "more": {"type": "boolean"}}
    return {"type": "object", "properties": properties, "required": list(properties)}


_WRITTEN = _record("key", "url")
_TEXTS = {"type": "array", "items": _TEXT}


def jira_tools(connector: str) -> tuple[Tool, ...]:
    """The tools of a connector of that name."""
    return (
        Tool(
            f"{connector}.issue.search",
            "Find Jira issues that the user may see, newest change first.",
            _schema(
                {
                    "text": _text("Words to look for in summary, description and comments", 500),
                    "project": _text("Key of the project, e.g. IT", 100),
                    "mine": _flag("Only issues that the user reported or is assigned"),
                    "open": _flag("Only issues that are not done"),
                    "status": _text("Name of the status", 100),
                    "issue_type": _text("Name of the issue type", 100),
                    "label": _text("A label", 255),
                    "assignee": _text(f"{_PERSON}; nobody", 254),
                    "reporter": _text(_PERSON, 254),
                    "updated_days": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": 3650,
                        "description": "In so many days",
                    },
                    "max_results": _limit(),
                }
            ),
            Effect.READ,
            returns=_list("issues", _record(*_ISSUE)),
            keywords=(
                "ticket",
                "task",
                "bug",
                "defect",
                "story",
                "epic",
                "backlog",
                "board",
                "work",
                "reported",
                "unassigned",
                "resolved",
                "closed",
            ),
        ),
        Tool(
            f"{connector}.issue.get",
            "Read one Jira issue.",
            _schema({"key": _KEY}, "key"),
            Effect.READ,
            returns=_record(
                *_ISSUE,
                "description",
                labels=_TEXTS,
                comments={"type": "array", "items": _record("author", "created", "body")},
                links={"type": "array", "items": _record("relation", "key", "summary", "status")},
            ),
            keywords=(
                "ticket",
                "details",
                "status",
                "progress",
                "news",
                "summary",
                "due date",
                "assigned to",
                "comments",
            ),
            patterns=_KEYS,
        ),
        Tool(
            f"{connector}.issue.create",
            "Create a Jira issue as the user.",
            _schema(
                {
                    "project": _text("Key of the project, e.g. IT", 100, 1),
                    "issue_type": _text("Name of the issue type; default Task", 100),
                    "summary": _text("One line", 255, 1),
                    "description": _text("Plain text or simple Markdown", 16_000),
                    "priority": _text("Name of the priority, e.g. High", 100),
                    "labels": _LABELS,
                },
                "project",
                "summary",
            ),
            Effect.WRITE,
            Lookup.EVENTUAL,
            key_by="entity property",
            returns=_WRITTEN,
            keywords=("ticket", "task", "bug", "defect", "story", "epic", "report", "file", "raise", "log", "new"),
        ),
        Tool(
            f"{connector}.issue.edit",
            "Change fields of a Jira issue.",
            _schema(
                {
                    "key": _KEY,
                    "summary": _text("One line", 255, 1),
                    "description": _text("Plain text or simple Markdown; replaces the old one", 16_000),
                    "priority": _text("Name of the priority, e.g. High", 100, 1),
                    "labels": {**_LABELS, "description": "Labels, without blanks; they replace all others"},
                },
                "key",
            ),
            Effect.WRITE,
            Lookup.AUTHORITATIVE,
            idempotent=True,
            returns=_WRITTEN,
            keywords=(
                "ticket",
                "update",
                "set",
                "rename",
                "priority",
                "label",
                "tag",
                "title",
                "due date",
                "description",
            ),
            patterns=_KEYS,
        ),
        Tool(
            f"{connector}.issue.assign",
            "Assign a Jira issue to a person, or to nobody.",
            _schema({"key": _KEY, "assignee": _text(f"{_PERSON}; nobody", 254, 1)}, "key", "assignee"),
            Effect.WRITE,
            Lookup.AUTHORITATIVE,
            idempotent=True,
            returns=_WRITTEN,
            keywords=(
                "ticket",
                "owner",
                "responsible",
                "assignee",
                "hand over",
                "give",
                "reassign",
                "take",
                "unassign",
            ),
            patterns=_KEYS,
        ),
        Tool(
            f"{connector}.issue.comment",
            "Add a comment to a Jira issue as the user.",
            _schema({"key": _KEY, "body": _text("Plain text or simple Markdown", 16_000, 1)}, "key", "body"),
            Effect.WRITE,
            Lookup.AUTHORITATIVE,
            key_by="comment property",
            returns=_WRITTEN,
            keywords=("ticket", "reply", "answer", "note", "write", "mention", "tell"),
            patterns=_KEYS,
        ),
        Tool(
            f"{connector}.issue.transition",
            "Move a Jira issue to another status, by the name of the status or of the transition.",
            _schema({"key": _KEY, "status": _text("For example Done", 100, 1)}, "key", "status"),
            Effect.WRITE,
            Lookup.AUTHORITATIVE,
            returns=_WRITTEN,
            keywords=(
                "ticket",
                "close",
                "resolve",
                "start",
                "finish",
                "reopen",
                "done",
                "in progress",
                "in review",
                "blocked",
                "workflow",
            ),
            patterns=_KEYS,
        ),
        Tool(
            f"{connector}.issue.link",
            "Link two Jira issues, for example “IT-1 blocks IT-2”.",
            _schema(
                {
                    "key": _KEY,
                    "relation": _text("From key to other: blocks, is blocked by, relates to, duplicates …", 100, 1),
                    "other": {**_KEY, "description": "Key of the other issue"},
                },
                "key",
                "relation",
                "other",
            ),
            Effect.WRITE,
            Lookup.AUTHORITATIVE,
            idempotent=True,
            returns=_WRITTEN,
            keywords=(
                "ticket",
                "connect",
                "related",
                "relates",
                "duplicate",
                "depends on",
                "blocks",
                "blocked by",
                "blocker",
            ),
            patterns=_KEYS,
        ),
        Tool(
            f"{connector}.issue.delete",
            "Delete a Jira issue for good, with its comments. It can't be brought back.",
            _schema({"key": _KEY}, "key"),
            Effect.DESTRUCTIVE,
            Lookup.AUTHORITATIVE,
            returns=_record("key"),
            keywords=("ticket", "remove", "erase", "get rid of"),
            patterns=_KEYS,
        ),
        Tool(
            f"{connector}.project.search",
            "List the Jira projects that the user may see.",
            _schema({"text": _text("Part of key or name", 100), "max_results": _limit(20)}),
            Effect.READ,
            returns=_list("projects", _record("key", "name", "type", "url")),
            keywords=("board", "team", "space", "project key"),
        ),
        Tool(
            f"{connector}.project.issue_types",
            "List the issue types that the user may create in a project, with the fields that one of them takes.",
            _schema(
                {
                    "project": _text("Key of the project, e.g. IT", 100, 1),
                    "issue_type": _text("Name of an issue type, to list its fields", 100),
                },
                "project",
            ),
            Effect.READ,
            returns={
                "type": "object",
                "properties": {
                    "issue_types": {"type": "array", "items": _record("id", "name", "description")},
                    "fields": {"type": "array", "items": _record("id", "name", "type", required={"type": "boolean"})},
                },
                "required": ["issue_types"],
            },
            keywords=("create", "required fields", "kinds of issues", "metadata"),
        ),
        Tool(
            f"{connector}.field.search",
            "List Jira's fields, custom ones too, by a part of their name.",
            _schema({"text": _text("Part of the name", 100), "max_results": _limit(20)}),
            Effect.READ,
            returns=_list("fields", _record("id", "name", "type", custom={"type": "boolean"})),
            keywords=("custom field", "metadata", "column"),
        ),
        Tool(
            f"{connector}.user.search",
            "Find people in Jira by name or e-mail.",
            _schema({"text": _text("Name or e-mail", 254, 1), "max_results": _limit()}, "text"),
            Effect.READ,
            returns=_list("users", _record("account_id", "name", "email", active={"type": "boolean"})),
            keywords=("person", "colleague", "assignee", "account id", "who is"),
        ),
        Tool(
            f"{connector}.user.me",
            "As whom the user is known in Jira.",
            _schema({}),
            Effect.READ,
            returns=_record("account_id", "name", "email", active={"type": "boolean"}),
            keywords=("my account", "who am I", "profile"),
        ),
    )
