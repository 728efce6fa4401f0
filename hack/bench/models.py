"""What models reach: the gateway's price, what a day costs, a provider that dies, and exact limits.

``BENCH_PARTS`` (for example ``overhead,limits``) runs only some of the parts; then RESULTS.md stays as it is. A part is
a module of ``models_parts`` with ``figures()``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator

from results import Figure

_PARTS = ("overhead", "day", "dying", "limits")


def run() -> Iterator[Figure]:
    """Yields the eleven figures; raises what kept it from measuring."""
    for part in os.environ.get("BENCH_PARTS", ",".join(_PARTS)).split(","):
        if part:
            yield from importlib.import_module(f"models_parts.{part}").figures()
