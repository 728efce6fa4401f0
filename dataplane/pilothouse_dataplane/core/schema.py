"""Checks a model's arguments against a tool's JSON Schema: the part of JSON Schema that our tools use.

Objects with ``properties``, ``required`` and ``additionalProperties: false``; strings with ``enum``, ``minLength``,
``maxLength``; integers with ``minimum``, ``maximum``; booleans. Sentences are for the model, so that it can do better.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}


class ArgumentsError(ValueError):
    """The arguments don't fit the tool; the message says what to change. The model must act."""


def parse_arguments(schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The arguments as an object.

    Raises ArgumentsError where the text is not JSON, not an object, or does not fit. Nulls are dropped first:
    models write null for "not given".
    """
    try:
        value = json.loads(text or "{}", parse_constant=_no_constant)
        # half a surrogate pair is a string to Python, and to no store, system or model behind it
        text.encode()
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArgumentsError("the arguments are not valid JSON") from error
    if not isinstance(value, dict):
        raise ArgumentsError("the arguments must be a JSON object")
    arguments = {name: item for name, item in value.items() if item is not None}
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in arguments:
            raise ArgumentsError(f"the argument {name!r} is missing")
    for name, item in arguments.items():
        if name not in properties:
            known = ", ".join(properties)
            raise ArgumentsError(f"there is no argument {name[:60]!r}; the arguments are: {known}")
        _check(name, item, properties[name])
    return arguments


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check(name: str, value: object, rule: Mapping[str, Any]) -> None:
    kind = rule.get("type", "string")
    allowed = _KINDS.get(kind, (object,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "boolean"):
        raise ArgumentsError(f"the argument {name!r} must be of type {kind}")
    if isinstance(value, str):
        if "\x00" in value:
            raise ArgumentsError(f"the argument {name!r} must not contain the character NUL")
        if len(value) < rule.get("minLength", 0):
            raise ArgumentsError(f"the argument {name!r} must not be empty")
        if len(value) > rule.get("maxLength", 32768):
            raise ArgumentsError(f"the argument {name!r} is longer than {rule.get('maxLength', 32768)} characters")
    if "enum" in rule and value not in rule["enum"]:
        raise ArgumentsError(f"the argument {name!r} must be one of {', '.join(map(str, rule['enum']))}")
    if isinstance(value, (int, float)) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        raise ArgumentsError(f"the argument {name!r} must be {rule.get('minimum')}..{rule.get('maximum')}")
