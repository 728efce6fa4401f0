"""How long the local cluster takes to come up and to answer, and how much memory it needs.

Measured on a stopped instance with warm caches, in a state folder of its own unless PILOTHOUSE_STATE names one. Memory
is the proportional set size (shared pages counted once) of every process of the stack, the Pods' included.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from results import Figure

from pilothouse_local import cluster, demo, procs
from pilothouse_local.console import Console
from pilothouse_local.instance import Instance

_WORKER = "pilothouse_dataplane.worker"
_SETTLE = 3.0
"""Seconds between the answer and the look at the memory, for what starts with the first request."""


def run() -> Iterator[Figure]:
    """Yields the four figures; raises ``LocalClusterError`` when the cluster can't be brought up at all."""
    given = os.environ.get("PILOTHOUSE_STATE")
    root = Path(given).absolute() if given else Path(tempfile.mkdtemp(prefix="pilothouse-bench-"))
    os.environ["PILOTHOUSE_STATE"] = str(root)
    instance = Instance(root)
    quiet = Console(io.StringIO())
    try:
        cluster.up(instance, quiet)  # makes the database and the certificates: not what a second start costs
        cluster.down(instance, quiet)

        began = time.monotonic()
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            demo.run()
        answered = time.monotonic() - began
        yield Figure("demo_stopped_to_answered", answered, "s", {"from": "stopped, caches warm, tenant made"})

        time.sleep(_SETTLE)
        processes = [(procs.command_line(one.pid), procs.memory(one.pid)) for one in cluster.stack(instance)]
        total = sum(memory for _, memory in processes)
        yield Figure("stack_memory", total / 1e6, "MB", {"processes": len(processes), "measure": "sum of PSS"})
        workers = [memory for command, memory in processes if _WORKER in command]
        if workers:
            yield Figure("worker_memory", max(workers) / 1e6, "MB", {"workers": len(workers), "measure": "PSS"})

        cluster.down(instance, quiet)
        began = time.monotonic()
        cluster.up(instance, quiet)
        yield Figure("up_again", time.monotonic() - began, "s", {"from": "stopped, caches warm, one tenant"})
    finally:
        cluster.down(instance, quiet)
        if not given:
            shutil.rmtree(root, ignore_errors=True)
