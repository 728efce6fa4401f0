"""Atlassian Document Format from simple Markdown and to plain text. Pure.

Written are paragraphs, headings, bullet and numbered lists, quotes, fenced code, and in a line ``code``, **strong** and
links; anything else, mentions too, stays text: a person is never notified by what a model wrote. Read are all nodes; an
unknown one gives the text that is in it.

Source: https://developer.atlassian.com/cloud/jira/platform/apis/document/structure/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

Node = dict[str, Any]

_MAX_DEPTH = 20
_MAX_HREF = 2_000
_FENCE = re.compile(r"^\s{0,3}```\s*([\w+#.-]{0,30})\s*$")
_HEADING = re.compile(r"^(#{1,6})\s+(\S.*)$")
_BULLET = re.compile(r"^\s{0,8}[-*+]\s+(\S.*)$")
_NUMBERED = re.compile(r"^\s{0,8}\d{1,4}[.)]\s+(\S.*)$")
_QUOTE = re.compile(r"^>\s?(.*)$")
_INLINE = re.compile(
    r"`(?P<code>[^`\n]{1,2000})`"
    r"|\*\*(?P<strong>[^*\n]{1,2000})\*\*"
    r"|\[(?P<label>[^\]\[\n]{1,500})\]\((?P<href>(?:https?://|mailto:)[^\s()<>]{1,2000})\)"
    r"|(?P<url>https?://[^\s<>()\[\]\"']{1,2000}[^\s<>()\[\]\"'.,;:!?])"
)


def from_text(text: str) -> Node:
    """The document of a text. Characters that JSON carries and Jira refuses are left out."""
    clean = "".join(
        c for c in text.replace("\r\n", "\n").replace("\r", "\n") if c in "\n\t" or (c >= " " and c != "\x7f")
    )
    lines = clean.split("\n")
    content: list[Node] = []
    at = 0
    while at < len(lines):
        if (fence := _FENCE.match(lines[at])) is not None:
            at = _code(lines, at, fence[1], content)
        elif (heading := _HEADING.match(lines[at])) is not None:
            content.append({"type": "heading", "attrs": {"level": len(heading[1])}, "content": _line(heading[2])})
            at += 1
        elif _BULLET.match(lines[at]):
            at = _list(lines, at, "bulletList", _BULLET, content)
        elif _NUMBERED.match(lines[at]):
            at = _list(lines, at, "orderedList", _NUMBERED, content)
        elif _QUOTE.match(lines[at]):
            at = _quote(lines, at, content)
        elif lines[at].strip():
            at = _paragraph(lines, at, content)
        else:
            at += 1
    return {"type": "doc", "version": 1, "content": content or [{"type": "paragraph", "content": []}]}


def _code(lines: list[str], at: int, language: str, content: list[Node]) -> int:
    end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == "```"), len(lines))
    block: Node = {"type": "codeBlock", "content": []}
    if language:
        block["attrs"] = {"language": language}
    if body := "\n".join(lines[at + 1 : end]):
        block["content"] = [{"type": "text", "text": body}]
    content.append(block)
    return end + 1


def _list(lines: list[str], at: int, kind: str, item: re.Pattern[str], content: list[Node]) -> int:
    items: list[Node] = []
    while at < len(lines) and (found := item.match(lines[at])) is not None:
        items.append({"type": "listItem", "content": [{"type": "paragraph", "content": _line(found[1])}]})
        at += 1
    content.append({"type": kind, "content": items})
    return at


def _quote(lines: list[str], at: int, content: list[Node]) -> int:
    quoted = []
    while at < len(lines) and (found := _QUOTE.match(lines[at])) is not None:
        quoted.append(found[1])
        at += 1
    content.append({"type": "blockquote", "content": [{"type": "paragraph", "content": _lines(quoted)}]})
    return at


def _paragraph(lines: list[str], at: int, content: list[Node]) -> int:
    own = [lines[at]]
    at += 1
    others: tuple[re.Pattern[str], ...] = (_FENCE, _HEADING, _BULLET, _NUMBERED, _QUOTE)
    while at < len(lines) and lines[at].strip() and not any(p.match(lines[at]) for p in others):
        own.append(lines[at])
        at += 1
    content.append({"type": "paragraph", "content": _lines(own)})
    return at


def _lines(lines: list[str]) -> list[Node]:
    content: list[Node] = []
    for number, line in enumerate(lines):
        if number:
            content.append({"type": "hardBreak"})
        content.extend(_line(line))
    return content


def _line(line: str) -> list[Node]:
    """A line's words with their marks; no text is empty, which Jira would refuse."""
    content: list[Node] = []
    at = 0
    for found in _INLINE.finditer(line):
        _add(content, line[at : found.start()])
        at = found.end()
        if code := found["code"]:
            _add(content, code, {"type": "code"})
        elif strong := found["strong"]:
            _add(content, strong, {"type": "strong"})
        else:
            href = found["href"] or found["url"]
            _add(content, found["label"] or href, {"type": "link", "attrs": {"href": href[:_MAX_HREF]}})
    _add(content, line[at:])
    return content


