"""Make docs/images/tui.svg: Textual's own SVG export of the overview, on fixed sample data.

Run it from the repository's root: ``python hack/generators/picture.py [FILE]``. The same data give the same file.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from pilothouse_testing.tui_fakes import NOW, FakeSources
from pilothouse_tui.app import PilothouseApp

SIZE = (132, 34)


async def picture(*keys: str, size: tuple[int, int] = SIZE) -> str:
    """The screen as SVG after the keys were pressed; ``size`` in columns and lines."""
    app = PilothouseApp(FakeSources(), clock=lambda: NOW)
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.5)
        await pilot.press(*keys)
        await pilot.pause(0.5)
        svg = app.export_screenshot(title="pilothouse tui")
    # Rich names the picture's classes by a hash that differs from run to run; a fixed one keeps the file stable.
    return re.sub(r"terminal-\d+", "terminal-tui", svg)


def main() -> None:
    """Write the picture."""
    root = Path(__file__).resolve().parents[2]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "docs" / "images" / "tui.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(asyncio.run(picture()), encoding="utf-8")


if __name__ == "__main__":
    main()
