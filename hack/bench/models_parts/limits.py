"""A million limit decisions by four workers against one real Valkey: exact, and what one costs.

Four processes with 16 askers each reserve and settle for one tenant whose limits they exceed many times over: requests
a minute are admitted, tokens a minute and the day's money reserved by the worst case and settled with less. What was
let through is written down by the askers, on a clock that all processes share, and judged afterwards, minute by minute.
So a limit that lets more through than it says is seen whatever it says of itself.

``limit_decision_p50`` is the wait of a caller whose decision goes alone, without another at that time: a whole round
trip. Among others in one batch a decision costs less of everybody's time and a caller waits longer; both are in detail.

``python hack/bench/models_parts/limits.py`` runs it alone; BENCH_DECISIONS says how many (default 1,000,000).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from results import Figure

from pilothouse_api.workerconfig import LimitsConfig
from pilothouse_dataplane.memory.short_term import connect
from pilothouse_dataplane.models.limits import LimitReached, Limits
from pilothouse_local import stores

DECISIONS = int(os.environ.get("BENCH_DECISIONS", "1000000"))
_WORKERS, _ASKERS, _USERS = 4, 16, 64
_ALONE = 5_000
_RESERVED, _USED = 5_000, (600, 2_600)
"""Tokens of a call, by the worst case and really (from, to)."""
_MICROS = 30
"""A token's price."""
CONFIG = LimitsConfig(
    requests_per_minute=6_000,
    tokens_per_minute=20_000_000,
    concurrent_runs=0,
    daily_budget_micros=900_000_000,
    soft_budget_percent=100,
    user_requests_per_minute=500,
)


