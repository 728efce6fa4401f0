"""Whether checking a value against a JSON Schema takes a time that is in proportion to the value. Pure.

A schema can be small and still take for ever: ``allOf`` of two references, each to an ``allOf`` of two references, and
so on, doubles with every level; so does a schema that reaches itself twice at the same place of a value. A check can't
be interrupted and holds every other run up, so such a schema, which a foreign system may send, is not used in full:
``shallow`` makes of it what holds for the uppermost level alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

_MAX_NODES = 20_000
"""Subschemas, each counted as often as it is reached."""
_MAX_DEPTH = 100
_SAME_PLACE = ("allOf", "anyOf", "oneOf")
_SAME_PLACE_ONE = ("not", "if", "then", "else", "propertyNames", "contains")
_NAMED = ("properties", "patternProperties")
_INNER = ("items", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "additionalItems")
_KEPT = ("type", "required", "minProperties", "maxProperties")


class _TooMuch(Exception):
    """It is not known to be cheap."""


def is_cheap(schema: Mapping[str, Any]) -> bool:
    """False where it may take long, or where that can't be told (a reference that leads elsewhere than ``#/…``)."""
    try:
        _Walk(schema).visit(schema, "", 0)
    except _TooMuch:
        return False
    return True


def shallow(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for the uppermost level: which properties there are, which must be there, and their plain types."""
    made = {word: schema[word] for word in _KEPT if word in schema}
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        made["properties"] = {
            name: {"type": held["type"]} if isinstance(held, Mapping) and "type" in held else {}
            for name, held in properties.items()
        }
    if isinstance(schema.get("additionalProperties"), bool):
        made["additionalProperties"] = schema["additionalProperties"]
    return made


class _Walk:
    """Goes through a schema as a validator would, following each reference each time that it stands there."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = _MAX_NODES
        self._on_path: dict[str, tuple[str, set[str]]] = {}
        """By reference that is being followed: the place where it began, and those where it came again."""

    def visit(self, schema: Any, place: str, depth: int) -> None:
        """``place``: of the value that it is held against."""
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise _TooMuch
        if not isinstance(schema, Mapping):
            return
        if "$dynamicRef" in schema or "$recursiveRef" in schema or (depth and "$id" in schema):
            raise _TooMuch
        if "$ref" in schema:
            self._follow(schema["$ref"], place, depth)
        for word in _SAME_PLACE:
            for held in _list(schema.get(word)):
                self.visit(held, place, depth + 1)
        for word in _SAME_PLACE_ONE:
            if word in schema:
                self.visit(schema[word], place, depth + 1)
        for word in ("dependentSchemas", "dependencies"):
            for held in _values(schema.get(word)):
                self.visit(held, place, depth + 1)
        for word in _NAMED:
            for name, held in _items(schema.get(word)):
                # a pattern may match the same names as another, or as a property
                self.visit(held, f"{place}/{name if word == 'properties' else '*'}", depth + 1)
        for word in _INNER:
            for held in _list(schema.get(word)) or [schema.get(word)]:
                self.visit(held, f"{place}/*", depth + 1)
        for number, held in enumerate(_list(schema.get("prefixItems"))):
            self.visit(held, f"{place}/{number}", depth + 1)

    def _follow(self, reference: Any, place: str, depth: int) -> None:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise _TooMuch
        if reference in self._on_path:
            began, again = self._on_path[reference]
            where = place.removeprefix(began)
            # the same value once more, or a place within it that it has led to already: it multiplies with the depth
            if not where or where in again:
                raise _TooMuch
            again.add(where)
            return
        self._on_path[reference] = (place, set())
        self.visit(self._target(reference), place, depth + 1)
        del self._on_path[reference]

    def _target(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference[1:].split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise _TooMuch
        return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _values(value: Any) -> list[Any]:
    return [held for _, held in _items(value)]
