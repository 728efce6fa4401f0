"""Lines of cells, of which pages are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pilothouse_tui.render.style import DIM, PLAIN
from pilothouse_tui.render.table import Cell

Line = list[Cell]


def field(name: str, text: str, style: str = PLAIN, *, width: int = 12) -> Line:
    """A name and what it stands for; names line up at ``width``."""
    return [Cell(f"{name:<{width}}", DIM), Cell(text, style)]


def fields(pairs: Sequence[tuple[str, str]], *, width: int = 12) -> list[Line]:
    """A line a pair; pairs without a text are left out."""
    return [field(name, text, width=width) for name, text in pairs if text]


def block(name: str, texts: Sequence[str], style: str = PLAIN, *, width: int = 12) -> list[Line]:
    """Several lines beside one name."""
    return [[Cell(f"{name if i == 0 else '':<{width}}", DIM), Cell(text, style)] for i, text in enumerate(texts)]


def shortened(texts: Sequence[str], room: int, where: str) -> list[str]:
    """Lines up to about ``room`` characters in all, and how many are left out; ``where`` says who shows the rest."""
    kept: list[str] = []
    used = 0
    total = sum(len(text) for text in texts)
    for text in texts:
        if used + len(text) > room:
            kept.append(f"{text[: room - used]}… {total - room:,} more characters: {where}")
            return kept
        kept.append(text)
        used += len(text)
    return kept


def plain(lines: Iterable[Line]) -> str:
    """The lines without styles."""
    return "\n".join("".join(c.text for c in line).rstrip() for line in lines)
