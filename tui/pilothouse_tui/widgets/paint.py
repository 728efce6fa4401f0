"""From style names of ``render`` to Rich's styles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.style import Style
from rich.text import Text

from pilothouse_tui.render.style import COLOURS, STRONG
from pilothouse_tui.render.table import Cell

STYLES = {name: Style(color=colour or None, bold=name == STRONG or None) for name, colour in COLOURS.items()}


def text(cells: Iterable[Cell]) -> Text:
    """One line as Rich text."""
    return Text.assemble(*((c.text, STYLES[c.style]) for c in cells))


def page(lines: Sequence[Sequence[Cell]]) -> Text:
    """Many lines as Rich text."""
    return Text("\n").join(text(line) for line in lines)
