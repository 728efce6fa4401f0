"""What the ServiceNow connector offers to models. The parameters are a contract: planners name them.

How each write is kept from happening twice, and why that holds:

- ``incident.create``, ``change.create``: the key goes with the create itself, in ``correlation_id`` (fields of every
  task, meant for a record's id in another system), with ``correlation_display`` "pilothouse". The Table API reads the
  database, no index: found and not found are both proof, once it is known that this user's key is kept and shown to
  her (an access rule may drop a field silently; then the look-up says that it can't tell).
- ``incident.comment``, ``incident.work_note``: a journal entry has no field for a key, so a short reference stands at
  the end of its text. It is looked for in ``sys_journal_field``, or in the record's own journal where the user may not
  read that table. Where neither shows any entry, the look-up says that it can't tell.
- ``incident.update``, ``incident.resolve``, ``approval.decide``: the record's fields are the proof, and the same values
  sent again change nothing more.
- ``attachment.add``: the record's attachments are the proof: same name, same size, same SHA-256.
- ``catalog.order``: the order call takes no id of ours, and two equal orders are two wishes. NONE: the user is asked.
"""

from __future__ import annotations

from typing import Any

from pilothouse_dataplane.core.messages import Effect, Lookup, Tool

SYS_ID = {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "sys_id, 32 hexadecimal digits"}
_NUMBER_PATTERN = "^[A-Za-z]{2,12}[0-9]{3,20}$|^[0-9a-f]{32}$"
_CHOICE = ["1", "2", "3"]
_TEXT = {"type": "string"}
_MAX_ATTACHMENT = 200_000
"""Characters of text; the Attachment API takes far more, a model writes less."""


def _text(description: str, maximum: int, minimum: int = 0) -> dict[str, Any]:
    return {"type": "string", "description": description, "maxLength": maximum, "minLength": minimum}


def _number(example: str) -> dict[str, Any]:
    description = f"Number, e.g. {example}, or sys_id"
    return {"type": "string", "pattern": _NUMBER_PATTERN, "maxLength": 32, "description": description}


def _task_number() -> dict[str, Any]:
    description = "Number of an incident, request, requested item or change, e.g. INC0010001"
    return {"type": "string", "pattern": "^[A-Za-z]{2,12}[0-9]{3,20}$", "maxLength": 32, "description": description}


def _limit(default: int = 10) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": 50, "description": f"Default {default}"}


def _flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


def _one_of(description: str, *values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values), "description": description}


