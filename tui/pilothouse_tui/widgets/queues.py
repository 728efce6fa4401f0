"""Tables whose rows an SRE acts on. Each posts what is asked; the screen asks back and does it."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from pilothouse_tui.model import BreakerMode
from pilothouse_tui.widgets.rows import RowsTable


class BreakersTable(RowsTable):
    """Breakers: force open, disable, give back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "mode('FORCED_OPEN')", "Force open", tooltip="Force the breaker open: its calls fail at once"),
        Binding("d", "mode('DISABLED')", "Disable", tooltip="Switch the breaker off: every call passes"),
        Binding("u", "mode('AUTOMATIC')", "Automatic", tooltip="Give the breaker back to its own judgement"),
    ]

    class ModeAsked(Message):
        """A breaker shall get another mode; ``key`` is tenant and name."""

        def __init__(self, key: tuple[str, str], mode: BreakerMode) -> None:
            super().__init__()
            self.key, self.mode = key, mode

    def action_mode(self, name: str) -> None:
        """Ask for a mode for the breaker under the cursor."""
        if self.cursor_key is not None:
            tenant, breaker = self.cursor_key
            self.post_message(self.ModeAsked((tenant, breaker), BreakerMode[name]))


class ApprovalsTable(RowsTable):
    """Approvals: approve, refuse."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Session", tooltip="Open the session that waits"),
        Binding("a", "decide(True)", "Approve", tooltip="Let the write go ahead (asks first)"),
        Binding("x", "decide(False)", "Refuse", tooltip="Refuse the write (asks first)"),
    ]

    class DecisionAsked(Message):
        """An approval shall be answered; ``key`` is tenant and id."""

        def __init__(self, key: tuple[str, str], approved: bool) -> None:
            super().__init__()
            self.key, self.approved = key, approved

    def action_decide(self, approved: bool) -> None:
        """Ask to answer the approval under the cursor."""
        if self.cursor_key is not None:
            tenant, approval_id = self.cursor_key
            self.post_message(self.DecisionAsked((tenant, approval_id), approved))


class DeadLettersTable(RowsTable):
    """Dead letters: replay, discard."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Session", tooltip="Open the session that it came from"),
        Binding("p", "replay", "Replay", tooltip="Send the write again under its own key (asks first)"),
        Binding("x", "discard", "Discard", tooltip="Close it: nobody wants it any more (asks first)"),
    ]

    class ReplayAsked(Message):
        """A dead letter shall be sent again; ``key`` is tenant and id."""

        def __init__(self, key: tuple[str, ...]) -> None:
            super().__init__()
            self.key = key

    class DiscardAsked(Message):
        """A dead letter shall be closed; ``key`` is tenant and id."""

        def __init__(self, key: tuple[str, ...]) -> None:
            super().__init__()
            self.key = key

    def action_replay(self) -> None:
        """Ask to send the letter under the cursor again."""
        if self.cursor_key is not None:
            self.post_message(self.ReplayAsked(self.cursor_key))

    def action_discard(self) -> None:
        """Ask to close the letter under the cursor."""
        if self.cursor_key is not None:
            self.post_message(self.DiscardAsked(self.cursor_key))
