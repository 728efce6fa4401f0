"""A headless Chromium of this machine, through Playwright: none is downloaded.

``$PILOTHOUSE_CHROMIUM`` names one; else it is looked for on the path. Without any, tests that ask for it are skipped,
and say so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 10_000
"""Milliseconds that a page may take to show what is expected of it."""
_POLICY = ("Content Security Policy", "Content-Security-Policy", "violates the following")


def find() -> str:
    """The browser's executable; "" where there is none."""
    named = os.environ.get("PILOTHOUSE_CHROMIUM", "")
    if named:
        return named if os.access(named, os.X_OK) else ""
    return next((path for name in _NAMES if (path := shutil.which(name))), "")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser without a window. Skips the test where there is none."""
    path = find()
    if not path:
        pytest.skip("there is no Chromium on the path, and PILOTHOUSE_CHROMIUM names none")
    async with async_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox does not work for root
        browser = await playwright.chromium.launch(
            executable_path=path, args=[*options, "--disable-dev-shm-usage", "--no-proxy-server"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Watched:
    """A page, and what it does behind a person's back."""

    page: Page
    console: list[str] = field(default_factory=list)
    """Errors and warnings, with those that no script has caught."""
    dialogs: list[str] = field(default_factory=list)
    """What a script has opened: none of ours opens any."""
    hosts: set[str] = field(default_factory=set)
    """With which the page has spoken."""
    sent_tokens: set[str] = field(default_factory=set)
    """Hosts that were sent an Authorization header."""

    @property
    def violations(self) -> list[str]:
        """Of the page's content security policy."""
        return [line for line in self.console if any(word in line for word in _POLICY)]


async def watched(context: BrowserContext) -> Watched:
    """A new page of a person's browser."""
    made = Watched(await context.new_page())
    made.page.set_default_timeout(PATIENCE)

    def asked(request: Request) -> None:
        host = urlsplit(request.url).netloc
        made.hosts.add(host)
        if "authorization" in request.headers:
            made.sent_tokens.add(host)

    async def dismissed(dialog: object) -> None:
        made.dialogs.append(str(getattr(dialog, "message", "")))
        await dialog.dismiss()  # type: ignore[attr-defined]

    made.page.on("request", asked)
    made.page.on("dialog", dismissed)
    made.page.on("pageerror", lambda error: made.console.append(f"uncaught: {error}"))
    made.page.on("console", lambda message: made.console.append(f"{message.type}: {message.text}"))
    return made
