"""``kill -9`` of a worker at a random moment of each of many runs with writes; Jira's own state tells what happened.

Each run files two issues and reads one. Its worker is killed at a moment drawn evenly over a run's usual time; the
gateway's own code gives the run to another worker. One in ten of those is killed as well. Jira's stand-in takes its
time before it acts, goes on with a request whose sender is dead, and its search lags behind, so that an outcome can be
unknown, and can become known too late.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results import Figure

from engine_parts import client
from engine_parts.chain import quantile
from engine_parts.pool import Pool
from engine_parts.processes import config, stand_in, write_config
from engine_parts.stores import Stores
from pilothouse_dataplane.gateway.channels import ChannelPool
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.metrics import Metrics
from pilothouse_dataplane.gateway.routing import Affinity
from pilothouse_dataplane.gateway.runs import Run
from pilothouse_dataplane.gateway.sessions import SessionStore
from pilothouse_dataplane.gateway.settings import Settings

LANES = 8
MOMENT = 1.3
"""A kill comes within this share of a run's usual time; runs that are over before are run again."""
STAND_BY = 4
"""Workers beside those of the lanes."""
SECOND_KILL = 0.1
MODEL_SECONDS = (0.1, 0.2)
JIRA_FAULTS = {"latency_ms": [20, 120], "index_delay_seconds": 0.25}
OUTCOME_SECONDS = 40.0
TENANT = "acme"


@dataclass
class Report:
    """What happened to one run."""

    number: int
    run_id: str
    seen: str = "asked"
    """The last event that the client has seen."""
    killed_in: list[str] = field(default_factory=list)
    """``seen`` at each kill."""
    killed: tuple[str, float] | None = None
    """The worker that was killed last and when, until another one has told of the run."""
    resumed: list[float] = field(default_factory=list)
    """Seconds from each kill to the next worker's first event."""
    steps: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Tool and outcome of each step, as the client was told last."""
    outcome: str = ""
    """final, partial, or the error's code; empty: none."""
    text: str = ""

    def note(self, event: dict[str, Any]) -> None:
        """An event that the gateway hands to the client."""
        # what the dead one had sent may still come in: these two name their worker, and one of them comes first
        if self.killed is not None and event["type"] in ("accepted", "resumed") and event["worker"] != self.killed[0]:
            self.resumed.append(time.monotonic() - self.killed[1])
            self.killed = None
        self.seen = event["type"]
        for step in [event] if self.seen == "step_finished" else event.get("steps", ()):
            if "outcome" in step:
                self.steps[step["step_id"]] = (step["tool"], step["outcome"].removeprefix("STEP_OUTCOME_").lower())

    def told(self, outcome: str) -> int:
        """Writes of which the client was told this."""
        return sum(tool.endswith(".create") and said == outcome for tool, said in self.steps.values())


def text(number: int) -> str:
    """What run ``number`` is asked."""
    return f"Look at IT-1, then file “Crash {number} first part” and “Crash {number} second part”."


class _Served(SessionStore):
    """Which worker has a session's run: the gateway's store of sessions, in memory."""

    def __init__(self) -> None:
        self.by_session: dict[str, str] = {}

    async def affinity(self, tenant: str, session_id: str) -> Affinity | None:
        return None

    async def remember(self, tenant: str, session_id: str, affinity: Affinity) -> None:
        self.by_session[session_id] = affinity.worker


class Drill:
    """The runs, a few side by side, through the gateway's own dispatching and takeover."""

    def __init__(self, pool: Pool, kills: int, rng: random.Random) -> None:
        self._pool = pool
        self._rng = rng
        self._kills = kills
        self._served = _Served()
        self._settings = Settings(pod_ip="127.0.0.1", redis_url="", dev_token_key_file=Path())
        self._channels = ChannelPool(
            probe_interval=self._settings.probe_interval, silence=self._settings.worker_silence
        )
        self._dispatcher = Dispatcher(pool.directory, self._served, self._channels, wait=self._settings.no_worker_wait)
        self._metrics = Metrics()
        self._usual = [0.5]
        """Seconds of the runs that nobody hurt, newest last."""
        self._number = 0
        self.killed = 0
        self.reports: list[Report] = []
        """Of the runs that were hit."""

    async def run(self) -> None:
        """Until so many runs were hit."""
        try:
            for _ in range(5):
                await self._one(kill=False)
            await asyncio.gather(*(self._lane() for _ in range(LANES)))
        finally:
            await self._channels.close()

    async def _lane(self) -> None:
        while len(self.reports) < self._kills:
            await self._one(kill=True)

    async def _one(self, *, kill: bool) -> None:
        self._number += 1
        report = Report(self._number, f"crash-{self._number}-{self._rng.randrange(1 << 30)}")
        ask = client.ask(TENANT, text(report.number), report.run_id).ask

        async def emit(event: dict[str, Any]) -> None:
            report.note(event)

        run = Run(ask, dispatcher=self._dispatcher, settings=self._settings, metrics=self._metrics, emit=emit)
        began = time.monotonic()
        task = asyncio.create_task(run.execute())
        if kill and await self._hit(report, ask.session_id, task) and self._rng.random() < SECOND_KILL:
            await self._hit(report, ask.session_id, task)
        await asyncio.wait([task], timeout=OUTCOME_SECONDS)
        if task.done():
            last = task.result()
            report.note(last)
            report.outcome = "partial" if last.get("partial") else str(last.get("code") or last["type"])
            report.text = str(last.get("text") or last.get("message") or "")
        else:
            task.cancel()
        self._served.by_session.pop(ask.session_id, None)
        if report.killed_in:
            self.reports.append(report)
        elif report.outcome == "final":
            self._usual = [*self._usual[-50:], time.monotonic() - began]

    async def _hit(self, report: Report, session: str, task: asyncio.Task[dict[str, Any]]) -> bool:
        """Kills the run's worker at a random moment; False where the run is over before."""
        await asyncio.wait([task], timeout=self._rng.uniform(0, MOMENT * statistics.median(self._usual)))
        while not task.done():
            name = self._served.by_session.get(session)
            if name is not None and self._pool.kill(name):
                self.killed += 1
                report.killed_in.append(report.seen)
                report.killed = (name, time.monotonic())
                return True
            await asyncio.wait([task], timeout=0.005)  # it has no worker yet
        return False


