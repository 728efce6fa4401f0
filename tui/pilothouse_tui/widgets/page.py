"""A page of lines that scrolls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from pilothouse_tui.render.table import Cell
from pilothouse_tui.widgets.paint import page


class Page(VerticalScroll):
    """Lines of cells; long ones wrap. The scroll position stays when the lines change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll_up", "Up", tooltip="One line up (also the arrow)", show=False),
        Binding("j", "scroll_down", "Down", tooltip="One line down (also the arrow)", show=False),
        Binding("g", "scroll_home", "Top", tooltip="To the top (also Home)", show=False),
        Binding("G", "scroll_end", "Bottom", tooltip="To the bottom (also End)", show=False),
    ]
    DEFAULT_CSS = """
    Page { height: 1fr; border: round $surface-lighten-2; padding: 0 1; scrollbar-size-vertical: 1;
        background: $background; border-title-color: $text; border-title-style: bold;
        &:focus { border: round #56b4e9; } }
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown = Text()

    def compose(self) -> ComposeResult:
        yield Static()

    def show(self, lines: Sequence[Sequence[Cell]], title: str) -> None:
        """Show other lines; paints only where they differ."""
        shown = page(lines)
        self.border_title = title
        if shown != self._shown:
            self._shown = shown
            body = self.query_one(Static)
            body.update(shown)
            # Textual drops the second of two changes of height that come before its first layout has run.
            self.call_after_refresh(body.refresh, layout=True)
