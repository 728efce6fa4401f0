"""A session's page: its runs and steps, live."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from pilothouse_tui.data.retry import batches
from pilothouse_tui.model import FLEET, Approval, Link, SessionDetail, SessionUpdate
from pilothouse_tui.render.detail import session_lines
from pilothouse_tui.render.header import link_cell
from pilothouse_tui.render.style import DIM
from pilothouse_tui.render.table import Cell
from pilothouse_tui.screens.base import LiveScreen, Shared
from pilothouse_tui.state import link_after
from pilothouse_tui.widgets.page import Page


class SessionScreen(LiveScreen):
    """Follows one session while it is open."""

    AUTO_FOCUS = "Page"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "app.pop_screen", "Back", tooltip="Back to the overview"),
    ]

    class Received(Message):
        """Updates of this session."""

        def __init__(self, updates: list[SessionUpdate]) -> None:
            super().__init__()
            self.updates = updates

    def __init__(self, shared: Shared, tenant: str, session_id: str) -> None:
        super().__init__(shared)
        self._tenant, self._session_id = tenant, session_id
        self._detail: SessionDetail | None = None
        self._link = Link(FLEET)

    def compose_body(self) -> ComposeResult:
        yield Page()

    def on_mount(self) -> None:
        self.run_worker(self._follow(), exclusive=True)
        self.show()

    async def _follow(self) -> None:
        async with aclosing(batches(self.shared.sources.session(self._tenant, self._session_id), 0.1)) as stream:
            async for updates in stream:
                self.post_message(self.Received(updates))

    def on_session_screen_received(self, event: Received) -> None:
        for update in event.updates:
            if isinstance(update, SessionDetail):
                self._detail = update
            else:
                self._link = link_after(self._link, update, self.shared.clock())
        self.show()

    def show_body(self, now: datetime) -> None:
        if self._detail is None:
            # What the overview knows already is shown while the runs are on their way.
            session = self.shared.fleet.sessions.get((self._tenant, self._session_id))
            known = session_lines(SessionDetail(session), now)[:2] if session else []
            lines = [*known, [], [Cell(self._link.message or "Reading its runs…", DIM)]]
        else:
            lines = session_lines(self._detail, now, self._approvals())
        if not self._link.up and self._link.message:
            lines = [[link_cell(self._link, now)], *lines]
        self.query_one(Page).show(lines, f"{self._tenant} · {self._session_id}")

    def _approvals(self) -> list[Approval]:
        key = (self._tenant, self._session_id)
        return [a for a in self.shared.fleet.approvals.values() if (a.tenant, a.session_id) == key]