def figures() -> list[Figure]:
    """Raises what kept it from measuring; RuntimeError where a worker lost its Redis."""
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        server = subprocess.Popen(
            [str(stores.valkey_program()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            url = f"redis://127.0.0.1:{port}/0"
            alone = asyncio.run(_alone(url))
            together = _together(url, Path(folder))
        finally:
            server.terminate()
            server.wait()
    return [_overshoot(together), _decision(alone, together)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _limits(url: str, tenant: str, worker: str) -> Limits:
    return Limits(connect(url), tenant, worker, CONFIG, max_workers=_WORKERS, clock=time.monotonic, wall=time.time)


async def _alone(url: str) -> list[float]:
    """Sorted waits of callers one after the other, seconds."""
    await _answers(url)
    limits = _limits(url, "alone", "w")
    await limits.start()
    waits = []
    for number in range(_ALONE + 500):
        began = time.perf_counter()
        reservation = await limits.reserve(f"u{number % _USERS}", 50, 100)
        if number >= 500:
            waits.append(time.perf_counter() - began)
        limits.settle(reservation, 50, 100)
        if number % 10 == 0:
            await asyncio.sleep(0.001)  # as in life: what is told leaves before the next decision
    if limits.alone:
        raise RuntimeError("Redis was away while decisions were measured alone")
    await limits.aclose()
    return sorted(waits)


async def _answers(url: str) -> None:
    client = connect(url)
    for _ in range(100):
        try:
            await client.ping()
            break
        except Exception:
            await asyncio.sleep(0.05)
    await client.aclose()


def _together(url: str, folder: Path) -> list[dict[str, object]]:
    """What each worker has seen."""
    outs = [folder / f"worker-{number}.json" for number in range(_WORKERS)]
    processes = [
        subprocess.Popen([sys.executable, __file__, "--worker", url, str(number), str(out)])
        for number, out in enumerate(outs)
    ]
    for process in processes:
        if process.wait():
            raise RuntimeError(f"a worker ended with {process.returncode}")
    return [json.loads(out.read_text()) for out in outs]


async def _work(url: str, number: int) -> dict[str, object]:
    limits = _limits(url, "together", f"w{number}")
    await limits.start()
    left = itertools.count(DECISIONS // _WORKERS, -1)
    runs: list[float] = []
    calls: list[tuple[float, int, int]] = []
    """Moment, tokens that were used, money."""
    waits: list[float] = []

    async def ask(asker: int) -> None:
        step = number * 100_003 + asker * 1_009
        while next(left) > 0:
            step += 7_919
            user = f"u{step % _USERS}"
            began = time.perf_counter()
            try:
                if step % 4 == 0:
                    await limits.admit(user)
                    runs.append(time.monotonic())
                else:
                    reservation = await limits.reserve(user, _RESERVED, _RESERVED * _MICROS)
                    used = _USED[0] + step % (_USED[1] - _USED[0])
                    calls.append((time.monotonic(), used, used * _MICROS))
                    limits.settle(reservation, used, used * _MICROS)
            except LimitReached:
                pass
            waits.append(time.perf_counter() - began)

    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(ask(asker) for asker in range(_ASKERS)))
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    waits.sort()
    seen: dict[str, object] = {
        "runs": runs,
        "calls": calls,
        "seconds": seconds,
        "cpu": cpu,
        "decisions": len(waits),
        "p50": waits[len(waits) // 2],
        "p99": waits[len(waits) * 99 // 100],
        "alone": limits.alone,
        "round_trips": limits.round_trips,
        "refused": {reason.value: count for reason, count in limits.refused.items()},
    }
    await limits.aclose()
    return seen


def most_in_a_minute(events: Sequence[tuple[float, int]]) -> int:
    """The largest sum of what happened within any 60 s; ``events``: moment in seconds, and size."""
    ordered = sorted(events)
    most = total = first = 0
    for at, size in ordered:
        total += size
        while ordered[first][0] <= at - 60.0:
            total -= ordered[first][1]
            first += 1
        most = max(most, total)
    return most


def _overshoot(together: list[dict[str, object]]) -> Figure:
    runs = [(at, 1) for each in together for at in each["runs"]]  # type: ignore[attr-defined]
    calls = [call for each in together for call in each["calls"]]  # type: ignore[attr-defined]
    found = {
        "requests a minute": most_in_a_minute(runs) / CONFIG.requests_per_minute,
        "tokens a minute": most_in_a_minute([(at, used) for at, used, _ in calls]) / CONFIG.tokens_per_minute,
        "dollars a day": sum(cost for _, _, cost in calls) / (CONFIG.daily_budget_micros or 1),
    }
    alone = sum(int(each["alone"]) for each in together)  # type: ignore[call-overload]
    refused: dict[str, int] = {}
    for each in together:
        for reason, count in each["refused"].items():  # type: ignore[attr-defined]
            refused[reason] = refused.get(reason, 0) + count
    return Figure(
        "limit_overshoot",
        max(0.0, max(found.values()) - 1.0),
        "ratio",
        {
            "decisions": f"{sum(int(each['decisions']) for each in together):,}",  # type: ignore[call-overload]
            "workers": f"{_WORKERS} processes, {_ASKERS} askers each, {_USERS} users",
            "let through, of the limit": ", ".join(f"{name} {share:.4f}" for name, share in found.items()),
            "refused": ", ".join(f"{reason} {count:,}" for reason, count in sorted(refused.items())),
            "decided without Redis": alone,
        },
    )


def _decision(alone: list[float], together: list[dict[str, object]]) -> Figure:
    decisions = sum(int(each["decisions"]) for each in together)  # type: ignore[call-overload]
    seconds = max(float(each["seconds"]) for each in together)  # type: ignore[arg-type]
    trips = sum(int(each["round_trips"]) for each in together)  # type: ignore[call-overload]
    waits = sorted(float(each["p50"]) for each in together)  # type: ignore[arg-type]
    cpu = sum(float(each["cpu"]) for each in together)  # type: ignore[arg-type]
    return Figure(
        "limit_decision_p50",
        alone[len(alone) // 2] * 1000,
        "ms",
        {
            "measure": f"a caller's wait, {len(alone):,} decisions one after the other",
            "p99": f"{alone[len(alone) * 99 // 100] * 1000:.3f} ms",
            "batched": f"{seconds / decisions * 1000:.4f} ms of wall and {cpu / decisions * 1000:.4f} ms of CPU a "
            f"decision, all workers together; {decisions / trips:.1f} decisions a round trip",
            "a caller's wait among 64 that ask without pause, p50": f"{waits[len(waits) // 2] * 1000:.2f} ms",
        },
    )


if __name__ == "__main__":
    if "--worker" in sys.argv:
        at = sys.argv.index("--worker")
        found = asyncio.run(_work(sys.argv[at + 1], int(sys.argv[at + 2])))
        Path(sys.argv[at + 3]).write_text(json.dumps(found))
    else:
        for figure in figures():
            print(figure.line("models"))
