"""Reads answers whose fields may have any type, and makes the JSON Schemas of tools. Pure.

No system is trusted to keep to its own documentation: a field of another type reads as if it were not there, and only
what an answer can't be told without (``objects``) is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_dataplane.connectors.base import Refused, SystemUnavailable

_LONGEST = 255


def mapping(value: object) -> Mapping[str, Any]:
    """The object, or an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object, limit: int = _LONGEST) -> str:
    """The string without characters that a screen would obey, at most ``limit`` of it; a number in its digits."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in str(value)[:limit])


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The objects in a list; an empty list where it is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def objects(value: object, system: str) -> list[Mapping[str, Any]]:
    """Likewise, but raises SystemUnavailable where it is no list: what can't be read must not look empty."""
    if not isinstance(value, list):
        raise unreadable(system)
    return mappings(value)


def unreadable(system: str, *, may_have_acted: bool = False) -> SystemUnavailable:
    """The answer is JSON of another shape than the system's."""
    return SystemUnavailable(f"{system} sent an answer that can't be read.", may_have_acted=may_have_acted)


def word(arguments: Mapping[str, Any], name: str, default: str = "") -> str:
    """An argument that must be text. Raises Refused: nothing was sent."""
    value = arguments.get(name, default)
    if not isinstance(value, str):
        raise Refused(f"The argument “{name}” must be text, so nothing was asked.", asked=False)
    return value


def whole(arguments: Mapping[str, Any], name: str, default: int, maximum: int) -> int:
    """An argument that must be a whole number of 1..``maximum``. Raises Refused: nothing was sent."""
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
        raise Refused(f"The argument “{name}” must be a whole number of 1 to {maximum}.", asked=False)
    return value


# -- JSON Schema ------------------------------------------------------------------------------------------------------


def a_text(description: str, maximum: int, minimum: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, "minLength": minimum, "maxLength": maximum, **more}


def a_count(maximum: int, default: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": maximum, "description": f"Default {default}"}


def parameters(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """Of arguments: closed."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def result(*required: str, **kinds: str) -> dict[str, Any]:
    """Of a result: open. ``kinds`` gives a type for each further property; the required ones are strings."""
    properties = {name: {"type": "string"} for name in required} | {n: {"type": kind} for n, kind in kinds.items()}
    return {"type": "object", "properties": properties, "required": list(required)}
