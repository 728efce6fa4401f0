"""The SRE's actions in the terminal UI, driven with keys on fake sources."""

from __future__ import annotations

import asyncio

import pytest
from textual.pilot import Pilot

from pilothouse_testing.tui_fakes import APPROVALS, LETTERS, NOW, FakeSources, ago
from pilothouse_tui.app import PilothouseApp
from pilothouse_tui.errors import AccessError
from pilothouse_tui.model import BreakerMode
from pilothouse_tui.screens.approvals import ApprovalsScreen
from pilothouse_tui.screens.confirm import ConfirmScreen
from pilothouse_tui.screens.deadletters import DeadLettersScreen
from pilothouse_tui.screens.overview import OverviewScreen
from pilothouse_tui.screens.session import SessionScreen
from pilothouse_tui.widgets.page import Page
from pilothouse_tui.widgets.rows import RowsTable


async def drive(pilot: Pilot[None], *keys: str) -> None:
    for key in keys:
        await pilot.press(key)
        await pilot.pause(0.15)


def page_text(app: PilothouseApp) -> str:
    return app.screen.query_one(Page)._shown.plain


def told(app: PilothouseApp) -> list[tuple[str, str]]:
    return [(n.severity, f"{n.title}\n{n.message}") for n in app._notifications]


async def test_an_approval_is_answered_only_after_a_second_key_and_goes() -> None:
    sources = FakeSources()
    app = PilothouseApp(sources, clock=lambda: NOW)
    async with app.run_test(size=(132, 34)) as pilot:
        await pilot.pause(0.4)
        await drive(pilot, "4")
        assert isinstance(app.screen, ApprovalsScreen)
        assert "servicenow.incident.get (s1)" in page_text(app)
        # Held down, or pressed twice by mistake: the key that asks is never the key that answers.
        await drive(pilot, "a", "a", "x", "enter")
        assert sources.asked == []
        await drive(pilot, "a")
        assert isinstance(app.screen, ConfirmScreen)
        await drive(pilot, "n", "x", "y")
        await pilot.pause(0.3)
        assert sources.asked == [("decide", "globex", APPROVALS[1].approval_id, False)]
        assert told(app)[-1][0] == "information"
        assert "Recorded" in told(app)[-1][1]
        assert app.screen.query_one(RowsTable).row_count == 1
        assert "Delete NET-57" in page_text(app)


async def test_a_refused_action_is_told_in_three_parts_and_nothing_blocks_meanwhile() -> None:
    sources = FakeSources()
    sources.refusal = AccessError("Fleet refused: no.", "The breaker was not changed.", "Ask for the right.")
    sources.gate.clear()
    app = PilothouseApp(sources, clock=lambda: NOW)
    async with app.run_test(size=(132, 34)) as pilot:
        await pilot.pause(0.4)
        await drive(pilot, "2", "down", "o", "right", "enter")
        assert isinstance(app.screen, OverviewScreen)
        await drive(pilot, "3", "enter")
        # The action is under way, and the person has gone elsewhere: it is neither waited for nor broken off.
        assert isinstance(app.screen, SessionScreen)
        assert sources.asked == [("set_breaker", "hooli", "connector/okta", BreakerMode.FORCED_OPEN)]
        assert told(app) == []
        sources.gate.set()
        await pilot.pause(0.3)
        severity, text = told(app)[-1]
        assert severity == "error"
        for part in ("Force open connector/okta of hooli", "Fleet refused: no.", "not changed", "→ Ask for the right."):
            assert part in text


@pytest.mark.parametrize(("key", "mode"), [("d", BreakerMode.DISABLED), ("u", BreakerMode.AUTOMATIC)])
async def test_breakers_are_disabled_and_given_back(key: str, mode: BreakerMode) -> None:
    sources = FakeSources()
    app = PilothouseApp(sources, clock=lambda: NOW)
    async with app.run_test(size=(132, 34)) as pilot:
        await pilot.pause(0.4)
        await drive(pilot, "2", key, "y")
        assert sources.asked == [("set_breaker", "initech", "connector/salesforce", mode)]