def _schema(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _record(*names: str, **more: Any) -> dict[str, Any]:
    """Of a result: an object with these texts, and ``more``."""
    properties = {**dict.fromkeys(names, _TEXT), **more}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(name: str, item: dict[str, Any]) -> dict[str, Any]:
    properties = {name: {"type": "array", "items": item}, "more": {"type": "boolean"}}
    return {"type": "object", "properties": properties, "required": list(properties)}


_INC, _REQ, _CHG, _KB, _ANY = (
    (rf"(?i)\b(?:{prefixes})\d{{3,20}}\b",) for prefixes in ("INC", "REQ|RITM", "CHG", "KB", "INC|REQ|RITM|CHG")
)
"""What a request names a record by."""
_TASK = ("number", "sys_id", "short_description", "state", "url")
_INCIDENT = (*_TASK, "priority", "urgency", "impact", "category", "caller", "assignment_group", "assigned_to",
             "opened_at", "updated_at")  # fmt: skip
_REQUEST = (*_TASK, "stage", "approval", "requested_for", "price", "opened_at", "due_date")
_CHANGE = (*_TASK, "type", "risk", "impact", "approval", "assignment_group", "assigned_to", "start_date", "end_date")
_CI = ("sys_id", "name", "class", "status", "environment", "owned_by", "assigned_to", "support_group", "location",
       "ip_address", "serial_number", "short_description", "url")  # fmt: skip
_WRITTEN = _record("number", "sys_id", "url")
_ITEM = ("sys_id", "name", "short_description", "price", "category", "url")
_ARTICLE = ("number", "sys_id", "title", "snippet", "url")
_USER = ("sys_id", "name", "user_name", "email", "title", "department", "manager")
_APPROVAL = ("sys_id", "state", "of", "subject", "approver", "requested_at", "comments", "url")
_ATTACHMENT = ("sys_id", "file_name", "content_type", "size_bytes", "created_at", "created_by")

_JOURNAL = {"type": "array", "items": _record("kind", "author", "created_at", "text")}
_INCIDENT_FIELDS: dict[str, Any] = {
    "short_description": _text("One line", 160, 1),
    "description": _text("Plain text", 4_000),
    "urgency": _one_of("1 high, 2 medium, 3 low", *_CHOICE),
    "impact": _one_of("1 high, 2 medium, 3 low", *_CHOICE),
    "category": _text("For example network, software, hardware, inquiry", 40),
    "assignment_group": _text("Name of the group that works on it", 100),
    "watch_list": {
        "type": "array",
        "maxItems": 20,
        "items": {"type": "string", "maxLength": 254},
        "description": "E-mail addresses of people who are told of every change",
    },
}


def servicenow_tools(connector: str) -> tuple[Tool, ...]:
    """The tools of a connector of that name."""
    read, write = Effect.READ, Effect.WRITE

    def tool(short: str, description: str, parameters: dict[str, Any], effect: Effect, **more: Any) -> Tool:
        return Tool(f"{connector}.{short}", description, parameters, effect, **more)

    return (
        tool(
            "incident.search",
            "Find ServiceNow incidents that the user may see, newest change first.",
            _schema(
                {
                    "text": _text("Words to look for in short description and description", 500),
                    "mine": _flag("Only incidents that the user called in or opened"),
                    "open": _flag("Only incidents that are not resolved, closed or cancelled"),
                    "max_results": _limit(),
                }
            ),
            read,
            returns=_list("incidents", _record(*_INCIDENT)),
            keywords=(
                "ticket",
                "outage",
                "problem",
                "issue",
                "helpdesk",
                "service desk",
                "IT support",
                "reported",
                "raised",
                "known",
                "others",
                "status of my ticket",
            ),
        ),
        tool(
            "incident.get",
            "Read one ServiceNow incident with its latest comments.",
            _schema({"number": _number("INC0010001")}, "number"),
            read,
            returns=_record(*_INCIDENT, "description", "close_code", "close_notes", journal=_JOURNAL),
            keywords=("ticket", "details", "progress", "news", "update", "reply", "status"),
            patterns=_INC,
        ),
        tool(
            "incident.create",
            "Open a ServiceNow incident for the user, who becomes its caller.",
            _schema(_INCIDENT_FIELDS, "short_description"),
            write,
            lookup=Lookup.AUTHORITATIVE,
            key_by="correlation_id",
            returns=_WRITTEN,
            keywords=(
                "ticket",
                "report",
                "problem",
                "broken",
                "not working",
                "crash",
                "error",
                "raise",
                "log",
                "helpdesk",
                "service desk",
                "IT support",
                "outage",
                "complain",
            ),
        ),
        tool(
            "incident.update",
            "Change fields of a ServiceNow incident.",
            _schema({"number": _number("INC0010001"), **_INCIDENT_FIELDS}, "number"),
            write,
            lookup=Lookup.AUTHORITATIVE,
            idempotent=True,
            returns=_WRITTEN,
            keywords=("ticket", "edit", "urgency", "urgent", "escalate", "reassign", "wrong group", "team", "priority"),
            patterns=_INC,
        ),
        tool(
            "incident.comment",
            "Add a comment that the caller can read to a ServiceNow incident.",
            _schema({"number": _number("INC0010001"), "text": _text("Plain text", 4_000, 1)}, "number", "text"),
            write,
            lookup=Lookup.AUTHORITATIVE,
            key_by="reference in the text",
            returns=_WRITTEN,
            keywords=(
                "ticket",
                "reply",
                "answer",
                "tell support",
                "add information",
                "note",
                "service desk",
                "additional comments",
            ),
            patterns=_INC,
        ),
        tool(
            "incident.work_note",
            "Add an internal work note, which the caller does not see, to a ServiceNow incident.",
            _schema({"number": _number("INC0010001"), "text": _text("Plain text", 4_000, 1)}, "number", "text"),
            write,
            lookup=Lookup.AUTHORITATIVE,
            key_by="reference in the text",
            returns=_WRITTEN,
            keywords=("ticket", "internal note", "worknote", "private", "technician", "agents only"),
            patterns=_INC,
        ),
        tool(
            "incident.resolve",
            "Resolve a ServiceNow incident with a close code and close notes.",
            _schema(
                {
                    "number": _number("INC0010001"),
                    "close_code": _text("As the instance names it; default Solution provided", 100),
                    "close_notes": _text("What solved it", 4_000, 1),
                },
                "number",
                "close_notes",
            ),
            write,
            lookup=Lookup.AUTHORITATIVE,
            idempotent=True,
            returns=_WRITTEN,
            keywords=("ticket", "close", "solved", "fixed", "works again", "done"),
            patterns=_INC,
        ),
        tool(
            "request.search",
            "Find service catalog requests (orders) in ServiceNow.",
            _schema(
                {
                    "text": _text("Words in the short description", 500),
                    "mine": _flag("Only requests for the user; default true"),
                    "open": _flag("Only requests that are not closed"),
                    "max_results": _limit(),
                }
            ),
            read,
            returns=_list("requests", _record(*_REQUEST)),
            keywords=("order", "ordered", "delivery", "arrive", "waiting", "hardware", "laptop", "RITM", "REQ"),
        ),
        tool(
            "request.get",
            "Read one service catalog request with its items, by the number of either.",
            _schema({"number": _number("REQ0010001")}, "number"),
            read,
            returns=_record(
                *_REQUEST,
                items={"type": "array", "items": _record("number", "item", "state", "stage", "quantity", "due_date")},
            ),
            keywords=("order", "delivery", "arrive", "status", "approved", "where is my laptop", "RITM"),
            patterns=_REQ,
        ),
        tool(
            "change.search",
            "Find change requests in ServiceNow, newest change first.",
            _schema(
                {
                    "text": _text("Words to look for in short description and description", 500),
                    "open": _flag("Only changes that are not closed or cancelled"),
                    "max_results": _limit(),
                }
            ),
            read,
            returns=_list("changes", _record(*_CHANGE)),
            keywords=("maintenance", "deployment", "downtime", "release", "upgrade", "CHG", "planned", "scheduled"),
        ),
        tool(
            "change.get",
            "Read one change request.",
            _schema({"number": _number("CHG0030001")}, "number"),
            read,
            returns=_record(*_CHANGE, "description", "justification", "implementation_plan", "backout_plan"),
            keywords=("maintenance", "window", "CHG", "approved", "backout", "rollback", "implementation plan"),
            patterns=_CHG,
        ),
        tool(
            "change.create",
            "Create a change request in ServiceNow.",
            _schema(
                {
                    "short_description": _text("One line", 160, 1),
                    "description": _text("Plain text", 4_000),
                    "type": _one_of("Default normal", "normal", "standard", "emergency"),
                    "justification": _text("Why it is needed", 4_000),
                    "implementation_plan": _text("How it is done", 4_000),
                    "backout_plan": _text("How it is undone", 4_000),
                    "assignment_group": _text("Name of the group that works on it", 100),
                    "start_date": _text("UTC, YYYY-MM-DD HH:MM:SS", 19),
                    "end_date": _text("UTC, YYYY-MM-DD HH:MM:SS", 19),
                },
                "short_description",
            ),
            write,
            lookup=Lookup.AUTHORITATIVE,
            key_by="correlation_id",
            returns=_WRITTEN,
            keywords=(
                "maintenance",
                "RFC",
                "deploy",
                "upgrade",
                "restart",
                "migration",
                "emergency",
                "standard",
                "plan",
            ),
        ),
        tool(
            "ci.search",
            "Find configuration items (computers, servers, applications) in ServiceNow's CMDB by name.",
            _schema(
                {
                    "text": _text("Part of the name", 200, 1),
                    "class": _text("Table of the class, e.g. cmdb_ci_server", 80),
                    "max_results": _limit(),
                },
                "text",
            ),
            read,
            returns=_list("cis", _record(*_CI)),
            keywords=(
                "asset",
                "server",
                "laptop",
                "device",
                "application",
                "inventory",
                "serial number",
                "host",
                "CMDB",
            ),
        ),
        tool(
            "ci.get",
            "Read one configuration item of the CMDB.",
            _schema({"sys_id": SYS_ID}, "sys_id"),
            read,
            returns=_record(*_CI),
            keywords=(
                "asset",
                "server",
                "device",
                "who owns",
                "who supports",
                "environment",
                "location",
                "operating system",
            ),
        ),
        tool(
            "catalog.search",
            "Find items that can be ordered in ServiceNow's service catalog.",
            _schema({"text": _text("Words", 200, 1), "max_results": _limit()}, "text"),
            read,
            returns=_list("items", _record(*_ITEM)),
            keywords=("order", "buy", "request", "laptop", "software", "access", "hardware", "monitor"),
        ),
        tool(
            "catalog.get",
            "Read a catalog item and the variables that an order of it takes.",
            _schema({"sys_id": SYS_ID}, "sys_id"),
            read,
            returns=_record(
                *_ITEM,
                "description",
                variables={
                    "type": "array",
                    "items": _record(
                        "name",
                        "label",
                        "type",
                        mandatory={"type": "boolean"},
                        choices={"type": "array", "items": _TEXT},
                    ),
                },
            ),
            keywords=("order form", "options", "choices", "price", "what does it need"),
        ),
        tool(
            "catalog.order",
            "Order an item of the service catalog for the user.",
            _schema(
                {
                    "sys_id": SYS_ID,
                    "quantity": {"type": "integer", "minimum": 1, "maximum": 20, "description": "Default 1"},
                    "variables": {
                        "type": "object",
                        "description": "Values by the names that catalog.get lists",
                        "maxProperties": 60,
                        "additionalProperties": {"type": "string", "maxLength": 4_000},
                    },
                },
                "sys_id",
            ),
            write,
            returns=_WRITTEN,
            keywords=("buy", "request", "laptop", "software", "access", "hardware", "monitor", "need a new"),
        ),
        tool(
            "approval.list",
            "List the approvals in ServiceNow that wait for the user's decision.",
            _schema({"max_results": _limit()}),
            read,
            returns=_list("approvals", _record(*_APPROVAL)),
            keywords=("approve", "pending", "open", "waiting for me", "decide", "sign off"),
        ),
        tool(
            "approval.decide",
            "Approve or reject, as the user, an approval in ServiceNow that waits for her.",
            _schema(
                {
                    "sys_id": {**SYS_ID, "description": "sys_id of the approval, from approval.list"},
                    "decision": _one_of("What the user decides", "approved", "rejected"),
                    "comments": _text("Why; needed to reject", 4_000),
                },
                "sys_id",
                "decision",
            ),
            write,
            lookup=Lookup.AUTHORITATIVE,
            idempotent=True,
            returns=_record("sys_id", "state", "url"),
            keywords=("approve", "reject", "sign off", "decline", "accept", "request", "change", "order"),
        ),
        tool(
            "knowledge.search",
            "Search ServiceNow's knowledge articles.",
            _schema({"text": _text("Words", 500, 1), "max_results": _limit(5)}, "text"),
            read,
            returns=_list("articles", _record(*_ARTICLE)),
            keywords=(
                "how to",
                "set up",
                "install",
                "configure",
                "help",
                "guide",
                "instructions",
                "manual",
                "policy",
                "FAQ",
                "documentation",
                "KB",
            ),
        ),
        tool(
            "knowledge.get",
            "Read a knowledge article as text.",
            _schema({"number": _number("KB0010001")}, "number"),
            read,
            returns=_record("number", "sys_id", "title", "text", "url"),
            keywords=("guide", "instructions", "policy", "article", "KB", "steps"),
            patterns=_KB,
        ),
        tool(
            "attachment.list",
            "List the files that are attached to an incident, request or change.",
            _schema({"number": _task_number()}, "number"),
            read,
            returns=_list("attachments", _record(*_ATTACHMENT)),
            keywords=("file", "document", "picture", "screenshot", "log"),
            patterns=_ANY,
        ),
        tool(
            "attachment.add",
            "Attach a text file to an incident, request or change.",
            _schema(
                {
                    "number": _task_number(),
                    "file_name": _text("For example log.txt", 100, 1),
                    "content": _text("The file's text", _MAX_ATTACHMENT, 1),
                },
                "number",
                "file_name",
                "content",
            ),
            write,
            lookup=Lookup.AUTHORITATIVE,
            key_by="name and SHA-256",
            returns=_record("sys_id", "file_name", "number", "url"),
            keywords=("file", "upload", "document", "screenshot", "log", "output"),
            patterns=_ANY,
        ),
        tool(
            "user.search",
            "Find people in ServiceNow by name or e-mail.",
            _schema({"text": _text("Name or e-mail", 200, 1), "max_results": _limit(5)}, "text"),
            read,
            returns=_list("users", _record(*_USER)),
            keywords=("person", "colleague", "employee", "manager", "phone", "department", "location", "who is"),
        ),
    )
