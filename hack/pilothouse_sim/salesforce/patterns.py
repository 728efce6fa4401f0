"""Wildcards without regular expressions: no pattern takes longer than the product of both lengths. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MANY, ONE = object(), object()
"""Any text, and any one character."""


def matches(pattern: Sequence[object], text: str) -> bool:
    """Whether the whole text fits; the pattern holds characters, ``MANY`` and ``ONE``. Without case."""
    low = text.lower()
    at = place = 0
    star, resume = -1, 0
    while place < len(low):
        if at < len(pattern) and pattern[at] is MANY:
            star, resume = at, place
            at += 1
        elif at < len(pattern) and (pattern[at] is ONE or pattern[at] == low[place]):
            at += 1
            place += 1
        elif star >= 0:
            at = star + 1
            resume += 1
            place = resume
        else:
            return False
    return all(part is MANY for part in pattern[at:])


def of_like(parts: Sequence[tuple[bool, str]]) -> list[object]:
    """A pattern of LIKE; each part is (escaped, character)."""
    wild = {"%": MANY, "_": ONE}
    return [
        wild.get(character, character.lower()) if not escaped else character.lower() for escaped, character in parts
    ]


def of_word(word: str) -> list[object]:
    """A pattern of SOSL: ``*`` and ``?``."""
    return [{"*": MANY, "?": ONE}.get(character, character.lower()) for character in word]
