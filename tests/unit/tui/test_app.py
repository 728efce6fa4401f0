"""The application, driven with keys, on fake sources."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from textual.pilot import Pilot

from pilothouse_testing.tui_fakes import DETAIL, NOW, OBJECTS, SESSIONS, FakeSources, many
from pilothouse_tui.app import PilothouseApp
from pilothouse_tui.model import FLEET, Connected, FleetSnapshot, Lost, RunOutcome
from pilothouse_tui.screens.help import HelpScreen
from pilothouse_tui.screens.overview import OverviewScreen
from pilothouse_tui.screens.session import SessionScreen
from pilothouse_tui.screens.tenant import TenantScreen
from pilothouse_tui.widgets.bars import HeaderLine, ProblemLines
from pilothouse_tui.widgets.rows import RowsTable


@asynccontextmanager
async def running(
    sources: FakeSources, size: tuple[int, int] = (132, 34)
) -> AsyncIterator[tuple[PilothouseApp, Pilot[None]]]:
    app = PilothouseApp(sources, clock=lambda: NOW)
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.4)
        yield app, pilot


def table(app: PilothouseApp, name: str) -> RowsTable:
    return app.screen.query_one(f"#{name}", RowsTable)


async def test_enter_opens_a_session_that_stays_live_and_escape_closes_its_stream() -> None:
    sources = FakeSources()
    async with running(sources) as (app, pilot):
        await pilot.press("down", "enter")
        await pilot.pause(0.3)
        assert isinstance(app.screen, SessionScreen)
        assert sources.opened == [("globex", "s-19ab40")]
        done = replace(DETAIL.runs[2], running=False, outcome=RunOutcome.ANSWERED)
        sources.push_session(replace(DETAIL, runs=(done,)))
        await pilot.pause(0.3)
        assert "Run 1 answered" in app.export_screenshot().replace("&#160;", " ")
        await pilot.press("escape")
        await pilot.pause(0.2)
        assert isinstance(app.screen, OverviewScreen)
        assert sources.closed == sources.opened


async def test_enter_opens_a_tenant_from_tenants_and_from_breakers() -> None:
    async with running(FakeSources()) as (app, pilot):
        for panel in ("1", "2"):
            await pilot.press(panel, "enter")
            await pilot.pause(0.2)
            assert isinstance(app.screen, TenantScreen)
            await pilot.press("escape")
        assert isinstance(app.screen, OverviewScreen)


async def test_filter_sort_live_zoom_and_help() -> None:
    async with running(FakeSources()) as (app, pilot):
        await pilot.press("slash", *"acme", "enter")
        await pilot.pause(0.2)
        assert table(app, "sessions").row_count == 3
        assert table(app, "sessions").has_focus
        await pilot.press("escape")
        await pilot.pause(0.1)
        assert table(app, "sessions").row_count == len(SESSIONS)
        await pilot.press("a")
        assert table(app, "sessions").row_count == 3
        await pilot.press("a", "s", "S")
        assert table(app, "sessions").sort.descending
        assert table(app, "sessions").sort.column == 1
        await pilot.press("z")
        await pilot.pause(0.1)
        assert not table(app, "tenants").display
        await pilot.press("escape", "tab")
        await pilot.pause(0.1)
        assert table(app, "tenants").display
        assert table(app, "tenants").has_focus
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape", "q")


async def test_the_cursor_stays_on_its_session_when_the_order_changes() -> None:
    sources = FakeSources()
    async with running(sources) as (app, pilot):
        await pilot.press("down", "down")
        key = table(app, "sessions").cursor_key
        sources.push_fleet(replace(SESSIONS[5], active=True, last_event=NOW))
        await pilot.pause(0.4)
        assert table(app, "sessions").cursor_key == key


async def test_a_lost_fleet_is_shown_as_stale_with_its_last_data() -> None:
    sources = FakeSources()
    async with running(sources) as (app, pilot):
        sources.push_fleet(Lost(FLEET, "The gateway went away.", "Wait.", 3.0))
        await pilot.pause(0.4)
        assert "stale" in str(app.screen.query_one(HeaderLine).content)
        assert app.screen.query_one(ProblemLines).display
        assert table(app, "sessions").row_count == len(SESSIONS)
        sources.push_fleet(Connected(FLEET), FleetSnapshot())
        await pilot.pause(0.4)
        assert not app.screen.query_one(ProblemLines).display
        assert table(app, "sessions").row_count == 0


async def test_a_short_terminal_shows_one_table_at_a_time() -> None:
    async with running(FakeSources(), (60, 16)) as (app, pilot):
        assert [table(app, n).display for n in ("tenants", "sessions")] == [False, True]
        await pilot.press("1")
        await pilot.pause(0.1)
        assert [table(app, n).display for n in ("tenants", "sessions")] == [True, False]


async def test_a_click_on_a_head_sorts_and_on_a_line_selects() -> None:
    async with running(FakeSources()) as (app, pilot):
        await pilot.click("#tenants", offset=(3, 1))
        assert table(app, "tenants").sort.column == 0
        await pilot.click("#tenants", offset=(3, 3))
        await pilot.pause(0.1)
        assert table(app, "tenants").cursor_key == ("globex", "globex")


async def test_it_stays_quick_with_350_tenants_and_2000_sessions() -> None:
    objects, snapshot = many(350, 2000)
    sources = FakeSources(objects, snapshot)
    async with running(sources) as (app, pilot):
        await pilot.press("end")
        assert table(app, "sessions").row_count == 2000
        started = time.process_time()
        for _ in range(10):
            app.screen.show()  # type: ignore[attr-defined]
        # Ten shows are one second of the fastest rate: a fraction of it, where nothing grows with the square.
        assert time.process_time() - started < 2.5
    assert len(objects) > len(OBJECTS)
