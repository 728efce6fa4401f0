"""A question before an action: what would be done, and what that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from pilothouse_tui.render.lines import Line
from pilothouse_tui.render.style import PLAIN, STRONG
from pilothouse_tui.render.table import Cell
from pilothouse_tui.widgets.paint import page


@dataclass(frozen=True, slots=True)
class Question:
    """``doing`` is what is done ("Force open connector/jira of acme"), ``effects`` what that means, a sentence each,
    ``tone`` the style of the heading, ``details`` more lines to read first."""

    doing: str
    effects: Sequence[str] = ()
    tone: str = PLAIN
    details: Sequence[Line] = field(default_factory=tuple)


class ConfirmScreen(ModalScreen[bool]):
    """Yes or no. "No" has the focus, and no key that opens this question answers it with yes."""

    AUTO_FOCUS = "#no"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes", tooltip="Do it"),
        Binding("n,escape,q", "dismiss(False)", "No", tooltip="Leave it"),
        Binding("left,right", "other", "Other", tooltip="The other button", show=False),
    ]
    DEFAULT_CSS = """
    ConfirmScreen { align: center middle;
        & > Vertical { width: 84; max-width: 100%; height: auto; max-height: 100%; padding: 0 2; background: $surface;
            border: round #e69f00; border-title-color: $text; border-title-style: bold; }
        & VerticalScroll { height: auto; max-height: 1fr; }
        & Horizontal { height: 1; width: 100%; margin: 1 0 0 0; align-horizontal: center; }
        & Button { margin: 0 2; }
        & Button:focus { background: #1d4e6b; color: $text; text-style: bold; } }
    """

    def __init__(self, question: Question) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        question = self._question
        lines: list[Line] = [[Cell(f"{question.doing}?", question.tone if question.tone != PLAIN else STRONG)]]
        lines += [[Cell(effect)] for effect in question.effects]
        if question.details:
            lines += [[], *question.details]
        with Vertical() as box:
            box.border_title = "Sure?"
            with VerticalScroll(can_focus=False):
                yield Static(page(lines))
            with Horizontal():
                yield Button(Text("n  No, leave it"), id="no", compact=True)
                yield Button(Text("y  Yes, do it"), id="yes", compact=True)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_other(self) -> None:
        """Give the focus to the other button."""
        self.query_one("#no" if self.query_one("#yes").has_focus else "#yes").focus()
