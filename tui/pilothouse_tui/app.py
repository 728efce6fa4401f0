"""The application: owns the state, takes updates as messages, and shows them at most ten times a second.

::

    Sources ──batches──▶ Updated (message) ──▶ state.apply ──dirty──▶ flush timer (0.1 s) ──▶ screen.show()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message

from pilothouse_tui.data.retry import batches
from pilothouse_tui.data.sources import LiveSources, Sources
from pilothouse_tui.model import Fleet, Update
from pilothouse_tui.screens.approvals import ApprovalsScreen
from pilothouse_tui.screens.base import LiveScreen, Shared
from pilothouse_tui.screens.deadletters import DeadLettersScreen
from pilothouse_tui.screens.help import HelpScreen, Key
from pilothouse_tui.screens.overview import OverviewScreen
from pilothouse_tui.state import apply

FLUSH_SECONDS = 0.1
TICK_SECONDS = 1.0
"""How often ages and "retry in" are counted on while no data comes."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class PilothouseApp(App[None]):
    """The terminal UI over any ``Sources``."""

    TITLE = "Pilothouse"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", "Quit", tooltip="Leave", show=False, priority=True)
    ]

    class Updated(Message):
        """A source has news."""

        def __init__(self, updates: list[Update]) -> None:
            super().__init__()
            self.updates = updates

    def __init__(self, sources: Sources, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__()
        self.shared = Shared(Fleet(), sources, clock)
        self._dirty = False
        self._rest_until = 0.0

    def on_mount(self) -> None:
        self.push_screen(OverviewScreen(self.shared))
        self.run_worker(self._pump(self.shared.sources.kubernetes()), group="kubernetes")
        self.run_worker(self._pump(self.shared.sources.fleet()), group="fleet")
        self.set_interval(FLUSH_SECONDS, self._show_changes)
        self.set_interval(TICK_SECONDS, self._mark)

    async def _pump(self, source: AsyncIterator[Update]) -> None:
        async with aclosing(batches(source, FLUSH_SECONDS)) as stream:
            async for updates in stream:
                self.post_message(self.Updated(updates))

    def on_pilothouse_app_updated(self, event: Updated) -> None:
        apply(self.shared.fleet, event.updates, self.shared.clock())
        self._dirty = True

    def _mark(self) -> None:
        self._dirty = True

    def _show_changes(self) -> None:
        started = time.monotonic()
        if self._dirty and started >= self._rest_until and isinstance(self.screen, LiveScreen):
            self._dirty = False
            self.screen.show()
            # On a busy machine keys come first: showing takes a quarter of the time at most.
            self._rest_until = started + 4 * (time.monotonic() - started)

    def action_approvals(self) -> None:
        """Open the approvals."""
        self._open(ApprovalsScreen)

    def action_dead_letters(self) -> None:
        """Open the dead letters."""
        self._open(DeadLettersScreen)

    def _open(self, kind: type[LiveScreen]) -> None:
        # One that is open already is gone back to, so that 4 and 5 pressed in turn don't pile up screens.
        while any(isinstance(screen, kind) for screen in self.screen_stack):
            if isinstance(self.screen, kind):
                return
            self.pop_screen()
        self.push_screen(kind(self.shared))

    def action_help(self) -> None:
        """Show the keys of the screen, and of the widget with the focus."""
        keys: dict[str, tuple[list[str], str]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            action = binding.action.removeprefix("app.")
            if binding.tooltip and action != "help_quit":
                names, _ = keys.setdefault(action, ([], binding.tooltip))
                names.append(self.get_key_display(binding))
        lines: list[Key] = [(" ".join(dict.fromkeys(names)), what) for names, what in keys.values()]
        self.push_screen(HelpScreen(lines))


def run(kubeconfig: str = "", context: str = "", fleet_address: str = "") -> None:
    """Run the terminal UI until the person leaves. Raises ConfigurationError where no cluster is configured."""
    from pilothouse_tui.data.fleet import FleetClient
    from pilothouse_tui.data.kube import KubeClient

    async def main() -> None:
        async with KubeClient.from_environment(kubeconfig, context) as kube:
            await PilothouseApp(LiveSources(kube, FleetClient(kube, fleet_address))).run_async()

    asyncio.run(main())
