"""The header's line: where we look, and whether what is shown is fresh."""

from __future__ import annotations

from datetime import datetime
from math import ceil

from pilothouse_tui.model import FLEET, KUBERNETES, Fleet, Link
from pilothouse_tui.render.overview import total_cost
from pilothouse_tui.render.style import BAD, BUSY, DIM, GOOD, STRONG, WAITING, WARN
from pilothouse_tui.render.table import Cell
from pilothouse_tui.render.text import age


def link_cell(link: Link, now: datetime) -> Cell:
    """``● Fleet``, ``… Fleet connecting``, ``○ Fleet stale 12s, retry in 3s``, ``✗ Fleet down, retry in 3s``."""
    if link.up:
        return Cell(f"● {link.source}", GOOD)
    if link.retry_at is None and not link.message:
        return Cell(f"… {link.source} connecting", BUSY)
    wait = ceil((link.retry_at - now).total_seconds()) if link.retry_at else 0
    retry = f"retry in {wait}s" if wait > 0 else "retrying"
    if link.last_data is None:
        return Cell(f"✗ {link.source} down, {retry}", BAD)
    return Cell(f"○ {link.source} stale {age(link.last_data, now)}, {retry}", WARN)


def header(fleet: Fleet, name: str, now: datetime, width: int) -> list[Cell]:
    """The header's cells; a narrow terminal loses the product's name first, then the total's details."""
    links = [link_cell(fleet.links[s], now) for s in (KUBERNETES, FLEET)]
    total = total_cost(fleet)
    if width < 100:
        total = total.split(" · ")[0]
        links = [Cell(c.text.replace(KUBERNETES, "K8s"), c.style) for c in links]
    cells = [Cell("Pilothouse ", STRONG), Cell(f"{name}  ", DIM)] if width >= 80 else []
    for link in links:
        cells += [link, Cell("  ")]
    if waiting := len(fleet.approvals):
        word = "" if width < 80 else f" approval{'s' if waiting != 1 else ''}"
        cells.append(Cell(f"{WAITING.symbol} {waiting}{word}  ", WAITING.style))
    return [*cells, Cell(total, STRONG)]


def problems(fleet: Fleet) -> list[Cell]:
    """What is wrong with a link and what to do, a line each; empty where all is well."""
    found: dict[str, list[str]] = {}
    for link in fleet.links.values():
        if not link.up and link.message:
            found.setdefault(f"{link.message} {link.to_do}".strip(), []).append(link.source)
    # A cluster that is gone takes Fleet with it: one reason is told once.
    return [Cell(f"{', '.join(sources)}: {message}", WARN) for message, sources in found.items()]