async def test_dead_letters_are_read_replayed_and_discarded() -> None:
    sources = FakeSources()
    app = PilothouseApp(sources, clock=lambda: NOW)
    async with app.run_test(size=(132, 34)) as pilot:
        await pilot.pause(0.4)
        await drive(pilot, "5")
        assert isinstance(app.screen, DeadLettersScreen)
        table = app.screen.query_one(RowsTable)
        assert table.row_count == 2
        assert "hooli" in str(table.border_subtitle)  # who could not be asked is not passed over
        await drive(pilot, "p", "y")
        await pilot.pause(0.3)
        assert ("replay", "initech", LETTERS[0].id, False) in sources.asked
        assert "The opportunity is updated." in told(app)[-1][1]
        assert table.row_count == 1
        await drive(pilot, "x", "y")
        await pilot.pause(0.3)
        assert ("discard", "acme", LETTERS[1].id) in sources.asked
        assert table.row_count == 0
        await drive(pilot, "a")
        await pilot.pause(0.3)
        assert table.row_count == 3
        before = len(sources.asked)
        await drive(pilot, "p")  # replayed before: nothing is asked, nothing is done
        assert len(sources.asked) == before
        assert "before" in told(app)[-1][1]


async def test_dead_letters_that_can_not_be_read_say_why_and_what_to_do() -> None:
    sources = FakeSources()
    sources.refusal = AccessError("Fleet refused.", "No dead letter was read.", "Ask for the right.")
    app = PilothouseApp(sources, clock=lambda: NOW)
    async with app.run_test(size=(132, 34)) as pilot:
        await pilot.pause(0.4)
        await drive(pilot, "5")
        await pilot.pause(0.2)
        assert page_text(app).splitlines() == ["✗ Fleet refused.", "No dead letter was read.", "→ Ask for the right."]
        sources.refusal = None
        await drive(pilot, "r")
        await pilot.pause(0.3)
        assert app.screen.query_one(RowsTable).row_count == 2


async def test_screens_lead_to_sessions_and_back_without_piling_up() -> None:
    app = PilothouseApp(FakeSources(), clock=lambda: NOW)
    async with app.run_test(size=(132, 34)) as pilot:
        await pilot.pause(0.4)
        await drive(pilot, "4", "down", "enter")
        assert isinstance(app.screen, SessionScreen)
        await pilot.pause(0.2)
        assert "Run 2 waiting" in page_text(app)
        assert "waits for boss@acme.example" in page_text(app)
        assert "approval 1 min 31 s (97%)" in page_text(app)
        depth = len(app.screen_stack)
        await drive(pilot, "5", "4", "5", "4", "5")
        assert len(app.screen_stack) <= depth + 1
        await drive(pilot, "escape", "escape", "escape", "escape")
        assert isinstance(app.screen, OverviewScreen)


async def test_filter_and_detail_of_a_queue() -> None:
    app = PilothouseApp(FakeSources(), clock=lambda: NOW)
    async with app.run_test(size=(60, 16)) as pilot:
        await pilot.pause(0.4)
        await drive(pilot, "4", "slash", *"netx", "backspace", "enter")
        assert app.screen.query_one(RowsTable).row_count == 1
        await drive(pilot, "tab")
        assert app.screen.query_one(Page).display
        assert not app.screen.query_one(RowsTable).display
        await drive(pilot, "escape")
        assert app.screen.query_one(RowsTable).has_focus
        await drive(pilot, "escape")
        assert app.screen.query_one(RowsTable).row_count == 2
        await drive(pilot, "escape")
        assert isinstance(app.screen, OverviewScreen)


async def test_ages_go_on_while_nothing_comes() -> None:
    now = [NOW]
    app = PilothouseApp(FakeSources(), clock=lambda: now[0])
    async with app.run_test(size=(132, 34)) as pilot:
        await pilot.pause(0.4)
        await drive(pilot, "4")
        assert "in 100s" in page_text(app)
        now[0] = ago(-200)
        await asyncio.sleep(1.2)
        await pilot.pause()
        assert "it counts as refused" in page_text(app)
