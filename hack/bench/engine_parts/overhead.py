"""The worker's own price: CPU a run beside a bare script of the official SDK, wall time beside a lean script.

All three make the same calls against the same scripted stand-ins: one plan of three reads, the reads side by side, one
streamed answer. Their rounds alternate, so that a change of the machine's speed meets all of them.

Ledger, events, spans and breakers are on. CPU is taken without any latency. Added wall time is taken with model calls
of a fixed time, ten runs at a time: without one, ten at a time are a queue before one busy process, and a figure of
that says only its CPU again (it is in ``detail`` as ``saturated``). The ten are spread evenly over a run's time: of a
fixed time, they would go on in step.
Tools take no time there, so that early starts don't hide what the worker adds.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
from results import Figure

from engine_parts import client
from engine_parts.chain import quantile
from engine_parts.processes import TOKEN, StandIn, WorkerProcess, config, cpu_seconds, stand_in, worker
from engine_parts.stores import Stores
from pilothouse_dataplane.connectors.jira.tools import jira_tools

TEXT = "Compare IT-1, IT-2 and IT-3."
AT_A_TIME = 10
WARM_UP = 50
ROUNDS = 3
RUNS_A_ROUND = 120
MODEL_SECONDS = 0.2
"""Of each of the two model calls, where wall time is taken."""
_IDLE_SECONDS = 3.0
_SCRIPT = Path(__file__).parent / "bare.py"


class Bare:
    """One of the bare scripts, in its own process."""

    def __init__(self, kind: str, models: StandIn, jira: StandIn) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        tools = [
            {
                "type": "function",
                "function": {
                    "name": tool.model_name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in jira_tools("jira")
        ]
        # as long as the worker's own system message
        work = {"system": "You help Acme's employees. " * 40, "text": TEXT, "model": "bench-power", "tools": tools}
        self._say({**work, "models": models.url, "jira": jira.url, "token": TOKEN})

    def run(self, runs: int, spread: float = 0.0) -> dict[str, Any]:
        """``{"cpu": seconds, "walls": [seconds, …]}``."""
        self._say({"runs": runs, "at_a_time": AT_A_TIME, "spread": spread})
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """It ends with its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


async def through(target: WorkerProcess, runs: int, spread: float = 0.0) -> list[client.Seen]:
    """So many runs through the worker, ten at a time. Raises RuntimeError where one does not end as it should."""
    seen: list[client.Seen] = []
    left = iter(range(runs))
    async with grpc.aio.insecure_channel(target.address) as channel:
        stub = client.stub_of(channel)

        async def lane(number: int) -> None:
            await asyncio.sleep(spread * number / AT_A_TIME)
            for _ in left:
                seen.append(await client.converse(stub, client.ask(target.tenant, TEXT)))

        await asyncio.gather(*(lane(number) for number in range(AT_A_TIME)))
    failed = [one.problem for one in seen if one.problem]
    if failed:
        raise RuntimeError(f"{len(failed)} of {runs} runs failed: {failed[0]}")
    return seen


def measure(root: Path, stores: Stores) -> Iterator[Figure]:
    """The three figures."""
    with (
        stand_in("bench-models", root) as models,
        stand_in("bench-jira", root) as jira,
        worker(root, "overhead", config("acme", models.url, jira.url), stores, collector=jira.url) as target,
    ):
        scripts = {kind: Bare(kind, models, jira) for kind in ("sdk", "lean")}
        try:
            yield from _measure(target, scripts, models)
        finally:
            for script in scripts.values():
                script.close()


def _measure(target: WorkerProcess, scripts: dict[str, Bare], models: StandIn) -> Iterator[Figure]:
    asyncio.run(through(target, WARM_UP))
    for script in scripts.values():
        script.run(WARM_UP)
    idle_rate = _idle(target.pid)

    cpu = {"sdk": 0.0, "lean": 0.0, "worker": 0.0}
    saturated: dict[str, list[float]] = {"lean": [], "worker": []}
    for _ in range(ROUNDS):
        cpu["sdk"] += scripts["sdk"].run(RUNS_A_ROUND)["cpu"]
        before, began = cpu_seconds(target.pid), time.monotonic()
        saturated["worker"] += [one.seconds for one in asyncio.run(through(target, RUNS_A_ROUND))]
        time.sleep(0.3)  # what a run leaves to do (events, ledger, spans) belongs to it
        cpu["worker"] += cpu_seconds(target.pid) - before - idle_rate * (time.monotonic() - began)
        told = scripts["lean"].run(RUNS_A_ROUND)
        cpu["lean"] += told["cpu"]
        saturated["lean"] += told["walls"]
    runs = ROUNDS * RUNS_A_ROUND
    per_run = {kind: round(seconds / runs * 1000, 2) for kind, seconds in cpu.items()}
    yield Figure(
        "cpu_ratio_to_bare_sdk_script",
        cpu["worker"] / cpu["sdk"],
        "ratio",
        {
            "worker": f"{per_run['worker']} ms a run",
            "openai SDK + httpx2": f"{per_run['sdk']} ms",
            "aiohttp + orjson": f"{per_run['lean']} ms",
            "idle worker": f"{idle_rate * 1000:.1f} ms/s, subtracted",
            "on": "ledger, events, spans, breakers",
            "runs": f"{runs} each in {ROUNDS} alternating rounds, {AT_A_TIME} at a time, no latency",
        },
    )

    models.pace(plan=(MODEL_SECONDS, MODEL_SECONDS), answer=(MODEL_SECONDS, MODEL_SECONDS))
    walls: dict[str, list[float]] = {"lean": [], "worker": []}
    seen: list[client.Seen] = []
    for _ in range(ROUNDS):
        walls["lean"] += scripts["lean"].run(RUNS_A_ROUND, 2 * MODEL_SECONDS)["walls"]
        seen += asyncio.run(through(target, RUNS_A_ROUND, 2 * MODEL_SECONDS))
    walls["worker"] = [one.seconds for one in seen]
    accepted = [at * 1000 for one in seen if (at := one.first(frozenset({"accepted"}))) is not None]
    own = [float(one.last.final.time.pilothouse_ms) for one in seen if one.last is not None]
    for name, share in (("added_p50", 0.5), ("added_p99", 0.99)):
        through_worker, lean = (quantile(walls[kind], share) * 1000 for kind in ("worker", "lean"))
        full = {kind: quantile(saturated[kind], share) * 1000 for kind in saturated}
        yield Figure(
            name,
            through_worker - lean,
            "ms",
            {
                "worker": f"{through_worker:.1f} ms",
                "lean script": f"{lean:.1f} ms",
                "of the worker's": f"{quantile(accepted, share):.1f} ms until it accepts, "
                f"{quantile(own, share):.0f} ms by its own count outside of model and tools",
                "measure": f"difference of the two distributions' {name[6:]}, client to client, gRPC included",
                "runs": f"{runs} each, {AT_A_TIME} at a time, two model calls of {MODEL_SECONDS * 1000:.0f} ms each",
                "saturated": f"without latency: worker {full['worker']:.0f} ms, lean {full['lean']:.0f} ms",
            },
        )


def _idle(pid: int) -> float:
    """CPU seconds a second of a worker that has nothing to do."""
    time.sleep(1.0)
    before = cpu_seconds(pid)
    time.sleep(_IDLE_SECONDS)
    return (cpu_seconds(pid) - before) / _IDLE_SECONDS
