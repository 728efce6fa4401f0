"""The first screen: tenants, breakers and sessions."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from pilothouse_tui.model import FLEET, KUBERNETES, Breaker, BreakerMode, BreakerState, Session
from pilothouse_tui.render.costs import fallback_text, tiers_text
from pilothouse_tui.render.overview import (
    TENANTS,
    breaker_rows,
    breakers_table,
    session_rows,
    sessions_table,
    tenant_rows,
)
from pilothouse_tui.render.style import BAD, GOOD, WARN
from pilothouse_tui.render.table import Sort, Table
from pilothouse_tui.screens.base import LiveScreen, Outcome, Shared
from pilothouse_tui.screens.confirm import Question
from pilothouse_tui.screens.session import SessionScreen
from pilothouse_tui.screens.tenant import TenantScreen
from pilothouse_tui.widgets.bars import FilterBar
from pilothouse_tui.widgets.queues import BreakersTable
from pilothouse_tui.widgets.rows import RowsTable


class _Words(NamedTuple):
    verb: str
    done: str
    effect: str


_MODES = {
    BreakerMode.FORCED_OPEN: _Words(
        "Force open",
        "forced open",
        "Each call fails at once, and users read that it is down, until you give it back. For all of its workers.",
    ),
    BreakerMode.DISABLED: _Words(
        "Disable",
        "disabled",
        "Every call passes and nothing is counted, however many fail, until you give it back. For all of its workers.",
    ),
    BreakerMode.AUTOMATIC: _Words(
        "Give back", "back at its own judgement", "It starts closed and judges by the calls to come."
    ),
}
_TONE = {BreakerMode.FORCED_OPEN: BAD, BreakerMode.DISABLED: WARN, BreakerMode.AUTOMATIC: GOOD}
_PANELS = ("tenants", "breakers", "sessions")


class OverviewScreen(LiveScreen):
    """Three tables; Enter opens, ``/`` filters them all, ``z`` gives one the whole screen."""

    AUTO_FOCUS = "#sessions"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Show only lines that hold these words"),
        Binding("a", "toggle_live", "Live/all", tooltip="Sessions: only those at work or waiting, or all"),
        Binding("z", "zoom", "Zoom", tooltip="One table over the whole screen, and back"),
        Binding("tab", "cycle(1)", "Next", tooltip="To the next table"),
        Binding("shift+tab", "cycle(-1)", "Previous", tooltip="To the table before", show=False),
        Binding("1", "panel('tenants')", "Tenants", tooltip="To the tenants", show=False),
        Binding("2", "panel('breakers')", "Breakers", tooltip="To the breakers", show=False),
        Binding("3", "panel('sessions')", "Sessions", tooltip="To the sessions", show=False),
        Binding("4", "app.approvals", "Approvals", tooltip="Writes that wait for somebody's yes"),
        Binding("5", "app.dead_letters", "Dead letters", tooltip="Writes that failed for good"),
        Binding("escape", "back", "Clear", tooltip="Leave the zoom, then empty the filter", show=False),
    ]
    DEFAULT_CSS = """
    OverviewScreen {
        #body { layout: grid; grid-size: 2 2; grid-columns: 7fr 10fr; grid-rows: 2fr 3fr; height: 1fr; }
        #sessions { column-span: 2; }
        #tenants { border-subtitle-color: #8b95a1; }
        #breakers { border-subtitle-color: #e69f00; }
        &.-narrow #body { layout: vertical; }
        &.-narrow RowsTable { height: 1fr; }
        &.-narrow #sessions { height: 2fr; }
        &.-short #body, &.-zoomed #body { layout: vertical; }
        &.-short RowsTable, &.-zoomed RowsTable { display: none; height: 1fr; }
        &.-short RowsTable.-current, &.-zoomed RowsTable.-current { display: block; height: 1fr; }
    }
    """

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._words = ""
        self._live_only = False
        self._current = "sessions"

    def compose_body(self) -> ComposeResult:
        now = self.shared.clock()
        sessions: Table[Session] = sessions_table(now)
        breakers: Table[Breaker] = breakers_table(now)
        with Container(id="body"):
            yield RowsTable(TENANTS.columns, id="tenants", empty="", sort=Sort(1))
            yield BreakersTable(breakers.columns, id="breakers", empty="", sort=Sort(0))
            yield RowsTable(sessions.columns, id="sessions", empty="", sort=Sort(0))
        yield FilterBar()

    def show_body(self, now: datetime) -> None:
        fleet, words = self.shared.fleet, self._words
        known, live = fleet.links[KUBERNETES].last_data, fleet.links[FLEET].last_data
        tenants, breakers, sessions = (self.query_one(f"#{p}", RowsTable) for p in _PANELS)
        none = "Nothing holds these words; Escape empties the filter." if words.strip() else ""
        waiting = "Waiting for data…"
        nobody = "No sessions now. Ask something: pilothouse chat"
        if self._live_only and fleet.sessions:
            nobody = "No question is under way or waits for an answer; a shows all sessions."
        tenants.show(
            tenant_rows(fleet, tenants.sort, words),
            none or ("No tenants. Create one: kubectl apply -f tenant.yaml" if known else waiting),
        )
        breakers.show(
            breaker_rows(fleet, now, breakers.sort, words),
            none or ("No breakers yet: they show with the first calls." if live else waiting),
        )
        sessions.show(
            session_rows(fleet, now, sessions.sort, words, live_only=self._live_only),
            none or (nobody if live else waiting),
        )
        active = sum(s.active for s in fleet.sessions.values())
        opened = sum(b.state in (BreakerState.OPEN, BreakerState.FORCED_OPEN) for b in fleet.breakers.values())
        tenants.border_title = f"1 Tenants · {_of(tenants.row_count, len(fleet.of_kind('Tenant')))}"
        breakers.border_title = f"2 Breakers · {opened} open of {len(fleet.breakers)}"
        tenants.border_subtitle = tiers_text(fleet)
        breakers.border_subtitle = fallback_text(fleet)
        shown = " · live only" if self._live_only else ""
        sessions.border_title = f"3 Sessions · {active} live of {len(fleet.sessions)}{shown}"

    @on(RowsTable.SortChanged)
    def _order(self) -> None:
        self.show()

    @on(RowsTable.Opened)
    def _open(self, event: RowsTable.Opened) -> None:
        if event.table.id == "sessions":
            tenant, session_id = event.key
            self.app.push_screen(SessionScreen(self.shared, tenant, session_id))
            return
        if event.table.id == "tenants":
            namespace, name = event.key
        else:
            # A breaker's reasons are its tenant's connectors and model routes.
            name = event.key[0]
            found = (t.namespace for t in self.shared.fleet.of_kind("Tenant").values() if t.name == name)
            namespace = next(found, "")
        self.app.push_screen(TenantScreen(self.shared, namespace, name))

    @on(BreakersTable.ModeAsked)
    def _set_breaker(self, event: BreakersTable.ModeAsked) -> None:
        (tenant, name), mode = event.key, event.mode
        sources = self.shared.sources

        async def work() -> Outcome:
            await sources.set_breaker(tenant, name, mode)
            return Outcome(f"{name} of {tenant} is {_MODES[mode].done} now.")

        words = _MODES[mode]
        self.act(Question(f"{words.verb} {name} of {tenant}", [words.effect], _TONE[mode]), work)

    @on(FilterBar.Edited)
    def _filter(self, event: FilterBar.Edited) -> None:
        self._words = event.words
        self.show()

    @on(FilterBar.Closed)
    def _filtered(self) -> None:
        self.action_panel(self._current)

    def on_descendant_focus(self) -> None:
        if isinstance(self.focused, RowsTable) and self.focused.id:
            self._current = self.focused.id
        for table in self.query(RowsTable):
            table.set_class(table.id == self._current, "-current")

    def action_filter(self) -> None:
        """Open the filter."""
        self.query_one(FilterBar).open()

    def action_toggle_live(self) -> None:
        """Sessions: only live ones, or all."""
        self._live_only = not self._live_only
        self.show()

    def action_zoom(self) -> None:
        """One table over the whole screen, and back."""
        self.toggle_class("-zoomed")

    def action_cycle(self, step: int) -> None:
        """To the next table."""
        self.action_panel(_PANELS[(_PANELS.index(self._current) + step) % len(_PANELS)])

    def action_panel(self, name: str) -> None:
        """To a table; in a short terminal it takes the place of the one that was shown."""
        self._current = name
        for table in self.query(RowsTable):
            table.set_class(table.id == name, "-current")
        self.query_one(f"#{name}", RowsTable).focus()

    def action_back(self) -> None:
        """Leave the zoom, then empty the filter."""
        if self.has_class("-zoomed"):
            self.remove_class("-zoomed")
        else:
            self.query_one(FilterBar).action_clear()


def _of(shown: int, total: int) -> str:
    return str(total) if shown >= total else f"{shown} of {total}"
