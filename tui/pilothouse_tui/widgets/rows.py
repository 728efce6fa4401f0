"""A table that stays quick with thousands of rows: it paints the visible lines only, and only those that changed.

Textual's DataTable keeps a cell object a cell and re-measures; at 2,000 sessions that change ten times a second it is
the line API that keeps up. The cursor follows a row's key, so it stays on its session when the order changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from pilothouse_tui.render.style import DIM
from pilothouse_tui.render.table import GAP, Cell, Column, Row, Sort, fit, pieces
from pilothouse_tui.widgets.paint import STYLES


class RowsTable(ScrollView, can_focus=True):
    """Columns, a fixed head line, rows with a cursor. The owner gives rows with ``show`` and orders them itself."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", tooltip="Open the line under the cursor"),
        Binding("s", "sort_next", "Sort", tooltip="Sort by the next column"),
        Binding("S", "sort_reverse", "Reverse", tooltip="Reverse the order", show=False),
        Binding("up,k", "move(-1)", "Up", tooltip="One line up", show=False),
        Binding("down,j", "move(1)", "Down", tooltip="One line down", show=False),
        Binding("pageup", "page(-1)", "Page up", tooltip="One page up", show=False),
        Binding("pagedown", "page(1)", "Page down", tooltip="One page down", show=False),
        Binding("home,g", "edge(-1)", "First", tooltip="To the first line", show=False),
        Binding("end,G", "edge(1)", "Last", tooltip="To the last line", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--head", "rows--cursor", "rows--cursor-blurred"}
    DEFAULT_CSS = """
    RowsTable {
        border: round $surface-lighten-2; border-title-color: $text; border-title-style: bold;
        background: $background; padding: 0;
        overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-color: #56606b;
        scrollbar-background: $surface; scrollbar-color-hover: #8b95a1; scrollbar-color-active: #8b95a1;
        &:focus { border: round #56b4e9; }
        & > .rows--head { color: #8b95a1; text-style: bold; }
        & > .rows--cursor { background: #1d4e6b; }
        & > .rows--cursor-blurred { background: $surface; }
    }
    """

    class Opened(Message):
        """Enter or a double click on a row."""

        def __init__(self, table: RowsTable, key: tuple[str, ...]) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> RowsTable:
            """The table, for ``@on(RowsTable.Opened, "#sessions")``."""
            return self.table

    class Moved(Message):
        """Another row is under the cursor (or none)."""

        def __init__(self, table: RowsTable, key: tuple[str, ...] | None) -> None:
            super().__init__()
            self.table, self.key = table, key

    class SortChanged(Message):
        """Another order is asked for; the owner calls ``show`` again."""

        def __init__(self, table: RowsTable) -> None:
            super().__init__()
            self.table = table

    def __init__(self, columns: Sequence[Column], *, id: str, empty: str, sort: Sort | None = None) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.sort = sort or Sort(0)
        self._empty = empty
        self._rows: list[Row] = []
        self._index: dict[tuple[str, ...], int] = {}
        self._cursor = 0
        self._fitted = 80
        self._layout = fit(self.columns, self._fitted)

    @property
    def cursor_key(self) -> tuple[str, ...] | None:
        """Key of the row under the cursor."""
        return self._rows[self._cursor].key if self._rows else None

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def show(self, rows: list[Row], empty: str | None = None) -> None:
        """Replace the rows; only lines that look different are painted again."""
        key, old, old_cursor = self.cursor_key, self._rows, self._cursor
        self._empty = empty or self._empty
        self._rows = rows
        self._index = {row.key: i for i, row in enumerate(rows)}
        found = self._index.get(key, -1) if key is not None else -1
        self._cursor = found if found >= 0 else max(0, min(self._cursor, len(rows) - 1))
        if len(old) != len(rows):
            self.virtual_size = Size(self.size.width, len(rows) + 1)
        # Where the cursor's row moved, the view moves along if the cursor was in sight.
        if found >= 0 and found != old_cursor and self._visible(old_cursor):
            self._scroll_to_cursor()
        if self.cursor_key != key:
            self.post_message(self.Moved(self, self.cursor_key))
        top, height = round(self.scroll_y), self.size.height
        if not old or not rows:
            self.refresh()
            return
        for y in range(1, height):
            i = top + y - 1
            before = old[i] if i < len(old) else None
            after = rows[i] if i < len(rows) else None
            changed = (before is None) != (after is None) or (before and after and not before.same_as(after))
            if changed or (old_cursor != self._cursor and i in (old_cursor, self._cursor)):
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """Paint one line of the viewport; line 0 is the head."""
        width = self.size.width
        beside = self.scrollable_content_region.width  # a scrollbar comes with the rows, and takes room from the cells
        if beside != self._fitted:
            self._fitted, self._layout = beside, fit(self.columns, beside)
        base = self.rich_style
        if y == 0:
            return self._strip(self._head(), base + self.get_component_rich_style("rows--head", partial=True), width)
        i = round(self.scroll_y) + y - 1
        if i >= len(self._rows):
            if not self._rows and y == 1:
                return self._strip([Cell(self._empty, DIM)], base, width)
            return Strip.blank(width, base)
        if i == self._cursor:
            name = "rows--cursor" if self.has_focus else "rows--cursor-blurred"
            base += self.get_component_rich_style(name, partial=True)
        return self._strip(pieces(self._rows[i].cells, self.columns, self._layout), base, width)

    def action_open(self) -> None:
        """Open the row under the cursor."""
        if (key := self.cursor_key) is not None:
            self.post_message(self.Opened(self, key))

    def action_sort_next(self) -> None:
        """Sort by the next column that is shown."""
        shown = [i for i, _ in self._layout]
        at = shown.index(self.sort.column) if self.sort.column in shown else -1
        self._sort(Sort(shown[(at + 1) % len(shown)]))

    def action_sort_reverse(self) -> None:
        """Reverse the order."""
        self._sort(Sort(self.sort.column, not self.sort.descending))

    def action_move(self, lines: int) -> None:
        """Move the cursor by a number of lines."""
        self._move_to(self._cursor + lines)

    def action_page(self, pages: int) -> None:
        """Move the cursor by the height of the view."""
        self._move_to(self._cursor + pages * max(1, self.size.height - 2))

    def action_edge(self, direction: int) -> None:
        """Move the cursor to the first (-1) or last (1) row."""
        self._move_to(0 if direction < 0 else len(self._rows) - 1)

    def on_resize(self) -> None:
        self._fitted = self.scrollable_content_region.width
        self._layout = fit(self.columns, self._fitted)
        self.virtual_size = Size(self.size.width, len(self._rows) + 1)
        self.refresh()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y == 0:
            left = 0
            for index, width in self._layout:
                if left <= offset.x < left + width + GAP:
                    again = self.sort.column == index
                    self._sort(Sort(index, not self.sort.descending if again else False))
                    return
                left += width + GAP
        elif (i := round(self.scroll_y) + offset.y - 1) < len(self._rows):
            self._move_to(i)
            if event.chain == 2:
                self.action_open()

    def _sort(self, sort: Sort) -> None:
        self.sort = sort
        self.refresh(Region(0, 0, self.size.width, 1))
        self.post_message(self.SortChanged(self))

    def _move_to(self, row: int) -> None:
        before = self._cursor
        self._cursor = max(0, min(row, len(self._rows) - 1))
        if self._cursor != before:
            self.post_message(self.Moved(self, self.cursor_key))
        self._scroll_to_cursor()
        self.refresh()

    def _visible(self, row: int) -> bool:
        top = round(self.scroll_y)
        return top <= row < top + self.size.height - 1

    def _scroll_to_cursor(self) -> None:
        top, height = round(self.scroll_y), max(1, self.size.height - 1)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, immediate=True)
        elif self._cursor >= top + height:
            self.scroll_to(y=self._cursor - height + 1, animate=False, immediate=True)

    def _head(self) -> list[Cell]:
        titles = []
        for i, column in enumerate(self.columns):
            arrow = ("▼" if self.sort.descending else "▲") if i == self.sort.column else ""
            titles.append(Cell(column.title + arrow))
        return pieces(titles, self.columns, self._layout)

    @staticmethod
    def _strip(cells: Sequence[Cell], base: Style, width: int) -> Strip:
        return Strip([Segment(c.text, base + STYLES[c.style]) for c in cells]).adjust_cell_length(width, base)
