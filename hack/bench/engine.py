"""What the engine reaches: its price beside bare scripts, 50 requests a second, crashes, and memory.

``BENCH_PARTS`` (for example ``cpu,crash``) runs only some of the parts; then RESULTS.md stays as it is. ``BENCH_KILLS``
and ``BENCH_LOAD_SECONDS`` shorten the longest two.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from engine_parts import crash, load, memory, overhead, stores
from results import Figure

_PARTS: dict[str, Callable[[Path, stores.Stores], Iterator[Figure]]] = {
    "cpu": overhead.measure,
    "load": lambda root, one: load.measure(root, one, float(os.environ.get("BENCH_LOAD_SECONDS", "60"))),
    "crash": lambda root, one: crash.measure(root, one, int(os.environ.get("BENCH_KILLS", "1000"))),
    "memory": memory.measure,
}


def run() -> Iterator[Figure]:
    """Yields the ten figures; raises what kept it from measuring."""
    wanted = [part for part in os.environ.get("BENCH_PARTS", ",".join(_PARTS)).split(",") if part]
    root = Path(tempfile.mkdtemp(prefix="pilothouse-bench-"))
    root.chmod(0o711)  # PostgreSQL runs as another user when we are root
    try:
        with stores.running(root / "stores") as both:
            for part in wanted:
                folder = root / part
                folder.mkdir()
                yield from _PARTS[part](folder, both)
    finally:
        if os.environ.get("BENCH_KEEP"):
            print(f"logs are in {root}", flush=True)
        else:
            shutil.rmtree(root, ignore_errors=True)
