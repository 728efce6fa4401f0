"""Atlassian Document Format from and to plain text. Pure."""

from __future__ import annotations

from typing import Any

_BLOCKS = {"paragraph", "heading", "listItem", "codeBlock", "blockquote", "tableRow", "rule"}


def from_text(text: str) -> dict[str, Any]:
    """A document with one paragraph for each blank-line-separated part, line breaks kept."""
    paragraphs = []
    for part in text.replace("\r\n", "\n").split("\n\n"):
        content: list[dict[str, Any]] = []
        for line in part.strip("\n").split("\n"):
            if content:
                content.append({"type": "hardBreak"})
            if line:
                content.append({"type": "text", "text": line})
        if any(node["type"] == "text" for node in content):
            paragraphs.append({"type": "paragraph", "content": content})
    return {"type": "doc", "version": 1, "content": paragraphs or [{"type": "paragraph", "content": []}]}


def to_text(document: object, limit: int = 8000, depth: int = 0) -> str:
    """The words of a document, at most ``limit`` characters; unknown nodes give their text."""
    if isinstance(document, str):
        return document[:limit]
    if not isinstance(document, dict) or depth > 20:
        return ""
    kind = document.get("type")
    if kind == "text":
        return str(document.get("text", ""))[:limit]
    if kind == "hardBreak":
        return "\n"
    if kind == "mention":
        attributes = document.get("attrs")
        return str(attributes.get("text", ""))[:200] if isinstance(attributes, dict) else ""
    parts: list[str] = []
    size = 0
    content = document.get("content")
    for child in content if isinstance(content, list) else ():
        piece = to_text(child, limit - size, depth + 1)
        parts.append(piece)
        size += len(piece)
        if size >= limit:
            break
    text = "".join(parts)
    return f"{text}\n" if kind in _BLOCKS and depth else text.strip() if depth == 0 else text
