"""Make docs/images/tui.svg: Textual's own SVG export of the overview.

Run it from the repository's root: ``python hack/generators/picture.py [--live] [FILE]``. With ``--live`` it shows the
cluster of the current kubeconfig, as the README's picture does; without, fixed sample data, which give the same file.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path

from pilothouse_testing.tui_fakes import NOW, FakeSources
from pilothouse_tui.app import PilothouseApp
from pilothouse_tui.data.fleet import FleetClient
from pilothouse_tui.data.kube import KubeClient
from pilothouse_tui.data.sources import LiveSources

SIZE = (132, 34)


async def picture(app: PilothouseApp, settle: float) -> str:
    """The app's first screen as SVG, ``settle`` seconds after its start."""
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(settle)
        svg = app.export_screenshot(title="pilothouse tui")
    # Rich names the picture's classes by a hash that differs from run to run; a fixed one keeps the file stable.
    return re.sub(r"terminal-\d+", "terminal-tui", svg)


async def live_picture() -> str:
    """The picture of the cluster that the kubeconfig names."""
    async with KubeClient.from_environment() as kube:
        return await picture(PilothouseApp(LiveSources(kube, FleetClient(kube, ""))), settle=4)


def main() -> None:
    """Write the picture."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", action="store_true", help="show the current cluster, not the sample data")
    parser.add_argument("file", nargs="?", type=Path, default=root / "docs" / "images" / "tui.svg")
    given = parser.parse_args()
    sample = PilothouseApp(FakeSources(), clock=lambda: NOW)
    svg = asyncio.run(live_picture() if given.live else picture(sample, settle=1))
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
