"""What connectors reach: the wrappers' price, a worker with 20 connectors and 400 tools, and the choice of tools.

``BENCH_PARTS`` (for example ``wrappers,recall``) runs only some of the parts; then RESULTS.md stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from connectors_parts import growth, recall, wrappers
from results import Figure


def _wrappers() -> Iterator[Figure]:
    found = wrappers.measure()
    yield Figure(
        "wrappers_cpu_p50",
        found["wrappers_cpu_p50"],
        "ms",
        {
            "p95": f"{found['wrappers_cpu_p95']:.3f} ms",
            "calls": found["calls"],
            "on": "audit, allow/deny, approval, validation both ways, cache (missing), retry, rate limit, bulkhead, "
            "breaker, credentials",
            "measure": f"CPU of the process beside the bare connector ({found['bare_cpu_p50']:.4f} ms)",
        },
    )


_PARTS: dict[str, Callable[[], Iterator[Figure]]] = {
    "wrappers": _wrappers,
    "growth": growth.measure,
    "recall": recall.measure,
}


def run() -> Iterator[Figure]:
    """Yields the four figures."""
    for part in os.environ.get("BENCH_PARTS", ",".join(_PARTS)).split(","):
        if part:
            yield from _PARTS[part]()