def _add(content: list[Node], text: str, mark: Node | None = None) -> None:
    if text:
        content.append({"type": "text", "text": text, **({"marks": [mark]} if mark else {})})


def to_text(document: object, limit: int = 8000) -> str:
    """The words of a document, at most ``limit`` characters, a block a line."""
    if isinstance(document, str):
        return document[:limit]
    pieces: list[str] = []
    _walk(document, _Sink(pieces, limit), 0)
    text = "".join(pieces)
    return re.sub(r"\n{2,}", "\n", text).strip("\n")[:limit].strip("\n")


class _Sink:
    """Takes text until it is full."""

    def __init__(self, pieces: list[str], limit: int) -> None:
        self._pieces = pieces
        self._left = limit * 2  # line ends that are dropped at the end count, too

    @property
    def full(self) -> bool:
        return self._left <= 0

    def add(self, text: str) -> None:
        piece = text[: max(0, self._left)]
        self._left -= len(piece)
        self._pieces.append(piece)


def _attributes(node: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = node.get("attrs")
    return attributes if isinstance(attributes, Mapping) else {}


def _word(value: object, limit: int = 500) -> str:
    return value[:limit] if isinstance(value, str) else ""


def _text(node: Mapping[str, Any]) -> str:
    text = _word(node.get("text"), 100_000)
    marks = node.get("marks")
    for mark in marks if isinstance(marks, list) else ():
        if isinstance(mark, Mapping) and mark.get("type") == "link":
            href = _word(_attributes(mark).get("href"), _MAX_HREF)
            if href and href != text:
                return f"{text} ({href})"
    return text


def _date(node: Mapping[str, Any]) -> str:
    try:
        moment = datetime.fromtimestamp(int(str(_attributes(node).get("timestamp"))[:15]) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.date().isoformat()


def _media(node: Mapping[str, Any]) -> str:
    return f"[{_word(_attributes(node).get('alt')) or 'file'}]"


_LEAVES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "text": _text,
    "hardBreak": lambda node: "\n",
    "mention": lambda node: _word(_attributes(node).get("text"), 200),
    "emoji": lambda node: _word(_attributes(node).get("text")) or _word(_attributes(node).get("shortName")),
    "inlineCard": lambda node: _word(_attributes(node).get("url"), _MAX_HREF),
    "blockCard": lambda node: f"{_word(_attributes(node).get('url'), _MAX_HREF)}\n",
    "embedCard": lambda node: f"{_word(_attributes(node).get('url'), _MAX_HREF)}\n",
    "date": _date,
    "status": lambda node: f"[{_word(_attributes(node).get('text'))}]",
    "media": _media,
    "mediaInline": _media,
    "placeholder": lambda node: _word(_attributes(node).get("text")),
    "rule": lambda node: "---\n",
}
_PREFIXES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "blockquote": lambda node: "> ",
    "taskItem": lambda node: "[x] " if _attributes(node).get("state") == "DONE" else "[ ] ",
    "decisionItem": lambda node: "- ",
    "expand": lambda node: f"{_word(_attributes(node).get('title'))}\n",
    "nestedExpand": lambda node: f"{_word(_attributes(node).get('title'))}\n",
}
_BLOCKS = {
    "paragraph", "heading", "listItem", "codeBlock", "blockquote", "tableRow", "taskItem", "decisionItem", "panel",
    "expand", "nestedExpand", "mediaSingle", "mediaGroup", "caption",
}  # fmt: skip


def _walk(node: object, sink: _Sink, depth: int, number: int = 0) -> None:
    """``number``: of an item in a numbered list."""
    if not isinstance(node, Mapping) or depth > _MAX_DEPTH or sink.full:
        return
    kind = node.get("type")
    kind = kind if isinstance(kind, str) else ""
    if (leaf := _LEAVES.get(kind)) is not None:
        sink.add(leaf(node))
        return
    if kind == "listItem":
        sink.add(f"{number}. " if number else "- ")
    elif (prefix := _PREFIXES.get(kind)) is not None:
        sink.add(prefix(node))
    children = node.get("content")
    ordered = kind == "orderedList"
    for place, child in enumerate(children if isinstance(children, list) else (), 1):
        if place > 1 and kind == "tableRow":
            sink.add("| ")
        _walk(child, sink, depth + 1, place if ordered else 0)
        if sink.full:
            return
    if isinstance(node.get("text"), str) and not isinstance(children, list):
        sink.add(_word(node["text"], 100_000))  # a node that we don't know
    if kind in _BLOCKS:
        sink.add("\n")
