"""What every screen of live data has: header, problems, and ``show``, which the app calls on new data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer

from pilothouse_tui.data.sources import Sources
from pilothouse_tui.errors import ToolError
from pilothouse_tui.model import Fleet
from pilothouse_tui.render.header import header, problems
from pilothouse_tui.screens.confirm import ConfirmScreen, Question
from pilothouse_tui.widgets.bars import HeaderLine, ProblemLines


@dataclass(slots=True)
class Shared:
    """What screens read: the state (changed by the application only), the sources and the clock."""

    fleet: Fleet
    sources: Sources
    clock: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an action: a sentence, whether it is what was wanted, and what the screen does then."""

    text: str
    good: bool = True
    then: Callable[[], None] | None = None


class LiveScreen(Screen[None]):
    """A screen over live data. A subclass composes its body and fills it in ``show_body``."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.help", "Help", key_display="?", tooltip="All keys and symbols"),
        Binding("q", "app.quit", "Quit", tooltip="Leave"),
        Binding("4", "app.approvals", "Approvals", tooltip="Writes that wait for somebody's yes", show=False),
        Binding("5", "app.dead_letters", "Dead letters", tooltip="Writes that failed for good", show=False),
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
        # A screen that is being taken down has no widgets any more, and may still be told of new data.
        if not self.is_mounted or not self.query(HeaderLine):
            return
        fleet, now = self.shared.fleet, self.shared.clock()
        self.query_one(HeaderLine).show(header(fleet, self.shared.sources.name, now, self.size.width or 80))
        self.query_one(ProblemLines).show(problems(fleet))
        self.show_body(now)

    def act(self, question: Question, work: Callable[[], Awaitable[Outcome]]) -> None:
        """Ask ``question``; on a yes do ``work`` in the background and tell what came of it.

        The work belongs to the application: leaving this screen does not break off what is under way.
        """

        def answered(yes: bool | None) -> None:
            if yes:
                app.run_worker(tell())

        async def tell() -> None:
            try:
                done = await work()
            except ToolError as error:
                text = f"{error.happened}\n{error.not_done}\n→ {error.to_do}"
                app.notify(text, title=f"✗ {question.doing}", severity="error", timeout=15, markup=False)
                return
            app.notify(done.text, severity="information" if done.good else "warning", timeout=8, markup=False)
            if done.then is not None and self.is_attached:
                done.then()

        app = self.app
        app.push_screen(ConfirmScreen(question), answered)

    def show_body(self, now: datetime) -> None:
        """Fill the body."""
