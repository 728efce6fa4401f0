"""Takes over JSON Schemas that somebody else has written: the part that a model and our check can use. Pure.

Nothing outside of the document is ever looked at, reading always ends, and what the linear-time engine of the check
does not know is left out: such a schema accepts a little more than its author meant, and the system says the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 12
_MAX_NODES = 4000
"""Of one schema with its references put in: a document may refer to itself without end."""
_MAX_TEXT = 300
_KEPT = (
    "type", "format", "enum", "const", "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "required",
)  # fmt: skip
"""Words of JSON Schema that are taken over; the others describe, or refer to somewhere."""


class SchemaReader:
    """Reads the schemas of one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._nodes = 0

    def begin(self) -> None:
        """Another operation or tool: its schema may be as large as the one before."""
        self._nodes = 0

    def schema(self, raw: object, depth: int) -> dict[str, Any]:
        """The part of a schema that a model and the check of arguments can use, with references put in."""
        self._nodes += 1
        if depth > _MAX_DEPTH or self._nodes > _MAX_NODES or not isinstance(raw, Mapping):
            return {}
        node = self.resolve(raw)
        if node.get("readOnly") is True:
            return {}
        made: dict[str, Any] = {word: node[word] for word in _KEPT if word in node and _plain(word, node[word])}
        if node.get("nullable") is True and isinstance(made.get("type"), str):  # OpenAPI 3.0's way
            made["type"] = [made["type"], "null"]
        if isinstance(node.get("description"), str):
            made["description"] = line(node["description"])
        fields = node.get("properties")
        if isinstance(fields, Mapping):
            made["properties"] = {
                name: self.schema(field, depth + 1)
                for name, field in list(fields.items())[:200]
                if isinstance(name, str)
                and not (isinstance(field, Mapping) and self.resolve(field).get("readOnly") is True)
            }
            made.setdefault("type", "object")
            if isinstance(made.get("required"), list):
                made["required"] = [name for name in made["required"] if name in made["properties"]]
        if "items" in node:
            made["items"] = self.schema(node["items"], depth + 1)
        for word in ("oneOf", "anyOf", "allOf"):
            if isinstance(node.get(word), list) and node[word]:
                parts = [self.schema(part, depth + 1) for part in node[word][:20]]
                if word == "allOf":
                    made = _joined([made, *parts])
                else:
                    made[word] = parts
        extra = node.get("additionalProperties")
        if isinstance(extra, bool):
            made["additionalProperties"] = extra
        return made

    def resolve(self, raw: object) -> Mapping[str, Any]:
        """What a local reference leads to; an empty object where it leads nowhere, elsewhere, or round in a circle."""
        seen: set[str] = set()
        while isinstance(raw, Mapping) and isinstance(raw.get("$ref"), str):
            reference = raw["$ref"]
            if not reference.startswith("#/") or reference in seen:
                return {}
            seen.add(reference)
            target: object = self._document
            for part in reference[2:].split("/"):
                key = part.replace("~1", "/").replace("~0", "~")
                target = target.get(key) if isinstance(target, Mapping) else None
            raw = target
        return raw if isinstance(raw, Mapping) else {}


def _plain(word: str, value: object) -> bool:
    """Whether a word's value is of its kind, so that the schema compiles."""
    if word == "type":
        kinds = value if isinstance(value, list) else [value]
        return all(kind in ("string", "integer", "number", "boolean", "object", "array", "null") for kind in kinds)
    if word in ("enum", "required"):
        if word == "required":
            return isinstance(value, list) and all(isinstance(name, str) for name in value)
        return isinstance(value, list) and 0 < len(value) <= 500
    if word in ("minLength", "maxLength", "minItems", "maxItems"):
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if word in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if word == "uniqueItems":
        return isinstance(value, bool)
    if word == "pattern":
        return isinstance(value, str) and len(value) < 500 and _compiles(value)
    if word == "format":
        return isinstance(value, str)
    return True


def _compiles(pattern: str) -> bool:
    """Whether the linear-time engine takes it: look-arounds and back-references it does not know are left out."""
    if re.search(r"\\[1-9]|\(\?[=!<]", pattern):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """``allOf`` as one schema: models and people read that better."""
    whole: dict[str, Any] = {}
    for part in parts:
        for word, value in part.items():
            if word == "properties":
                whole.setdefault("properties", {}).update(value)
            elif word == "required":
                whole["required"] = [
                    *whole.get("required", []),
                    *(v for v in value if v not in whole.get("required", [])),
                ]
            else:
                whole.setdefault(word, value)
    return whole


def line(text: str) -> str:
    """A text as one line of at most 300 characters, without those that a screen would obey."""
    plain = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    return " ".join(plain.split())[:_MAX_TEXT]
