"""ServiceNow's values as plain ones: a field may have any type, whatever its documentation says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

from pilothouse_dataplane.connectors.base import SystemUnavailable

_MAX_SHOWN = 1_000
_BLOCKS = {"p", "div", "br", "li", "ul", "ol", "tr", "table", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote"}
_HIDDEN = {"script", "style", "template", "noscript", "head", "title"}


def unreadable(*, may_have_acted: bool = False) -> SystemUnavailable:
    """The JSON has another shape than ServiceNow's."""
    return SystemUnavailable("ServiceNow sent an answer that can't be read.", may_have_acted=may_have_acted)


def plain(value: object, limit: int = _MAX_SHOWN) -> str:
    """A text of at most ``limit`` characters; "" for what is no text or number."""
    if isinstance(value, str):
        return value[:limit]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:limit] if isinstance(value, int | float) else ""


def shown(record: Mapping[str, Any], field: str, limit: int = _MAX_SHOWN) -> str:
    """What people read in a field: its display value (``sysparm_display_value`` all, true or false)."""
    value = record.get(field)
    if isinstance(value, Mapping):
        return plain(value.get("display_value"), limit) or plain(value.get("value"), limit)
    return plain(value, limit)


def raw(record: Mapping[str, Any], field: str, limit: int = _MAX_SHOWN) -> str:
    """What the database holds in a field."""
    value = record.get(field)
    return plain(value.get("value"), limit) if isinstance(value, Mapping) else plain(value, limit)


def flag(value: object) -> bool:
    """ServiceNow writes true, "true", "1" and 1."""
    return value is True or (isinstance(value, str | int) and str(value).lower() in ("true", "1"))


def one(body: object, *, may_have_acted: bool = False) -> dict[str, Any]:
    """The record in ``{"result": {…}}``. Raises SystemUnavailable."""
    result = body.get("result") if isinstance(body, dict) else None
    if not isinstance(result, dict):
        raise unreadable(may_have_acted=may_have_acted)
    return result


def many(body: object) -> list[dict[str, Any]]:
    """The records in ``{"result": […]}``. Raises SystemUnavailable: what can't be read must not look like nothing."""
    result = body.get("result") if isinstance(body, dict) else None
    if not isinstance(result, list):
        raise unreadable()
    return [record for record in result if isinstance(record, dict)]


class _Text(HTMLParser):
    """Keeps the words of a page; scripts and styles go."""

    def __init__(self, limit: int) -> None:
        super().__init__(convert_charrefs=True)
        self._limit = limit
        self._size = 0
        self._hidden = 0
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag in _BLOCKS:
            self.parts.append("\n- " if tag == "li" else "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden and self._size < self._limit:
            self.parts.append(data[: self._limit - self._size])
            self._size += len(data)


def text_of(html: object, limit: int = 8_000) -> str:
    """The words of HTML, a block a line, at most ``limit`` characters."""
    if not isinstance(html, str):
        return ""
    parser = _Text(limit)
    parser.feed(html[: limit * 20])
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line and line != "-")[:limit]
