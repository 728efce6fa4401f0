"""Approvals: what waits for somebody's yes, live."""

from __future__ import annotations

from datetime import datetime

from textual import on

from pilothouse_tui.model import FLEET, DecideOutcome
from pilothouse_tui.render.approvals import RESULTS, approval_lines, approval_page, approvals_table, asked
from pilothouse_tui.render.style import BAD, DIM, GOOD
from pilothouse_tui.render.table import Cell, Sort
from pilothouse_tui.render.text import one_line
from pilothouse_tui.screens.base import Outcome
from pilothouse_tui.screens.confirm import Question
from pilothouse_tui.screens.queue import QueueScreen
from pilothouse_tui.screens.session import SessionScreen
from pilothouse_tui.widgets.page import Page
from pilothouse_tui.widgets.queues import ApprovalsTable
from pilothouse_tui.widgets.rows import RowsTable

_ROOM = 4_000
"""Characters of the arguments in the question."""


class ApprovalsScreen(QueueScreen):
    """The approvals that wait; the application's watch keeps them live."""

    def make_table(self) -> RowsTable:
        columns = approvals_table(self.shared.clock()).columns
        return ApprovalsTable(columns, id="approvals", empty="", sort=Sort(0))

    def show_body(self, now: datetime) -> None:
        fleet, table = self.shared.fleet, self.query_one(ApprovalsTable)
        none = "Nothing holds these words; Escape empties the filter." if self.words.strip() else ""
        idle = "No approval waits." if fleet.links[FLEET].last_data else "Waiting for data…"
        table.show(approvals_table(now).rows(fleet.approvals.values(), table.sort, self.words), none or idle)
        shown = f"{table.row_count} of " if table.row_count < len(fleet.approvals) else ""
        table.border_title = f"4 Approvals · {shown}{len(fleet.approvals)}"
        self.show_detail(now)

    def show_detail(self, now: datetime) -> None:
        key = self.query_one(ApprovalsTable).cursor_key
        approval = self.shared.fleet.approvals.get((key[0], key[1])) if key else None
        if approval is None:
            self.query_one(Page).show([[Cell("Nothing is chosen.", DIM)]], "Detail")
        else:
            self.query_one(Page).show(approval_page(approval, now), one_line(approval.tool))

    @on(RowsTable.Opened)
    def _open(self, event: RowsTable.Opened) -> None:
        approval = self.shared.fleet.approvals.get((event.key[0], event.key[1]))
        if approval is not None and approval.session_id:
            self.app.push_screen(SessionScreen(self.shared, approval.tenant, approval.session_id))

    @on(ApprovalsTable.DecisionAsked)
    def _decide(self, event: ApprovalsTable.DecisionAsked) -> None:
        approval = self.shared.fleet.approvals.get(event.key)
        if approval is None:
            return
        sources, approved = self.shared.sources, event.approved

        async def work() -> Outcome:
            done = await sources.decide(approval.tenant, approval.approval_id, approved)
            good = done.outcome is DecideOutcome.DECIDED
            word = "Approved" if approved else "Refused"
            said = one_line(done.message) or RESULTS[done.outcome] or f"{word}: {approval.tool}."
            return Outcome(said, good)

        doing = f"{'Approve' if approved else 'Refuse'} {one_line(approval.tool)} at {approval.tenant}"
        effects = [f"You answer for {asked(approval)}; your name is recorded."]
        if not approved:
            effects.append("The write is not made, and the user is told.")
        details = approval_lines(approval, self.shared.clock(), room=_ROOM)
        self.act(Question(doing, effects, GOOD if approved else BAD, details), work)
