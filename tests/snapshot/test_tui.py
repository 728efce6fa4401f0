"""Pictures of the terminal UI at fixed sizes, on fixed data and a frozen clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from pilothouse_testing.tui_fakes import NOW, FakeSources
from pilothouse_tui.app import PilothouseApp
from pilothouse_tui.model import FLEET, Lost

WIDE, NARROW, SHORT = (132, 34), (72, 30), (60, 16)


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        pytest.param(WIDE, (), id="overview"),
        pytest.param(NARROW, (), id="overview-narrow"),
        pytest.param(SHORT, (), id="overview-short"),
        pytest.param(WIDE, ("slash", "a", "c", "m", "e", "enter"), id="filtered"),
        pytest.param(WIDE, ("enter",), id="session"),
        pytest.param(WIDE, ("down", "down", "enter"), id="session-parked"),
        pytest.param(WIDE, ("1", "down", "down", "enter"), id="tenant"),
        pytest.param(WIDE, ("2", "d"), id="breaker-confirm"),
        pytest.param(WIDE, ("4",), id="approvals"),
        pytest.param(NARROW, ("4",), id="approvals-narrow"),
        pytest.param(WIDE, ("4", "a"), id="approval-confirm"),
        pytest.param(WIDE, ("5", "down"), id="dead-letters"),
        pytest.param(SHORT, ("5", "tab"), id="dead-letters-short"),
        pytest.param(WIDE, ("question_mark",), id="help"),
        pytest.param(WIDE, ("stale",), id="stale"),
    ],
)
def test_screens(snap_compare: Callable[..., bool], size: tuple[int, int], keys: tuple[str, ...]) -> None:
    sources = FakeSources()
    app = PilothouseApp(sources, clock=lambda: NOW)

    async def before(pilot: Pilot[None]) -> None:
        await pilot.pause(0.4)
        if keys == ("stale",):
            sources.push_fleet(Lost(FLEET, "The gateway ended the connection.", "Wait: it is opened again.", 3.0))
        else:
            for key in keys:
                await pilot.press(key)
                await pilot.pause(0.1)
        await pilot.pause(0.4)

    assert snap_compare(app, terminal_size=size, run_before=before)