@dataclass(frozen=True)
class Written:
    """What Jira holds of the drill."""

    by_key: Counter[str]
    by_summary: Counter[str]


def written(journal: Path) -> Written:
    """Reads the stand-in's state: the last line of each issue is the issue."""
    issues = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        issue = json.loads(line)
        issues[issue["key"]] = issue
    ours = [issue for issue in issues.values() if issue["summary"].startswith("Crash ")]
    keys = [issue["properties"].get("pilothouse", {}).get("idempotencyKey", "") for issue in ours]
    return Written(Counter(key for key in keys if key), Counter(issue["summary"] for issue in ours))


def measure(root: Path, stores: Stores, kills: int) -> Iterator[Figure]:
    """The three figures."""
    state = root / "jira-state"
    with (
        stand_in("bench-models", root) as models,
        stand_in("jira", root, "--state", str(state), faults=JIRA_FAULTS) as jira,
    ):
        models.pace(plan=MODEL_SECONDS, answer=MODEL_SECONDS)
        folder = root / "config"
        write_config(folder, config(TENANT, models.url, jira.url, timeout=2.0), stores)
        began = time.monotonic()
        drill = asyncio.run(_drill(root, folder, kills))
        took = time.monotonic() - began
        time.sleep(1.0)  # requests whose senders are dead
        yield from _figures(drill, written(state / "journal.jsonl"), took)


async def _drill(root: Path, folder: Path, kills: int) -> Drill:
    logging.getLogger("pilothouse_dataplane.gateway").setLevel(logging.ERROR)  # it warns of each lost worker
    async with Pool(root, folder, TENANT, LANES + STAND_BY) as pool:
        drill = Drill(pool, kills, random.Random(9))  # noqa: S311 - moments, not secrets
        await drill.run()
        return drill


def _figures(drill: Drill, state: Written, took: float) -> Iterator[Figure]:
    reports = drill.reports
    outcomes = Counter(report.outcome or "none" for report in reports)
    phases = Counter(phase for report in reports for phase in report.killed_in)
    doubled = {key: count for key, count in {**state.by_key, **state.by_summary}.items() if count > 1}
    there = {
        report.number: sum(state.by_summary[f"Crash {report.number} {part} part"] > 0 for part in ("first", "second"))
        for report in reports
    }
    claimed = sum(max(0, r.told("succeeded") - there[r.number]) for r in reports)
    detail: dict[str, object] = {
        "runs": len(reports),
        "kills": f"{drill.killed}, of these {drill.killed - len(reports)} of a worker that had taken over",
        "last event before the kill": ", ".join(f"{kind} {count}" for kind, count in phases.most_common()),
        "took": f"{took:.0f} s",
    }
    yield Figure(
        "duplicate_writes_in_1000_kills",
        max(sum(count - 1 for count in counted.values()) for counted in (state.by_key, state.by_summary)),
        "count",
        {
            **detail,
            "issues": sum(state.by_summary.values()),
            "runs with both writes": sum(count == 2 for count in there.values()),
            "writes told as done that are not there": claimed,
            **({"doubled": ", ".join(list(doubled)[:3])} if doubled else {}),
        },
    )
    told = {
        name: sum(report.told(outcome) > 0 for report in reports)
        for name, outcome in (("in doubt", "unknown"), ("failed", "failed"), ("refused", "refused"))
    }
    without = [report for report in reports if report.outcome not in ("final", "partial")]
    why = Counter(report.text[:100] for report in reports if report.outcome != "final")
    yield Figure(
        "runs_without_outcome_in_1000_kills",
        len(without),
        "count",
        {
            "outcomes": ", ".join(f"{kind} {count}" for kind, count in outcomes.most_common()),
            "runs told that a write": ", ".join(f"is {name} {count}" for name, count in told.items()),
            **({"kills of those without": str([len(report.killed_in) for report in without])} if without else {}),
            **({"why not whole": "; ".join(f"{n} × {text}" for text, n in why.most_common(3))} if why else {}),
        },
    )
    resumed = [seconds for report in reports for seconds in report.resumed]
    yield Figure(
        "resumed_p95_after_kill",
        quantile(resumed, 0.95),
        "s",
        {
            "p50/p95/p99": "/".join(f"{quantile(resumed, share):.3f}" for share in (0.5, 0.95, 0.99)),
            "from": "the kill to the next worker's first event at the client",
            "takeovers": len(resumed),
        },
    )
