"""Help: every key of the screen behind it, out of the bindings' own tooltips, and what the symbols mean."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from pilothouse_tui.model import BreakerState, DeadLetterState, RunOutcome, StepOutcome
from pilothouse_tui.render.style import DIM, STRONG, WAITING, Mark, breaker_mark, letter_mark, run_mark, step_mark
from pilothouse_tui.render.table import Cell
from pilothouse_tui.widgets.paint import page

Key = tuple[str, str]


def key_lines(keys: list[Key]) -> list[list[Cell]]:
    """Keys and what they do."""
    return [[Cell(f"  {key:<14}", STRONG), Cell(what)] for key, what in keys]


def legend() -> list[list[Cell]]:
    """The symbols in their colours."""

    def line(title: str, marks: list[Mark]) -> list[Cell]:
        return [Cell(f"  {title:<14}", DIM), *(Cell(f"{m.symbol} {m.word}  ", m.style) for m in marks)]

    return [
        line("Runs", [run_mark(RunOutcome.UNKNOWN, running=True), WAITING, *map(run_mark, list(RunOutcome)[1:])]),
        line("Steps", [step_mark(o) for o in list(StepOutcome)[1:]]),
        line("Breakers", [breaker_mark(s) for s in list(BreakerState)[1:]]),
        line("Letters", [letter_mark(s) for s in list(DeadLetterState)[1:]]),
    ]


class HelpScreen(ModalScreen[None]):
    """Keys and symbols."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "Close", tooltip="Close the help"),
    ]
    DEFAULT_CSS = """
    HelpScreen { align: center middle;
        & > VerticalScroll { width: 84; max-width: 100%; height: auto; max-height: 100%; padding: 0 2;
            background: $surface; border: round #56b4e9; border-title-color: $text; } }
    """

    def __init__(self, keys: list[Key]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        lines = [[Cell("Keys", STRONG)], *key_lines(self._keys), [], [Cell("Symbols", STRONG)], *legend()]
        with VerticalScroll() as box:
            box.border_title = "Help · Escape closes"
            yield Static(page(lines))
