"""What every screen of live data has: header, problems, and ``show``, which the app calls on new data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer

from pilothouse_tui.data.sources import Sources
from pilothouse_tui.model import Fleet
from pilothouse_tui.render.header import header, problems
from pilothouse_tui.widgets.bars import HeaderLine, ProblemLines


@dataclass(slots=True)
class Shared:
    """What screens read: the state (changed by the application only), the sources and the clock."""

    fleet: Fleet
    sources: Sources
    clock: Callable[[], datetime]


class LiveScreen(Screen[None]):
    """A screen over live data. A subclass composes its body and fills it in ``show_body``."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.help", "Help", key_display="?", tooltip="All keys and symbols"),
        Binding("q", "app.quit", "Quit", tooltip="Leave"),
    ]

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.shared = shared
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]

    def compose(self) -> ComposeResult:
        yield HeaderLine()
        yield ProblemLines()
        yield from self.compose_body()
        yield Footer(show_command_palette=False)

    def compose_body(self) -> ComposeResult:
        """The widgets between the header and the footer."""
        yield from ()

    def on_mount(self) -> None:
        self.show()

    def on_screen_resume(self) -> None:
        self.show()

    def show(self) -> None:
        """Bring what is shown up to date; cheap where nothing changed."""
        if not self.is_mounted:
            return
        fleet, now = self.shared.fleet, self.shared.clock()
        self.query_one(HeaderLine).show(header(fleet, self.shared.sources.name, now, self.size.width or 80))
        self.query_one(ProblemLines).show(problems(fleet))
        self.show_body(now)

    def show_body(self, now: datetime) -> None:
        """Fill the body."""
