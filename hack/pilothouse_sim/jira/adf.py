"""Atlassian Document Format: a check of its shape and its plain text.

Covers the nodes that an integration writes (https://developer.atlassian.com/cloud/jira/platform/apis/document/structure/);
attributes are checked only to be objects.
"""

from __future__ import annotations

from typing import Any

_BLOCKS = {
    "paragraph": {"text", "hardBreak", "mention", "emoji", "inlineCard", "date", "status"},
    "heading": {"text", "hardBreak", "mention", "emoji", "inlineCard", "date", "status"},
    "codeBlock": {"text"},
    "blockquote": {"paragraph", "bulletList", "orderedList", "codeBlock"},
    "bulletList": {"listItem"},
    "orderedList": {"listItem"},
    "listItem": {"paragraph", "bulletList", "orderedList", "codeBlock"},
    "panel": {"paragraph", "heading", "bulletList", "orderedList"},
    "rule": set(),
}
_TOP = {"paragraph", "heading", "codeBlock", "blockquote", "bulletList", "orderedList", "panel", "rule"}
_LEAVES = {"text", "hardBreak", "mention", "emoji", "inlineCard", "date", "status"}
_MARKS = {"strong", "em", "code", "link", "strike", "underline", "subsup", "textColor"}
_MAX_DEPTH = 20


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
    if not isinstance(node, dict) or node.get("type") not in allowed:
        return False
    if not set(node) <= {"type", "content", "text", "marks", "attrs"} or not isinstance(node.get("attrs", {}), dict):
        return False
    kind = node["type"]
    if kind == "text":
        marks = node.get("marks", [])
        return (
            isinstance(node.get("text"), str)
            and node["text"] != ""
            and isinstance(marks, list)
            and all(isinstance(mark, dict) and mark.get("type") in _MARKS for mark in marks)
        )
    if kind in _LEAVES:
        return "content" not in node
    return _children(node.get("content", []), _BLOCKS[kind], depth + 1)


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
