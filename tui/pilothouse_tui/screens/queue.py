"""What the approvals' and the dead letters' screens have in common: a table, the line under its cursor, a filter."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from pilothouse_tui.screens.base import LiveScreen, Shared
from pilothouse_tui.widgets.bars import FilterBar
from pilothouse_tui.widgets.page import Page
from pilothouse_tui.widgets.rows import RowsTable


class QueueScreen(LiveScreen):
    """A table over a page that shows all of its current line. A subclass makes the table and fills both."""

    AUTO_FOCUS = "RowsTable"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Show only lines that hold these words"),
        Binding("tab,shift+tab", "other", "Detail", tooltip="Between the table and the detail"),
        Binding("escape", "back", "Back", tooltip="Empty the filter, then back"),
    ]
    DEFAULT_CSS = """
    QueueScreen {
        & RowsTable { height: 2fr; border-subtitle-color: #e69f00; }
        & Page { height: 3fr; }
        &.-short Page { display: none; }
        &.-short.-detail Page { display: block; height: 1fr; }
        &.-short.-detail RowsTable { display: none; }
    }
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self.words = ""

    def compose_body(self) -> ComposeResult:
        with Vertical():
            yield self.make_table()
            yield Page()
        yield FilterBar()

    def make_table(self) -> RowsTable:
        """The table."""
        raise NotImplementedError

    def show_detail(self, now: datetime) -> None:
        """Fill the page with what is under the cursor."""

    @on(RowsTable.Moved)
    def _moved(self) -> None:
        self.show_detail(self.shared.clock())
        self.query_one(Page).scroll_home(animate=False)

    @on(RowsTable.SortChanged)
    def _order(self) -> None:
        self.show()

    @on(FilterBar.Edited)
    def _filter(self, event: FilterBar.Edited) -> None:
        self.words = event.words
        self.show()

    @on(FilterBar.Closed)
    def _filtered(self) -> None:
        self.query_one(RowsTable).focus()

    def action_filter(self) -> None:
        """Open the filter."""
        self.query_one(FilterBar).open()

    def action_other(self) -> None:
        """From the table to the detail and back; a short terminal shows one of them."""
        to_detail = not self.query_one(Page).has_focus
        self.set_class(to_detail, "-detail")
        (self.query_one(Page) if to_detail else self.query_one(RowsTable)).focus()

    def action_back(self) -> None:
        """From the detail to the table, then empty the filter, then back."""
        if self.query_one(Page).has_focus:
            self.action_other()
        elif self.words.strip():
            self.query_one(FilterBar).action_clear()
        else:
            self.app.pop_screen()
