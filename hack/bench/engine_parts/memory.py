"""How much a worker grows for each run in flight: a few hundred runs wait for their answer's first token."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
from results import Figure

from engine_parts import client
from engine_parts.overhead import TEXT, through
from engine_parts.processes import config, memory_kb, stand_in, worker
from engine_parts.stores import Stores

RUNS = 300
HELD_SECONDS = 25.0
"""Of the answer's model call: 40% of it, before the first token, is the time to look."""
ASKED_WITHIN = 2.0
"""Seconds over which the runs begin."""
WARM_UP = 200


def measure(root: Path, stores: Stores) -> Iterator[Figure]:
    """The figure."""
    with (
        stand_in("bench-models", root) as models,
        stand_in("bench-jira", root) as jira,
        worker(root, "memory", config("acme", models.url, jira.url), stores) as target,
    ):
        asyncio.run(through(target, WARM_UP))
        time.sleep(2.0)
        idle = memory_kb(target.pid)
        models.pace(answer=(HELD_SECONDS, HELD_SECONDS))
        held, phases = asyncio.run(_hold(target.address, target.tenant, target.pid))
        flying = sum(count for kind, count in phases.items() if not kind.startswith("ended"))
        yield Figure(
            "memory_per_run_in_flight",
            (held - idle) / max(1, flying),
            "KB",
            {
                "idle": f"{idle / 1024:.1f} MB after {WARM_UP} runs, ten at a time",
                f"{flying} in flight": f"{held / 1024:.1f} MB",
                "where they were": ", ".join(f"{kind} {count}" for kind, count in phases.most_common()),
                "measure": "PSS; each run holds a plan, three results, a gRPC stream and a connection to the model",
            },
        )


async def _hold(address: str, tenant: str, pid: int) -> tuple[int, Counter[str]]:
    """Memory with all runs under way, and the last event that each had told."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = client.stub_of(channel)
        seen: list[client.Seen] = []
        tasks: list[asyncio.Task[client.Seen]] = []
        for _ in range(RUNS):
            request = client.ask(tenant, TEXT)
            seen.append(client.Seen(request.ask.run_id, time.monotonic()))
            tasks.append(asyncio.create_task(client.converse(stub, request, seen[-1])))
            await asyncio.sleep(ASKED_WITHIN / RUNS)
        # all have planned and acted long before: until then they wait for nothing
        await asyncio.sleep(HELD_SECONDS * 0.3)
        phases = Counter(
            f"ended ({told.problem})" if told.ended else told.events[-1][1] if told.events else "asked" for told in seen
        )
        held = memory_kb(pid)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return held, phases
