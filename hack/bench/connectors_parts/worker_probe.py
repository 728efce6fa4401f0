"""``python worker_probe.py CONFIG_DIR REQUESTS``: a worker without a server; prints its times and memory as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pilothouse_dataplane.worker.server  # noqa: F401 - what a worker has imported before it reads a configuration
from pilothouse_dataplane.connectors.base import CallContext
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.worker import logs
from pilothouse_dataplane.worker.config import check, read_files
from pilothouse_dataplane.worker.runtime import StoreKeeper, build_runtime


def _memory_kb() -> int:
    """Proportional set size of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel gives no Pss")


async def _use(toolset: Toolset, requests: list[dict[str, Any]]) -> None:
    """Choose for each request, and call each tool as a user who has linked no account."""
    for one in requests:
        toolset.catalog.choose(one["request"], one.get("earlier", ()))
    for tool in toolset.tools:
        report = await toolset.call(tool, {}, CallContext("erin@acme.example", "run/s1", time.monotonic() + 5))
        if report.sent:
            raise RuntimeError(f"{tool.name} was sent")


async def _main(directory: Path, requests: list[dict[str, Any]]) -> None:
    guards = GuardRegistry(time.monotonic)
    keeper = StoreKeeper("bench", guards)
    began, cpu = time.perf_counter(), time.process_time()
    runtime = build_runtime(check(read_files(directory)), guards, keeper)
    await runtime.toolset.start(wait=0.0)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    started = _memory_kb()
    await _use(runtime.toolset, requests)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": cpu,
                "started": started,
                "used": _memory_kb(),
                "tools": len(runtime.toolset.tools),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    logs.configure(worker="bench")
    asyncio.run(_main(Path(sys.argv[1]), [json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]))
