"""The header's line, the line of problems, and the filter's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input, Static

from pilothouse_tui.render.table import Cell
from pilothouse_tui.widgets.paint import page, text


class HeaderLine(Static):
    """One line: where we look, the state of each connection, the total cost."""

    DEFAULT_CSS = "HeaderLine { height: 1; padding: 0 1; background: $surface; text-wrap: nowrap; }"

    def show(self, cells: Sequence[Cell]) -> None:
        """Show other cells; paints only where they differ."""
        line = text(cells)
        if line != getattr(self, "_shown", None):
            self._shown = line
            self.update(line)


class ProblemLines(Static):
    """What is wrong with a connection, and what to do now; takes no room where nothing is."""

    DEFAULT_CSS = "ProblemLines { height: auto; max-height: 4; padding: 0 1; display: none; }"

    def show(self, lines: Sequence[Cell]) -> None:
        """Show the lines, or nothing."""
        shown = page([[c] for c in lines])
        if shown != getattr(self, "_shown", None):
            self._shown = shown
            self.display = bool(lines)
            self.update(shown)


class FilterBar(Input):
    """The filter: every word must be in a line. Escape empties and closes it, Enter keeps it and closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear", "Clear filter", tooltip="Empty the filter and close it"),
        Binding("enter", "keep", "Keep filter", tooltip="Go back to the table with the filter on"),
    ]
    DEFAULT_CSS = """
    FilterBar { height: 1; border: none; padding: 0 1; display: none; background: $surface;
        &:focus { border: none; } }
    """

    class Edited(Message):
        """The words changed."""

        def __init__(self, words: str) -> None:
            super().__init__()
            self.words = words

    class Closed(Message):
        """The person is done; focus goes back to the table."""

    def __init__(self) -> None:
        super().__init__(placeholder="Filter: words that must all be in a line, for example: acme open", id="filter")

    def open(self) -> None:
        """Show it and take the focus."""
        self.display = True
        self.focus()

    def action_clear(self) -> None:
        """Empty the filter and close it."""
        self.value = ""
        self.display = False
        self.post_message(self.Closed())

    def action_keep(self) -> None:
        """Close it with the filter on; it stays in sight while it holds words."""
        self.display = bool(self.value.strip())
        self.post_message(self.Closed())

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Edited(event.value))
