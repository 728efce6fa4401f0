"""A tenant's page: its conditions, and those of its connectors and model routes."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from pilothouse_tui.render.detail import tenant_page
from pilothouse_tui.screens.base import LiveScreen, Shared
from pilothouse_tui.widgets.page import Page


class TenantScreen(LiveScreen):
    """Shows one tenant; the application's watch keeps it live."""

    AUTO_FOCUS = "Page"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "app.pop_screen", "Back", tooltip="Back to the overview"),
    ]

    def __init__(self, shared: Shared, namespace: str, name: str) -> None:
        super().__init__(shared)
        self._namespace, self._tenant = namespace, name

    def compose_body(self) -> ComposeResult:
        yield Page()

    def show_body(self, now: datetime) -> None:
        page = tenant_page(self.shared.fleet, self._namespace, self._tenant, now)
        self.query_one(Page).show(page, f"Tenant {self._tenant}")
