"""Atlassian Document Format: a check of its shape and its plain text.

Covers the nodes and marks of https://developer.atlassian.com/cloud/jira/platform/apis/document/structure/ that an
integration writes: which node may stand in which, and the attributes that a node or a mark needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_INLINE = {"text", "hardBreak", "mention", "emoji", "inlineCard", "date", "status"}
_LISTS = {"bulletList", "orderedList"}
_CELL = {"paragraph", "heading", "codeBlock", "blockquote", "panel", "rule", *_LISTS}
_TOP = {*_CELL, "expand", "table"}
_BLOCKS: Mapping[str, set[str]] = {
    "paragraph": _INLINE,
    "heading": _INLINE,
    "codeBlock": {"text"},
    "blockquote": {"paragraph", "codeBlock", *_LISTS},
    "bulletList": {"listItem"},
    "orderedList": {"listItem"},
    "listItem": {"paragraph", "codeBlock", *_LISTS},
    "panel": {"paragraph", "heading", *_LISTS},
    "rule": set(),
    "expand": {*_CELL, "table"},
    "table": {"tableRow"},
    "tableRow": {"tableCell", "tableHeader"},
    "tableCell": _CELL,
    "tableHeader": _CELL,
}
_FILLED = {"bulletList", "orderedList", "listItem", "blockquote", "panel", "table", "tableRow"}
"""Nodes that need content."""
_MAX_DEPTH = 20
_Attributes = Mapping[str, Callable[[Any], bool]]
"""Attribute → whether a value of it is good."""


def _any(_value: object) -> bool:
    return True


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_filled(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _whole(lowest: int, highest: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _one_of(*values: str) -> Callable[[object], bool]:
    return lambda value: value in values


_NEEDED: Mapping[str, _Attributes] = {
    "heading": {"level": _whole(1, 6)},
    "panel": {"panelType": _one_of("info", "note", "warning", "success", "error", "tip", "custom")},
    "mention": {"id": _is_filled},
    "emoji": {"shortName": _is_filled},
    "date": {"timestamp": lambda value: isinstance(value, str) and value.isdigit()},
    "status": {"text": _is_filled, "color": _one_of("neutral", "purple", "blue", "red", "yellow", "green")},
}
"""Attributes that a node must have."""
_SPANS: _Attributes = {"background": _any, "colspan": _whole(1, 100), "rowspan": _whole(1, 100), "colwidth": _any}
_KNOWN: Mapping[str, _Attributes] = {
    "paragraph": {"localId": _any},
    "heading": {"localId": _any},
    "codeBlock": {"language": _is_text, "uniqueId": _any},
    "orderedList": {"order": _whole(0, 1_000_000)},
    "panel": {"panelIcon": _any, "panelIconId": _any, "panelIconText": _any, "panelColor": _any},
    "hardBreak": {"text": _one_of("\n")},
    "mention": {"text": _is_text, "userType": _any, "accessLevel": _any, "localId": _any},
    "emoji": {"id": _any, "text": _any},
    "inlineCard": {"url": _is_filled, "data": lambda value: isinstance(value, dict)},
    "status": {"localId": _any, "style": _any},
    "expand": {"title": _is_text},
    "table": {"isNumberColumnEnabled": lambda v: isinstance(v, bool), "layout": _any, "width": _any, "localId": _any},
    "tableCell": _SPANS,
    "tableHeader": _SPANS,
}
"""Attributes that it may have."""
_MARKS: Mapping[str, _Attributes] = {
    "strong": {},
    "em": {},
    "code": {},
    "strike": {},
    "underline": {},
    "link": {"href": _is_filled},
    "subsup": {"type": _one_of("sub", "sup")},
    "textColor": {"color": lambda value: isinstance(value, str) and value.startswith("#")},
}
"""Marks with the attributes that they must have."""
_MARKS_KNOWN: Mapping[str, _Attributes] = {
    "link": {"title": _any, "id": _any, "collection": _any, "occurrenceKey": _any},
}


def valid(document: object) -> bool:
    """Whether ``document`` is an ADF document that Jira would accept."""
    return (
        isinstance(document, dict)
        and document.get("type") == "doc"
        and document.get("version") == 1
        and set(document) <= {"type", "version", "content"}
        and _children(document.get("content"), _TOP, 0)
    )


def _children(content: object, allowed: set[str], depth: int) -> bool:
    return isinstance(content, list) and depth < _MAX_DEPTH and all(_node(node, allowed, depth) for node in content)


def _node(node: object, allowed: set[str], depth: int) -> bool:
    if not isinstance(node, dict) or not isinstance(node.get("type"), str) or node["type"] not in allowed:
        return False
    kind = node["type"]
    if not _attributes(node.get("attrs", {}), _NEEDED.get(kind, {}), _KNOWN.get(kind, {})):
        return False
    if kind == "text":
        return set(node) <= {"type", "text", "marks"} and _is_filled(node.get("text")) and _marks(node.get("marks", []))
    if kind in _INLINE:
        # A card has one of url and data.
        return set(node) <= {"type", "attrs"} and (kind != "inlineCard" or len(node.get("attrs", {})) == 1)
    content = node.get("content", [])
    if not set(node) <= {"type", "attrs", "content"} or (kind in _FILLED and not content):
        return False
    if not _children(content, _BLOCKS[kind], depth + 1):
        return False
    return kind != "codeBlock" or not any("marks" in child for child in content)


def _attributes(attributes: object, needed: _Attributes, known: _Attributes) -> bool:
    if not isinstance(attributes, dict) or not set(needed) <= set(attributes) <= {*needed, *known}:
        return False
    good = {**known, **needed}
    return all(good[name](value) for name, value in attributes.items())


def _marks(marks: object) -> bool:
    if not isinstance(marks, list) or not all(isinstance(m, dict) and isinstance(m.get("type"), str) for m in marks):
        return False
    kinds = {mark["type"] for mark in marks}
    # Code goes with a link alone, as in Atlassian's editor.
    if len(kinds) != len(marks) or ("code" in kinds and not kinds <= {"code", "link"}):
        return False
    return all(
        mark["type"] in _MARKS
        and set(mark) <= {"type", "attrs"}
        and _attributes(mark.get("attrs", {}), _MARKS[mark["type"]], _MARKS_KNOWN.get(mark["type"], {}))
        for mark in marks
    )


def plain(document: Any) -> str:
    """The text of a valid document, blocks on lines of their own; "" for None."""
    if not isinstance(document, dict):
        return ""
    if document.get("type") == "text":
        return str(document.get("text", ""))
    if document.get("type") == "hardBreak":
        return "\n"
    parts = [plain(child) for child in document.get("content", [])]
    return ("" if document.get("type") in ("paragraph", "heading", "codeBlock") else "\n").join(parts)


def paragraph(text: str) -> dict[str, Any]:
    """A document of one paragraph for each non-empty line of ``text``."""
    lines = [line for line in text.splitlines() if line.strip()]
    return {
        "type": "doc",
        "version": 1,
        "content": [{"type": "paragraph", "content": [{"type": "text", "text": line}]} for line in lines],
    }
