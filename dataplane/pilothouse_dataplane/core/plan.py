"""References from one call to another's result: ``{{s1.issues[0].key}}``. Pure.

A plan is a graph: a call whose arguments refer to step s1 waits for s1. The path is looked up in the ``data`` of the
step's result. A string that is one reference becomes the value itself, with its type; within a longer string the value
must be text, a number or a boolean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse_dataplane.core.messages import ToolResult

_REFERENCE = re.compile(r"\{\{\s*(s\d{1,4})((?:\.[A-Za-z0-9_-]{1,64}|\[\d{1,4}\]){0,12})\s*\}\}")
_PART = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]")
_NONE: frozenset[str] = frozenset()
_MAX_DEPTH = 12


class Unresolved(ValueError):
    """A reference leads nowhere; the message says which. The model must act."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Arguments without references."""

    arguments: dict[str, Any]
    sources: Mapping[str, str]
    """Path of each argument that a result filled (wholly or in part) → the id of that step."""


def needs(value: object, depth: int = 0) -> frozenset[str]:
    """Ids of the steps that the arguments refer to."""
    if isinstance(value, str):
        return frozenset(match[1] for match in _REFERENCE.finditer(value)) if "{{" in value else _NONE
    found = _NONE
    if depth < _MAX_DEPTH:
        items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        for item in items:
            if inner := needs(item, depth + 1):
                found |= inner
    return found


def resolve(arguments: Mapping[str, Any], results: Mapping[str, ToolResult]) -> Resolved:
    """Put results in the place of references. Raises Unresolved."""
    sources: dict[str, str] = {}

    def walk(value: Any, path: str, depth: int) -> Any:
        if isinstance(value, str) and "{{" in value:
            return _fill(value, path, results, sources)
        if depth < _MAX_DEPTH and isinstance(value, Mapping):
            return {
                name: walk(item, f"{path}.{name}" if path else str(name), depth + 1) for name, item in value.items()
            }
        if depth < _MAX_DEPTH and isinstance(value, list):
            return [walk(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        return value

    return Resolved({name: walk(value, name, 1) for name, value in arguments.items()}, sources)


def render(text: str, results: Mapping[str, ToolResult]) -> str | None:
    """The text with results in the place of references; None where one leads nowhere, or to no plain value."""
    try:
        filled = _fill(f"{text} ", "", results, {})
    except Unresolved:
        return None
    return str(filled).strip() or None


def _fill(text: str, path: str, results: Mapping[str, ToolResult], sources: dict[str, str]) -> Any:
    whole = _REFERENCE.fullmatch(text)
    if whole is not None:
        sources[path] = whole[1]
        return _look_up(whole, results)

    def plain(match: re.Match[str]) -> str:
        value = _look_up(match, results)
        if value is None or isinstance(value, (Mapping, list, tuple)):
            raise Unresolved(f"{match[0]} is not a single value")
        sources[path] = match[1]
        return str(value)

    return _REFERENCE.sub(plain, text)


def _look_up(match: re.Match[str], results: Mapping[str, ToolResult]) -> Any:
    step = match[1]
    if step not in results:
        raise Unresolved(f"{match[0]} refers to a step without a result")
    value: Any = results[step].data
    for part in _PART.finditer(match[2]):
        name, index = part[1], part[2]
        if name is not None and isinstance(value, Mapping) and name in value:
            value = value[name]
        elif index is not None and isinstance(value, (list, tuple)) and int(index) < len(value):
            value = value[int(index)]
        else:
            raise Unresolved(f"{match[0]} leads nowhere: the result of {step} has no such field")
    return value
