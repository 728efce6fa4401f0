"""What the Jira connector offers to models. The parameters are a contract: planners name them."""

from __future__ import annotations

from typing import Any

from pilothouse_dataplane.core.messages import Effect, Lookup, Tool

_KEY: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 64, "description": "Issue key, e.g. IT-42"}


def _text(description: str, maximum: int, minimum: int = 0) -> dict[str, Any]:
    return {"type": "string", "description": description, "maxLength": maximum, "minLength": minimum}


def _schema(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


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
                    "mine": {"type": "boolean", "description": "Only issues that the user reported or is assigned"},
                    "open": {"type": "boolean", "description": "Only issues that are not done"},
                    "max_results": {"type": "integer", "minimum": 1, "maximum": 50, "description": "Default 10"},
                }
            ),
            Effect.READ,
        ),
        Tool(f"{connector}.issue.get", "Read one Jira issue.", _schema({"key": _KEY}, "key"), Effect.READ),
        Tool(
            f"{connector}.issue.create",
            "Create a Jira issue as the user.",
            _schema(
                {
                    "project": _text("Key of the project, e.g. IT", 100, 1),
                    "issue_type": _text("Name of the issue type; default Task", 100),
                    "summary": _text("One line", 255, 1),
                    "description": _text("Plain text", 16_000),
                },
                "project",
                "summary",
            ),
            Effect.WRITE,
            Lookup.EVENTUAL,  # found by search, which lags behind
        ),
        Tool(
            f"{connector}.issue.comment",
            "Add a comment to a Jira issue as the user.",
            _schema({"key": _KEY, "body": _text("Plain text", 16_000, 1)}, "key", "body"),
            Effect.WRITE,
            Lookup.AUTHORITATIVE,
        ),
        Tool(
            f"{connector}.issue.transition",
            "Move a Jira issue to another status, by the name of the status or of the transition.",
            _schema({"key": _KEY, "status": _text("For example Done", 100, 1)}, "key", "status"),
            Effect.WRITE,
            Lookup.AUTHORITATIVE,
        ),
    )
